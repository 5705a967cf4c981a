//! Runs the checks of `alcedo.yaml` against a server: HTTP, TCP, a command over SSH, a program on this machine, and
//! the resources of a server that is being baked (packages, services, files, ports, users).
//!
//! Checks are data ([`alcedo_pipeline::suite`]); this crate runs them and says what was expected and what came.
//!
//! | file | holds |
//! |---|---|
//! | [`suite`] | reading a suite on its own, and what is wrong with it |
//! | [`runner`] | the order, the tries, the deadlines |
//! | [`report`] | events and results |
//! | [`http`], [`tcp`], [`program`] | the checks made from this machine |
//! | [`resource`] | the checks made on the server: a command line, and the judgement of its output |
//! | [`shell`] | how a command line reaches the server: a trait, so that everything above is tested without SSH |
//! | [`version`] | which version answers |
//!
//! It knows no cloud, no terminal, and nothing of how its caller came by the server.
//!
#![doc = include_str!("../README.md")]

pub mod http;
pub mod keep_alive;
mod kept_open;
pub mod program;
pub mod report;
pub mod resource;
pub mod runner;
pub mod shell;
pub mod suite;
pub mod target;
pub mod tcp;
pub mod version;

pub use report::{CheckEvent, CheckResult, Failure, SuiteReport};
pub use runner::run;
pub use shell::{Shell, ShellCommand, ShellError, ShellOutput};
pub use target::Target;
pub use version::{VersionError, answering_version, same_version};
