//! The real `alcedo` against the local region with real servers: whole deploys, and everything that can go wrong in them.
//!
//! Every test has a region of its own; at most two run at a time. They need a container engine and fail without one.

// Shared with the tests of the stages, which use more of them.
#[allow(dead_code)]
#[path = "../../../stages/tests/control_plane/support/account.rs"]
mod account;
mod app;
mod bad_luck;
mod begun;
mod cold_rollback;
mod engine;
mod failures;
mod flips;
mod gates;
#[path = "../../../stages/tests/control_plane/support/here_alone.rs"]
mod here_alone;
mod interrupted;
mod inventory;
mod killed;
mod kills;
mod lifecycle;
mod reading;
mod run;
mod seats;
mod secrets;
#[allow(dead_code)]
#[path = "../../../stages/tests/control_plane/support/inventory.rs"]
mod stock;
mod traffic;
mod world;
