//! A steady stream of requests, as clients with open connections send it, and what came back.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::Value;
use ureq::Agent;

/// Clients that send at the same time, each over a connection that it keeps open.
const CLIENTS: usize = 4;
/// Each client's pause between an answer and its next request.
const PAUSE: Duration = Duration::from_millis(15);
/// An answer that takes longer counts as lost.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How many failures are kept with their reason.
const FAILURES_SHOWN: usize = 5;

/// Requests that are being sent until [`Traffic::stop`].
pub struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
    answers: mpsc::Receiver<Answer>,
}

struct Answer {
    at: Instant,
    version: Result<String, String>,
}

/// What a stream of requests saw.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub failed: u64,
    /// The first few failures' reasons.
    pub reasons: Vec<String>,
    pub versions: BTreeMap<String, Seen>,
}

/// When one version answered.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub answers: u64,
    pub first: Instant,
    pub last: Instant,
}

impl Traffic {
    /// Begins to ask `url` for `/version`.
    pub fn start(url: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, answers) = mpsc::channel();
        let clients = (0..CLIENTS)
            .map(|_| {
                let (stop, sender, url) = (Arc::clone(&stop), sender.clone(), format!("{url}/version"));
                thread::spawn(move || {
                    let agent = agent();
                    while !stop.load(Ordering::Relaxed) {
                        let version = ask(&agent, &url);
                        let answer = Answer { at: Instant::now(), version };
                        if sender.send(answer).is_err() {
                            return;
                        }
                        thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        Self { stop, clients, answers }
    }

    /// Ends the stream; every request that was sent is waited for and counted.
    pub fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client does not panic");
        }
        let mut tally = Tally::default();
        self.answers.into_iter().for_each(|answer| tally.count(answer));
        tally
    }
}

impl Tally {
    fn count(&mut self, answer: Answer) {
        self.sent += 1;
        match answer.version {
            Ok(version) => {
                let at = answer.at;
                let seen = self.versions.entry(version).or_insert(Seen { answers: 0, first: at, last: at });
                seen.answers += 1;
                seen.first = seen.first.min(at);
                seen.last = seen.last.max(at);
            }
            Err(reason) => {
                self.failed += 1;
                if self.reasons.len() < FAILURES_SHOWN {
                    self.reasons.push(reason);
                }
            }
        }
    }

    /// From `moment` until `version` had given its last answer; zero where it gave none after it.
    pub fn time_until_last(&self, version: &str, moment: Instant) -> Duration {
        self.versions.get(version).map_or(Duration::ZERO, |seen| seen.last.saturating_duration_since(moment))
    }
}

/// The version that answers at `url` now.
///
/// # Errors
/// Why there was no such answer.
pub fn version_at(url: &str) -> Result<String, String> {
    ask(&agent(), &format!("{url}/version"))
}

fn agent() -> Agent {
    Agent::config_builder()
        .timeout_global(Some(REQUEST_DEADLINE))
        // Requests go to this machine, whatever proxy the user's environment names.
        .proxy(None)
        .build()
        .into()
}

fn ask(agent: &Agent, url: &str) -> Result<String, String> {
    let text = agent
        .get(url)
        .call()
        .and_then(|mut answer| answer.body_mut().read_to_string())
        .map_err(|error| error.to_string())?;
    let body: Value = serde_json::from_str(&text).map_err(|_| format!("an answer that is not JSON: {text:?}"))?;
    body["version"].as_str().map(str::to_owned).ok_or_else(|| format!("an answer without a version: {text:?}"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Write},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers "1", then "2" from the tenth request on, with status 500 for the fifth, over connections
    /// that stay open.
    fn server() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let count = Arc::new(std::sync::atomic::AtomicU64::new(0));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, count) = (stream.unwrap(), Arc::clone(&count));
                thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    while let Some(Ok(line)) = lines.next() {
                        if !line.is_empty() {
                            continue;
                        }
                        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                        let status = if number == 5 { "500 Internal Server Error" } else { "200 OK" };
                        let body = if number < 10 { r#"{"version":"1"}"# } else { r#"{"version":"2"}"# };
                        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                    }
                });
            }
        });
        url
    }

    #[test]
    fn every_request_is_counted_by_the_version_that_answered() {
        let url = server();
        let traffic = Traffic::start(&url);
        while version_at(&url).unwrap_or_default() != "2" {
            thread::sleep(Duration::from_millis(5));
        }
        let started = Instant::now();
        while started.elapsed() < PAUSE * 3 {
            thread::sleep(PAUSE);
        }
        let tally = traffic.stop();
        let answered: u64 = tally.versions.values().map(|seen| seen.answers).sum();
        assert_eq!(tally.sent, answered + tally.failed);
        assert!(tally.failed <= 1, "{:?}", tally.reasons);
        assert!(tally.versions["2"].answers > 0);
        assert!(tally.time_until_last("2", started) > Duration::ZERO);
        assert_eq!(tally.time_until_last("3", started), Duration::ZERO);
    }

    #[test]
    fn refused_connections_and_strange_answers_are_failures_with_reasons() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(version_at(&format!("http://{free}")).is_err());

        let url = server();
        let failures: Vec<String> = (0..9).filter_map(|_| version_at(&url).err()).collect();
        assert_eq!(failures.len(), 1);
        assert!(failures[0].contains("500"), "{failures:?}");
    }
}
