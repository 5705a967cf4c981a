//! Watching green while it shares the traffic, and in the hold: what is looked at, and when it is a breach.
//!
//! **Probes**, in each round: which version answers at every balancer node, through green's preview while both versions
//! serve, and as a visitor in the hold; and how many of green's servers the balancer finds healthy. So many bad rounds in a
//! row as the file says are a breach ([`crate::rounds`]).
//! **Numbers**, at a few moments: how many requests of each version have failed, how long they took, and how many the
//! balancer has failed itself, by its metrics ([`crate::metrics`]); [`crate::verdict`] says what they mean. While both serve,
//! green is compared with blue in the same span of time; in the hold, with blue in the [`BASELINE`] before it.
//! **Smoke tests**: those that a visitor could make, again, at the end of each share and at each look in the hold.
//! **Guarantee.** A breach is an error with the numbers; whoever runs the step puts the traffic back. A share that had too
//! few requests to be judged, or whose numbers could not be read, is not passed.
//! **Caveat.** What the probes do not ask, and the metrics do not show yet, is not seen.

use std::{collections::BTreeMap, time::Duration};

use alcedo_pipeline::{
    context::StepContext,
    error::{ErrorKind, StepError},
    file,
    suite::Check,
    units::Span,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    clients::Clients,
    cloud_error::CloudError,
    compare::Sample,
    flip::Group,
    metrics::{self, Measured, Numbers},
    probes::{FrontDoor, Known},
    rounds::{Seen, Way},
    site::Site,
    smoke,
    verdict::{self, Compared, Verdict},
};

/// A span is looked at by its numbers at most so often: each look has its share of the level.
const MOST_LOOKS: u32 = 10;
/// No closer to each other than this: metrics come by the minute.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Where a share has had too few requests to be judged, it is looked at again after this long.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// What green is compared with when blue has no traffic any more: blue's requests before the flip.
const BASELINE: SignedDuration = SignedDuration::from_mins(15);

/// What green is judged by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judge {
    pub front_door: FrontDoor,
    /// Green's version, which must be the one that answers.
    pub version: String,
    pub green: Group,
    /// What green is compared with; `None`: nothing of ours was in service.
    pub blue: Option<String>,
    /// The balancer, by ARN.
    pub balancer: String,
    /// Where probes reach green whatever its share, and with which headers. In the hold they come in as visitors do.
    pub preview_door: FrontDoor,
    pub preview_headers: BTreeMap<String, String>,
    /// Green must keep this many healthy servers.
    pub healthy_minimum: u32,
    /// Looks at the numbers that the whole run may take: each has this part of the level of false alarms.
    pub looks: u32,
    pub settings: file::Watch,
    /// The file's smoke tests, of which those that a visitor could make are made again.
    pub checks: Vec<Check>,
}

/// What green's numbers are compared with: measured once, before green had them.
struct Baseline {
    /// Where blue has no traffic any more; otherwise it is measured beside green.
    blue: Option<Measured>,
    balancer: Sample,
}

/// The requests of each version so far, read anew by the minute for whoever watches. Nothing is judged by it.
struct Live {
    reads: bool,
    next: Instant,
    words: Option<String>,
}

impl Live {
    fn new(reads: bool) -> Self {
        Self { reads, next: Instant::now() + LOOK_EVERY, words: None }
    }

    async fn refresh(&mut self, judge: &Judge, clients: &Clients, context: &StepContext, since: Timestamp) {
        if !self.reads || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + LOOK_EVERY;
        // What cannot be read is told where it is judged by; what is only shown keeps no probe waiting.
        let reading = tokio::time::timeout(GLANCE, judge.numbers(clients, context, true, since));
        let Ok(Ok(numbers)) = reading.await else { return };
        let seconds = context.now().duration_since(since).as_secs_f64().max(1.0);
        let of = |name: &str, Measured { sample, .. }: &Measured| {
            #[expect(clippy::cast_precision_loss, reason = "a rate that people read")]
            let rate = sample.requests as f64 / seconds;
            format!("{name} {rate:.1}/s, {} failed ({:.2} %)", sample.failed, sample.failure_rate())
        };
        let words: Vec<String> =
            ["green", "blue"].iter().zip(&numbers.groups).map(|(name, measured)| of(name, measured)).collect();
        self.words = (!words.is_empty()).then(|| words.join(", "));
    }
}

/// How long numbers that are only shown may be waited for.
const GLANCE: Duration = Duration::from_secs(1);

/// Looks that a span of watching takes.
pub fn looks_in(span: Span) -> u32 {
    u32::try_from(span.duration().as_secs() / LOOK_EVERY.as_secs()).unwrap_or(MOST_LOOKS).clamp(1, MOST_LOOKS)
}

impl Judge {
    /// Watches green with a share of the traffic.
    ///
    /// # Errors
    /// A breach, too few requests to judge by, or an interruption.
    pub async fn share(&self, site: &Site, context: &StepContext, share: u8, pause: Span) -> Result<(), StepError> {
        let about = format!("with {share} % of the traffic");
        let way = (&self.preview_door, &self.preview_headers);
        let since = context.now();
        let (begun, mut seen) = (Instant::now(), Seen::beginning_now());
        let (looks, pause) = (looks_in(pause), pause.duration());
        let (mut judged, mut next, mut last) = (0, pause / looks, None);
        let baseline = match self.settings.metrics {
            true => Some(self.baseline(&site.clients, since, false).await?),
            false => None,
        };
        let mut live = Live::new(self.settings.metrics);
        loop {
            self.one_round(&site.clients, context, way, &mut seen, &about).await?;
            live.refresh(self, &site.clients, context, since).await;
            let passed = begun.elapsed();
            let over = passed >= pause;
            if over && baseline.is_none() {
                return self.suite(site, context, way, &about).await;
            }
            // The last look is at the end, or as soon as there is enough to look at.
            if let Some(baseline) = &baseline
                && passed >= next
                && (over || judged + 1 < looks)
            {
                match self.look(&site.clients, context, baseline, since).await? {
                    Verdict::Worse(why) => return Err(self.breach(&about, &why)),
                    Verdict::Good(what) => {
                        context.output_line(format!("{about}: {what}"));
                        if over {
                            return self.suite(site, context, way, &about).await;
                        }
                        judged += 1;
                        next = (passed + pause / looks).min(pause);
                        last = Some(what);
                    }
                    Verdict::TooFew(sample) => {
                        self.check_patience(passed, pause, sample, &about)?;
                        next = passed + LOOK_AGAIN.min(pause / looks);
                        let (had, needed) = (sample.requests, self.settings.requests);
                        last = Some(format!("{had} of {needed} requests, too few to judge by"));
                    }
                }
            }
            context.waiting(left(&about, pause, passed, [seen.in_words(), live.words.clone(), last.clone()]));
            self.sleep(context, &seen, &about).await?;
        }
    }

    fn check_patience(&self, passed: Duration, pause: Duration, sample: Sample, about: &str) -> Result<(), StepError> {
        if passed < pause + self.settings.patience.duration() {
            return Ok(());
        }
        let (had, needed) = (sample.requests, self.settings.requests);
        let message =
            format!("the sample is too small: {had} requests went to {} {about}, {needed} are needed", self.version);
        Err(StepError::new(ErrorKind::TimedOut, message)
            .hint("lower watch.requests, give the share a longer pause or more patience, or begin with a larger share"))
    }

    /// Watches green with all of the traffic.
    ///
    /// # Errors
    /// A breach, or an interruption.
    pub async fn hold(&self, site: &Site, context: &StepContext, span: Span) -> Result<Value, StepError> {
        let about = "in the hold";
        let way = (&self.front_door, &BTreeMap::new());
        let since = context.now();
        let (begun, mut seen) = (Instant::now(), Seen::beginning_now());
        let look = span.duration() / looks_in(span);
        let (mut next_look, mut last) = (look, None);
        // All traffic is with green, proven. That nobody can read the numbers is no reason to move it.
        let tell = |error: StepError| context.warn(error.message, error.hints.first().cloned());
        let baseline = match self.settings.metrics && self.blue.is_some() {
            true => self.baseline(&site.clients, since, true).await.map_err(tell).ok(),
            false => None,
        };
        let mut live = Live::new(self.settings.metrics);
        loop {
            self.one_round(&site.clients, context, way, &mut seen, about).await?;
            live.refresh(self, &site.clients, context, since).await;
            let passed = begun.elapsed();
            if passed >= next_look {
                next_look = passed + look;
                self.suite(site, context, way, about).await?;
                if let Some(baseline) = &baseline {
                    match self.look(&site.clients, context, baseline, since).await {
                        Ok(Verdict::Worse(why)) => return Err(self.breach(about, &why)),
                        Ok(Verdict::Good(what)) => last = Some(what),
                        Ok(Verdict::TooFew(_)) => {}
                        Err(error) => tell(error),
                    }
                }
            }
            if passed >= span.duration() {
                return Ok(json!({ "rounds": seen.rounds, "numbers": last }));
            }
            context.waiting(left(about, span.duration(), passed, [seen.in_words(), live.words.clone(), last.clone()]));
            self.sleep(context, &seen, about).await?;
        }
    }

    /// What is wrong with green's answers now, asked for through its preview; nothing, where nothing tells its version.
    pub async fn asked_through_preview(&self, known: &Known) -> Option<String> {
        match self.preview_door.ask(&self.preview_headers, known).await {
            Ok(answers) => self.wrong(&answers),
            Err(error) => Some(error.message),
        }
    }

    /// Watches green, through its preview and by its servers' health, for as long as nothing is wrong with it. Answers the
    /// breach, or the interruption.
    pub async fn until_bad(&self, clients: &Clients, context: &StepContext, about: &str) -> StepError {
        self.bad(clients, context, (&self.preview_door, &self.preview_headers), about).await
    }

    /// The same as visitors see it, who all come to green.
    pub async fn until_bad_to_visitors(&self, clients: &Clients, context: &StepContext, about: &str) -> StepError {
        self.bad(clients, context, (&self.front_door, &BTreeMap::new()), about).await
    }

    async fn bad(&self, clients: &Clients, context: &StepContext, way: Way<'_>, about: &str) -> StepError {
        let mut seen = Seen::beginning_now();
        loop {
            let round = async {
                self.one_round(clients, context, way, &mut seen, about).await?;
                // Whoever waits beside this says what for; nothing is said over it as long as all is well.
                if seen.is_bad() {
                    context
                        .waiting([about.to_owned()].into_iter().chain(seen.in_words()).collect::<Vec<_>>().join("; "));
                }
                self.sleep(context, &seen, about).await
            };
            if let Err(error) = round.await {
                return error;
            }
        }
    }

    async fn sleep(&self, context: &StepContext, seen: &Seen, about: &str) -> Result<(), StepError> {
        tokio::select! {
            biased;
            () = context.cancellation().cancelled() => {
                Err(StepError::new(ErrorKind::Interrupted, format!("interrupted {about}")))
            }
            () = tokio::time::sleep_until(seen.next) => Ok(()),
        }
    }

    pub(crate) fn breach(&self, about: &str, why: &str) -> StepError {
        StepError::failed(format!("{} went bad {about}: {why}", self.version))
    }

    /// The smoke tests that a visitor could make, again.
    async fn suite(
        &self,
        site: &Site,
        context: &StepContext,
        (door, headers): Way<'_>,
        about: &str,
    ) -> Result<(), StepError> {
        let version = &self.version;
        let report = smoke::through_balancer(site, context, (door, headers), version, &self.checks, &|_| {}).await?;
        let failures: Vec<String> = smoke::in_words(&report).collect();
        match failures.is_empty() {
            true => Ok(()),
            false => {
                let why = format!("{} of {} smoke tests failed", failures.len(), report.results.len());
                Err(smoke::because_of_all(self.breach(about, &why), failures))
            }
        }
    }

    /// What there was before green had the traffic that is judged from `since` on.
    async fn baseline(&self, clients: &Clients, since: Timestamp, of_blue: bool) -> Result<Baseline, StepError> {
        let before = since.saturating_sub(BASELINE).unwrap_or(Timestamp::MIN);
        let groups: Vec<&str> = self.blue.as_deref().filter(|_| of_blue).into_iter().collect();
        let numbers = metrics::between(clients, &self.balancer, &groups, (before, since)).await.map_err(unreadable)?;
        Ok(Baseline { blue: numbers.groups.first().copied(), balancer: numbers.balancer })
    }

    /// Compares the numbers since a moment.
    async fn look(
        &self,
        clients: &Clients,
        context: &StepContext,
        baseline: &Baseline,
        since: Timestamp,
    ) -> Result<Verdict, StepError> {
        let numbers = self.numbers(clients, context, baseline.blue.is_none(), since).await?;
        let of = |at: usize| numbers.groups.get(at).copied();
        let compared = Compared {
            green: of(0).unwrap_or_default(),
            blue: baseline.blue.or_else(|| of(1)).unwrap_or_default(),
            balancer_before: baseline.balancer,
            balancer_since: numbers.balancer,
        };
        Ok(verdict::of(&compared, &self.settings, self.looks))
    }

    /// Green's numbers since a moment, and blue's beside them.
    async fn numbers(
        &self,
        clients: &Clients,
        context: &StepContext,
        with_blue: bool,
        since: Timestamp,
    ) -> Result<Numbers, StepError> {
        let green = self.green.arn(context)?;
        let blue = self.blue.as_deref().filter(|_| with_blue);
        let groups: Vec<&str> = std::iter::once(green.as_str()).chain(blue).collect();
        metrics::between(clients, &self.balancer, &groups, (since, context.now())).await.map_err(unreadable)
    }
}

fn unreadable(error: CloudError) -> StepError {
    StepError::from(error).hint("allow cloudwatch:GetMetricData, or judge by probes alone: watch: { metrics: false }")
}

/// What people see while they wait: how long still, and what is known.
fn left(about: &str, span: Duration, passed: Duration, known: [Option<String>; 3]) -> String {
    let left = Span::from(Duration::from_secs(span.saturating_sub(passed).as_secs()));
    let known: String = known.into_iter().flatten().map(|known| format!("; {known}")).collect();
    format!("{about}, {left} left{known}")
}
