//! STS actions.
