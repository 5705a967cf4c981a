//! What a local region is started with, kept so that the next start is the same region.

use std::{collections::BTreeMap, fs, io};

use alcedo_local_region::config::Lags;
use alcedo_pipeline::units::Span;
use clap::ValueEnum;
use rand::{Rng, distr::Alphanumeric};
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
    /// Single delays and limits that differ from the profile's, by name.
    #[serde(default)]
    pub lags: BTreeMap<String, String>,
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
    /// Single delays and limits, by name. A wish for a profile alone forgets those of earlier starts.
    pub lags: Vec<(String, String)>,
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
            lags: BTreeMap::new(),
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

    /// The profile's delays and limits with the single ones laid over.
    ///
    /// # Errors
    /// A name or a value is none.
    pub fn delays(&self) -> Result<Lags> {
        let mut all = serde_json::to_value(self.profile.lags()).expect("lags are plain data");
        for (name, value) in &self.lags {
            set(&mut all, name, value)?;
        }
        serde_json::from_value(all).map_err(|error| Failure::usage("the delays cannot be used").because(&error))
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
        if let Some(profile) = wishes.profile {
            settings.profile = profile;
            settings.lags.clear();
        }
        settings.lags.extend(wishes.lags.iter().cloned());
        settings.delays()?;
        let text = serde_json::to_string_pretty(&settings).expect("settings are JSON");
        write_private(&folder.settings(), &format!("{text}\n"))?;
        Ok(settings)
    }
}

/// Lays one delay or limit over the others. Which kind of value it takes is seen by the one that is there.
fn set(all: &mut Value, name: &str, text: &str) -> Result<()> {
    let fields = all.as_object_mut().expect("lags are fields by name");
    let names: Vec<String> = fields.keys().map(|key| key.replace('_', "-")).collect();
    let wrong =
        |kind: &str| Failure::usage(format!("`{text}` is no value of {name}")).hint(format!("{name} takes {kind}"));
    let Some(field) = fields.get_mut(&name.replace('-', "_")) else {
        return Err(Failure::usage(format!("there is no delay or limit `{name}`"))
            .hint(format!("there are {}", names.join(", "))));
    };
    *field = match field {
        Value::Bool(_) => text.parse::<bool>().map(Value::from).map_err(|_| wrong("true or false"))?,
        Value::Number(_) => text.parse::<u8>().map(Value::from).map_err(|_| wrong("a number from 1 to 255"))?,
        _ if text == "none" && name == "initial-check" => Value::Null,
        _ => {
            let span: Span = text.parse().map_err(|_| wrong("a length of time, such as 500ms or 2s"))?;
            serde_json::to_value(span.duration()).expect("a duration is plain data")
        }
    };
    Ok(())
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
    fn a_single_delay_is_laid_over_the_profile_and_kept() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::at(scratch.path());
        let wish = |lags: &[(&str, &str)]| Wishes {
            lags: lags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            ..Wishes::default()
        };
        let some = [("propagation", "2s"), ("balancer-nodes", "4"), ("throttle", "false"), ("initial-check", "none")];
        Settings::next(&folder, &wish(&some)).unwrap();
        let delays = Settings::next(&folder, &Wishes::default()).unwrap().delays().unwrap();
        assert_eq!((delays.propagation.as_secs(), delays.balancer_nodes), (2, 4));
        assert_eq!((delays.throttle, delays.initial_check), (false, None));
        assert_eq!(delays.target_health, Lags::quick().target_health, "the others are the profile's");
        for (name, value) in [("speed", "1s"), ("propagation", "2"), ("balancer-nodes", "none"), ("throttle", "no")] {
            let failure = Settings::next(&folder, &wish(&[(name, value)])).unwrap_err();
            assert_eq!((failure.code, failure.hints.len()), (crate::exit_code::ExitCode::USAGE, 1), "{name}={value}");
        }
        let anew = Settings::next(&folder, &Wishes { profile: Some(Profile::Aws), ..Wishes::default() }).unwrap();
        assert!(anew.lags.is_empty(), "a profile is the whole set");
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
