//! Alcedo's core: what a pipeline file says, what a plan is, how a run goes forward, is journaled and unwinds.
//! It knows no cloud and no terminal.

pub mod file;
pub mod suite;
pub mod units;
