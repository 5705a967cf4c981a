//! What filters and rewrites a server's traffic: nftables rulesets, installed in the network of its interface.
//!
//! Each ruleset is one table of ours and replaces that table in one transaction, so there is no moment without rules.
//! Other tables are left alone: the engine keeps its own, which lead the guest's DNS queries to the engine.

use std::{fmt::Write as _, net::Ipv4Addr};

use crate::instances::{FirewallRule, Protocol};

/// A ruleset in nft's language that makes `rules` the only inbound permissions. Connections that are established stay, as
/// on AWS, where a security group tracks them.
pub fn inbound(rules: &[FirewallRule]) -> String {
    let mut body = String::from(
        "  chain input {\n    \
         type filter hook input priority filter; policy drop;\n    \
         iif lo accept\n    \
         ct state established,related accept\n",
    );
    for rule in rules {
        writeln!(body, "    {}", permission(rule)).expect("a string takes all that is written");
    }
    body.push_str("  }\n");
    replacing("inet", "alcedo_security_groups", &body)
}

/// A ruleset that leads 169.254.169.254:80 to the metadata service.
pub fn metadata(gateway: Ipv4Addr, port: u16) -> String {
    let body = format!(
        // -100 is where destinations are rewritten; nft has a name for it (`dstnat`), but not in this hook.
        "  chain output {{\n    \
         type nat hook output priority -100;\n    \
         ip daddr 169.254.169.254 tcp dport 80 dnat to {gateway}:{port}\n  }}\n"
    );
    replacing("ip", "alcedo_metadata", &body)
}

/// nft reads a file as one transaction. A table can only be deleted if it exists, hence the empty one before.
fn replacing(family: &str, table: &str, body: &str) -> String {
    format!("table {family} {table} {{}}\ndelete table {family} {table}\ntable {family} {table} {{\n{body}}}\n")
}

fn permission(rule: &FirewallRule) -> String {
    let matches = match rule.protocol {
        Protocol::All => String::new(),
        Protocol::Icmp => "ip protocol icmp ".to_owned(),
        Protocol::Tcp => format!("tcp dport {} ", ports(rule)),
        Protocol::Udp => format!("udp dport {} ", ports(rule)),
    };
    // A security group's source is matched even where it is everyone: it keeps the rule to IPv4, which it is about.
    format!("ip saddr {} {matches}accept", rule.source.trunc())
}

fn ports(rule: &FirewallRule) -> String {
    if rule.from_port == rule.to_port {
        rule.from_port.to_string()
    } else {
        format!("{}-{}", rule.from_port, rule.to_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(protocol: Protocol, from_port: u16, to_port: u16, source: &str) -> FirewallRule {
        FirewallRule { protocol, from_port, to_port, source: source.parse().expect("a block") }
    }

    #[test]
    fn rules_become_one_transaction() {
        let rules = [
            rule(Protocol::Tcp, 22, 22, "10.213.0.1/32"),
            rule(Protocol::Udp, 1000, 2000, "0.0.0.0/0"),
            rule(Protocol::Icmp, 0, 0, "10.213.0.9/16"),
            rule(Protocol::All, 0, 0, "10.213.0.0/16"),
        ];
        insta::assert_snapshot!(inbound(&rules), @r"
        table inet alcedo_security_groups {}
        delete table inet alcedo_security_groups
        table inet alcedo_security_groups {
          chain input {
            type filter hook input priority filter; policy drop;
            iif lo accept
            ct state established,related accept
            ip saddr 10.213.0.1/32 tcp dport 22 accept
            ip saddr 0.0.0.0/0 udp dport 1000-2000 accept
            ip saddr 10.213.0.0/16 ip protocol icmp accept
            ip saddr 10.213.0.0/16 accept
          }
        }
        ");
    }

    #[test]
    fn without_rules_nothing_is_let_in() {
        let ruleset = inbound(&[]);
        assert!(ruleset.contains("policy drop"), "{ruleset}");
        assert_eq!(ruleset.matches(" accept").count(), 2, "loopback and answers only: {ruleset}");
    }

    #[test]
    fn the_metadata_address_leads_to_the_gateway() {
        let ruleset = metadata(Ipv4Addr::new(10, 213, 0, 1), 4021);
        assert!(ruleset.contains("ip daddr 169.254.169.254 tcp dport 80 dnat to 10.213.0.1:4021"), "{ruleset}");
    }
}
