//! Alcedo's core: what a pipeline file says, what a plan is, how a run goes forward, is journaled and unwinds.
//! It knows no cloud and no terminal.

pub mod clock;
pub mod context;
pub mod diagnostic;
pub mod error;
pub mod event;
pub mod file;
pub mod ids;
pub mod init;
pub mod journal;
pub mod lock;
pub mod overlay;
pub mod plan;
pub mod positions;
pub mod process;
pub mod recovery;
pub mod report;
pub mod resource;
pub mod runner;
pub mod secret;
pub mod status;
pub mod step;
pub mod store;
pub mod suite;
pub mod units;
pub mod validate;
pub mod version;
pub mod wait;
