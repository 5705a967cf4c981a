//! Servers as records only.
