//! `alcedo iam-policy`: what the credentials of a deploy have to be allowed, and who may take a role that is.

use alcedo_stages::{
    execute::RunError,
    iam_policy::{self, GithubSubject, Trust},
};
use clap::{Args, ValueEnum};

use crate::{
    exit_code::ExitCode,
    failure::{Failure, Result},
    problems::of_run,
    session::{Environment, Session},
    signals::Signals,
};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  alcedo iam-policy --env production > alcedo-policy.json
  aws iam put-role-policy --role-name deploy-hello --policy-name alcedo \\
    --policy-document file://alcedo-policy.json
  alcedo iam-policy --trust github --repository octo-org/octo-repo --branch main
  alcedo iam-policy --trust circleci --organization ID --project ID \\
    --origin github.com/octo-org/octo-repo --branch main

The policy is longer than a managed policy may be, and fits into a role's inline policies (10,240 characters).
Names in the file are looked up with the credentials of whoever runs this. What IAM cannot limit is in docs/security.md.")]
pub struct Arguments {
    #[command(flatten)]
    environment: Environment,
    /// Print the trust policy of a role for this CI instead
    #[arg(long, value_name = "CI", value_enum)]
    trust: Option<Ci>,
    /// GitHub: the repository, as `owner/name`, or `owner@id/name@id` where its tokens have ids
    #[arg(long, value_name = "NAME", requires = "trust")]
    repository: Option<String>,
    /// The branch whose jobs may deploy
    #[arg(long, value_name = "NAME", requires = "trust")]
    branch: Option<String>,
    /// GitHub: the environment that deploying jobs name; their tokens name it in the branch's place
    #[arg(long, value_name = "NAME", requires = "trust", conflicts_with = "branch")]
    github_environment: Option<String>,
    /// CircleCI: the organization's id
    #[arg(long, value_name = "ID", requires = "trust")]
    organization: Option<String>,
    /// CircleCI: the project's id
    #[arg(long, value_name = "ID", requires = "trust")]
    project: Option<String>,
    /// CircleCI: the repository, such as github.com/octo-org/octo-repo
    #[arg(long, value_name = "NAME", requires = "trust")]
    origin: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ci {
    Github,
    Circleci,
}

pub fn run(arguments: &Arguments, session: &Session) -> Result {
    let trust = arguments.trust.map(|ci| arguments.trust_in(ci)).transpose()?;
    session.block_on(async {
        let signals = Signals::listen()?;
        signals.or_stop(print(arguments, trust.as_ref(), session)).await
    })
}

async fn print(arguments: &Arguments, trust: Option<&Trust>, session: &Session) -> Result {
    let site = session.site(&arguments.environment).await?;
    let failed = |error| of_run(&RunError::Facts(error));
    let document = match trust {
        None => iam_policy::policy(&site).await.map_err(failed)?,
        Some(trust) => iam_policy::trust_policy(&site, trust).await.map_err(failed)?,
    };
    // The policy is the answer, in whatever form it was asked for.
    let text = serde_json::to_string_pretty(&document).expect("a policy is JSON");
    session.output.text(&format!("{text}\n"));
    Ok(ExitCode::DONE)
}

impl Arguments {
    fn trust_in(&self, ci: Ci) -> Result<Trust> {
        let needs = |name: &str, value: &Option<String>| {
            value.clone().filter(|value| !value.is_empty()).ok_or_else(|| {
                Failure::usage(format!("a token's subject has more in it: add --{name}"))
                    .hint("alcedo iam-policy --help shows a whole line for each CI")
            })
        };
        Ok(match ci {
            Ci::Github => Trust::Github {
                repository: needs("repository", &self.repository)?,
                subject: match &self.github_environment {
                    Some(name) => GithubSubject::Environment(name.clone()),
                    None => GithubSubject::Branch(needs("branch", &self.branch)?),
                },
            },
            Ci::Circleci => Trust::Circleci {
                organization: needs("organization", &self.organization)?,
                project: needs("project", &self.project)?,
                origin: needs("origin", &self.origin)?,
                branch: needs("branch", &self.branch)?,
            },
        })
    }
}
