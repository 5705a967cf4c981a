//! Faults on demand: what AWS does to a client on a bad day, at exactly the call that is meant.
//!
//! A [`Fault`] names the calls that it strikes and what happens to them, before their effect or after it. A test adds
//! faults through [`Faults`]; any other program over HTTP, see `faults_api.rs`. Nothing strikes unless it was asked for.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock::Clock;

/// How many calls the log keeps; older ones are forgotten.
const LOGGED: usize = 100_000;

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    #[serde(default)]
    pub on: Calls,
    #[serde(default)]
    pub when: When,
    pub effect: Effect,
}

/// Which calls are struck: all of these have to fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Calls {
    /// `ec2`, `elasticloadbalancing`, `s3` or `sts`.
    pub service: Option<String>,
    /// By AWS's name: `RunInstances`, `PutObject`.
    pub operation: Option<String>,
    /// Only calls that may change something.
    pub changing: bool,
    /// Only calls whose path or parameters have this in them: a bucket's key, an id.
    pub about: Option<String>,
    /// Leaves this many of them alone first.
    pub skip: u64,
    /// Strikes this many, then no more.
    pub times: Option<u64>,
}

/// Whether the call has had its effect when it is struck.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    #[default]
    Before,
    After,
}

/// What happens to a call that is struck.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// It is answered with an error. The status is AWS's for such a code where none is given: 503 for throttling and
    /// unavailability, 500 for internal errors, else 400.
    Error {
        code: String,
        #[serde(default)]
        status: Option<u16>,
    },
    /// The credentials have expired, as each service says it.
    ExpiredCredentials,
    /// The connection is closed without an answer.
    LoseAnswer,
    /// It takes longer, by this many milliseconds.
    Delay { milliseconds: u64 },
    /// It is not answered until the fault is removed, and then as if nothing had been.
    Hold,
}

/// One call, as it was logged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Call {
    pub at: Timestamp,
    pub service: &'static str,
    pub operation: String,
    /// S3: the path of the bucket or key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    pub changing: bool,
    /// The HTTP status; `None` where the connection was closed instead.
    pub status: Option<u16>,
}

/// A fault with what has become of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    pub id: u64,
    #[serde(flatten)]
    pub fault: Fault,
    /// Calls that it would have struck, those that it skipped among them.
    pub seen: u64,
    pub struck: u64,
}

/// The faults of one region, and its log of calls.
#[derive(Debug)]
pub struct Faults {
    inside: Mutex<Inside>,
    /// Counts changes, for whoever waits for one.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Inside {
    next: u64,
    standing: Vec<Standing>,
    log: VecDeque<Call>,
}

/// What a call says of itself before it is answered.
#[derive(Debug, Clone)]
pub(crate) struct Asked<'a> {
    pub service: &'static str,
    pub operation: &'a str,
    /// Path, query and parameters: what [`Calls::about`] is looked for in.
    pub about: &'a str,
}

impl Asked<'_> {
    pub(crate) fn is_changing(&self) -> bool {
        !["Describe", "Get", "List", "Head", "Lookup"].iter().any(|verb| self.operation.starts_with(verb))
    }
}

/// What is to be done with a call now.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Strike {
    Error { code: String, status: u16 },
    LoseAnswer,
}

impl Default for Faults {
    fn default() -> Self {
        Self { inside: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Faults {
    /// Adds a fault, which strikes from now on. Answers its number.
    pub fn add(&self, fault: Fault) -> u64 {
        let id = {
            let mut inside = self.inside();
            inside.next += 1;
            let id = inside.next;
            inside.standing.push(Standing { id, fault, seen: 0, struck: 0 });
            id
        };
        self.tell();
        id
    }

    /// Removes a fault; calls that it held go on. Answers whether there was one.
    pub fn remove(&self, id: u64) -> bool {
        let there = {
            let mut inside = self.inside();
            let before = inside.standing.len();
            inside.standing.retain(|fault| fault.id != id);
            inside.standing.len() < before
        };
        self.tell();
        there
    }

    /// Removes all faults.
    pub fn clear(&self) {
        self.inside().standing.clear();
        self.tell();
    }

    pub fn standing(&self) -> Vec<Standing> {
        self.inside().standing.clone()
    }

    /// The calls so far, oldest first.
    pub fn calls(&self) -> Vec<Call> {
        self.inside().log.iter().cloned().collect()
    }

    /// Begins the log of calls anew.
    pub fn forget_calls(&self) {
        self.inside().log.clear();
    }

    /// Waits until a fault has struck this often. Ends as well where the fault is removed.
    pub async fn struck(&self, id: u64, times: u64) {
        let mut changed = self.changed.subscribe();
        // The sender lives in `self`, so that the wait cannot fail.
        let _ = changed.wait_for(|_| self.find(id).is_none_or(|fault| fault.struck >= times)).await;
    }

    fn find(&self, id: u64) -> Option<Standing> {
        self.inside().standing.iter().find(|fault| fault.id == id).cloned()
    }

    /// What strikes a call at this moment. Delays and holds have passed when this answers.
    pub(crate) async fn strike(&self, asked: &Asked<'_>, when: When, clock: &dyn Clock) -> Option<Strike> {
        let effects = self.hit(asked, when);
        let mut answer = None;
        for (id, effect) in effects {
            match effect {
                Effect::Delay { milliseconds } => {
                    let span = Duration::from_millis(milliseconds);
                    clock.sleep_until(clock.now().saturating_add(span).unwrap_or(Timestamp::MAX)).await;
                }
                Effect::Hold => {
                    let mut changed = self.changed.subscribe();
                    let _ = changed.wait_for(|_| self.find(id).is_none()).await;
                }
                Effect::LoseAnswer => answer = Some(Strike::LoseAnswer),
                Effect::Error { code, status } => {
                    let status = status.unwrap_or_else(|| status_of(&code));
                    answer = Some(Strike::Error { code, status });
                }
                Effect::ExpiredCredentials => {
                    let (code, status) = match asked.service {
                        "ec2" => ("RequestExpired", 400),
                        "s3" => ("ExpiredToken", 400),
                        _ => ("ExpiredToken", 403),
                    };
                    answer = Some(Strike::Error { code: code.to_owned(), status });
                }
            }
        }
        answer
    }

    /// Counts a call against every fault that it fits; answers the effects of those that strike it.
    fn hit(&self, asked: &Asked<'_>, when: When) -> Vec<(u64, Effect)> {
        let mut struck = Vec::new();
        {
            let mut inside = self.inside();
            for standing in inside.standing.iter_mut().filter(|it| it.fault.when == when && it.fault.on.fits(asked)) {
                standing.seen += 1;
                let over = standing.fault.on.times.is_some_and(|times| standing.struck >= times);
                if standing.seen > standing.fault.on.skip && !over {
                    standing.struck += 1;
                    struck.push((standing.id, standing.fault.effect.clone()));
                }
            }
        }
        if !struck.is_empty() {
            self.tell();
        }
        struck
    }

    pub(crate) fn log(&self, at: Timestamp, asked: &Asked<'_>, status: Option<u16>) {
        let mut inside = self.inside();
        if inside.log.len() == LOGGED {
            inside.log.pop_front();
        }
        inside.log.push_back(Call {
            at,
            service: asked.service,
            operation: asked.operation.to_owned(),
            path: (asked.service == "s3").then(|| asked.about.split('?').next().unwrap_or_default().to_owned()),
            changing: asked.is_changing(),
            status,
        });
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Calls {
    fn fits(&self, asked: &Asked<'_>) -> bool {
        self.service.as_ref().is_none_or(|service| service == asked.service)
            && self.operation.as_ref().is_none_or(|operation| operation == asked.operation)
            && (!self.changing || asked.is_changing())
            && self.about.as_ref().is_none_or(|about| asked.about.contains(about.as_str()))
    }
}

/// The HTTP status that AWS answers with such a code (EC2, ELB and S3 API references, *Error codes*).
fn status_of(code: &str) -> u16 {
    match code {
        "RequestLimitExceeded" | "Unavailable" | "ServiceUnavailable" | "SlowDown" => 503,
        "InternalError" | "InternalFailure" | "InsufficientInstanceCapacity" => 500,
        "UnauthorizedOperation" | "AccessDenied" | "InvalidAccessKeyId" | "SignatureDoesNotMatch" => 403,
        "PreconditionFailed" => 412,
        "ConditionalRequestConflict" => 409,
        "NoSuchKey" | "NoSuchBucket" => 404,
        _ => 400,
    }
}

/// S3's name for a request, as far as the region has the operation: S3 says it by method and query alone.
pub(crate) fn s3_operation(method: &http::Method, uri: &http::Uri) -> &'static str {
    let query = uri.query().unwrap_or_default();
    let asks = |name: &str| query.split('&').any(|pair| pair.split('=').next() == Some(name));
    let has_key = uri.path().trim_start_matches('/').split_once('/').is_some_and(|(_, key)| !key.is_empty());
    match (method.as_str(), has_key) {
        ("GET", true) if asks("uploadId") => "ListParts",
        ("GET", true) => "GetObject",
        ("HEAD", true) => "HeadObject",
        ("PUT", true) if asks("partNumber") => "UploadPart",
        ("PUT", true) => "PutObject",
        ("POST", true) if asks("uploads") => "CreateMultipartUpload",
        ("POST", true) if asks("uploadId") => "CompleteMultipartUpload",
        ("DELETE", true) if asks("uploadId") => "AbortMultipartUpload",
        ("DELETE", true) => "DeleteObject",
        ("GET", false) if uri.path() == "/" => "ListBuckets",
        ("GET", false) if asks("uploads") => "ListMultipartUploads",
        ("GET", false) => "ListObjectsV2",
        ("HEAD", false) => "HeadBucket",
        ("PUT", false) => "CreateBucket",
        ("DELETE", false) => "DeleteBucket",
        ("POST", false) if asks("delete") => "DeleteObjects",
        _ => "Unknown",
    }
}
