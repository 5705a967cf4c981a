//! Log lines on stderr, for whoever looks into Alcedo itself.

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use alcedo_pipeline::secret::Redactor;
use tracing_subscriber::EnvFilter;

/// Says what is logged in `tracing`'s own words, whatever the command line says.
const VARIABLE: &str = "ALCEDO_LOG";

/// `-v`: what Alcedo does; `-vv`: its details; `-vvv`: everything, with every call to the cloud.
pub fn of_command(verbose: u8) {
    start(match verbose {
        1 => "warn,alcedo=info,alcedo_pipeline=info,alcedo_stages=info,alcedo_images=info,alcedo_smoke_tests=info",
        2 => "info,alcedo=debug,alcedo_pipeline=debug,alcedo_stages=debug,alcedo_images=debug,alcedo_smoke_tests=debug",
        _ => "debug,hyper=info,hyper_util=info,rustls=info",
    });
}

/// What log lines are cleaned of, once a command has found its secrets.
static REDACTOR: OnceLock<Redactor> = OnceLock::new();

/// Cleans what is logged from now on of whatever this redactor knows, or learns.
pub fn clean_of(redactor: &Redactor) {
    let _ = REDACTOR.set(redactor.clone());
}

/// A text without the secrets that are known.
pub fn clean(text: &str) -> String {
    REDACTOR.get().map_or_else(|| text.to_owned(), |redactor| redactor.clean(text).into_owned())
}

/// One line of the log: the subscriber writes each in one piece.
struct Clean;

impl Write for Clean {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match REDACTOR.get() {
            None => io::stderr().write_all(bytes)?,
            Some(redactor) => {
                io::stderr().write_all(redactor.clean(&String::from_utf8_lossy(bytes)).as_bytes())?;
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What the local region's log file is made of.
pub fn of_region() {
    start("warn,alcedo_local_region=info,alcedo=info");
}

fn start(default: &str) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| Clean).with_ansi(false);
    // A process has one subscriber. `-v` before `region serve` was first, and says more.
    let _ = subscriber.try_init();
}
