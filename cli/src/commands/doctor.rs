//! `alcedo doctor`

use alcedo_stages::doctor::{self, Finding, Verdict, findings};
use clap::Args;
use serde_json::json;

use crate::{
    exit_code::ExitCode,
    failure::Result,
    output::Paint,
    session::{Environment, Session},
    signals::Signals,
    words::clean,
};

#[derive(Debug, Args)]
#[command(after_help = "\
It changes nothing on AWS. Exit code 1 if a deploy could not work.

Examples:
  alcedo doctor
  alcedo doctor --env production")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    session.block_on(async {
        let signals = Signals::listen()?;
        let look = async {
            let site = match session.site(&arguments.environment).await {
                Ok(site) => site,
                // A file that is wrong, or an environment that it does not have, is no finding.
                Err(failure) if failure.code == ExitCode::USAGE => return Err(failure),
                Err(failure) => {
                    let detail = failure.causes.iter().fold(failure.message, |all, cause| format!("{all}: {cause}"));
                    return Ok(vec![doctor::engine().await, Finding::bad("region", detail, failure.hints)]);
                }
            };
            let findings = findings(&site).await;
            // Without credentials, or without what the file names, that is the news.
            if findings.iter().all(|finding| finding.verdict != Verdict::Bad) {
                session.sweep(&site).await;
            }
            Ok(findings)
        };
        let findings = signals.or_stop(look).await?;
        let bad = findings.iter().any(|finding| finding.verdict == Verdict::Bad);
        if session.output.is_json() {
            session.output.json(&json!({ "v": 1, "ready": !bad, "findings": findings }));
        } else {
            session.output.text(&describe(&findings, session.output.paint_stdout));
        }
        Ok(if bad { ExitCode::FAILED } else { ExitCode::DONE })
    })
}

fn describe(findings: &[Finding], paint: Paint) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Good => paint.green("ok  "),
            Verdict::Warning => paint.yellow("warn"),
            Verdict::Bad => paint.red("fail"),
        };
        text.push_str(&format!("{mark}  {:<width$}  {}\n", finding.subject, clean(&finding.detail)));
        for fix in &finding.fix {
            text.push_str(&format!("      {:<width$}  fix: {}\n", "", clean(fix)));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    match (count(Verdict::Bad), count(Verdict::Warning)) {
        (0, 0) => text.push_str("\neverything that a deploy needs is there\n"),
        (0, warnings) => text.push_str(&format!("\na deploy can work; {warnings} to look at\n")),
        (bad, _) => text.push_str(&format!("\na deploy cannot work yet: {bad} to mend\n")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_stands_with_its_fix() {
        let finding = |subject, verdict, detail: &str, fix: &[&str]| Finding {
            subject,
            verdict,
            detail: detail.to_owned(),
            fix: fix.iter().map(ToString::to_string).collect(),
        };
        let findings = [
            finding("engine", Verdict::Good, "answers at unix:///var/run/docker.sock", &[]),
            finding("clock", Verdict::Warning, "90 s from the endpoint's", &["synchronise it"]),
            finding("security groups", Verdict::Bad, "there is no group web", &["create it", "or name another"]),
        ];
        insta::assert_snapshot!(describe(&findings, Paint::PLAIN), @"
        ok    engine           answers at unix:///var/run/docker.sock
        warn  clock            90 s from the endpoint's
                               fix: synchronise it
        fail  security groups  there is no group web
                               fix: create it
                               fix: or name another

        a deploy cannot work yet: 1 to mend
        ");
    }
}
