//! Rules of `launch`: what EC2 and the balancer take.

use std::collections::BTreeSet;

use crate::units::Span;

use super::{Add, At, Problem, inside, instance_type, not_blank, not_zero, quote, url_path, whole_seconds};

pub(super) fn check(top: &At<'_>, add: Add<'_>) {
    let Some(launch) = top.get("launch") else { return };
    instance_type(launch.get("instance_type"), add);
    for key in ["subnets", "security_groups"] {
        let mut seen = BTreeSet::new();
        for one in launch.list(key) {
            not_blank(Some(one.clone()), add);
            if let Some(text) = one.text()
                && !seen.insert(text)
            {
                add(Problem::error("duplicate", &one.path, format!("{} is named twice", quote(text))));
            }
        }
    }
    not_blank(launch.get("instance_profile"), add);
    not_blank(launch.get("key"), add);
    inside(launch.get("user_data"), add);
    health_check(&launch, add);
    // Elastic Load Balancing, target group attribute deregistration_delay.timeout_seconds.
    whole_seconds(launch.get("deregistration_delay"), 0..=3600, add);
    not_zero(launch.get("timeout"), add);
    not_zero(launch.get("slowest_request"), add);
    if let (Some(slowest), Some(delay)) =
        (launch.get("slowest_request"), launch.span_or_default("deregistration_delay"))
        && slowest.span().is_some_and(|slowest| slowest > delay)
    {
        let message = format!("a server that leaves gets {delay} to finish its requests, less than the slowest takes");
        add(Problem::error("out-of-range", &slowest.path, message)
            .help("make `launch.deregistration_delay` at least as long"));
    }
    redundancy(&launch, add);
}

fn health_check(launch: &At<'_>, add: Add<'_>) {
    let Some(health) = launch.get("health_check") else { return };
    url_path(health.get("path"), add);
    // Elastic Load Balancing, CreateTargetGroup: HealthCheckIntervalSeconds, HealthCheckTimeoutSeconds.
    whole_seconds(health.get("interval"), 5..=300, add);
    whole_seconds(health.get("timeout"), 2..=120, add);
    // What is out of AWS's range was told already; the two are compared where both could be right.
    if let (Some(interval), Some(timeout)) = (health.span_or_default("interval"), health.span_or_default("timeout"))
        && timeout >= interval
        && interval >= Span::seconds(5)
        && timeout <= Span::seconds(120)
    {
        let key = if health.has("timeout") { "timeout" } else { "interval" };
        let message = format!("the timeout ({timeout}) must be shorter than the interval ({interval})");
        add(Problem::error("out-of-range", &health.path.key(key), message));
    }
    if let Some(matcher) = health.get("matcher")
        && let Some(text) = matcher.text()
        && !is_matcher(text)
    {
        add(Problem::error("wrong-value", &matcher.path, format!("{} names no statuses", quote(text)))
            .help("write 200, 200,204 or 200-299; a balancer takes 200 to 499"));
    }
}

/// Statuses as an application load balancer takes them (CreateTargetGroup, Matcher: 200 to 499).
fn is_matcher(text: &str) -> bool {
    let code = |text: &str| text.parse::<u16>().ok().filter(|code| text.len() == 3 && (200..=499).contains(code));
    text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => matches!((code(first), code(last)), (Some(first), Some(last)) if first < last),
        None => code(part).is_some(),
    })
}

fn redundancy(launch: &At<'_>, add: Add<'_>) {
    let Some(count) = launch.get("count") else { return };
    let subnets = launch.list("subnets").len();
    if count.number() == Some(1) {
        add(Problem::warning("one-server", &count.path, "one server: while it fails or restarts, nothing answers")
            .help("launch two or more, in subnets of different zones"));
    } else if subnets == 1 && count.number().is_some_and(|count| count > 1) {
        let path = launch.path.key("subnets");
        add(Problem::warning("one-zone", &path, "all servers stand in one subnet, so in one zone"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_what_a_balancer_takes() {
        for text in ["200", "200,204", "200-299", "200-299,404"] {
            assert!(is_matcher(text), "{text}");
        }
        for text in ["", "ok", "2xx", "199", "500", "200-", "299-200", "200, 204", "0200", "200,,204"] {
            assert!(!is_matcher(text), "{text}");
        }
    }
}
