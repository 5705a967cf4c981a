//! What runs have left that nobody needs: found, told and removed.
//!
//! [`overdue`] and [`leases`] end what is only lent; [`find()`] looks at everything that carries the app's tags, and
//! [`Found::remove`] takes it away.

mod find;
mod leases;

pub use find::{Found, find};
pub use leases::{leases, overdue};
