//! A *local region*: a loopback server that speaks the wire protocols of EC2, ELBv2, S3 and STS, and backs them with
//! real servers (containers running systemd and sshd), real security groups and a real load balancer.
//!
//! Layers, each using only those below it:
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | the HTTP front: signature check, throttling, dispatch by service and action |
//! | [`wire`] | encoding only: query-protocol parameters in, XML out |
//! | [`region`] | one running region: configuration, clock, records, machines; saves the records after each change |
//! | [`state`] | records and pure state machines; no I/O, no clock of their own |
//! | [`instances`], [`balancer`], [`metadata`] | what is real behind the records |

pub mod balancer;
pub mod clock;
pub mod config;
pub mod firewall;
pub mod instances;
pub mod metadata;
pub mod region;
pub mod s3;
pub mod server;
pub mod servers;
pub mod state;
pub mod throttle;
pub mod wire;
