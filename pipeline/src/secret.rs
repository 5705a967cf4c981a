//! Values that servers are given and nobody else: they cannot be printed, and what is printed is cleaned of them.
//!
//! **Guarantees.** A [`Secret`] has neither `Display` nor `Serialize`, its `Debug` hides it, and its memory is overwritten when
//! it goes. A [`Redactor`] that knows a secret replaces it in a text by `[secret NAME]`, also in the forms that programs give
//! values on the way to a log: base64 at any offset, hexadecimal, and each character by itself percent-encoded or escaped as in
//! JSON, XML, shells and programs' texts: encoders differ in which characters they leave alone.
//! **Caveats.** A redactor is the second line: it does not know what a program makes of a value beyond these forms (a hash, letters
//! apart). Where a text was cut off, the first or last part of a secret is recognised from a third of it on, and at least
//! [`CUT_OFF`] bytes. Lines of a secret with several are looked for one by one, those under [`SHORTEST`] bytes not at all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fmt,
    process::Command,
    sync::{Arc, PoisonError, RwLock},
};

use aho_corasick::{AhoCorasick, MatchKind};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regex::{NoExpand, Regex};
use secrecy::{ExposeSecret, SecretString};

use crate::{error::ErrorRecord, event::What};

/// What is shorter would be found in words that are no secrets.
pub const SHORTEST: usize = 6;

/// Of a secret that a text ends in the middle of, or begins in.
pub const CUT_OFF: usize = 8;

/// Characters of a value that are looked for at once, in every escape.
const PIECE: usize = 256;

/// What follows a text that was cut off.
const ELLIPSIS: char = '…';

/// RFC 3986's unreserved characters stay as they are.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One value.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(SecretString::from(value.into()))
    }

    /// The value itself, for whoever hands it over.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Values by name.
pub type Secrets = BTreeMap<String, Secret>;

/// Cleans texts of the secrets that it knows. Clones know what each of them is told.
#[derive(Clone, Default)]
pub struct Redactor(Arc<RwLock<Known>>);

#[derive(Default)]
struct Known {
    /// Each form of a secret, and what stands in its place.
    forms: BTreeMap<String, String>,
    /// Each value, however each of its characters may be escaped, and what stands in its place.
    escaped: Vec<(Regex, String)>,
    finder: Option<(AhoCorasick, Vec<String>)>,
    /// Finds the least of a form that is recognised at an end of a text.
    edges: Option<AhoCorasick>,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(…)")
    }
}

impl Redactor {
    /// From now on these are replaced, too.
    pub fn learn(&self, secrets: &Secrets) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        for (name, secret) in secrets {
            for form in forms(secret.expose()) {
                known.forms.entry(form).or_insert_with(|| format!("[secret {name}]"));
            }
            let escaped = parts(secret.expose()).into_iter().flat_map(patterns);
            known.escaped.extend(escaped.filter_map(|it| Some((Regex::new(&it).ok()?, format!("[secret {name}]")))));
        }
        let (patterns, marks): (Vec<&String>, Vec<String>) =
            known.forms.iter().map(|(form, mark)| (form, mark.clone())).unzip();
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(patterns);
        let edges =
            known.forms.keys().flat_map(|form| [&form[..least(form)], &form[form.len() - least_at_end(form)..]]);
        let edges = AhoCorasick::new(edges).ok();
        known.finder = finder.ok().map(|finder| (finder, marks));
        known.edges = edges;
    }

    /// The text without any secret.
    pub fn clean<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mut cleaned = match &known.finder {
            Some((finder, marks)) if finder.is_match(text) => Cow::Owned(finder.replace_all(text, marks)),
            _ => Cow::Borrowed(text),
        };
        for (escaped, mark) in &known.escaped {
            if let Cow::Owned(changed) = escaped.replace_all(&cleaned, NoExpand(mark)) {
                cleaned = Cow::Owned(changed);
            }
        }
        if !known.edges.as_ref().is_some_and(|edges| edges.is_match(cleaned.as_ref())) {
            return cleaned;
        }
        known.trimmed_everywhere(&cleaned).map_or(cleaned, Cow::Owned)
    }

    /// The same of an event, in the texts that come from outside. Names and ids of resources are read back by machines, and
    /// nothing puts a secret there.
    pub(crate) fn clean_event(&self, mut what: What) -> What {
        let clean = |text: &mut String| {
            if let Cow::Owned(cleaned) = self.clean(text) {
                *text = cleaned;
            }
        };
        match &mut what {
            What::Output { line: text, .. }
            | What::Waiting { status: text, .. }
            | What::Server { detail: Some(text), .. }
            | What::StepRenewing { why: text, .. } => {
                clean(text);
            }
            What::Checked { target, check, detail, .. } => [target, check, detail].into_iter().for_each(clean),
            What::Warning { message, hint } => std::iter::once(message).chain(hint).for_each(clean),
            What::StepFailed { error, .. } | What::UndoFailed { error, .. } => {
                let ErrorRecord { kind: _, message, causes, hints } = error;
                std::iter::once(message).chain(causes).chain(hints).for_each(clean);
            }
            _ => {}
        }
        what
    }
}

impl Known {
    /// The text without parts of forms at the ends of its lines, and where something was left out: before and behind each `…`.
    fn trimmed_everywhere(&self, text: &str) -> Option<String> {
        let mut changed = false;
        let pieces = text.split_inclusive(['\n', ELLIPSIS]).map(|piece| {
            let whole = piece.trim_end_matches(['\n', ELLIPSIS]);
            let inner = whole.trim();
            match self.trimmed(inner) {
                None => piece.to_owned(),
                Some(trimmed) => {
                    changed = true;
                    let (before, behind) = (whole.len() - whole.trim_start().len(), whole.trim_end().len());
                    format!("{}{trimmed}{}{}", &whole[..before], &whole[behind..], &piece[whole.len()..])
                }
            }
        });
        let text: String = pieces.collect();
        changed.then_some(text)
    }

    /// The text without the part of a form that it begins or ends with; `None` where it does not.
    fn trimmed(&self, text: &str) -> Option<String> {
        let mut changed: Option<String> = None;
        for (form, mark) in &self.forms {
            let text = changed.as_deref().unwrap_or(text);
            let mut firsts = (least(form)..form.len()).rev().filter(|at| form.is_char_boundary(*at));
            if let Some(before) = firsts.find_map(|at| text.strip_suffix(&form[..at])) {
                changed = Some(format!("{before}{mark}"));
                continue;
            }
            let mut lasts = (1..=form.len() - least_at_end(form)).filter(|at| form.is_char_boundary(*at));
            if let Some(after) = lasts.find_map(|at| text.strip_prefix(&form[at..])) {
                changed = Some(format!("{mark}{after}"));
            }
        }
        changed
    }
}

/// How many of a form's first bytes are recognised where a text ends after them.
fn least(form: &str) -> usize {
    let least = CUT_OFF.max(form.len() / 3).min(form.len());
    (least..=form.len()).find(|at| form.is_char_boundary(*at)).unwrap_or(form.len())
}

/// The same of its last bytes.
fn least_at_end(form: &str) -> usize {
    let least = CUT_OFF.max(form.len() / 3).min(form.len());
    form.len() - (0..=form.len() - least).rev().find(|at| form.is_char_boundary(*at)).unwrap_or(0)
}

/// Variables of this process that the programs it starts do not get: what they print goes to logs.
static HIDDEN: RwLock<BTreeSet<String>> = RwLock::new(BTreeSet::new());

/// From now on, a [`program`] does not get these variables.
pub fn hide_variables(names: impl IntoIterator<Item = impl Into<String>>) {
    HIDDEN.write().unwrap_or_else(PoisonError::into_inner).extend(names.into_iter().map(Into::into));
}

/// A program that does not get the hidden variables: whatever is started is started through this.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    HIDDEN.read().unwrap_or_else(PoisonError::into_inner).iter().for_each(|name| {
        command.env_remove(name);
    });
    command
}

/// A value, without the end of its last line, and each of its lines.
fn parts(value: &str) -> BTreeSet<&str> {
    let whole = value.trim_end_matches(['\r', '\n']);
    let parts = [value, whole].into_iter().chain(whole.lines());
    parts.filter(|part| part.len() >= SHORTEST).collect()
}

/// Match a value in which each character is escaped in whichever way, or not at all. A long one is looked for in pieces.
fn patterns(value: &str) -> Vec<String> {
    let characters: Vec<char> = value.chars().collect();
    let pieces = characters.chunks(PIECE).filter(|piece| piece.len() >= SHORTEST);
    pieces.map(|piece| piece.iter().copied().map(escapes).collect()).collect()
}

/// Matches one character, as it is or escaped.
fn escapes(c: char) -> String {
    if c.is_ascii_alphanumeric() {
        return c.to_string();
    }
    let any_case = |hex: String| -> String {
        let digit = |c: char| match c.is_ascii_alphabetic() {
            true => format!("[{}{}]", c.to_ascii_lowercase(), c.to_ascii_uppercase()),
            false => c.to_string(),
        };
        hex.chars().map(digit).collect()
    };
    let bytes = c.to_string().into_bytes();
    let of_bytes = |escape: &dyn Fn(u8) -> String| bytes.iter().map(|byte| escape(*byte)).collect::<String>();
    let number = u32::from(c);
    let mut units = [0; 2];
    let units = c.encode_utf16(&mut units).iter();
    let mut all = vec![
        // Quoted once more at each level; a backslash itself is doubled.
        format!(r"\\*{}", regex::escape(&c.to_string())),
        // Percent-encoded, also twice.
        of_bytes(&|byte| format!("%(?:25)*{}", any_case(format!("{byte:02x}")))),
        of_bytes(&|byte| format!(r"\\+x{}", any_case(format!("{byte:02x}")))),
        of_bytes(&|byte| format!(r"\\+{byte:03o}")),
        units.map(|unit| format!(r"\\+u{}", any_case(format!("{unit:04x}")))).collect(),
        format!(r"\\+u\{{{}\}}", any_case(format!("{number:x}"))),
        format!("&#0*{number};"),
        format!("&#[xX]0*{};", any_case(format!("{number:x}"))),
    ];
    all.extend(match c {
        ' ' => vec![r"\+".to_owned()],
        '\n' => vec![r"\\+n".to_owned(), r"\r\n".to_owned()],
        '\t' => vec![r"\\+t".to_owned()],
        '&' => vec!["&amp;".to_owned()],
        '<' => vec!["&lt;".to_owned()],
        '>' => vec!["&gt;".to_owned()],
        '"' => vec!["&quot;".to_owned()],
        '\'' => vec!["&apos;".to_owned(), r"'\\+''".to_owned()],
        _ => Vec::new(),
    });
    // What is longer first: the first that matches counts, and the rest must match from there.
    all.sort_by_key(|it| std::cmp::Reverse(it.len()));
    format!("(?:{})", all.join("|"))
}

/// How a value may look in a log.
fn forms(value: &str) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    parts(value).into_iter().for_each(|part| add_forms(part, &mut forms));
    forms.retain(|form| form.len() >= SHORTEST);
    forms
}

fn add_forms(value: &str, forms: &mut BTreeSet<String>) {
    let json = quoted_inside(&serde_json::Value::from(value).to_string());
    let ascii: String = json.chars().flat_map(utf16_escape).collect();
    let percent = utf8_percent_encode(value, RESERVED).to_string();
    let hex = hex::encode(value);
    let entities = [("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("\"", "&quot;"), ("'", "&apos;")];
    let xml = entities.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to));
    forms.extend([
        value.to_owned(),
        // A shell's, and an environment file's.
        value.replace('\'', r"'\''"),
        value.chars().flat_map(|c| "\"\\$`".contains(c).then_some('\\').into_iter().chain([c])).collect(),
        quoted_inside(&format!("{value:?}")),
        // JSON in JSON, as in a logged request.
        quoted_inside(&serde_json::Value::from(json.as_str()).to_string()),
        json.replace('/', r"\/"),
        ascii,
        json,
        percent.replace("%20", "+"),
        percent.to_lowercase(),
        percent,
        hex.to_uppercase(),
        hex,
        xml.replace("&apos;", "&#39;"),
        xml,
    ]);
    for before in 0..3 {
        let shifted = [&[0_u8, 0, 0][..before], value.as_bytes()].concat();
        // The digits at either end that the neighbours of the value have a part in.
        let first = (before * 8).div_ceil(6);
        let last = shifted.len() * 8 / 6;
        for encoded in [STANDARD_NO_PAD.encode(&shifted), URL_SAFE_NO_PAD.encode(&shifted)] {
            forms.insert(encoded[first..last].to_owned());
        }
    }
}

/// A quoted text without its quotes.
fn quoted_inside(quoted: &str) -> String {
    quoted[1..quoted.len() - 1].to_owned()
}

/// As encoders write that keep to ASCII.
fn utf16_escape(c: char) -> Vec<char> {
    if c.is_ascii() {
        return vec![c];
    }
    let mut units = [0; 2];
    c.encode_utf16(&mut units).iter().flat_map(|unit| format!("\\u{unit:04x}").chars().collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn knowing(value: &str) -> Redactor {
        let redactor = Redactor::default();
        redactor.learn(&Secrets::from([("TOKEN".to_owned(), Secret::new(value))]));
        redactor
    }

    #[test]
    fn a_secret_cannot_be_seen_by_debugging() {
        let shown = format!("{:?} {:?}", Secret::new("hunter2hunter2"), knowing("hunter2hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        let text = "nothing of it here: tok, en-1";
        assert!(matches!(knowing("token-1").clean(text), Cow::Borrowed(_)));
        assert_eq!(knowing("token-1").clean("a token-1 b"), "a [secret TOKEN] b");
        assert_eq!(Redactor::default().clean("token-1"), "token-1");
    }

    #[test]
    fn each_line_of_a_key_is_found() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQ==\n-----END KEY-----\n";
        let told = knowing(key).clean("it said MIIEvQIBADANBg and\n  kqhkiG9w0BAQ==").into_owned();
        assert_eq!(told, "it said [secret TOKEN] and\n  [secret TOKEN]");
    }

    #[test]
    fn programs_do_not_get_hidden_variables() {
        // Whatever tests are run with has a PATH.
        hide_variables(["PATH"]);
        let told = String::from_utf8(program("/usr/bin/env").output().unwrap().stdout).unwrap();
        assert!(!told.lines().any(|line| line.starts_with("PATH=")), "{told}");
    }

    #[test]
    fn what_is_left_of_one_where_a_text_was_cut_off_is_found() {
        let redactor = knowing("postgres://user:hunter2@db/app");
        for (text, wanted) in [
            ("it said postgres://user:hun…", "it said [secret TOKEN]…"),
            ("it said postgres://user:hunter2@db/ap", "it said [secret TOKEN]"),
            ("hunter2@db/app was said", "[secret TOKEN] was said"),
            // Words that it happens to begin with are words.
            ("it speaks postgres:", "it speaks postgres:"),
            ("/app was said", "/app was said"),
            ("postgres://user:hunt and more", "postgres://user:hunt and more"),
            ("cut postgres://user:hun …\nuser:hunter2@db/app\n", "cut [secret TOKEN] …\n[secret TOKEN]\n"),
            ("3 values: postgres://user:hunt…, hunter2@db/app", "3 values: [secret TOKEN]…, hunter2@db/app"),
        ] {
            assert_eq!(redactor.clean(text), wanted);
        }
    }

    #[test]
    fn clones_know_the_same() {
        let one = Redactor::default();
        let other = one.clone();
        one.learn(&Secrets::from([("A".to_owned(), Secret::new("first-one"))]));
        one.learn(&Secrets::from([("B".to_owned(), Secret::new("second-one"))]));
        assert_eq!(other.clean("first-one, second-one"), "[secret A], [secret B]");
    }

    #[test]
    fn an_event_keeps_what_machines_read() {
        let error = ErrorRecord {
            kind: crate::error::ErrorKind::Failed,
            message: "bad: my-token".into(),
            causes: vec!["because of my-token".into()],
            hints: vec!["not my-token".into()],
        };
        let event = knowing("my-token").clean_event(What::StepFailed { step: "a/b".into(), error, seconds: 1.0 });
        let text = serde_json::to_string(&event).unwrap();
        assert!(!text.contains("my-token"), "{text}");
        let kept = What::StepSucceeded { step: "a/b".into(), output: serde_json::json!("my-token"), seconds: 1.0 };
        assert_eq!(knowing("my-token").clean_event(kept.clone()), kept);
    }

    /// What Go's url.PathEscape leaves alone, beside the unreserved.
    const LEFT_BY_GO: &AsciiSet =
        &RESERVED.remove(b'@').remove(b'$').remove(b'&').remove(b'+').remove(b'=').remove(b':');

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

            /// Whatever stands around it, and in whichever form.
            #[test]
            fn no_form_of_a_secret_is_left(
                value in "[ -~äß€😀]{8,40}",
                before in proptest::collection::vec(any::<u8>(), 0..7),
                after in proptest::collection::vec(any::<u8>(), 0..7),
            ) {
                let redactor = knowing(&value);
                let around = [&before, value.as_bytes(), &after].concat();
                let json = serde_json::to_string(&value).unwrap();
                let texts = [
                    value.clone(),
                    json.clone(),
                    serde_json::to_string(&json).unwrap(),
                    format!("{value:?}"),
                    hex::encode(&around),
                    utf8_percent_encode(&value, NON_ALPHANUMERIC).to_string(),
                    utf8_percent_encode(&value, RESERVED).to_string(),
                    // As Go's url.PathEscape and its JSON.
    utf8_percent_encode(&value, LEFT_BY_GO).to_string(),
                    json.replace('&', r"\u0026").replace('<', r"\u003c").replace('>', r"\u003E"),
                    value.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("&#x{:X};", u32::from(c)) }).collect(),
                    url::form_urlencoded::byte_serialize(value.as_bytes()).collect(),
                ];
                for text in texts {
                    prop_assert!(redactor.clean(&text).contains("[secret TOKEN]"), "{}", text);
                }
                for text in [base64::engine::general_purpose::STANDARD.encode(&around), URL_SAFE_NO_PAD.encode(&around)] {
                    let cleaned = redactor.clean(&text).into_owned();
                    prop_assert!(cleaned.contains("[secret TOKEN]"), "{}", text);
                    // What is left of the digits at its ends does not tell more than two bytes of it.
                    prop_assert!(cleaned.len() <= (before.len() + after.len()) * 2 + 24, "{}", cleaned);
                }
            }
        }
}
