//! Secrets: found before anything is changed, handed to each server of a new fleet over SSH, before the balancer asks it
//! anything.
//!
//! **Guarantees.** They are in this process's memory and in the servers', and nowhere between but in an SSH session whose host key
//! is pinned: in no user data, argument, tag, journal or log. From the moment they are found, the redactor knows them.
//! **Caveats.** A server that starts again has lost them, and nobody gives them to it a second time: its app does not come up, and
//! the balancer leaves it out. A new deploy, also of the same version's image after a rollback, launches servers anew.

use std::{
    collections::BTreeMap,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use age::{Identity, IdentityFile, armor::ArmoredReader};
use alcedo_images::secret_files::{self, HandOverError};
use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    event::Unit,
    file::SecretSource,
    secret::{SHORTEST, Secret, Secrets},
    units::Span,
};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    build::sink,
    cloud_error::{self, CloudError},
    launch::{self, MadeServers},
    servers::Server,
    site::Site,
    ssh::{self, Login},
    workshop::Workshop,
};

pub const HAND_OVER: &str = "launch/secrets";

/// The key that opens age's files: an identity itself, or the path of a file of them.
pub const IDENTITY: &str = "ALCEDO_AGE_IDENTITY";

/// A value at most. A private key or a certificate's chain has some thousand bytes.
const LARGEST: usize = 64 << 10;
/// GetParameters takes so many names (AWS Systems Manager API reference).
const PARAMETERS_A_CALL: usize = 10;
/// Servers that are handed them at one time.
const AT_ONCE: usize = 16;

/// The longest that handing over can take, in seconds: each server has the time once for its console, once to let us in and once
/// for the files, and so many are served at a time.
pub fn longest(servers: u32, timeout: Span) -> u64 {
    3 * timeout.as_secs() * u64::from(servers).div_ceil(AT_ONCE as u64)
}

/// Hands the secrets to every server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HandOver {
    pub sources: BTreeMap<String, SecretSource>,
    pub ssh_user: String,
    pub ssh_port: u16,
    pub private_address: bool,
    /// From a booted server to its files in place.
    pub timeout: Span,
    /// Nobody logs in after this step: the run's key goes from the servers.
    pub last_login: bool,
}

impl HandOver {
    pub async fn run(&self, site: &Site, shop: &Workshop, context: &StepContext) -> Result<Value, StepError> {
        let made: MadeServers = context.output(launch::INSTANCES)?;
        let secrets =
            shop.secrets().ok_or_else(|| StepError::failed("the secrets were not looked for before the run"))?;
        // Boxed, or the compiler cannot tell that their borrows are long enough.
        let servers = made.servers.iter().map(|server| self.to_server(site, shop, context, server, secrets).boxed());
        let mut handed = stream::iter(servers.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        let mut done = 0;
        while handed.try_next().await?.is_some() {
            done += 1;
            context.progress(done, made.servers.len() as u64, Unit::Servers);
        }
        Ok(json!({ "servers": done, "secrets": self.sources.keys().collect::<Vec<_>>() }))
    }

    async fn to_server(
        &self,
        site: &Site,
        shop: &Workshop,
        context: &StepContext,
        server: &Server,
        secrets: &Secrets,
    ) -> Result<(), StepError> {
        let login = Login { user: &self.ssh_user, port: self.ssh_port, private_address: self.private_address };
        let deadline = self.timeout.duration();
        let session = ssh::open(&site.clients, context, server, login, shop.key().await?, deadline).await?;
        let sink = sink(context);
        let handing = tokio::time::timeout(deadline, secret_files::hand_over(&session, secrets, &sink));
        let handed = tokio::select! {
            handed = handing => handed,
            () = context.cancellation().cancelled() => return Err(StepError::interrupted()),
        };
        if self.last_login && matches!(handed, Ok(Ok(()))) {
            ssh::lock_out(shop.key().await?, context, server, &session).await;
        }
        let _ = session.close().await;
        match handed {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(refused(&server.id, error)),
            Err(_) => {
                let message = format!("{} did not take the secrets within {}", server.id, self.timeout);
                Err(StepError::new(ErrorKind::TimedOut, message))
            }
        }
    }
}

fn refused(server: &str, error: HandOverError) -> StepError {
    let mut step = StepError::failed(format!("{server} did not take the secrets"));
    if matches!(error, HandOverError::NoMemory) {
        step =
            step.hint("secrets are put on a tmpfs alone; every systemd makes one at /run: choose a base that has it");
    }
    if let HandOverError::Refused { last_lines, .. } = &error {
        step = last_lines.iter().rev().take(3).rev().fold(step, |step, line| step.hint(format!("it said: {line}")));
    }
    step.because(error)
}

/// Why one of them is not to be had.
#[derive(Debug)]
struct Missing {
    why: String,
    fix: String,
}

impl Missing {
    fn new(why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { why: why.into(), fix: fix.into() }
    }
}

/// Finds all of them, and lets the redactor know. Reads variables, files and parameters; changes nothing.
///
/// # Errors
/// Tells every one that is not to be had, and what to do about it.
pub async fn find(site: &Site, sources: &BTreeMap<String, SecretSource>) -> Result<Secrets, StepError> {
    let mut found = Secrets::new();
    let mut missing = BTreeMap::new();
    let mut sort = |name: &str, value: Result<String, Missing>| match value.and_then(fit) {
        Ok(secret) => {
            found.insert(name.to_owned(), secret);
        }
        Err(why) => {
            missing.insert(name.to_owned(), why);
        }
    };
    for (name, value) in at_hand(&site.folder, sources) {
        sort(name, value);
    }
    for (name, value) in of_ssm(site, &parameters(sources)).await {
        sort(name, value);
    }
    site.redactor.learn(&found);
    if missing.is_empty() { Ok(found) } else { Err(not_to_be_had(&missing)) }
}

/// What is to be had without asking anybody: variables, files, and what is encrypted in the project, each file opened once.
fn at_hand<'a>(folder: &Path, sources: &'a BTreeMap<String, SecretSource>) -> Vec<(&'a str, Result<String, Missing>)> {
    let mut opened: BTreeMap<&Path, Result<BTreeMap<String, String>, String>> = BTreeMap::new();
    let mut values = Vec::new();
    for (name, source) in sources {
        let value = match source {
            SecretSource { environment: Some(variable), .. } => of_environment(variable),
            SecretSource { file: Some(path), .. } => of_file(folder, path),
            SecretSource { age: Some(path), .. } => {
                let file = opened.entry(path).or_insert_with(|| of_age(folder, path));
                in_age_file(file, path, name)
            }
            SecretSource { ssm: Some(_), .. } => continue,
            _ => Err(Missing::new("the file does not say where it comes from", "name its source")),
        };
        values.push((name.as_str(), value));
    }
    values
}

/// The parameters that are to be asked for, by the names of their secrets.
fn parameters(sources: &BTreeMap<String, SecretSource>) -> BTreeMap<&str, &str> {
    sources.iter().filter_map(|(name, source)| Some((name.as_str(), source.ssm.as_deref()?))).collect()
}

/// Those that are to be had at once, so that what is printed is cleaned of them also in a run that hands none over. Parameters
/// are asked for meanwhile, and nobody waits for them longer than `patience`.
pub async fn shade(site: &Site, patience: Duration) {
    let sources = &site.pipeline.secrets;
    if sources.is_empty() {
        return;
    }
    let asking = tokio::spawn({
        let site = site.clone();
        async move {
            let found = of_ssm(&site, &parameters(&site.pipeline.secrets)).await.into_iter();
            let found = found.filter_map(|(name, value)| Some((name.to_owned(), fit(value.ok()?).ok()?)));
            site.redactor.learn(&found.collect());
        }
    });
    // A pipe or a terminal would be waited for.
    let is_there = |path: &PathBuf| site.folder.join(path).is_file();
    let there = sources.iter().filter(|(_, source)| source.file.iter().chain(&source.age).all(is_there));
    let there: BTreeMap<String, SecretSource> = there.map(|(name, source)| (name.clone(), source.clone())).collect();
    let found = at_hand(&site.folder, &there).into_iter();
    let found = found.filter_map(|(name, value)| Some((name.to_owned(), fit(value.ok()?).ok()?)));
    site.redactor.learn(&found.collect());
    let _ = tokio::time::timeout(patience, asking).await;
}

fn not_to_be_had(missing: &BTreeMap<String, Missing>) -> StepError {
    let told: Vec<String> = missing.iter().map(|(name, Missing { why, .. })| format!("{name}: {why}")).collect();
    let which = if told.len() == 1 { "a secret is" } else { "secrets are" };
    let error = StepError::failed(format!("{which} not to be had, so nothing was begun: {}", told.join("; ")));
    let mut fixes: Vec<&String> = missing.values().map(|it| &it.fix).collect();
    fixes.sort();
    fixes.dedup();
    fixes.into_iter().fold(error, StepError::hint)
}

/// What can be handed over in a variable, and kept out of texts.
fn fit(value: String) -> Result<Secret, Missing> {
    let secret = Secret::new(value);
    let text = secret.expose();
    if text.len() < SHORTEST {
        let why = format!("it has {} bytes", text.len());
        return Err(Missing::new(
            why,
            format!("values of less than {SHORTEST} bytes cannot be kept out of logs; use a longer one"),
        ));
    }
    if text.len() > LARGEST {
        return Err(Missing::new(
            format!("it has {} bytes", text.len()),
            format!("a secret has at most {LARGEST} bytes"),
        ));
    }
    if text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
        return Err(Missing::new(
            "it holds control characters, which no environment file takes",
            "give the value in base64, and let the app decode it",
        ));
    }
    Ok(secret)
}

fn of_environment(variable: &str) -> Result<String, Missing> {
    let fix = || format!("set {variable} where alcedo runs (in CI: in the project's or context's secret variables)");
    match std::env::var(variable) {
        Ok(value) if value.is_empty() => Err(Missing::new(format!("the variable {variable} is empty"), fix())),
        Ok(value) => Ok(value),
        Err(std::env::VarError::NotPresent) => Err(Missing::new(format!("the variable {variable} is not set"), fix())),
        Err(_) => Err(Missing::new(
            format!("the variable {variable} is no UTF-8"),
            "give the value in base64, and let the app decode it",
        )),
    }
}

fn of_file(folder: &Path, path: &Path) -> Result<String, Missing> {
    let shown = path.display();
    let fix = || format!("put the value into {shown}, or name another file");
    let bytes = read(folder, path).map_err(|why| Missing::new(why, fix()))?;
    let text = String::from_utf8(bytes).map_err(|_| {
        Missing::new(format!("{shown} is no UTF-8"), "give the value in base64, and let the app decode it")
    })?;
    // Editors end a line, and no password ends with one; of several lines, a key's for one, the last has to end as well.
    Ok(match text.strip_suffix('\n') {
        Some(line) if !line.contains('\n') => line.strip_suffix('\r').unwrap_or(line).to_owned(),
        _ => text,
    })
}

/// A file's bytes; an absolute path leads out of the project.
fn read(folder: &Path, path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let file = std::fs::File::open(folder.join(path)).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    // A device or a pipe has no end.
    let most = 1 << 20;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if bytes.len() as u64 > most { Err(format!("{shown} has more than 1 MiB")) } else { Ok(bytes) }
}

fn in_age_file(file: &Result<BTreeMap<String, String>, String>, path: &Path, name: &str) -> Result<String, Missing> {
    let shown = path.display();
    match file {
        Err(why) => Err(Missing::new(
            why.clone(),
            format!(
                "{IDENTITY} must hold an identity that {shown} was encrypted for (AGE-SECRET-KEY-1…), or a file's path"
            ),
        )),
        Ok(values) => values.get(name).cloned().ok_or_else(|| {
            Missing::new(
                format!("{shown} has no {name}"),
                format!(
                    "add `{name}: value` to what {shown} is encrypted from: `age --decrypt`, edit, `age --encrypt`"
                ),
            )
        }),
    }
}

/// Decrypts a map of names to values, in memory.
fn of_age(folder: &Path, path: &Path) -> Result<BTreeMap<String, String>, String> {
    let shown = path.display();
    let identities = identities()?;
    let bytes = read(folder, path)?;
    let opened = age::Decryptor::new_buffered(ArmoredReader::new(bytes.as_slice()));
    let opened = opened.map_err(|error| format!("{shown} is no file of age's: {error}"))?;
    let known = identities.iter().map(|identity| identity.as_ref() as &dyn Identity);
    let mut reader = opened.decrypt(known).map_err(|error| format!("{shown} cannot be decrypted: {error}"))?;
    let mut text = String::new();
    reader.read_to_string(&mut text).map_err(|error| format!("{shown} cannot be decrypted: {error}"))?;
    // What a parser says of a wrong text may quote it.
    serde_yaml::from_str(&text).map_err(|_| format!("{shown} holds no YAML map of names to texts"))
}

fn identities() -> Result<Vec<Box<dyn Identity + Send + Sync>>, String> {
    let given = std::env::var(IDENTITY).ok().filter(|text| !text.trim().is_empty());
    let given = given.ok_or_else(|| format!("the variable {IDENTITY} is not set"))?;
    identities_of(&given)
}

/// The identities themselves, as `age-keygen` writes them, or the path of a file of them. Nothing of it is told: whatever was put
/// there may be a key.
fn identities_of(given: &str) -> Result<Vec<Box<dyn Identity + Send + Sync>>, String> {
    let upper = given.to_ascii_uppercase();
    let is_key = given.trim().contains('\n') || ["AGE-SECRET-KEY-", "AGE-PLUGIN-"].iter().any(|it| upper.contains(it));
    let file = match is_key {
        true => IdentityFile::from_buffer(given.as_bytes()),
        false => IdentityFile::from_file(given.trim().to_owned()),
    };
    let file = file.map_err(|error| match is_key {
        // What a parser says of a wrong text may quote it.
        true => format!("what {IDENTITY} holds cannot be read as identities of age's"),
        false => format!("the file that {IDENTITY} names cannot be read: {:?}", error.kind()),
    })?;
    file.into_identities().map_err(|_| format!("what {IDENTITY} holds or names has no identity that can be used"))
}

/// The values of parameters, each with the name of its secret.
async fn of_ssm<'a>(site: &Site, wanted: &BTreeMap<&'a str, &'a str>) -> Vec<(&'a str, Result<String, Missing>)> {
    let mut parameters: Vec<&str> = wanted.values().copied().collect();
    parameters.sort_unstable();
    parameters.dedup();
    let mut values = BTreeMap::new();
    let mut refused = None;
    for some in parameters.chunks(PARAMETERS_A_CALL) {
        let call = site.clients.ssm.get_parameters().with_decryption(true);
        let asked = call.set_names(Some(some.iter().map(|name| (*name).to_owned()).collect())).send();
        match tokio::time::timeout(Duration::from_secs(60), asked).await {
            Ok(Ok(answer)) => values
                .extend(answer.parameters.unwrap_or_default().into_iter().filter_map(|it| Some((it.name?, it.value?)))),
            Ok(Err(error)) => {
                let error = CloudError::of("read the parameters", error);
                let fix = cloud_error::hint(&error)
                    .unwrap_or("allow ssm:GetParameters (and kms:Decrypt, with a key of your own)");
                refused = Some((error.to_string(), fix.to_owned()));
            }
            Err(_) => refused = Some(("AWS Systems Manager did not answer".into(), "try again".into())),
        }
    }
    let of_one = |parameter: &str| match (values.get(parameter), &refused) {
        (Some(value), _) => Ok(value.clone()),
        (None, Some((why, fix))) => Err(Missing::new(why.clone(), fix.clone())),
        (None, None) => Err(Missing::new(
            format!("there is no parameter {parameter}"),
            format!("make it: `aws ssm put-parameter --type SecureString --name {parameter} --value …`"),
        )),
    };
    wanted.iter().map(|(name, parameter)| (*name, of_one(parameter))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder_with(text: &[u8]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("value"), text).unwrap();
        folder
    }

    #[test]
    fn a_files_only_line_ends_without_its_end_and_a_key_keeps_it() {
        for (text, wanted) in [
            ("hunter2hunter2\n", "hunter2hunter2"),
            ("hunter2hunter2\r\n", "hunter2hunter2"),
            ("hunter2hunter2", "hunter2hunter2"),
            ("BEGIN\nMIIE\nEND\n", "BEGIN\nMIIE\nEND\n"),
        ] {
            let folder = folder_with(text.as_bytes());
            assert_eq!(of_file(folder.path(), Path::new("value")).unwrap(), wanted);
        }
    }

    #[test]
    fn an_identity_is_read_as_it_is_kept_and_never_told() {
        let identity = age::x25519::Identity::generate();
        let key = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        let kept = format!("# created: 2026-11-20T19:05:12Z\n# public key: {}\n{key}\n", identity.to_public());
        assert_eq!(identities_of(&key).unwrap().len(), 1);
        assert_eq!(identities_of(&kept).unwrap().len(), 1);
        let folder = folder_with(kept.as_bytes());
        assert_eq!(identities_of(&folder.path().join("value").display().to_string()).unwrap().len(), 1);
        let broken = &key[..key.len() - 3];
        for wrong in
            [broken.to_owned(), format!("\u{feff}{broken}"), kept.replace(&key, broken), "hunter2hunter2".into()]
        {
            let told = identities_of(&wrong).err().expect("it is wrong");
            assert!(!told.contains(&broken[15..]) && !told.contains("hunter2"), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_handed_over_or_hidden_is_refused_without_being_shown() {
        let refused = |value: &str| {
            let missing = fit(value.to_owned()).unwrap_err();
            let told = format!("{} {}", missing.why, missing.fix);
            assert!(value.is_empty() || !told.contains(value), "{told}");
            told
        };
        assert!(refused("abc12").contains("5 bytes"));
        assert!(refused("").contains("0 bytes"));
        assert!(refused("with\u{1b}[31mescape").contains("control characters"));
        assert!(refused(&"x".repeat(LARGEST + 1)).contains("65537 bytes"));
        assert!(fit("with\ttabs and\nlines".into()).is_ok());
        let folder = folder_with(&[0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa]);
        assert!(of_file(folder.path(), Path::new("value")).unwrap_err().fix.contains("base64"));
        assert!(of_file(folder.path(), Path::new("/dev/zero")).unwrap_err().why.contains("more than 1 MiB"));
    }
}
