//! Log lines on stderr, for whoever looks into Alcedo itself.

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

/// What the local region's log file is made of.
pub fn of_region() {
    start("warn,alcedo_local_region=info,alcedo=info");
}

fn start(default: &str) {
    let filter = EnvFilter::try_from_env(VARIABLE).unwrap_or_else(|_| EnvFilter::new(default));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A process has one subscriber. `-v` before `region serve` was first, and says more.
    let _ = subscriber.try_init();
}
