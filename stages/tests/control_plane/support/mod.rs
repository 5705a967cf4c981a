//! What the tests stand on: two endpoints and a simulation, an account as a user has it before Alcedo comes, and ways to run a plan.

pub mod account;
pub mod corrupting_proxy;
pub mod here_alone;
pub mod inventory;
pub mod journey;
pub mod moto;
pub mod region;
pub mod simulation;
pub mod staged;
