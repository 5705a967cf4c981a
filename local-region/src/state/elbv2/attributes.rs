//! Attributes: named texts with a known set of values, as `ModifyLoadBalancerAttributes` and
//! `ModifyTargetGroupAttributes` take them.

use std::collections::BTreeMap;

use super::Refusal;

/// One attribute that can be set, and what it may be set to.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    pub key: &'static str,
    pub default: &'static str,
    values: Values,
}

#[derive(Debug, Clone, Copy)]
enum Values {
    OneOf(&'static [&'static str]),
    /// A whole number, both ends included.
    Number(u32, u32),
    /// Zero, or a whole number in the range, both ends included.
    ZeroOrNumber(u32, u32),
    Text,
}

impl Attribute {
    pub const fn one_of(key: &'static str, values: &'static [&'static str], default: &'static str) -> Self {
        Self { key, default, values: Values::OneOf(values) }
    }

    pub const fn number(key: &'static str, least: u32, most: u32, default: &'static str) -> Self {
        Self { key, default, values: Values::Number(least, most) }
    }

    pub const fn zero_or_number(key: &'static str, least: u32, most: u32, default: &'static str) -> Self {
        Self { key, default, values: Values::ZeroOrNumber(least, most) }
    }

    pub const fn text(key: &'static str, default: &'static str) -> Self {
        Self { key, default, values: Values::Text }
    }

    fn check(&self, value: &str) -> Result<(), Refusal> {
        let refuse = |expected: String| {
            Err(Refusal::validation(format!("The value '{value}' of attribute '{}' must be {expected}", self.key)))
        };
        let number = value.parse::<u32>().ok();
        match self.values {
            Values::OneOf(values) if !values.contains(&value) => refuse(format!("one of {}", values.join(", "))),
            Values::Number(least, most) if !number.is_some_and(|number| (least..=most).contains(&number)) => {
                refuse(format!("a number from {least} to {most}"))
            }
            Values::ZeroOrNumber(least, most)
                if !number.is_some_and(|number| number == 0 || (least..=most).contains(&number)) =>
            {
                refuse(format!("0 or a number from {least} to {most}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks all of `changes`, then sets them.
    ///
    /// # Errors
    /// `ValidationError` for an unknown key, a key given twice, or a value that the attribute cannot have; nothing is
    /// set then.
    pub fn set(
        known: &[Self],
        attributes: &mut BTreeMap<String, String>,
        changes: &[(String, String)],
    ) -> Result<(), Refusal> {
        for (place, (key, value)) in changes.iter().enumerate() {
            let attribute = known
                .iter()
                .find(|attribute| attribute.key == key)
                .ok_or_else(|| Refusal::validation(format!("Attribute key '{key}' is not recognized")))?;
            attribute.check(value)?;
            if changes[..place].iter().any(|(earlier, _)| earlier == key) {
                return Err(Refusal::validation(format!("Attribute key '{key}' was specified more than once")));
            }
        }
        attributes.extend(changes.iter().cloned());
        Ok(())
    }

    /// Every known attribute with its value, set or default.
    pub fn all(known: &[Self], attributes: &BTreeMap<String, String>) -> Vec<(&'static str, String)> {
        known
            .iter()
            .map(|attribute| {
                let value = attributes.get(attribute.key).map_or(attribute.default, String::as_str);
                (attribute.key, value.to_owned())
            })
            .collect()
    }

    /// The value of a known attribute; empty for an unknown one.
    pub fn value_of<'a>(known: &[Self], attributes: &'a BTreeMap<String, String>, key: &str) -> &'a str {
        let default = known.iter().find(|attribute| attribute.key == key).map_or("", |attribute| attribute.default);
        attributes.get(key).map_or(default, String::as_str)
    }

    /// The value of a known attribute that is a number.
    pub fn number_of(known: &[Self], attributes: &BTreeMap<String, String>, key: &str) -> u32 {
        Self::value_of(known, attributes, key).parse().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Attribute] = &[
        Attribute::number("delay", 0, 3600, "300"),
        Attribute::one_of("sticky", &["true", "false"], "false"),
        Attribute::zero_or_number("slow", 30, 900, "0"),
    ];

    fn set(changes: &[(&str, &str)]) -> Result<BTreeMap<String, String>, Refusal> {
        let changes: Vec<_> = changes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let mut attributes = BTreeMap::new();
        Attribute::set(KNOWN, &mut attributes, &changes).map(|()| attributes)
    }

    #[test]
    fn values_outside_their_range_are_refused_and_nothing_is_set() {
        for bad in [("delay", "3601"), ("delay", "x"), ("sticky", "yes"), ("slow", "29"), ("other", "1")] {
            assert_eq!(set(&[("delay", "5"), bad]).unwrap_err().code, "ValidationError", "{bad:?}");
        }
        assert!(set(&[("delay", "5"), ("delay", "6")]).is_err(), "a key given twice");
    }

    #[test]
    fn defaults_show_until_something_is_set() {
        let attributes = set(&[("delay", "0"), ("slow", "30")]).unwrap();
        assert_eq!(Attribute::number_of(KNOWN, &attributes, "delay"), 0);
        assert_eq!(Attribute::value_of(KNOWN, &attributes, "sticky"), "false");
        assert_eq!(Attribute::number_of(KNOWN, &BTreeMap::new(), "delay"), 300);
    }
}
