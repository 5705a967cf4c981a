//! What a local region is started with, kept so that the next start is the same region.

use std::{fs, io};

use alcedo_local_region::config::Lags;
use clap::ValueEnum;
use rand::{Rng, distr::Alphanumeric};
use serde::{Deserialize, Serialize};

use super::folder::{Folder, write_private};
use crate::failure::{Failure, Result};

/// Near LocalStack's 4566, which a developer's machine may well have in use.
pub const PORT: u16 = 4599;

/// Version of `settings.json`.
const FORMAT: u32 = 1;

/// A named set of delays and limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Short delays that still exist
    Quick,
    /// The delays that AWS publishes or users measured
    Aws,
}

impl Profile {
    pub fn lags(self) -> Lags {
        match self {
            Self::Quick => Lags::quick(),
            Self::Aws => Lags::aws(),
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Aws => "aws",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub format: u32,
    /// Names the engine's network and containers.
    pub name: String,
    pub port: u16,
    pub profile: Profile,
    /// What the region answers as.
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
}

/// What the command line says about a start; what it leaves out stays as it was.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    pub name: Option<String>,
    pub port: Option<u16>,
    pub profile: Option<Profile>,
    /// Of this start alone.
    pub forget_servers: bool,
}

impl Settings {
    /// A region that nobody has started before. Its keys are random: another user of the machine who can reach the port
    /// must not be able to guess them.
    fn new() -> Self {
        let text = |length| rand::rng().sample_iter(Alphanumeric).take(length).map(char::from).collect::<String>();
        Self {
            format: FORMAT,
            name: "local".to_owned(),
            port: PORT,
            profile: Profile::Quick,
            region: "us-east-1".to_owned(),
            // In the shape of AWS's, and recognisable as none of theirs.
            access_key: format!("LKIA{}", text(16).to_uppercase()),
            secret_key: text(40),
        }
    }

    /// The settings of the last start, if there was one.
    pub fn read(folder: &Folder) -> Result<Option<Self>> {
        let path = folder.settings();
        let broken = |message: String| Failure::failed(message).hint("alcedo region reset starts from nothing");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken(format!("{} cannot be read", path.display())).because(&error)),
        };
        let settings: Self = serde_json::from_str(&text)
            .map_err(|error| broken(format!("{} is damaged", path.display())).because(&error))?;
        if settings.format != FORMAT {
            let format = settings.format;
            return Err(broken(format!("{} has format {format}; this alcedo reads {FORMAT}", path.display())));
        }
        Ok(Some(settings))
    }

    /// The settings of the next start: those of the last with the wishes laid over, kept before they are used.
    ///
    /// # Errors
    /// The name is none, or would leave what runs under the old one behind.
    pub fn next(folder: &Folder, wishes: &Wishes) -> Result<Self> {
        let last = Self::read(folder)?;
        let mut settings = last.clone().unwrap_or_else(Self::new);
        if let Some(name) = &wishes.name {
            if !is_name(name) {
                return Err(Failure::usage(format!("`{name}` cannot name a region"))
                    .hint("a name has 1 to 20 lower-case letters, digits and hyphens"));
            }
            if last.is_some_and(|last| last.name != *name) {
                return Err(Failure::usage(format!(
                    "the region in {} has the name {}",
                    folder.path().display(),
                    settings.name
                ))
                .hint(format!(
                    "name another folder in {} for a second region, or reset this one",
                    super::folder::VARIABLE
                )));
            }
            settings.name.clone_from(name);
        }
        settings.port = wishes.port.unwrap_or(settings.port);
        settings.profile = wishes.profile.unwrap_or(settings.profile);
        let text = serde_json::to_string_pretty(&settings).expect("settings are JSON");
        write_private(&folder.settings(), &format!("{text}\n"))?;
        Ok(settings)
    }
}

fn is_name(name: &str) -> bool {
    (1..=20).contains(&name.len()) && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_wishes_stay() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let first = Settings::next(&folder, &Wishes { port: Some(5000), ..Wishes::default() }).unwrap();
        assert_eq!((first.port, first.name.as_str(), first.profile), (5000, "local", Profile::Quick));
        let second = Settings::next(&folder, &Wishes { profile: Some(Profile::Aws), ..Wishes::default() }).unwrap();
        assert_eq!(second, Settings { profile: Profile::Aws, ..first });
        assert_eq!(Settings::read(&folder).unwrap(), Some(second));
    }

    #[test]
    fn a_region_keeps_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let wish = |name: &str| Wishes { name: Some(name.to_owned()), ..Wishes::default() };
        Settings::next(&folder, &wish("demo")).unwrap();
        assert!(Settings::next(&folder, &wish("demo")).is_ok());
        let failure = Settings::next(&folder, &wish("other")).unwrap_err();
        assert_eq!(failure.code, crate::exit_code::ExitCode::USAGE);
        assert!(Settings::next(&folder, &wish("../x")).is_err());
    }

    #[test]
    fn damaged_settings_are_named_with_a_way_out() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        for text in [
            "{",
            r#"{"format":9,"name":"x","port":1,"profile":"quick","region":"r","access_key":"a","secret_key":"s"}"#,
        ] {
            fs::write(folder.settings(), text).unwrap();
            let failure = Settings::read(&folder).unwrap_err();
            assert!(failure.message.contains("settings.json"), "{failure:?}");
            assert_eq!(failure.hints.len(), 1);
        }
    }
}
