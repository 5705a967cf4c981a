//! The balancer's data plane.
