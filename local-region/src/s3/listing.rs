//! Pages of a bucket's keys: prefix, delimiter, and where to go on.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use super::store::Object;

/// What a listing asks for.
#[derive(Debug, Clone, Default)]
pub struct Query<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    /// The last key or common prefix that was answered before, or `start-after`.
    pub after: Option<&'a str>,
    /// Keys and common prefixes together.
    pub most: usize,
}

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    pub objects: Vec<Arc<Object>>,
    pub common_prefixes: Vec<String>,
    /// What the next page goes on after, where there is one.
    pub next: Option<String>,
}

/// Walks the keys in order, and past those that a common prefix stands for.
pub fn list(objects: &BTreeMap<String, Arc<Object>>, query: &Query<'_>) -> Page {
    let mut page = Page::default();
    let mut last: Option<String> = None;
    // Where the walk goes on: at a key, or behind one.
    let mut from = match query.after {
        Some(after) if after >= query.prefix => Excluded(after.to_owned()),
        _ => Included(query.prefix.to_owned()),
    };
    // A page that ended with a common prefix goes on behind everything that the prefix stands for.
    if let (Some(after), Some(delimiter)) = (query.after, query.delimiter)
        && after.starts_with(query.prefix)
        && after.len() > query.prefix.len()
        && after.ends_with(delimiter)
    {
        from = match behind(after) {
            Some(next) => Included(next),
            None => return page,
        };
    }
    loop {
        let Some((key, object)) = objects.range::<String, _>((from.as_ref(), Unbounded)).next() else { return page };
        let Some(rest) = key.strip_prefix(query.prefix) else { return page };
        if page.objects.len() + page.common_prefixes.len() == query.most {
            page.next = last;
            return page;
        }
        let group = query.delimiter.and_then(|delimiter| {
            let end = rest.find(delimiter)? + delimiter.len();
            Some(format!("{}{}", query.prefix, &rest[..end]))
        });
        match group {
            Some(prefix) => {
                let next = behind(&prefix);
                last = Some(prefix.clone());
                page.common_prefixes.push(prefix);
                match next {
                    Some(next) => from = Included(next),
                    None => return page,
                }
            }
            None => {
                last = Some(key.clone());
                from = Excluded(key.clone());
                page.objects.push(object.clone());
            }
        }
    }
}

/// The first string behind all strings that begin with `prefix`.
fn behind(prefix: &str) -> Option<String> {
    let mut characters: Vec<char> = prefix.chars().collect();
    while let Some(last) = characters.pop() {
        // Past the surrogates, which are no characters.
        let next = char::from_u32(u32::from(last) + 1).or((last == '\u{d7ff}').then_some('\u{e000}'));
        if let Some(next) = next {
            characters.push(next);
            return Some(characters.into_iter().collect());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn bucket(keys: &[&str]) -> BTreeMap<String, Arc<Object>> {
        keys.iter()
            .map(|key| {
                let object = Object::new((*key).to_owned(), String::new(), 0, String::new(), Timestamp::UNIX_EPOCH);
                ((*key).to_owned(), Arc::new(object))
            })
            .collect()
    }

    fn names(page: &Page) -> Vec<String> {
        page.objects.iter().map(|object| object.key.clone()).chain(page.common_prefixes.clone()).collect()
    }

    #[test]
    fn pages_of_one_are_together_the_whole_listing() {
        let objects = bucket(&["a", "app/1/x", "app/1/y", "app/2/x", "app/VERSION", "app0", "b"]);
        for (prefix, delimiter, whole) in [
            ("", None, vec!["a", "app/1/x", "app/1/y", "app/2/x", "app/VERSION", "app0", "b"]),
            ("", Some("/"), vec!["a", "app0", "b", "app/"]),
            ("app/", Some("/"), vec!["app/VERSION", "app/1/", "app/2/"]),
            ("app", Some("/"), vec!["app0", "app/"]),
            ("none", Some("/"), vec![]),
        ] {
            let query = Query { prefix, delimiter, after: None, most: 1000 };
            let page = list(&objects, &query);
            assert_eq!(names(&page), whole, "{prefix} {delimiter:?}");
            assert!(page.next.is_none());

            let mut found = Vec::new();
            let mut after: Option<String> = None;
            loop {
                let page = list(&objects, &Query { after: after.as_deref(), most: 1, ..query.clone() });
                found.extend(names(&page));
                match page.next {
                    Some(next) => after = Some(next),
                    None => break,
                }
            }
            let sorted = |names: &[String]| {
                let mut names = names.to_vec();
                names.sort();
                names
            };
            assert_eq!(sorted(&found), sorted(&names(&list(&objects, &query))), "{prefix} {delimiter:?} by pages");
        }
    }
}
