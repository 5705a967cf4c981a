//! One run, from the request to the summary: what `deploy`, `rollback` and `resume` have in common.

use std::time::Duration;

use alcedo_pipeline::{event::Outcome, journal::Record, recovery::Wish, report::Report, runner::Direction};
use alcedo_stages::{
    execute::{Notice, Order, Prepared, RunError, TakenUp, prepare, take_up},
    facts::{self, Request, public_url},
    last_resort, logs,
    site::Site,
    times::{self, Expected, Times},
    traffic,
};
use clap::Args;
use jiff::Timestamp;
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    output::Output,
    problems::of_run,
    render::{
        Show,
        files::{Files, Opened},
        summary::Aftermath,
    },
    session::{Environment, Session},
    signals::Signals,
    watchdog::Watchdog,
    words::moment,
};

/// For CloudWatch's answer at the end of a run.
const TRAFFIC_WITHIN: Duration = Duration::from_secs(5);
/// For the bucket to take the log.
const LOG_WITHIN: Duration = Duration::from_secs(10);
/// For the bucket to tell how long earlier runs took, once everything else is ready.
const EXPECTED_WITHIN: Duration = Duration::from_secs(2);

/// `--wait`, where a command takes the environment's lock.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Patience {
    /// Wait this long for another run to end, such as 90s, 10m or 1h [default: do not wait]
    #[arg(long, value_name = "DURATION", value_parser = span, default_value = "0s", hide_default_value = true)]
    wait: Duration,
}

impl Patience {
    pub const fn patience(self) -> Duration {
        self.wait
    }
}

pub fn span(text: &str) -> std::result::Result<Duration, String> {
    text.parse::<alcedo_pipeline::units::Span>().map(|span| span.duration()).map_err(|error| error.to_string())
}

/// How a run is wanted, beside what it is to do.
#[derive(Debug, Clone, Default)]
pub struct Manner {
    pub patience: Patience,
    pub files: Files,
    /// A failure after traffic has begun to move leaves it where it is.
    pub freeze: bool,
}

/// Does what is asked in one environment, shows it, and says how it ended.
pub fn run(session: &Session, environment: &Environment, manner: &Manner, request: &Request, reason: &str) -> Result {
    let Manner { patience, files, freeze } = manner;
    let files = files.open()?;
    session.block_on(async {
        let mut signals = Signals::listen()?;
        let site = signals.or_stop(session.site(environment)).await?;
        let output = session.output;
        let tell = |notice: Notice| tell(&output, &notice);
        let stop = signals.stop().clone();
        let order = Order { reason, patience: patience.wait, stop: &stop, tell: &tell };
        let earlier = Earlier::ask(&site);
        let mut prepared = prepare(&site, request, &order).await.map_err(|error| stopped_or(&signals, &error))?;
        prepared.plan.freeze = *freeze;
        execute(session, &site, prepared, earlier, &mut signals, files).await
    })
}

/// How long earlier runs took: asked for while the run is prepared, and not waited for beyond that.
struct Earlier(JoinHandle<Vec<Times>>);

impl Earlier {
    fn ask(site: &Site) -> Self {
        let site = site.clone();
        Self(tokio::spawn(async move { times::recent(&site).await }))
    }

    async fn expected(mut self) -> Expected {
        let told = tokio::time::timeout(EXPECTED_WITHIN, &mut self.0).await;
        self.0.abort();
        let runs = match told {
            Ok(Ok(runs)) => runs,
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        Expected::from(&runs)
    }
}

/// Goes on with a run that has not come to its end, one way or the other.
pub fn take_up_run(
    session: &Session,
    environment: &Environment,
    manner: &Manner,
    run: Option<&alcedo_pipeline::ids::RunId>,
    wish: Wish,
) -> Result {
    let Manner { patience, files, .. } = manner;
    let files = files.open()?;
    session.block_on(async {
        let mut signals = Signals::listen()?;
        let site = signals.or_stop(session.swept_site(environment)).await?;
        let output = session.output;
        let tell = |notice: Notice| tell(&output, &notice);
        let stop = signals.stop().clone();
        let earlier = Earlier::ask(&site);
        let reason = if wish == Wish::GoBack { "rollback of a run" } else { "resume" };
        let order = Order { reason, patience: patience.wait, stop: &stop, tell: &tell };
        match take_up(&site, run, wish, &order).await.map_err(|error| stopped_or(&signals, &error))? {
            TakenUp::Ready(prepared) => {
                let code = execute(session, &site, *prepared, earlier, &mut signals, files).await?;
                // It was asked to be undone, and is: that is no interruption.
                let undone = wish == Wish::GoBack && code == ExitCode::FAILED;
                Ok(if undone { ExitCode::DONE } else { code })
            }
            TakenUp::NeverBegan(run) => {
                session
                    .output
                    .text(&format!("run {run} died before it had changed anything; there is nothing left to do\n"));
                Ok(ExitCode::DONE)
            }
            TakenUp::Ended(plan, outcome) => {
                let how = match outcome {
                    Outcome::Done => "is done",
                    Outcome::Unwound | Outcome::Interrupted => "is undone",
                    Outcome::Superseded => "was settled by a later run",
                    Outcome::Stuck => "is stuck",
                };
                session.output.text(&format!("run {} {how}; there is nothing left to do\n", plan.run));
                Ok(ExitCode::DONE)
            }
        }
    })
}

/// What is to be known before the run itself is shown.
pub fn tell(output: &Output, notice: &Notice) {
    let text = match notice {
        Notice::Waiting(lease) => {
            format!("waiting for {}: {}, run {}, since {}", lease.holder, lease.reason, lease.run, moment(lease.since))
        }
        Notice::TookOver(lease, _) => {
            format!("took over the lock of {}, run {}: its process has ended", lease.holder, lease.run)
        }
        Notice::Settling { run, direction: Direction::Back } => {
            format!("undoing run {run}, which had not come to its end")
        }
        Notice::Settling { run, direction: Direction::Forward } => {
            format!("finishing run {run}, which had not come to its end")
        }
        Notice::Settled { run, outcome } => {
            let how = match outcome {
                Outcome::Unwound | Outcome::Interrupted => "undone",
                Outcome::Superseded => "settled: its version stays in service",
                Outcome::Done | Outcome::Stuck => "finished",
            };
            format!("run {run} is {how}")
        }
        Notice::Swept(what) => what.clone(),
    };
    output.note(&format!("{text}\n"));
}

fn stopped_or(signals: &Signals, error: &RunError) -> Failure {
    match (error, signals.first()) {
        (RunError::Stopped, Some(signal)) => {
            Failure::new(ExitCode::of_signal(signal), format!("stopped by {signal} before anything was changed"))
        }
        _ => of_run(error),
    }
}

async fn execute(
    session: &Session,
    site: &Site,
    prepared: Prepared,
    earlier: Earlier,
    signals: &mut Signals,
    files: Opened,
) -> Result {
    if let Some(signal) = signals.first() {
        prepared.abandon().await.map_err(|error| of_run(&error))?;
        let message = format!("stopped by {signal} before anything was changed");
        return Err(Failure::new(ExitCode::of_signal(signal), message));
    }
    let mut show = Show::new(session.output, &prepared.plan, signals.pipe(), prepared.secrets());
    show.expect(earlier.expected().await);
    let plan = prepared.plan.clone();
    let watchdog = match last_resort::is_needed(&plan) {
        false => None,
        true => match Watchdog::start(session, &site.environment, &plan.run, &prepared.lease().nonce) {
            Ok(watchdog) => Some(watchdog),
            Err(error) => {
                let what =
                    format!("warning: no watchdog: {error}; if this process is killed, the next command closes SSH");
                session.output.note(&format!("{what}\n"));
                None
            }
        },
    };
    prepared.history().iter().for_each(|event| show.recall(event));
    let (sender, mut events) = mpsc::unbounded_channel();
    let run = prepared.run(sender, signals.stop().clone());
    let ending = show.follow(run, &mut events, &mut signals.received).await.map_err(|error| of_run(&error))?;
    // A run that was stopped in the middle is not calm: dropped, the watchdog looks after what is open.
    if let Some(watchdog) = watchdog {
        watchdog.calm();
    }
    let record = Record { plan, events: show.take_kept() };
    let report = Report::of(&record);
    let log = keep_log(session, site, &record, show.take_log());
    let (traffic, (), ()) = tokio::join!(traffic(site, &record), log, keep_times(site, &record));
    // Where it answers is told if it can be known; the run has ended either way.
    let url = match ending.outcome {
        Outcome::Done => facts::balancer(site).await.ok().map(|balancer| public_url(&site.pipeline, &balancer)),
        _ => None,
    };
    let aftermath = Aftermath { url, bucket: Some(site.bucket().to_owned()), traffic };
    show.write(files, &report, &aftermath);
    show.close(&report, &aftermath);
    Ok(ExitCode::of_run(ending.outcome, signals.first()))
}

/// Keeps what was shown, for `alcedo logs`. The run has ended either way.
async fn keep_log(session: &Session, site: &Site, record: &Record, (began, text): (Timestamp, String)) {
    let kept = tokio::time::timeout(LOG_WITHIN, logs::keep(site, &record.plan.run, began, text)).await;
    let why = match kept {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("the bucket took longer than {} s", LOG_WITHIN.as_secs()),
    };
    session.output.note(&format!("warning: the run's log was not kept: {why}\n"));
}

/// Keeps how long the steps took, for whoever waits for the next run. Nothing depends on it.
async fn keep_times(site: &Site, record: &Record) {
    if let Some(times) = Times::of(record) {
        let _ = tokio::time::timeout(LOG_WITHIN, times::keep(site, &times)).await;
    }
}

/// What visitors saw of the flip, with the picture kept beside the run. It can be told later as well, or never: that is no
/// reason to keep anybody waiting, or to fail.
async fn traffic(site: &Site, record: &Record) -> Option<String> {
    let told = async {
        let traffic = traffic::of_run(site, &record.plan, &record.events).await.ok().flatten()?;
        let kept = traffic::keep(site, &record.plan, &traffic).await;
        let picture = kept.map(|place| format!("{place}\n")).unwrap_or_default();
        Some(format!("{}{picture}", traffic.text()))
    };
    tokio::time::timeout(TRAFFIC_WITHIN, told).await.ok().flatten()
}
