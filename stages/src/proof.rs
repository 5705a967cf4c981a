//! What answers at the balancer, as the only word on whether a change of its listener has arrived.
//!
//! AWS publishes no bound for how long a balancer node may lag behind a change, and nodes switch one after another. So
//! every node is asked until a whole quiet period has gone by without a wrong answer; each wrong one starts it anew.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    units::Span,
    wait::{Look, Wait},
};
use alcedo_smoke_tests::same_version;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::probes::{Answers, FrontDoor, Known};

/// Time between two rounds of probes.
const PROBE_EVERY: Duration = Duration::from_millis(100);

/// How a change is proven.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    pub front_door: FrontDoor,
    pub quiet: Span,
    pub timeout: Span,
}

/// What the probes have seen so far.
struct Seen {
    rounds: u64,
    /// Since when no answer was wrong.
    quiet_since: Option<Instant>,
}

impl Proof {
    /// Waits until this version, and nothing else, answers at every node.
    pub async fn only(&self, context: &StepContext, version: &str) -> Result<Value, StepError> {
        self.watch(context, &format!("only {version} to answer"), |answer| match answer {
            Ok(there) if same_version(there, version) => None,
            Ok(there) => Some(format!("still answers {there}")),
            Err(why) => Some(why.clone()),
        })
        .await
    }

    /// Waits until this version answers at no node. What answers in its place is not judged: on the way back from a bad
    /// version, anything is better than waiting for it.
    pub async fn no_more(&self, context: &StepContext, version: &str) -> Result<Value, StepError> {
        self.watch(context, &format!("{version} to answer no more"), |answer| match answer {
            Ok(there) if same_version(there, version) => Some(format!("still answers {there}")),
            _ => None,
        })
        .await
    }

    async fn watch(
        &self,
        context: &StepContext,
        what: &str,
        wrong: impl Fn(&Result<String, String>) -> Option<String>,
    ) -> Result<Value, StepError> {
        if self.front_door.version.is_none() {
            return self.pass_the_time(context).await;
        }
        let begun = Instant::now();
        let seen = Mutex::new(Seen { rounds: 0, quiet_since: None });
        let known = Known::default();
        let wait = Wait::new(PROBE_EVERY, self.timeout.duration());
        wait.until(context, what, || async {
            let asked = Instant::now();
            let answers = match self.front_door.ask(&BTreeMap::new(), &known).await {
                Ok(answers) if !answers.is_empty() => answers,
                Ok(_) => return Ok(Look::NotYet("the balancer has no address yet".into())),
                // A name that does not resolve for a moment is no answer, good or bad.
                Err(error) => return Ok(Look::NotYet(error.message)),
            };
            let first_wrong = answers.iter().find_map(|(node, answer)| Some((node, wrong(answer)?)));
            let mut seen = seen.lock().expect("no panic while it is held");
            seen.rounds += 1;
            Ok(match first_wrong {
                Some((node, why)) => {
                    seen.quiet_since = None;
                    Look::NotYet(format!("{}; {node}: {why}", in_words(&answers)))
                }
                None if seen.quiet_since.get_or_insert(asked).elapsed() >= self.quiet.duration() => Look::Ready(()),
                None => Look::NotYet(format!("every node answers as it should, for {} to go by", self.quiet)),
            })
        })
        .await?;
        let rounds = seen.lock().expect("no panic while it is held").rounds;
        Ok(json!({ "proven": true, "rounds": rounds, "seconds": begun.elapsed().as_secs_f64() }))
    }

    /// Nothing tells which version answers: the quiet period goes by, and that is all that can be said.
    async fn pass_the_time(&self, context: &StepContext) -> Result<Value, StepError> {
        context.warn(
            format!("nothing tells which version answers, so {} go by for the balancer's nodes", self.quiet),
            Some("set flip.version so that a flip can be proven".into()),
        );
        tokio::select! {
            biased;
            () = context.cancellation().cancelled() => Err(StepError::new(ErrorKind::Interrupted, "interrupted")),
            () = tokio::time::sleep(self.quiet.duration()) => Ok(json!({ "proven": false })),
        }
    }
}

/// How many nodes each version answers at: `2026.1.2 at 3, 2026.1.1 at 1 of 4 nodes`.
fn in_words(answers: &Answers) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, answer) in answers {
        *counts.entry(answer.as_deref().unwrap_or("nothing")).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().rev().map(|(version, nodes)| format!("{version} at {nodes}")).collect();
    format!("{} of {} nodes", counts.join(", "), answers.len())
}
