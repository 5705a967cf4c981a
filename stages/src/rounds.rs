//! Rounds of probes: which version answers at every balancer node, and how many of green's servers are healthy.
//!
//! While all is well each node is asked once a round, one after another over the round's time, so that what goes wrong is met
//! soon. A bad answer ends the round at once. The next comes a whole round's time after that answer, and asks every node
//! several times together: a balancer that spreads requests over a sick server and a well one would else let the round pass by
//! chance. One bad answer of so many can have any reason, so it takes [`CONFIRMING`] to make such a round bad.

use std::{collections::BTreeMap, time::Duration};

use alcedo_pipeline::{context::StepContext, error::StepError};
use alcedo_smoke_tests::same_version;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::Instant;

use crate::{
    clients::Clients,
    judge::Judge,
    launch,
    probes::{Asked, FrontDoor, Known},
};

/// Time between two looks at the health of green's servers, as long as nothing is wrong: the balancer itself looks no more
/// often than that.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// A round that follows a bad one asks each node so often, and all of them together at least so often.
const AGAIN: usize = 3;
const AGAIN_IN_ALL: usize = 8;
/// So many of its answers must be bad: where one of two servers is sick, 96 of 100 such rounds of eight have them; where one
/// request of a thousand fails for other reasons, three of 100,000.
const CONFIRMING: usize = 2;

/// How probes come in.
pub type Way<'a> = (&'a FrontDoor, &'a BTreeMap<String, String>);

/// What was seen so far.
pub struct Seen {
    pub rounds: u64,
    /// Answers to probes, and the bad ones among them.
    answers: u64,
    bad_answers: u64,
    /// Bad rounds in a row.
    bad: u32,
    health: Option<Health>,
    known: Known,
    /// When the next round begins.
    pub next: Instant,
}

/// What one round of probes saw.
enum Round {
    Good,
    Bad(String),
    Unknown,
}

/// The servers' health when it was last looked at.
#[derive(Clone)]
struct Health {
    at: Instant,
    /// `None` where it could not be read.
    healthy: Option<usize>,
    wrong: Option<String>,
}

impl Seen {
    pub fn beginning_now() -> Self {
        Self {
            rounds: 0,
            answers: 0,
            bad_answers: 0,
            bad: 0,
            health: None,
            known: Known::default(),
            next: Instant::now(),
        }
    }

    pub fn is_bad(&self) -> bool {
        self.bad > 0
    }

    /// Healthy servers and bad answers.
    pub fn in_words(&self) -> Option<String> {
        let healthy =
            self.health.as_ref().and_then(|health| health.healthy).map(|healthy| format!("{healthy} healthy"));
        let probes = (self.answers > 0).then(|| format!("{} of {} probes bad", self.bad_answers, self.answers));
        let words: Vec<String> = healthy.into_iter().chain(probes).collect();
        (!words.is_empty()).then(|| words.join("; "))
    }
}

impl Judge {
    /// # Errors
    /// It is the last of so many bad rounds in a row that they are a breach.
    pub(crate) async fn one_round(
        &self,
        clients: &Clients,
        context: &StepContext,
        way: Way<'_>,
        seen: &mut Seen,
        about: &str,
    ) -> Result<(), StepError> {
        seen.rounds += 1;
        seen.next = Instant::now() + self.settings.every.duration();
        match self.probe(clients, context, way, seen).await? {
            Round::Good => seen.bad = 0,
            Round::Unknown => {}
            Round::Bad(wrong) => {
                seen.bad += 1;
                if seen.bad >= self.settings.bad_rounds {
                    return Err(self.breach(about, &format!("{wrong} ({} rounds in a row)", seen.bad)));
                }
                seen.next = Instant::now() + self.settings.every.duration();
            }
        }
        Ok(())
    }

    async fn probe(
        &self,
        clients: &Clients,
        context: &StepContext,
        way: Way<'_>,
        seen: &mut Seen,
    ) -> Result<Round, StepError> {
        let last = seen.health.take();
        let sick_already = last.as_ref().is_some_and(|last| last.wrong.is_some());
        let health = self.health(clients, context, last);
        let answers = async {
            match seen.bad {
                // The health of the servers speaks for itself.
                _ if sick_already => Ok((0, 0, None)),
                0 => self.one_by_one(way, &seen.known).await,
                _ => self.together(way, &seen.known).await,
            }
        };
        let (answers, health) = futures::join!(answers, health);
        let health = health?;
        let sick = health.wrong.clone();
        seen.health = Some(health);
        if let Ok((all, bad, _)) = &answers {
            seen.answers += all;
            seen.bad_answers += bad;
        }
        Ok(match (answers, sick) {
            (_, Some(sick)) => Round::Bad(sick),
            // A name that does not resolve here for a moment says nothing of green.
            (Err(error), None) => {
                context.waiting(error.message);
                Round::Unknown
            }
            (Ok((_, _, wrong)), None) => wrong.map_or(Round::Good, Round::Bad),
        })
    }

    /// Asks each node, one after another within a round's time, up to the first bad answer. Answers how many there were, how
    /// many of them bad, and what is wrong.
    async fn one_by_one(
        &self,
        (door, headers): Way<'_>,
        known: &Known,
    ) -> Result<(u64, u64, Option<String>), StepError> {
        let Some(asking) = door.asking(headers, known)? else { return Ok((0, 0, None)) };
        let nodes = door.nodes().await?;
        let apart = self.settings.every.duration() / u32::try_from(nodes.len().max(1)).unwrap_or(u32::MAX);
        let mut asked: FuturesUnordered<_> = (0_u32..)
            .zip(nodes)
            .map(|(at, node)| {
                let asking = &asking;
                async move {
                    tokio::time::sleep(apart * at).await;
                    asking.ask(node).await
                }
            })
            .collect();
        let mut all = 0;
        while let Some(answer) = asked.next().await {
            all += 1;
            if let Some(wrong) = self.wrong_of(&answer?) {
                return Ok((all, 1, Some(wrong)));
            }
        }
        Ok((all, 0, None))
    }

    /// Asks every node several times at once.
    async fn together(&self, (door, headers): Way<'_>, known: &Known) -> Result<(u64, u64, Option<String>), StepError> {
        let Some(asking) = door.asking(headers, known)? else { return Ok((0, 0, None)) };
        let nodes = door.nodes().await?;
        let times = AGAIN.max(AGAIN_IN_ALL.div_ceil(nodes.len().max(1)));
        let asked = nodes.iter().flat_map(|node| std::iter::repeat_n(*node, times)).map(|node| asking.ask(node));
        let mut asked: FuturesUnordered<_> = asked.collect();
        let (mut all, mut bad) = (0, 0);
        while let Some(answer) = asked.next().await {
            all += 1;
            if let Some(wrong) = self.wrong_of(&answer?) {
                bad += 1;
                // Answers that are still out may take until their deadline.
                if bad >= CONFIRMING {
                    return Ok((all, bad as u64, Some(wrong)));
                }
            }
        }
        Ok((all, bad as u64, None))
    }

    pub(crate) fn wrong(&self, answers: &[Asked]) -> Option<String> {
        answers.iter().find_map(|answer| self.wrong_of(answer))
    }

    fn wrong_of(&self, (node, answer): &Asked) -> Option<String> {
        match answer {
            Ok(version) if same_version(version, &self.version) => None,
            Ok(version) => Some(format!("{node} answers {version}")),
            Err(why) => Some(format!("{node}: {why}")),
        }
    }

    /// What is wrong with green's servers; a good finding counts for a while, a bad one is looked at again.
    async fn health(
        &self,
        clients: &Clients,
        context: &StepContext,
        last: Option<Health>,
    ) -> Result<Health, StepError> {
        if let Some(last) = last
            && last.wrong.is_none()
            && last.at.elapsed() < HEALTH_EVERY
        {
            return Ok(last);
        }
        let group = self.green.arn(context)?;
        let at = Instant::now();
        let health = match launch::target_health(clients, &group).await {
            Ok(health) => health,
            // Not to see is not to see something bad: a control plane that does not answer leaves the traffic as it is.
            Err(error) => {
                context.warn(format!("the health of green's servers cannot be read: {error}"), None);
                return Ok(Health { at, healthy: None, wrong: None });
            }
        };
        let healthy = launch::count_healthy(&health);
        let wrong = (healthy < self.healthy_minimum as usize)
            .then(|| format!("{healthy} of its servers are healthy, {} are needed", self.healthy_minimum));
        Ok(Health { at, healthy: Some(healthy), wrong })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use alcedo_pipeline::file::{VersionProbe, Watch};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::flip::Group;

    const VERSION: &str = "2026.1120.190512";

    /// Nodes that answer with the version, but for those requests that are bad, by their number.
    async fn nodes(count: u8, bad: fn(usize) -> bool) -> (Judge, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let status = if bad(counted.fetch_add(1, Relaxed)) { "500 Sick" } else { "200 OK" };
                tokio::spawn(async move {
                    let _ = stream.read(&mut [0; 1024]).await;
                    let length = VERSION.len();
                    let answer =
                        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{VERSION}");
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        let front_door = FrontDoor {
            url: format!("http://localhost:{port}/"),
            addresses: (1..=count).map(|node| format!("127.0.0.{node}")).collect(),
            version: Some(VersionProbe { path: "/version".into(), json: None }),
        };
        let judge = Judge {
            front_door: front_door.clone(),
            version: VERSION.into(),
            green: Group::Made,
            blue: None,
            balancer: String::new(),
            preview_door: front_door,
            preview_headers: BTreeMap::new(),
            healthy_minimum: 1,
            looks: 1,
            settings: Watch { every: "1s".parse().unwrap(), ..Watch::default() },
            checks: Vec::new(),
        };
        (judge, asked)
    }

    #[tokio::test]
    async fn all_nodes_are_asked_within_a_round_and_a_bad_answer_ends_it() {
        let headers = BTreeMap::new();
        let (judge, asked) = nodes(4, |_| false).await;
        let begun = Instant::now();
        assert_eq!(judge.one_by_one((&judge.front_door, &headers), &Known::default()).await.unwrap(), (4, 0, None));
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(750) && asked.load(Relaxed) == 4, "{took:?}");

        let (judge, _) = nodes(4, |asked| asked == 1).await;
        let (all, bad, wrong) = judge.one_by_one((&judge.front_door, &headers), &Known::default()).await.unwrap();
        assert_eq!((all, bad), (2, 1));
        assert!(wrong.unwrap().contains("500"));
    }

    /// Every second request meets the sick server: wherever one falls, there are enough.
    #[tokio::test]
    async fn a_bad_round_is_confirmed_where_one_server_of_two_is_sick() {
        let headers = BTreeMap::new();
        for count in 1..=4 {
            let (judge, _) = nodes(count, |asked| asked % 2 == 0).await;
            let (_, bad, wrong) = judge.together((&judge.front_door, &headers), &Known::default()).await.unwrap();
            assert_eq!(bad, 2, "at {count} nodes");
            assert!(wrong.is_some());
        }
    }

    #[tokio::test]
    async fn one_bad_answer_of_many_confirms_nothing() {
        let headers = BTreeMap::new();
        for (count, asks) in [(1, 8), (2, 8), (3, 9), (4, 12)] {
            let (judge, _) = nodes(count, |asked| asked == 3).await;
            assert_eq!(
                judge.together((&judge.front_door, &headers), &Known::default()).await.unwrap(),
                (asks, 1, None)
            );
        }
    }
}
