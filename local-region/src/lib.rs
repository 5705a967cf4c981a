//! A *local region*: a loopback server that speaks the wire protocols of EC2, ELBv2, S3 and STS, and backs them with
//! real servers (containers running systemd and sshd), real security groups and a real load balancer.
//!
//! Layers, each using only those below it:
//!
//! | module | holds |
//! |---|---|
//! | [`server`], `front` | start and stop; the HTTP front: signature check, throttling, dispatch by service and action |
//! | [`wire`] | query-protocol parameters in, XML out: each action reads its call, changes the records, answers |
//! | [`servers`], [`firewall`] | make machines and their networks follow the records |
//! | [`iam`] | what a caller may do, where a policy says so |
//! | [`faults`] | what goes wrong on demand, and the log of calls |
//! | [`region`] | one running region: configuration, clock, records, machines; saves the records after each change |
//! | [`state`] | records and pure state machines; no I/O, no clock of their own |
//! | [`instances`], [`balancer`], [`metadata`], [`s3`] | what is real behind the records |
//!
//! [`wire::ApiError`] is the one thing of `wire` that [`state`] uses too: an AWS error is part of what a state machine
//! answers.

pub mod balancer;
pub mod clock;
pub mod config;
pub mod faults;
mod faults_api;
pub mod firewall;
mod front;
pub mod iam;
pub mod instances;
pub mod metadata;
mod metadata_source;
pub mod metrics;
pub mod region;
pub mod s3;
pub mod server;
pub mod servers;
pub mod state;
pub mod throttle;
mod trail;
pub mod wire;
