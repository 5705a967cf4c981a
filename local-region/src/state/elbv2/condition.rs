//! Conditions of rules, and whether a request fulfils them (*Condition types for listener rules*, Elastic Load
//! Balancing user guide).

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::Refusal;

/// Most values that comparisons of one rule can have, and most wildcards among them (quotas of ELBv2).
pub const MOST_VALUES: usize = 5;
pub const MOST_WILDCARDS: usize = 5;
const LONGEST_PATTERN: usize = 128;

/// Fulfilled by any of its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// Patterns; case matters.
    PathPattern(Vec<String>),
    /// Patterns; case does not matter.
    HostHeader(Vec<String>),
    /// Patterns; case matters neither in the name nor in the values.
    HttpHeader {
        name: String,
        values: Vec<String>,
    },
    /// Exact, and case matters.
    HttpRequestMethod(Vec<String>),
    /// Patterns; case does not matter.
    QueryString(Vec<QueryPair>),
    SourceIp(Vec<IpNet>),
}

/// One `key=value` of a query. Without a key, any key will do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryPair {
    pub key: Option<String>,
    pub value: String,
}

/// The parts of a request that rules can look at.
pub trait Request {
    fn method(&self) -> &str;
    /// Without the query.
    fn path(&self) -> &str;
    /// Without the question mark.
    fn query(&self) -> &str;
    /// Without the port.
    fn host(&self) -> &str;
    /// Every value of a header.
    fn header(&self, name: &str) -> Vec<&str>;
    fn source(&self) -> IpAddr;
}

impl Condition {
    /// As the API names it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::PathPattern(_) => "path-pattern",
            Self::HostHeader(_) => "host-header",
            Self::HttpHeader { .. } => "http-header",
            Self::HttpRequestMethod(_) => "http-request-method",
            Self::QueryString(_) => "query-string",
            Self::SourceIp(_) => "source-ip",
        }
    }

    fn values(&self) -> Vec<String> {
        match self {
            Self::PathPattern(values) | Self::HostHeader(values) | Self::HttpRequestMethod(values) => values.clone(),
            Self::HttpHeader { values, .. } => values.clone(),
            Self::QueryString(pairs) => {
                pairs.iter().map(|pair| format!("{}{}", pair.key.as_deref().unwrap_or_default(), pair.value)).collect()
            }
            Self::SourceIp(blocks) => blocks.iter().map(ToString::to_string).collect(),
        }
    }

    /// Checks the conditions of one rule.
    ///
    /// # Errors
    /// `ValidationError` where there are none, one has no value, a value is too long, there are too many values or
    /// wildcards, or a field that may stand only once stands twice.
    pub fn check_all(conditions: &[Self]) -> Result<(), Refusal> {
        if conditions.is_empty() {
            return Err(Refusal::validation("A condition must be specified"));
        }
        for (place, condition) in conditions.iter().enumerate() {
            let values = condition.values();
            if values.is_empty() {
                return Err(Refusal::validation(format!(
                    "A condition value must be specified for the field '{}'",
                    condition.field()
                )));
            }
            if let Some(value) = values.iter().find(|value| value.is_empty() || value.len() > LONGEST_PATTERN) {
                return Err(Refusal::validation(format!(
                    "The condition value '{value}' must have between 1 and {LONGEST_PATTERN} characters"
                )));
            }
            let once = !matches!(condition, Self::HttpHeader { .. } | Self::QueryString(_));
            if once && conditions[..place].iter().any(|earlier| earlier.field() == condition.field()) {
                return Err(Refusal::validation(format!(
                    "A rule can have only one condition with the field '{}'",
                    condition.field()
                )));
            }
        }
        let values: Vec<String> = conditions.iter().flat_map(Self::values).collect();
        if values.len() > MOST_VALUES {
            return Err(Refusal::validation(format!("A rule can have at most {MOST_VALUES} condition values")));
        }
        let wildcards: usize = values.iter().map(|value| value.matches(['*', '?']).count()).sum();
        if wildcards > MOST_WILDCARDS {
            return Err(Refusal::validation(format!("A rule can have at most {MOST_WILDCARDS} wildcards")));
        }
        Ok(())
    }

    pub fn holds(&self, request: &impl Request) -> bool {
        match self {
            Self::PathPattern(patterns) => {
                patterns.iter().any(|pattern| fits(pattern.as_bytes(), request.path().as_bytes()))
            }
            Self::HostHeader(patterns) => patterns.iter().any(|pattern| fits_any_case(pattern, request.host())),
            Self::HttpHeader { name, values } => {
                request.header(name).into_iter().any(|sent| values.iter().any(|pattern| fits_any_case(pattern, sent)))
            }
            Self::HttpRequestMethod(methods) => methods.iter().any(|method| method == request.method()),
            Self::QueryString(pairs) => {
                let sent: Vec<(String, String)> =
                    form_urlencoded::parse(request.query().as_bytes()).into_owned().collect();
                pairs.iter().any(|pair| sent.iter().any(|(key, value)| pair.fits(key, value)))
            }
            Self::SourceIp(blocks) => blocks.iter().any(|block| block.contains(&request.source())),
        }
    }
}

impl QueryPair {
    fn fits(&self, key: &str, value: &str) -> bool {
        self.key.as_ref().is_none_or(|pattern| fits_any_case(pattern, key)) && fits_any_case(&self.value, value)
    }
}

fn fits_any_case(pattern: &str, text: &str) -> bool {
    fits(pattern.to_ascii_lowercase().as_bytes(), text.to_ascii_lowercase().as_bytes())
}

/// Whether the text fits a pattern in which `*` stands for any characters and `?` for exactly one. Takes time
/// proportional to the product of both lengths at worst.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut in_pattern, mut in_text) = (0, 0);
    // Where to go on when what follows the last `*` does not fit: that `*` then stands for one character more.
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                star = Some((in_pattern + 1, in_text));
                in_pattern += 1;
            }
            Some(expected) if *expected == b'?' || *expected == text[in_text] => {
                in_pattern += 1;
                in_text += 1;
            }
            _ => match star {
                Some((after_star, covered)) => {
                    star = Some((after_star, covered + 1));
                    in_pattern = after_star;
                    in_text = covered + 1;
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|rest| *rest == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Sent {
        method: &'static str,
        path: &'static str,
        query: &'static str,
        host: &'static str,
        headers: Vec<(&'static str, &'static str)>,
    }

    impl Request for Sent {
        fn method(&self) -> &str {
            self.method
        }
        fn path(&self) -> &str {
            self.path
        }
        fn query(&self) -> &str {
            self.query
        }
        fn host(&self) -> &str {
            self.host
        }
        fn header(&self, name: &str) -> Vec<&str> {
            self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| *value).collect()
        }
        fn source(&self) -> IpAddr {
            "10.1.2.3".parse().unwrap()
        }
    }

    fn sent() -> Sent {
        Sent {
            method: "GET",
            path: "/img/cat.png",
            query: "version=V2&dark",
            host: "Shop.example.com",
            headers: vec![("X-Preview", "Green"), ("x-preview", "other")],
        }
    }

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    #[test]
    fn patterns_have_two_wildcards() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("a*bc", "abbc"), ("/img/*.p?g", "/img/x.y.png"), ("**a", "a"), ("", "")]
        {
            assert!(fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        for (pattern, text) in [("?", ""), ("a*c", "abb"), ("/img/*", "/image"), ("", "a"), ("a", "A")] {
            assert!(!fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn case_matters_for_paths_and_methods_only() {
        assert!(Condition::PathPattern(strings(&["/x", "/img/*"])).holds(&sent()));
        assert!(!Condition::PathPattern(strings(&["/IMG/*"])).holds(&sent()));
        assert!(Condition::HostHeader(strings(&["*.EXAMPLE.com"])).holds(&sent()));
        assert!(!Condition::HttpRequestMethod(strings(&["get"])).holds(&sent()));
        assert!(Condition::HttpRequestMethod(strings(&["GET"])).holds(&sent()));
        let header = |value: &str| Condition::HttpHeader { name: "x-PREVIEW".into(), values: strings(&[value]) };
        assert!(header("green").holds(&sent()));
        assert!(!header("blue").holds(&sent()));
    }

    #[test]
    fn queries_and_sources() {
        let query = |key: Option<&str>, value: &str| {
            Condition::QueryString(vec![QueryPair { key: key.map(str::to_owned), value: value.into() }])
        };
        assert!(query(Some("version"), "v?").holds(&sent()));
        assert!(query(None, "v2").holds(&sent()));
        assert!(!query(Some("other"), "v2").holds(&sent()));
        let from = |block: &str| Condition::SourceIp(vec![block.parse().unwrap()]);
        assert!(from("10.0.0.0/8").holds(&sent()));
        assert!(!from("192.168.0.0/16").holds(&sent()));
    }

    #[test]
    fn the_conditions_of_a_rule_are_bounded() {
        let paths = |patterns: &[&str]| Condition::PathPattern(strings(patterns));
        assert!(Condition::check_all(&[paths(&["/a", "/b"])]).is_ok());
        assert!(Condition::check_all(&[]).is_err());
        assert!(Condition::check_all(&[paths(&[])]).is_err());
        assert!(Condition::check_all(&[paths(&["/a"]), paths(&["/b"])]).is_err(), "the same field twice");
        assert!(Condition::check_all(&[paths(&["/1", "/2", "/3", "/4", "/5", "/6"])]).is_err());
        assert!(Condition::check_all(&[paths(&["******"])]).is_err());
    }
}
