//! Servers as containers.
