//! A server's host keys, as its console tells them.
//!
//! cloud-init prints them between marker lines (its `cc_ssh` and `cc_keys_to_console` modules), and so does the recipes'
//! guest agent. A syslog or kernel prefix before each line is cloud-init's habit and is read past. The console is the
//! one channel that an attacker on the network cannot write to: pinning the key from it makes the first connection
//! as safe as every later one.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use sha2::{Digest, Sha256};

const FINGERPRINTS: (&str, &str) =
    ("-----BEGIN SSH HOST KEY FINGERPRINTS-----", "-----END SSH HOST KEY FINGERPRINTS-----");
const KEYS: (&str, &str) = ("-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----");

/// A public host key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostKey {
    /// Such as `ssh-ed25519`.
    pub algorithm: String,
    /// The key's bytes in base64, as in `known_hosts`.
    pub base64: String,
}

impl HostKey {
    /// Reads `algorithm base64`, wherever in a line it stands.
    fn find(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace().skip_while(|word| !is_algorithm(word));
        let (algorithm, base64) = (words.next()?, words.next()?);
        let bytes = STANDARD.decode(base64).ok()?;
        // The key's bytes begin with the algorithm's name (RFC 4253, 6.6): a line that disagrees with itself is no key.
        let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        (bytes.get(4..4 + length)? == algorithm.as_bytes())
            .then(|| Self { algorithm: algorithm.to_owned(), base64: base64.to_owned() })
    }

    /// `SHA256:…`, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        let bytes = STANDARD.decode(&self.base64).unwrap_or_default();
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(bytes)))
    }
}

fn is_algorithm(word: &str) -> bool {
    matches!(word, "ssh-ed25519" | "ssh-rsa" | "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" | "ecdsa-sha2-nistp521")
}

/// What is known of a server's host keys before it is connected to. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinnedHostKeys {
    /// `SHA256:…`.
    fingerprints: Vec<String>,
    /// Whole keys, where the console tells them.
    keys: Vec<HostKey>,
}

/// Why no host key can be pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConsoleError {
    /// The console lags by minutes on AWS: ask again.
    #[error("the console does not show the server's host keys yet")]
    NotYet,
    /// There is a whole block, and nothing in it can be pinned.
    #[error(
        "the console shows host keys in a form that cannot be checked (only SHA256 fingerprints and whole keys can)"
    )]
    Unreadable,
    /// Keys and fingerprints on one console that do not belong together.
    #[error("the console shows host keys that do not have the fingerprints it shows")]
    Contradiction,
}

/// Reads the host keys from a console's text: of several boots, the last whole block.
pub fn host_keys(console: &str) -> Result<PinnedHostKeys, ConsoleError> {
    let (prints, keys) = (last_block(console, FINGERPRINTS), last_block(console, KEYS));
    if prints.is_none() && keys.is_none() {
        return Err(ConsoleError::NotYet);
    }
    let fingerprints: Vec<String> = prints
        .unwrap_or_default()
        .iter()
        .filter_map(|line| line.split_ascii_whitespace().find(|word| is_fingerprint(word)))
        .map(str::to_owned)
        .collect();
    let keys: Vec<HostKey> = keys.unwrap_or_default().iter().filter_map(|line| HostKey::find(line)).collect();
    PinnedHostKeys::new(fingerprints, keys)
}

/// The lines inside the last block that has both its markers.
fn last_block<'a>(console: &'a str, (begin, end): (&str, &str)) -> Option<Vec<&'a str>> {
    let mut last = None;
    let mut open: Option<Vec<&str>> = None;
    for line in console.lines() {
        if line.contains(begin) {
            open = Some(Vec::new());
        } else if line.contains(end) {
            last = open.take().or(last);
        } else if let Some(lines) = &mut open {
            lines.push(line);
        }
    }
    last
}

/// `SHA256:` and 32 bytes in base64 without padding.
fn is_fingerprint(word: &str) -> bool {
    word.strip_prefix("SHA256:")
        .and_then(|base64| STANDARD_NO_PAD.decode(base64).ok())
        .is_some_and(|bytes| bytes.len() == 32)
}

impl PinnedHostKeys {
    /// Pins these. Keys without a listed fingerprint are not pinned, where fingerprints are listed at all.
    pub fn new(fingerprints: Vec<String>, keys: Vec<HostKey>) -> Result<Self, ConsoleError> {
        let told = !keys.is_empty();
        let keys: Vec<HostKey> = keys
            .into_iter()
            .filter(|key| fingerprints.is_empty() || fingerprints.contains(&key.fingerprint()))
            .collect();
        if told && keys.is_empty() {
            return Err(ConsoleError::Contradiction);
        }
        let fingerprints =
            if fingerprints.is_empty() { keys.iter().map(HostKey::fingerprint).collect() } else { fingerprints };
        if fingerprints.is_empty() { Err(ConsoleError::Unreadable) } else { Ok(Self { fingerprints, keys }) }
    }

    /// `SHA256:…` of every pinned key.
    pub fn fingerprints(&self) -> &[String] {
        &self.fingerprints
    }

    /// Of the keys that a server shows (in the form of `ssh-keyscan`), those that are pinned.
    pub(crate) fn accept(&self, shown: &str) -> Shown {
        let keys: Vec<HostKey> =
            shown.lines().filter(|line| !line.starts_with('#')).filter_map(HostKey::find).collect();
        let accepted: Vec<HostKey> = keys
            .iter()
            .filter(|key| self.fingerprints.contains(&key.fingerprint()))
            .filter(|key| self.keys.is_empty() || self.keys.contains(key))
            .cloned()
            .collect();
        match (keys.is_empty(), accepted.is_empty()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Others(keys.iter().map(HostKey::fingerprint).collect()),
            (false, false) => Shown::Pinned(accepted),
        }
    }
}

/// What a server showed, held against the pins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shown {
    Nothing,
    Pinned(Vec<HostKey>),
    /// Only keys that are not pinned, by their fingerprints.
    Others(Vec<String>),
}

/// Lines of a `known_hosts` file for this server.
pub(crate) fn known_hosts(keys: &[HostKey], host: &str, port: u16) -> String {
    let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    keys.iter().map(|key| format!("{name} {} {}\n", key.algorithm, key.base64)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made for this test; the fingerprint is what `ssh-keygen -l` says of it.
    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGZhYmxlcy1hcmUtYmVzdC10b2xkLWJ5LWtpbmdmaXNo";
    const OTHER: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIGNvbWUtYmFjay13aXRoLXlvdXItc2hpZWxkLW9yLW9u";

    fn key(base64: &str) -> HostKey {
        HostKey { algorithm: "ssh-ed25519".into(), base64: base64.into() }
    }

    fn console(fingerprints: &[String], keys: &[&str]) -> String {
        let mut text = "[    1.2] booting\nci-info: nothing\n".to_owned();
        text += "<14>Nov 20 20:00:00 cloud-init: #####\nec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----\r\n";
        for print in fingerprints {
            text += &format!("ec2: 256 {print} root@ip-10-0-0-7 (ED25519)\r\n");
        }
        text += "ec2: -----END SSH HOST KEY FINGERPRINTS-----\r\n";
        if !keys.is_empty() {
            text += "-----BEGIN SSH HOST KEY KEYS-----\n";
            for key in keys {
                text += &format!("ssh-ed25519 {key} root@ip-10-0-0-7\n");
            }
            text += "-----END SSH HOST KEY KEYS-----\n";
        }
        text
    }

    #[test]
    fn fingerprints_are_read_through_clouds_prefixes() {
        let print = key(KEY).fingerprint();
        let pins = host_keys(&console(std::slice::from_ref(&print), &[])).unwrap();
        assert_eq!(pins.fingerprints(), [print]);
        assert_eq!(
            pins.accept(&format!("# host:22 SSH-2.0\n10.0.0.7 ssh-ed25519 {KEY}\n")),
            Shown::Pinned(vec![key(KEY)])
        );
        assert_eq!(
            pins.accept(&format!("10.0.0.7 ssh-ed25519 {OTHER}\n")),
            Shown::Others(vec![key(OTHER).fingerprint()])
        );
        assert_eq!(pins.accept(""), Shown::Nothing);
    }

    #[test]
    fn a_block_that_is_not_whole_is_not_believed() {
        let whole = console(&[key(KEY).fingerprint()], &[]);
        assert_eq!(host_keys(""), Err(ConsoleError::NotYet));
        let cut = whole.split("ec2: -----END").next().unwrap();
        assert_eq!(host_keys(cut), Err(ConsoleError::NotYet));
        // A second boot has begun to print: the first boot's block still holds.
        let pins = host_keys(&format!("{whole}{cut}")).unwrap();
        assert_eq!(pins.fingerprints(), [key(KEY).fingerprint()]);
    }

    #[test]
    fn the_last_boot_counts() {
        let text = console(&[key(OTHER).fingerprint()], &[]) + &console(&[key(KEY).fingerprint()], &[]);
        assert_eq!(host_keys(&text).unwrap().fingerprints(), [key(KEY).fingerprint()]);
    }

    #[test]
    fn keys_and_fingerprints_must_agree() {
        let pins = host_keys(&console(&[key(KEY).fingerprint()], &[KEY, OTHER])).unwrap();
        assert_eq!(pins.accept(&format!("h ssh-ed25519 {OTHER}")), Shown::Others(vec![key(OTHER).fingerprint()]));
        assert_eq!(host_keys(&console(&[key(KEY).fingerprint()], &[OTHER])), Err(ConsoleError::Contradiction));
        assert_eq!(host_keys(&console(&[], &[KEY])).unwrap().fingerprints(), [key(KEY).fingerprint()]);
        assert_eq!(host_keys(&console(&["MD5:aa:bb".into()], &[])), Err(ConsoleError::Unreadable));
        assert_eq!(host_keys(&console(&["SHA256:short".into()], &[])), Err(ConsoleError::Unreadable));
    }

    #[test]
    fn a_key_that_disagrees_with_its_own_name_is_none() {
        assert_eq!(HostKey::find(&format!("x ssh-rsa {KEY}")), None);
        assert_eq!(HostKey::find("ssh-ed25519 !!!"), None);
        assert_eq!(HostKey::find("ssh-ed25519 AAAA"), None);
    }

    #[test]
    fn known_hosts_names_the_port_where_it_is_not_22() {
        assert_eq!(known_hosts(&[key(KEY)], "10.0.0.7", 22), format!("10.0.0.7 ssh-ed25519 {KEY}\n"));
        assert_eq!(known_hosts(&[key(KEY)], "10.0.0.7", 2222), format!("[10.0.0.7]:2222 ssh-ed25519 {KEY}\n"));
    }
}
