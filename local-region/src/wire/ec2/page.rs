//! `MaxResults` and `NextToken`.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::wire::{ApiError, Params, Xml};

/// The page that a call asks for, of `items` in a stable order, and the `nextToken` element where more follow. A token
/// holds the key of the last item that was answered, so records that come or go in between shift nothing.
pub fn page<'a, T>(
    params: &Params,
    items: Vec<T>,
    key_of: impl Fn(&T) -> &'a str,
) -> Result<(Vec<T>, Option<Xml>), ApiError> {
    let after = params.get("NextToken").map(read_token).transpose()?;
    let size = params.parse::<usize>("MaxResults")?;
    if size == Some(0) {
        return Err(ApiError::invalid("MaxResults", "0", "It must be at least 1."));
    }
    let mut items = items;
    items.sort_by(|a, b| key_of(a).cmp(key_of(b)));
    if let Some(after) = after {
        items.retain(|item| key_of(item) > after.as_str());
    }
    let size = size.unwrap_or(1000);
    let more = items.len() > size;
    items.truncate(size);
    let next = items.last().filter(|_| more).map(|last| Xml::text("nextToken", URL_SAFE_NO_PAD.encode(key_of(last))));
    Ok((items, next))
}

fn read_token(token: &str) -> Result<String, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| ApiError::invalid("NextToken", token, "It is not one that the region gave out."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_one_another_without_gaps() {
        let items = vec!["c", "a", "b"];
        let (first, next) = page(&Params::decode(b"MaxResults=2"), items.clone(), |item| item).unwrap();
        assert_eq!(first, ["a", "b"]);
        let token = URL_SAFE_NO_PAD.encode("b");
        assert!(next.unwrap().document().contains(&token));
        let form = format!("MaxResults=2&NextToken={token}");
        let (second, next) = page(&Params::decode(form.as_bytes()), items, |item| item).unwrap();
        assert_eq!(second, ["c"]);
        assert!(next.is_none());
    }
}
