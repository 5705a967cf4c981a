//! `alcedo plan`

use alcedo_pipeline::{
    plan::{Plan, Stage},
    report::StageReport,
    version::Version,
};
use alcedo_stages::{
    costs, execute,
    facts::Request,
    site::Site,
    times::{self, Expected},
};
use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::Result,
    problems::of_run,
    session::{Environment, Session},
    signals::Signals,
    words::seconds,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Signs: + makes, - removes, ~ changes, ? looks or waits, = is left out and why. After \"because\": which input of the stage is not
that of the version in service.

Examples:
  alcedo plan --env production
  alcedo plan --rollback
  alcedo plan --output json")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Plan the deploy of a published version, or with --rollback the way back to it
    #[arg(long, value_name = "VERSION")]
    version: Option<Version>,
    /// Plan a rollback instead of a deploy
    #[arg(long)]
    rollback: bool,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let request = match (arguments.rollback, arguments.version) {
        (false, version) => Request::Deploy { version },
        (true, to) => Request::Rollback { to },
    };
    session.block_on(async {
        let signals = Signals::listen()?;
        let site = signals.or_stop(session.swept_site(&arguments.environment)).await?;
        let plan = async { execute::plan(&site, &request).await.map_err(|error| of_run(&error)) };
        let (plan, _) = signals.or_stop(plan).await?;
        let estimate = Estimate::of(&site, &plan).await;
        if session.output.is_json() {
            let mut json = json!(plan);
            json["estimate"] = json!(estimate);
            session.output.json(&json);
        } else {
            session.output.text(&format!("{plan}{}", estimate.text()));
        }
        Ok(ExitCode::DONE)
    })
}

/// What it would cost, and how long it took last time.
#[derive(Debug, Serialize)]
struct Estimate {
    /// US dollars an hour that green costs beside blue; `None` where there is no green, or nobody knows the type's price.
    green_hourly: Option<f64>,
    servers: u32,
    instance_type: String,
    /// Seconds of the stages of the newest run that had all of them and came to its end.
    last_time: Vec<StageReport>,
    /// Seconds of the whole plan by the medians of the last few runs; `None` where some step was in none of them.
    expected_seconds: Option<f64>,
}

impl Estimate {
    async fn of(site: &Site, plan: &Plan) -> Self {
        let launch = &site.pipeline.launch;
        let launches = plan.steps.iter().any(|step| step.stage == Stage::Launch);
        let each = costs::an_hour_of_instance(&launch.instance_type).filter(|_| launches);
        let runs = times::recent(site).await;
        let stages = plan.stages();
        let like = runs.iter().map(times::Times::stages).find(|theirs| {
            let has = |stage: &Stage| theirs.iter().any(|(there, ..)| there == stage);
            !stages.is_empty() && stages.iter().all(has)
        });
        let last_time = like.unwrap_or_default().into_iter();
        Self {
            green_hourly: each.map(|each| each * f64::from(launch.count)),
            servers: launch.count,
            instance_type: launch.instance_type.clone(),
            last_time: last_time.map(|(stage, steps, seconds)| StageReport { stage, steps, seconds }).collect(),
            expected_seconds: Expected::from(&runs).whole(plan),
        }
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if let Some(hourly) = self.green_hourly {
            let (count, kind) = (self.servers, &self.instance_type);
            text += &format!("costs      {count} × {kind} beside blue, ${hourly:.2} an hour until blue is retired\n");
            text += "           (on-demand list price in us-east-1, without volumes and traffic)\n";
        }
        if !self.last_time.is_empty() {
            let stages = self.last_time.iter().map(|it| format!("{} {}", it.stage, seconds(it.seconds)));
            text += &format!("last time  {}\n", stages.collect::<Vec<_>>().join(", "));
        }
        if let Some(whole) = self.expected_seconds {
            text += &format!("takes      about {}, as the last few runs did\n", seconds(whole));
        }
        text
    }
}
