//! How long the steps of an environment's runs took, and what that lets one expect of the next.
//!
//! A run that was done leaves one small object, `environments/<environment>/times/<run>.json`, so that nobody has to read
//! whole journals for it. It is a digest of the journal: where there is none yet, the journals are read.

use std::collections::BTreeMap;

use alcedo_pipeline::{
    event::{Outcome, What},
    ids::{RunId, StepId},
    journal::{self, Record},
    plan::{Plan, Stage},
    store::StoreError,
    version::Version,
};
use serde::{Deserialize, Serialize};
use statrs::statistics::{Data, Median};

use crate::site::Site;

/// How many of the newest runs count: enough that one slow run does not, few enough to follow what has changed.
const COUNTED: usize = 5;
/// How many of the newest are kept.
const KEPT: usize = 20;

/// How long each step of one run took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// Version of this format; see [`Times::FORMAT`].
    pub v: u32,
    pub run: RunId,
    pub steps: Vec<Took>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Took {
    /// The step's name without versions: see [`name`].
    pub step: String,
    pub stage: Stage,
    pub seconds: f64,
}

impl Times {
    pub const FORMAT: u32 = 1;

    /// Of a run that was done by one process from its beginning to its end: what was undone, taken up by another or adopted
    /// from it tells nothing of the next run.
    pub fn of(Record { plan, events }: &Record) -> Option<Self> {
        let done = |what: &What| matches!(what, What::RunFinished { outcome: Outcome::Done, .. });
        let taken_up = |what: &What| matches!(what, What::RunResumed { .. });
        if !events.iter().any(|event| done(&event.what)) || events.iter().any(|event| taken_up(&event.what)) {
            return None;
        }
        let steps = events.iter().filter_map(|event| match &event.what {
            What::StepSucceeded { step, seconds, .. } => {
                Some(Took { step: name(step)?, stage: plan.step(step)?.stage, seconds: *seconds })
            }
            _ => None,
        });
        Some(Self { v: Self::FORMAT, run: plan.run.clone(), steps: steps.collect() })
    }

    /// The stages in order, each with the number of its steps and their seconds.
    pub fn stages(&self) -> Vec<(Stage, usize, f64)> {
        let of = |stage| self.steps.iter().filter(move |took| took.stage == stage).map(|took| took.seconds);
        let stages = Stage::ALL.into_iter().map(|stage| (stage, of(stage).count(), of(stage).sum()));
        stages.filter(|(_, steps, _)| *steps > 0).collect()
    }
}

/// What a step is called in every run: one that has a version in its name has a `*` there. `None` where people are waited
/// for: how long they took last time says nothing.
fn name(step: &StepId) -> Option<String> {
    let parts = step.as_str().split('/').map(|part| if part.parse::<Version>().is_ok() { "*" } else { part });
    let name = parts.collect::<Vec<_>>().join("/");
    (!name.starts_with("approve/")).then_some(name)
}

/// How long steps take: of each the median over the last few runs that have done it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    seconds: BTreeMap<String, f64>,
}

impl Expected {
    /// From runs, newest first.
    pub fn from(runs: &[Times]) -> Self {
        let mut all: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
        for run in runs {
            let mut of_run: BTreeMap<&str, f64> = BTreeMap::new();
            // Where a run retires two fleets, it drains twice.
            let mut times: BTreeMap<&str, u32> = BTreeMap::new();
            for took in &run.steps {
                *of_run.entry(&took.step).or_default() += took.seconds;
                *times.entry(&took.step).or_default() += 1;
            }
            for (step, seconds) in of_run {
                let seen = all.entry(step).or_default();
                if seen.len() < COUNTED {
                    seen.push(seconds / f64::from(times[step]));
                }
            }
        }
        Self { seconds: all.into_iter().map(|(step, seen)| (step.to_owned(), Data::new(seen).median())).collect() }
    }

    pub fn step(&self, step: &StepId) -> Option<f64> {
        self.seconds.get(&name(step)?).copied()
    }

    /// Of a stage's steps together; `None` where one of them has never been done.
    pub fn stage(&self, plan: &Plan, stage: Stage) -> Option<f64> {
        plan.steps.iter().filter(|step| step.stage == stage).map(|step| self.step(&step.id)).sum()
    }

    /// Of a whole plan that has steps.
    pub fn whole(&self, plan: &Plan) -> Option<f64> {
        let sum = plan.steps.iter().map(|step| self.step(&step.id)).sum::<Option<f64>>();
        sum.filter(|_| !plan.steps.is_empty())
    }
}

/// The environment's last few runs that were done, newest first. What cannot be read is not there: this is for people who
/// wait, and nothing depends on it.
pub async fn recent(site: &Site) -> Vec<Times> {
    let Ok(kept) = kept(site).await else { return Vec::new() };
    if kept.is_empty() {
        return from_journals(site).await.unwrap_or_default();
    }
    let newest = kept.iter().rev().take(COUNTED).map(|key| async move {
        let object = site.store.read(key).await.ok().flatten()?;
        serde_json::from_slice::<Times>(&object.bytes).ok().filter(|times| times.v == Times::FORMAT)
    });
    futures::future::join_all(newest).await.into_iter().flatten().collect()
}

/// Keeps a run's times, and no more than the newest of others'.
///
/// # Errors
/// The store's.
pub async fn keep(site: &Site, times: &Times) -> Result<(), StoreError> {
    let key = format!("{}{}.json", folder(site), times.run);
    site.store.create(&key, serde_json::to_vec(times).expect("times are JSON")).await?;
    let kept = kept(site).await?;
    for old in kept.iter().take(kept.len().saturating_sub(KEPT)) {
        if let Some(object) = site.store.read(old).await? {
            site.store.remove(old, &object.tag).await?;
        }
    }
    Ok(())
}

fn folder(site: &Site) -> String {
    format!("{}environments/{}/times/", site.root, site.environment)
}

/// Oldest first: a run's name begins with its time.
async fn kept(site: &Site) -> Result<Vec<String>, StoreError> {
    site.store.list(&folder(site)).await
}

async fn from_journals(site: &Site) -> Result<Vec<Times>, StoreError> {
    let runs = journal::runs(site.store.as_ref(), &site.root).await?;
    let newest = runs.iter().take(COUNTED).map(|run| async move {
        let record = journal::read(site.store.as_ref(), &site.root, run).await.ok()?;
        Times::of(&record).filter(|_| record.plan.environment == site.environment)
    });
    Ok(futures::future::join_all(newest).await.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(number: u16, steps: &[(&str, Stage, f64)]) -> Times {
        let took = |(step, stage, seconds): &(&str, Stage, f64)| Took {
            step: name(&StepId::from(*step)).unwrap(),
            stage: *stage,
            seconds: *seconds,
        };
        let run = RunId::new("2026-11-20T19:05:12Z".parse().unwrap(), number);
        Times { v: Times::FORMAT, run, steps: steps.iter().map(took).collect() }
    }

    #[test]
    fn one_slow_run_does_not_count_and_old_runs_do_not_either() {
        let seconds = [4.0, 60.0, 5.0, 3.0, 4.5, 1000.0, 1000.0, 1000.0, 1000.0];
        let runs: Vec<Times> = seconds.iter().map(|it| run(1, &[("bake/builder", Stage::Bake, *it)])).collect();
        assert_eq!(Expected::from(&runs).step(&"bake/builder".into()), Some(4.5));
        assert_eq!(Expected::from(&runs[..2]).step(&"bake/builder".into()), Some(32.0));
        assert_eq!(Expected::from(&[]).step(&"bake/builder".into()), None);
    }

    #[test]
    fn a_run_that_left_the_step_out_says_nothing_of_it() {
        let runs = [run(3, &[]), run(2, &[("build/run", Stage::Build, 8.0)]), run(1, &[])];
        assert_eq!(Expected::from(&runs).step(&"build/run".into()), Some(8.0));
    }

    #[test]
    fn steps_of_other_versions_are_the_same_steps() {
        let first = run(
            1,
            &[
                ("retire/2026.1101.100000/drain", Stage::Retire, 10.0),
                ("retire/2026.1031.100000/drain", Stage::Retire, 20.0),
            ],
        );
        let expected = Expected::from(&[first]);
        assert_eq!(expected.step(&"retire/2026.1120.190512/drain".into()), Some(15.0));
        assert_eq!(name(&"approve/flip".into()), None, "people take as long as they take");
    }
}
