//! Conditions of rules, read and written.

use ipnet::IpNet;

use super::{
    ApiError, Params, Xml,
    input::{invalid, members, required, texts},
};
use crate::state::elbv2::condition::{Condition, QueryPair};

pub fn read(params: &Params) -> Result<Vec<Condition>, ApiError> {
    params.groups("Conditions").into_iter().map(|prefix| condition(params, &prefix)).collect()
}

fn condition(params: &Params, prefix: &str) -> Result<Condition, ApiError> {
    let field = required(params, &format!("{prefix}.Field"))?;
    let config = |name: &str| format!("{prefix}.{name}");
    // Paths and hosts can be given directly, as they were before there were other fields.
    let values = |name: &str| {
        let given = texts(params, &config(&format!("{name}.Values")));
        if given.is_empty() { texts(params, &config("Values")) } else { given }
    };
    Ok(match field {
        "path-pattern" => Condition::PathPattern(values("PathPatternConfig")),
        "host-header" => Condition::HostHeader(values("HostHeaderConfig")),
        "http-header" => Condition::HttpHeader {
            name: required(params, &config("HttpHeaderConfig.HttpHeaderName"))?.to_owned(),
            values: texts(params, &config("HttpHeaderConfig.Values")),
        },
        "http-request-method" => Condition::HttpRequestMethod(texts(params, &config("HttpRequestMethodConfig.Values"))),
        "query-string" => Condition::QueryString(pairs(params, &config("QueryStringConfig.Values"))?),
        "source-ip" => Condition::SourceIp(blocks(params, &config("SourceIpConfig.Values"))?),
        other => {
            return Err(invalid(format!(
                "Condition field '{other}' must be one of '[path-pattern, host-header, \
                                             http-header, http-request-method, query-string, source-ip]'"
            )));
        }
    })
}

fn pairs(params: &Params, name: &str) -> Result<Vec<QueryPair>, ApiError> {
    params
        .groups(name)
        .into_iter()
        .map(|prefix| {
            let key = params.get(&format!("{prefix}.Key")).map(str::to_owned);
            Ok(QueryPair { key, value: required(params, &format!("{prefix}.Value"))?.to_owned() })
        })
        .collect()
}

fn blocks(params: &Params, name: &str) -> Result<Vec<IpNet>, ApiError> {
    texts(params, name)
        .into_iter()
        .map(|block| block.parse().map_err(|_| invalid(format!("The source IP '{block}' must be in CIDR format"))))
        .collect()
}

pub fn xml(condition: &Condition) -> Vec<Xml> {
    let field = Xml::text("Field", condition.field());
    match condition {
        Condition::PathPattern(values) => {
            vec![field, members("Values", values), Xml::node("PathPatternConfig", [members("Values", values)])]
        }
        Condition::HostHeader(values) => {
            vec![field, members("Values", values), Xml::node("HostHeaderConfig", [members("Values", values)])]
        }
        Condition::HttpHeader { name, values } => {
            let config = [Xml::text("HttpHeaderName", name), members("Values", values)];
            vec![field, Xml::node("HttpHeaderConfig", config)]
        }
        Condition::HttpRequestMethod(values) => {
            vec![field, Xml::node("HttpRequestMethodConfig", [members("Values", values)])]
        }
        Condition::QueryString(pairs) => {
            let values = pairs.iter().map(|pair| {
                Xml::maybe("Key", pair.key.as_ref()).into_iter().chain([Xml::text("Value", &pair.value)]).collect()
            });
            vec![field, Xml::node("QueryStringConfig", [Xml::list("Values", "member", values)])]
        }
        Condition::SourceIp(blocks) => {
            vec![field, Xml::node("SourceIpConfig", [members("Values", blocks)])]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_read_and_written() {
        let form = "Conditions.member.1.Field=path-pattern&Conditions.member.1.Values.member.1=/a*\
                    &Conditions.member.2.Field=http-header\
                    &Conditions.member.2.HttpHeaderConfig.HttpHeaderName=X-Preview\
                    &Conditions.member.2.HttpHeaderConfig.Values.member.1=green\
                    &Conditions.member.3.Field=query-string\
                    &Conditions.member.3.QueryStringConfig.Values.member.1.Key=v\
                    &Conditions.member.3.QueryStringConfig.Values.member.1.Value=2\
                    &Conditions.member.4.Field=source-ip\
                    &Conditions.member.4.SourceIpConfig.Values.member.1=10.0.0.0/8\
                    &Conditions.member.5.Field=host-header\
                    &Conditions.member.5.HostHeaderConfig.Values.member.1=*.example.com";
        let conditions = read(&Params::decode(form.as_bytes())).unwrap();
        let fields: Vec<_> = conditions.iter().map(Condition::field).collect();
        assert_eq!(fields, ["path-pattern", "http-header", "query-string", "source-ip", "host-header"]);
        let written = Xml::list("Conditions", "member", conditions.iter().map(xml)).document();
        for part in ["/a*", "X-Preview", "green", "<Key>v</Key><Value>2</Value>", "10.0.0.0/8", "*.example.com"] {
            assert!(written.contains(part), "{part} in {written}");
        }
    }

    #[test]
    fn a_block_without_length_is_refused() {
        let form = b"Conditions.member.1.Field=source-ip&Conditions.member.1.SourceIpConfig.Values.member.1=10.0.0.1";
        assert_eq!(read(&Params::decode(form)).unwrap_err().code, "ValidationError");
    }
}
