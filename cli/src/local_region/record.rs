//! `region.json`: the server that runs, for every other command.

use std::{fs, io, time::Duration};

use alcedo_stages::clients::LocalEndpoint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    folder::{Folder, write_private},
    settings::Profile,
};
use crate::failure::{Failure, Result};

/// A loopback answer takes milliseconds; a machine that is short of processors may need seconds.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

/// Version of `region.json`.
pub const FORMAT: u32 = 1;

/// A server that has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    pub pid: u32,
    /// `http://127.0.0.1:4599`.
    pub endpoint: String,
    pub access_key: String,
    pub secret_key: String,
    pub region: String,
    pub name: String,
    pub profile: Profile,
    pub started: Timestamp,
}

impl Record {
    /// What was last written; whether that server still runs is another question.
    pub fn read(folder: &Folder) -> Result<Option<Self>> {
        let path = folder.record();
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
                Failure::failed(format!("{} is damaged", path.display()))
                    .because(&error)
                    .hint("end `alcedo region serve` by hand if it runs, and remove the file")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::failed(format!("{} cannot be read", path.display())).because(&error)),
        }
    }

    pub fn write(&self, folder: &Folder) -> Result<()> {
        let text = serde_json::to_string_pretty(self).expect("a record is JSON");
        write_private(&folder.record(), &format!("{text}\n"))
    }

    pub fn remove(folder: &Folder) {
        // Where it cannot be removed, the free `serve.lock` tells that it is out of date.
        let _ = fs::remove_file(folder.record());
    }

    /// The server that runs now and answers, if one does.
    pub async fn running(folder: &Folder) -> Result<Option<Self>> {
        if !folder.exists() || folder.lock_server()?.is_some() {
            return Ok(None);
        }
        let Some(record) = Self::read(folder)? else { return Ok(None) };
        Ok(record.health().await.is_some().then_some(record))
    }

    /// What the server says of itself; `None` where it does not answer as this local region does.
    pub async fn health(&self) -> Option<serde_json::Value> {
        // Loopback is never behind a proxy, whatever the environment says.
        let client = reqwest::Client::builder().no_proxy().timeout(HEALTH_DEADLINE).build().ok()?;
        let answer = client.get(format!("{}/health", self.endpoint)).send().await.ok()?;
        let answer: serde_json::Value = answer.error_for_status().ok()?.json().await.ok()?;
        (answer["name"] == self.name).then_some(answer)
    }

    /// As the SDK's clients take it.
    pub fn local_endpoint(&self) -> LocalEndpoint {
        LocalEndpoint {
            url: self.endpoint.clone(),
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            secret_key: self.secret_key.clone(),
        }
    }
}
