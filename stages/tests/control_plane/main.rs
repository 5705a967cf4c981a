//! Whole runs of the real stages against two endpoints that have no servers: moto's server, which others wrote, and the
//! local region on records alone. What needs real servers is tested with the command line.
//!
//! `broken` breaks everything that can break, at every step and at every call.
//!
//! moto's own ways, and what they keep these tests from seeing, stand in `moto-differences.md`.

mod broken;
mod doctor;
mod flip_and_retire;
mod guard;
mod iam;
mod ingress;
mod keep_alive;
mod last_look;
mod life;
mod moto;
mod moto_differences;
mod publish;
mod quiet;
mod records_only;
mod renewal;
mod retention;
mod retries;
mod sbom;
mod settle;
mod shift;
mod signature;
mod size;
mod speed;
mod support;
mod sweep;
mod times;
mod undo;
mod why;
