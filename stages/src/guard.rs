//! What stands between the SDK's clients and the wire: nobody changes anything without holding the environment, and the
//! store's clock is noticed.

use std::sync::{Arc, Mutex, PoisonError};

use alcedo_pipeline::{clock::Clock, lock::Fence};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{
            Intercept,
            context::{BeforeDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef},
        },
        orchestrator::Metadata,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;
use jiff::{SignedDuration, Timestamp};

/// Lets a call that changes something through only while the environment's lease holds. It is asked right before each
/// attempt is sent: a process that was paused since it decided to make the call does not make it.
#[derive(Clone)]
pub struct Guard(pub Fence);

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Guard")
    }
}

impl Intercept for Guard {
    fn name(&self) -> &'static str {
        "alcedo-guard"
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        match cfg.load::<Metadata>() {
            Some(call) if only_reads(call.name()) => Ok(()),
            _ => Ok(self.0.check()?),
        }
    }
}

/// Whether an operation of this name changes nothing. By AWS's own naming; anything else counts as a change.
pub fn only_reads(operation: &str) -> bool {
    ["Describe", "Get", "List", "Head"].iter().any(|verb| operation.starts_with(verb))
}

/// How far this machine's clock is from the store's, as its last answer told.
#[derive(Clone)]
pub struct StoreClock {
    clock: Arc<dyn Clock>,
    /// `None` until it has told.
    ahead: Arc<Mutex<Option<SignedDuration>>>,
}

impl std::fmt::Debug for StoreClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("StoreClock").field(&self.ahead()).finish()
    }
}

impl StoreClock {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ahead: Arc::default() }
    }

    /// Now, by the store's clock. Until it has told, this machine's is believed.
    pub fn now(&self) -> Timestamp {
        self.clock.now().saturating_add(self.ahead().unwrap_or_default()).unwrap_or(Timestamp::MAX)
    }

    /// Whether the store has told the time. Without it, how long a lock has stood is judged by this machine's clock.
    pub fn is_known(&self) -> bool {
        self.ahead().is_some()
    }

    /// How far the other clock is ahead of this machine's, where it has told.
    pub fn ahead(&self) -> Option<SignedDuration> {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self, theirs: Timestamp) {
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(theirs.duration_since(self.clock.now()));
    }
}

impl Intercept for StoreClock {
    fn name(&self) -> &'static str {
        "alcedo-store-clock"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date");
        // Without a date there is nothing to learn.
        if let Some(date) = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok()) {
            self.told(date.timestamp());
        }
        Ok(())
    }
}
