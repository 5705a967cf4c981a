//! A policy document, and what it says of a check.
//!
//! Sources: IAM User Guide, *Policy evaluation logic*, *IAM JSON policy elements: Condition operators*, and *Multivalued
//! context keys*. Elements that are not read (`NotAction`, `Principal`, …) are refused, never ignored.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Check;

/// What an identity may do.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    version: String,
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(default, rename = "Sid")]
    _sid: Option<String>,
    effect: Effect,
    action: Many,
    resource: Many,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, Many>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// A value, or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Many {
    One(String),
    Some(Vec<String>),
}

impl Many {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Some(all) => all,
        }
    }
}

/// Why a document is no policy that can be enforced.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error("this is no policy: {0}")]
    Shape(#[from] serde_json::Error),
    #[error("the version of a policy is 2012-10-17, not {0}")]
    Version(String),
    #[error("the condition operator {0} is not known here")]
    Operator(String),
}

impl Policy {
    /// Reads a document.
    ///
    /// # Errors
    /// It has something in it that would not be enforced.
    pub fn read(document: &str) -> Result<Self, PolicyError> {
        let policy: Self = serde_json::from_str(document)?;
        if policy.version != "2012-10-17" {
            return Err(PolicyError::Version(policy.version));
        }
        for operator in policy.statement.iter().flat_map(|statement| statement.condition.keys()) {
            Operator::read(operator).ok_or_else(|| PolicyError::Operator(operator.clone()))?;
        }
        Ok(policy)
    }

    /// The first of these that is not allowed.
    pub fn refuses<'a>(&self, checks: &'a [Check]) -> Option<&'a Check> {
        checks.iter().find(|check| !self.allows(check))
    }

    fn allows(&self, check: &Check) -> bool {
        let meant = |effect| self.statement.iter().any(move |it| it.effect == effect && it.means(check));
        meant(Effect::Allow) && !meant(Effect::Deny)
    }
}

impl Statement {
    fn means(&self, check: &Check) -> bool {
        // Actions are compared without case (IAM User Guide, *Action*).
        let action = check.action.to_lowercase();
        self.action.all().iter().any(|pattern| like(&pattern.to_lowercase(), &action))
            && self.resource.all().iter().any(|pattern| like(pattern, &check.resource))
            && self.condition.iter().all(|(operator, keys)| {
                let operator = Operator::read(operator).expect("checked when it was read");
                keys.iter().all(|(key, wanted)| operator.holds(check.context.get(key), wanted.all()))
            })
    }
}

/// How a key's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Operator {
    compare: Compare,
    /// Of several values of a key, each has to fit; and none fit as well.
    for_all: bool,
    /// A key that is not there fits.
    if_exists: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    StringEquals,
    StringNotEquals,
    StringLike,
    NumericLessThanEquals,
    Bool,
    Null,
}

impl Operator {
    fn read(name: &str) -> Option<Self> {
        let (for_all, name) = match name.split_once(':') {
            Some(("ForAllValues", name)) => (true, name),
            Some(_) => return None,
            None => (false, name),
        };
        let (name, if_exists) = name.strip_suffix("IfExists").map_or((name, false), |name| (name, true));
        let compare = match name {
            "StringEquals" => Compare::StringEquals,
            "StringNotEquals" => Compare::StringNotEquals,
            // ARNs are compared like this as well, part by part.
            "StringLike" => Compare::StringLike,
            "NumericLessThanEquals" => Compare::NumericLessThanEquals,
            "Bool" => Compare::Bool,
            "Null" => Compare::Null,
            _ => return None,
        };
        Some(Self { compare, for_all, if_exists })
    }

    fn holds(self, found: Option<&[String]>, wanted: &[String]) -> bool {
        if self.compare == Compare::Null {
            let is_absent = found.is_none_or(<[String]>::is_empty);
            return wanted.iter().any(|wanted| wanted == if is_absent { "true" } else { "false" });
        }
        let fits = |value: &String| match self.compare {
            Compare::StringNotEquals => wanted.iter().all(|wanted| literal(wanted) != *value),
            compare => wanted.iter().any(|wanted| match compare {
                Compare::StringLike => like(wanted, value),
                Compare::NumericLessThanEquals => match (value.parse::<f64>(), wanted.parse::<f64>()) {
                    (Ok(value), Ok(wanted)) => value <= wanted,
                    _ => false,
                },
                Compare::Bool => wanted.eq_ignore_ascii_case(value),
                _ => literal(wanted) == *value,
            }),
        };
        match found {
            None => self.if_exists || self.for_all || self.compare == Compare::StringNotEquals,
            Some(values) if self.for_all => values.iter().all(fits),
            Some(values) => values.iter().any(fits),
        }
    }
}

/// A pattern's next character: one that is meant, or a wildcard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Any,
    One,
    This(char),
}

/// `${*}`, `${?}` and `${$}` are the characters themselves (IAM User Guide, *Policy variables*).
fn tokens(pattern: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let escaped = ["${*}", "${?}", "${$}"].iter().find(|escape| rest.starts_with(**escape));
        if let Some(escape) = escaped {
            tokens.push(Token::This(escape.chars().nth(2).expect("there are four")));
            rest = &rest[escape.len()..];
            continue;
        }
        tokens.push(match first {
            '*' => Token::Any,
            '?' => Token::One,
            other => Token::This(other),
        });
        rest = &rest[first.len_utf8()..];
    }
    tokens
}

/// A text that is compared as it is, its escapes read.
fn literal(pattern: &str) -> String {
    ["*", "?", "$"].iter().fold(pattern.to_owned(), |text, sign| text.replace(&format!("${{{sign}}}"), sign))
}

/// Whether a text fits a pattern in which `*` is any text, slashes and colons included, and `?` one character.
fn like(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<Token>, Vec<char>) = (tokens(pattern), text.chars().collect());
    // Where to go on if what follows the last `*` does not fit: the `*` takes one character more.
    let (mut at, mut seen, mut retry) = (0, 0, None);
    while seen < text.len() {
        match pattern.get(at) {
            Some(Token::Any) => {
                retry = Some((at + 1, seen));
                at += 1;
            }
            Some(Token::One) => (at, seen) = (at + 1, seen + 1),
            Some(Token::This(this)) if *this == text[seen] => (at, seen) = (at + 1, seen + 1),
            _ => match retry {
                Some((after, from)) => {
                    retry = Some((after, from + 1));
                    (at, seen) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|token| *token == Token::Any)
}

#[cfg(test)]
mod tests {
    use super::{super::Context, *};

    fn context(pairs: &[(&str, &[&str])]) -> Context {
        let mut context = Context::default();
        pairs.iter().for_each(|(key, values)| context.set(key, values.iter().copied()));
        context
    }

    #[test]
    fn wildcards_match_as_iam_has_it() {
        for (pattern, text, fits) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "a/b:c", true),
            ("a*c", "abd", false),
            ("a*b*c", "aXbXbYc", true),
            ("hello-????????", "hello-1a2b3c4d", true),
            ("hello-????????", "hello-world-1a2b3c4d", false),
            ("a${*}b", "a*b", true),
            ("a${*}b", "aXb", false),
            ("a${$}", "a$", true),
            ("abc", "abcd", false),
            ("abc*", "abc", true),
        ] {
            assert_eq!(like(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn keys_that_are_not_there_count_as_iam_counts_them() {
        let none = Context::default();
        let holds = |operator: &str, context: &Context, wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&it| it.to_owned()).collect();
            Operator::read(operator).unwrap().holds(context.get("aws:TagKeys"), &wanted)
        };
        assert!(!holds("StringEquals", &none, &["a"]));
        assert!(holds("StringEqualsIfExists", &none, &["a"]));
        assert!(holds("ForAllValues:StringEquals", &none, &["a"]));
        assert!(holds("Null", &none, &["true"]) && !holds("Null", &none, &["false"]));
        assert!(holds("StringNotEquals", &none, &["a"]));
        let two = context(&[("aws:tagkeys", &["a", "b"])]);
        assert!(holds("StringEquals", &two, &["b"]) && !holds("ForAllValues:StringEquals", &two, &["b"]));
        assert!(holds("ForAllValues:StringLike", &two, &["?"]));
        assert!(holds("Null", &two, &["false"]));
        assert!(Operator::read("ForAnyValue:StringEquals").is_none() && Operator::read("IpAddress").is_none());
    }

    #[test]
    fn a_denial_stands_above_everything_and_what_is_not_allowed_is_not() {
        let read = |statements: &str| {
            Policy::read(&format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#)).unwrap()
        };
        let allow = r#"{"Effect":"Allow","Action":["ec2:*"],"Resource":"*"}"#;
        let deny = r#"{"Sid":"No","Effect":"Deny","Action":"EC2:runinstances","Resource":"arn:*"}"#;
        let check = |action: &str| Check {
            action: action.into(),
            resource: "arn:aws:ec2:r:0:instance/*".into(),
            context: Context::default(),
        };
        let run = [check("ec2:RunInstances")];
        assert_eq!(read(allow).refuses(&run), None);
        assert_eq!(read(&format!("{allow},{deny}")).refuses(&run), Some(&run[0]));
        assert!(read(deny).refuses(&[check("s3:GetObject")]).is_some());
        assert!(matches!(
            Policy::read(r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","NotAction":"a","Resource":"*"}]}"#),
            Err(PolicyError::Shape(_))
        ));
    }
}
