//! The balancer's data plane.

mod ports;

pub use ports::{PortError, Ports, node_addresses};
