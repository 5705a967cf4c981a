//! `Filter.N.Name` / `Filter.N.Value.M`: all filters must hold, each by any of its values, `*` and `?` being wildcards.

use regex::Regex;

use crate::{
    state::ec2::Tags,
    wire::{ApiError, Params},
};

/// The filters of one call.
pub struct Filters(Vec<(String, Vec<Pattern>)>);

enum Pattern {
    Exact(String),
    Wild(Regex),
}

impl Pattern {
    fn new(text: &str) -> Self {
        if !text.contains(['*', '?']) {
            return Self::Exact(text.to_owned());
        }
        let mut expression = String::from("(?s)^");
        for character in text.chars() {
            match character {
                '*' => expression.push_str(".*"),
                '?' => expression.push('.'),
                other => expression.push_str(&regex::escape(&other.to_string())),
            }
        }
        expression.push('$');
        match Regex::new(&expression) {
            Ok(regex) => Self::Wild(regex),
            // Only a pattern beyond the engine's size limit gets here; no name is that long.
            Err(_) => Self::Exact(text.to_owned()),
        }
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(text) => text == value,
            Self::Wild(regex) => regex.is_match(value),
        }
    }
}

impl Filters {
    pub fn of(params: &Params) -> Self {
        let patterns = |values: Vec<String>| values.iter().map(|value| Pattern::new(value)).collect();
        Self(params.filters().into_iter().map(|(name, values)| (name, patterns(values))).collect())
    }

    /// Whether a resource passes. `values_of` answers what the resource has under a filter's name, or `None` where this
    /// kind of resource knows no such filter.
    ///
    /// # Errors
    /// `InvalidParameterValue`, naming the filter that is not known.
    pub fn admit(&self, tags: &Tags, values_of: impl Fn(&str) -> Option<Vec<String>>) -> Result<bool, ApiError> {
        for (name, patterns) in &self.0 {
            let values = match name.strip_prefix("tag:") {
                Some(key) => tags.get(key).cloned().into_iter().collect(),
                None => match name.as_str() {
                    "tag-key" => tags.keys().cloned().collect(),
                    "tag-value" => tags.values().cloned().collect(),
                    _ => values_of(name).ok_or_else(|| {
                        ApiError::bad("InvalidParameterValue", format!("The filter '{name}' is invalid"))
                    })?,
                },
            };
            if !values.iter().any(|value| patterns.iter().any(|pattern| pattern.matches(value))) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Those of `resources` that pass, in their order.
    pub fn select<'a, T>(
        &self,
        resources: impl IntoIterator<Item = &'a T>,
        tags_of: impl Fn(&'a T) -> &'a Tags,
        values_of: impl Fn(&'a T, &str) -> Option<Vec<String>>,
    ) -> Result<Vec<&'a T>, ApiError> {
        let mut chosen = Vec::new();
        for resource in resources {
            if self.admit(tags_of(resource), |name| values_of(resource, name))? {
                chosen.push(resource);
            }
        }
        Ok(chosen)
    }
}

/// One value of a filter.
pub fn one(value: impl ToString) -> Option<Vec<String>> {
    Some(vec![value.to_string()])
}

/// An optional value of a filter: present in the resource or not.
pub fn maybe(value: Option<impl ToString>) -> Option<Vec<String>> {
    Some(value.map(|value| value.to_string()).into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_several_values_and_filters_combine_as_documented() {
        let form = b"Filter.1.Name=name&Filter.1.Value.1=x&Filter.1.Value.2=hello-*&Filter.2.Name=tag:app&\
            Filter.2.Value.1=h?llo";
        let filters = Filters::of(&Params::decode(form));
        let tags = Tags::from([("app".to_owned(), "hello".to_owned())]);
        assert!(filters.admit(&tags, |_| one("hello-1.2")).unwrap());
        assert!(!filters.admit(&tags, |_| one("hello")).unwrap(), "the dash is needed");
        assert!(!filters.admit(&Tags::new(), |_| one("x")).unwrap(), "the tag is needed");
        assert_eq!(filters.admit(&tags, |_| None).unwrap_err().code, "InvalidParameterValue");
    }
}
