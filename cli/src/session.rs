//! What every command is handed: the global options, the output, and a runtime for those that need one.

use std::path::PathBuf;

use alcedo_pipeline::{file::Pipeline, validate::PipelineFile};
use alcedo_stages::{rehearsal, site::Site, sweep};
use clap::{ArgAction, Args, ValueHint};

use crate::{
    failure::{Failure, Result},
    local_region::{
        folder::Folder,
        record::Record,
        settings::Wishes,
        start::{Started, start},
    },
    logging,
    output::{Choice, Output},
    problems::of_rehearsal,
    project, secrecy,
};

/// What `aws.endpoint` says for the local region.
const LOCAL: &str = "local";

/// Options that every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Use this pipeline file [default: alcedo.yaml here or in the nearest folder above]
    #[arg(short = 'f', long = "file", global = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Choose how things are shown
    #[arg(long, global = true, value_enum, default_value_t = Choice::Auto, value_name = "FORM")]
    pub output: Choice,
    /// Log to stderr what happens inside; -vv and -vvv log more
    #[arg(short = 'v', long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Write no colours; so does the variable NO_COLOR
    #[arg(long, global = true)]
    pub no_color: bool,
}

/// `--env`, where a command is about one environment.
#[derive(Debug, Args)]
pub struct Environment {
    /// Choose an environment of the file [default: its default_environment, or the only one]
    #[arg(long = "env", short = 'e', value_name = "NAME")]
    pub name: Option<String>,
}

/// One execution of `alcedo`.
pub struct Session {
    pub output: Output,
    file: Option<PathBuf>,
}

impl Session {
    pub fn new(global: Global) -> Self {
        if global.verbose > 0 {
            logging::of_command(global.verbose);
        }
        Self { output: Output::new(global.output, global.no_color, global.verbose > 0), file: global.file }
    }

    /// Runs a command's asynchronous part.
    ///
    /// # Errors
    /// The command's own, or that this machine gives no more threads.
    pub fn block_on<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed("the machine gives no threads or no events").because(&error))?;
        let result = runtime.block_on(work);
        // A name lookup that hangs in a thread of its own must not keep the process.
        runtime.shutdown_background();
        result
    }

    /// The same for a process that mostly waits, in as little memory as that takes.
    ///
    /// # Errors
    /// As [`Session::block_on`].
    pub fn block_on_one_thread<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed("the machine gives no events").because(&error))?;
        let result = runtime.block_on(work);
        runtime.shutdown_background();
        result
    }

    /// Where the pipeline file is meant to be.
    pub fn file(&self) -> Option<&std::path::Path> {
        self.file.as_deref()
    }

    /// Reads the pipeline file.
    ///
    /// # Errors
    /// There is none, or something is wrong with it.
    pub fn pipeline_file(&self) -> Result<PipelineFile> {
        project::read(self.file(), &self.output)
    }

    /// Connects one environment of the file; where its endpoint is the local region, starts that if it does not run.
    ///
    /// # Errors
    /// The file, the environment or the local region; nothing of AWS is asked yet.
    pub async fn site(&self, environment: &Environment) -> Result<Site> {
        let file = self.pipeline_file()?;
        let (name, pipeline) = project::environment(&file, environment.name.as_deref())?;
        self.guard(&pipeline);
        if pipeline.aws.endpoint.as_deref() != Some(LOCAL) {
            let site = Site::connect(pipeline, name, file.folder.clone(), None).await;
            logging::clean_of(&site.redactor);
            return Ok(site);
        }
        let local = self.local_region().await?.record.local_endpoint();
        let site = Site::connect(pipeline, name, file.folder.clone(), Some(&local)).await;
        logging::clean_of(&site.redactor);
        let made = rehearsal::prepare(&site).await.map_err(|error| of_rehearsal(&error))?;
        if !made.is_empty() {
            self.output.note(&format!("made in the local region what the file names: {}\n", made.join(", ")));
        }
        Ok(site)
    }

    fn guard(&self, pipeline: &Pipeline) {
        if let Err(error) = secrecy::guard(pipeline) {
            self.output.note(&format!("warning: a crash could write secrets to a core dump: {error}\n"));
        }
    }

    /// The same, once what a run that died has left open is closed; every command that only looks begins so, and says it.
    ///
    /// # Errors
    /// As [`Session::site`]. That something could not be closed is a warning: it is not what was asked for.
    pub async fn swept_site(&self, environment: &Environment) -> Result<Site> {
        let site = self.site(environment).await?;
        self.sweep(&site).await;
        Ok(site)
    }

    /// Closes what a run that died has left open, and says it.
    pub async fn sweep(&self, site: &Site) {
        match sweep::overdue(site).await {
            Ok(ended) => ended.iter().for_each(|what| self.output.note(&format!("{what}\n"))),
            Err(error) => {
                self.output.note(&format!("warning: nobody looked whether anything was left open: {error}\n"));
            }
        }
    }

    /// The same, where nothing may be started or made for it.
    ///
    /// # Errors
    /// The file or the environment; a local region that does not run.
    pub async fn site_as_it_is(&self, environment: &Environment) -> Result<Site> {
        let file = self.pipeline_file()?;
        let (name, pipeline) = project::environment(&file, environment.name.as_deref())?;
        self.guard(&pipeline);
        let local = match pipeline.aws.endpoint.as_deref() {
            Some(LOCAL) => {
                let record = Record::running(&Folder::find()?).await?;
                let record = record.ok_or_else(|| Failure::failed("the local region does not run"))?;
                Some(record.local_endpoint())
            }
            _ => None,
        };
        let site = Site::connect(pipeline, name, file.folder.clone(), local.as_ref()).await;
        logging::clean_of(&site.redactor);
        Ok(site)
    }

    /// The local region, started if it does not run.
    async fn local_region(&self) -> Result<Started> {
        let started = start(&Folder::find()?, &Wishes::default()).await?;
        if !started.already {
            let endpoint = &started.record.endpoint;
            self.output.note(&format!("started the local region at {endpoint}; alcedo region stop ends it\n"));
        }
        Ok(started)
    }
}
