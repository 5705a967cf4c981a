//! The parameters of a query-protocol request.

use std::{collections::BTreeMap, str::FromStr};

use super::ApiError;

/// The decoded form body (or query string) of one request. Names are case-sensitive, as at AWS.
#[derive(Debug, Clone, Default)]
pub struct Params(BTreeMap<String, String>);

impl Params {
    pub fn decode(form: &[u8]) -> Self {
        Self(form_urlencoded::parse(form).into_owned().collect())
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn require(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::missing(name))
    }

    pub fn parse<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| ApiError::invalid(name, text, "It cannot be read.")),
        }
    }

    /// The scalar list `name.1`, `name.2`, … or `name.member.1`, ….
    pub fn list(&self, name: &str) -> Vec<&str> {
        self.groups(name).into_iter().filter_map(|prefix| self.get(&prefix)).collect()
    }

    /// The prefixes of the structure list `name`: for `Filter` the strings `Filter.1`, `Filter.2`, … in order.
    pub fn groups(&self, name: &str) -> Vec<String> {
        let mut found: BTreeMap<u32, String> = BTreeMap::new();
        for lead in [format!("{name}."), format!("{name}.member.")] {
            for key in self.0.keys().filter_map(|key| key.strip_prefix(&lead)) {
                let index = key.split('.').next().unwrap_or_default();
                if let Ok(number) = index.parse() {
                    found.insert(number, format!("{lead}{index}"));
                }
            }
        }
        found.into_values().collect()
    }

    /// `(key, values)` of each `Filter.N`.
    pub fn filters(&self) -> Vec<(String, Vec<String>)> {
        self.groups("Filter")
            .into_iter()
            .filter_map(|prefix| {
                let name = self.get(&format!("{prefix}.Name"))?.to_owned();
                let values = self.list(&format!("{prefix}.Value")).into_iter().map(str::to_owned).collect();
                Some((name, values))
            })
            .collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_both_dialects_are_read_in_numeric_order() {
        let params = Params::decode(b"Id.1=a&Id.2=b&Id.10=c&Arn.member.1=x&Filter.1.Name=vpc-id&Filter.1.Value.1=v");
        assert_eq!(params.list("Id"), ["a", "b", "c"]);
        assert_eq!(params.list("Arn"), ["x"]);
        assert_eq!(params.filters(), [("vpc-id".to_owned(), vec!["v".to_owned()])]);
    }
}
