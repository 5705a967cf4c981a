//! Parameters as ELBv2 takes them. What is missing or cannot be read is a `ValidationError` here, unlike in EC2.

use std::{collections::BTreeMap, str::FromStr};

use super::{ApiError, Params, Xml};
use crate::state::elbv2::quota;

pub fn invalid(message: impl Into<String>) -> ApiError {
    ApiError::bad("ValidationError", message)
}

/// A parameter that must be there.
pub fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params.get(name).ok_or_else(|| invalid(format!("'{name}' must be specified")))
}

/// A number or truth value.
pub fn read<T: FromStr>(params: &Params, name: &str) -> Result<Option<T>, ApiError> {
    match params.get(name) {
        None => Ok(None),
        Some(text) => {
            text.parse().map(Some).map_err(|_| invalid(format!("The value '{text}' of '{name}' cannot be read")))
        }
    }
}

/// A port; 0 is none.
pub fn port(params: &Params, name: &str) -> Result<Option<u16>, ApiError> {
    match read::<u16>(params, name)? {
        Some(0) => Err(invalid(format!("The value '0' of '{name}' must be between 1 and 65535"))),
        port => Ok(port),
    }
}

pub fn texts(params: &Params, name: &str) -> Vec<String> {
    params.list(name).into_iter().map(str::to_owned).collect()
}

/// `Tags`, as every creating call takes them.
///
/// # Errors
/// `DuplicateTagKeys`, `TooManyTags`, `ValidationError` for a key that AWS keeps for itself.
pub fn tags(params: &Params) -> Result<BTreeMap<String, String>, ApiError> {
    let mut tags = BTreeMap::new();
    for prefix in params.groups("Tags") {
        let key = required(params, &format!("{prefix}.Key"))?.to_owned();
        if key.starts_with("aws:") {
            return Err(invalid(format!("The tag key '{key}' must not begin with 'aws:'")));
        }
        let value = params.get(&format!("{prefix}.Value")).unwrap_or_default().to_owned();
        if tags.insert(key.clone(), value).is_some() {
            return Err(ApiError::bad("DuplicateTagKeys", format!("The tag key '{key}' was specified more than once")));
        }
    }
    if tags.len() > quota::TAGS {
        return Err(ApiError::bad("TooManyTags", format!("A resource can have at most {} tags", quota::TAGS)));
    }
    Ok(tags)
}

/// `Attributes`, as the calls that modify them take them.
pub fn attributes(params: &Params) -> Result<Vec<(String, String)>, ApiError> {
    params
        .groups("Attributes")
        .into_iter()
        .map(|prefix| {
            let key = required(params, &format!("{prefix}.Key"))?.to_owned();
            Ok((key, params.get(&format!("{prefix}.Value")).unwrap_or_default().to_owned()))
        })
        .collect()
}

pub fn attributes_xml(attributes: Vec<(&'static str, String)>) -> Xml {
    Xml::list(
        "Attributes",
        "member",
        attributes.into_iter().map(|(key, value)| vec![Xml::text("Key", key), Xml::text("Value", value)]),
    )
}

/// A list of plain texts.
pub fn members(name: &str, values: impl IntoIterator<Item = impl ToString>) -> Xml {
    Xml::node(name, values.into_iter().map(|value| Xml::text("member", value)))
}

/// One page of `items`: as many as `PageSize` says, from where `Marker` points to. The marker is the position, which
/// clients must not rely on.
pub fn page<T>(params: &Params, items: Vec<T>) -> Result<(Vec<T>, Option<Xml>), ApiError> {
    const LARGEST: usize = 400;
    let size = read::<usize>(params, "PageSize")?.unwrap_or(LARGEST);
    if !(1..=LARGEST).contains(&size) {
        return Err(invalid(format!("The value '{size}' of 'PageSize' must be between 1 and {LARGEST}")));
    }
    let start = read::<usize>(params, "Marker")?.unwrap_or(0);
    let next = start.saturating_add(size);
    let marker = (next < items.len()).then(|| Xml::text("NextMarker", next));
    Ok((items.into_iter().skip(start).take(size).collect(), marker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_and_end() {
        let items: Vec<u32> = (0..5).collect();
        let at = |form: &str| page(&Params::decode(form.as_bytes()), items.clone()).unwrap();
        let (first, marker) = at("PageSize=2");
        assert_eq!(first, [0, 1]);
        assert!(marker.unwrap().document().contains("<NextMarker>2</NextMarker>"));
        let (last, marker) = at("PageSize=2&Marker=4");
        assert_eq!((last, marker.is_none()), (vec![4], true));
        assert!(page(&Params::decode(b"PageSize=401"), items).is_err());
    }

    #[test]
    fn tag_keys_are_unique() {
        let tags = |form: &str| tags(&Params::decode(form.as_bytes()));
        let good = tags("Tags.member.1.Key=app&Tags.member.1.Value=hello&Tags.member.2.Key=empty").unwrap();
        assert_eq!(good["app"], "hello");
        assert_eq!(good["empty"], "");
        let twice = tags("Tags.member.1.Key=a&Tags.member.2.Key=a").unwrap_err();
        assert_eq!(twice.code, "DuplicateTagKeys");
    }
}
