//! How many local regions the tests run at the same time.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Two processors carry two regions with a handful of servers each; a third one makes all of them slower. A soak's lanes wait
/// most of their time.
const SEATS: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// The right to run a region, given back when dropped.
#[derive(Debug)]
pub struct Seat(());

/// Waits for a free seat. Every holder's own waits have deadlines, so this one ends too.
pub fn take() -> Seat {
    let seats = SEATS.max(crate::flips::lanes());
    let mut taken = FREED.wait_while(taken(), |taken| *taken >= seats).unwrap_or_else(PoisonError::into_inner);
    *taken += 1;
    Seat(())
}

impl Drop for Seat {
    fn drop(&mut self) {
        *taken() -= 1;
        FREED.notify_one();
    }
}

/// A test that failed while it counted has counted nevertheless.
fn taken() -> MutexGuard<'static, usize> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}
