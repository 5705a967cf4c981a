//! The stages of a deploy: the only crate that orders changes in AWS.
//!
//! One deploy: [`facts::observe`] looks (read-only), [`planner::plan`] decides (pure), [`execute::Prepared::run`] goes
//! through the plan under the environment's lock. Each stage is one module with one struct a step; [`action::Action`]
//! lists them all.

mod absent;
pub mod action;
pub mod bake;
pub mod build;
pub mod clients;
pub mod cloud_error;
pub mod compare;
pub mod costs;
pub mod doctor;
pub mod examine;
pub mod execute;
pub mod facts;
pub mod flip;
pub mod gate;
pub mod guard;
pub mod hold;
pub mod iam_policy;
pub mod ingress;
pub mod judge;
pub mod keep_alive;
pub mod last_look;
pub mod last_resort;
pub mod launch;
pub mod listener;
pub mod logs;
pub mod metrics;
pub mod overview;
pub mod parts;
pub mod pins;
pub mod planner;
pub mod preview;
pub mod probes;
pub mod proof;
pub mod publish;
pub mod quiet;
pub mod recover;
pub mod rehearsal;
pub mod releases;
pub mod renewal;
pub mod retire;
pub mod rounds;
pub mod s3_store;
pub mod secrets;
pub mod servers;
pub mod signature;
pub mod site;
pub mod smoke;
pub mod ssh;
pub mod sweep;
pub mod tags;
pub mod times;
pub mod traffic;
pub mod verdict;
pub mod who;
pub mod workshop;

/// What journals and manifests say they were written by.
pub const TOOL: &str = concat!("alcedo ", env!("CARGO_PKG_VERSION"));
