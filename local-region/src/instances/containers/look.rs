//! Looking at containers: what they are now, and whose.

use std::time::{Duration, Instant};

use bollard::{
    errors::Error,
    models::{ContainerInspectResponse, ContainerSummary},
    query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder},
};

use super::{
    engine::{Engine, Failure, QUICK, filter, within},
    names::{Names, REGION_LABEL},
};

/// How long an answer may be unreadable. Podman has a state ("stopped") that Docker's API does not know, for the moment
/// between the end of a process and the clearing away of its container.
const PASSING: Duration = Duration::from_secs(5);
/// The pause before asking again.
const PAUSE: Duration = Duration::from_millis(50);

impl Engine {
    /// What the engine knows of a container.
    ///
    /// # Errors
    /// There is no such container; the engine refuses.
    pub async fn inspect(&self, container: &str) -> Result<ContainerInspectResponse, Failure> {
        let call = readable(|| self.docker.inspect_container(container, None::<InspectContainerOptions>));
        within(QUICK, format!("cannot look at the container {container}"), call).await
    }

    /// All containers of a region, running or not.
    ///
    /// # Errors
    /// The engine refuses.
    pub async fn list(&self, names: &Names) -> Result<Vec<ContainerSummary>, Failure> {
        let filters = filter("label", names.region_filter());
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let call = readable(|| self.docker.list_containers(Some(options.clone())));
        within(QUICK, "cannot list the engine's containers", call).await
    }

    /// Takes a container that could not be made for the one wanted, if it is there and this region's: an earlier launch
    /// made it. (Asked for, as Podman tells a name that is taken from no other failure.)
    ///
    /// # Errors
    /// The failure, if there is no such container of this region.
    pub async fn adopt(&self, names: &Names, container: &str, failure: Failure) -> Result<(), Failure> {
        let found = self.inspect(container).await.ok();
        let labels = found.and_then(|found| found.config?.labels).unwrap_or_default();
        let ours = labels.get(REGION_LABEL).map(String::as_str) == Some(names.region());
        if ours { Ok(()) } else { Err(failure) }
    }
}

/// Asks until the answer can be read.
async fn readable<T, Call>(ask: impl Fn() -> Call) -> Result<T, Error>
where
    Call: Future<Output = Result<T, Error>>,
{
    let began = Instant::now();
    loop {
        match ask().await {
            Err(Error::JsonDataError { .. }) if began.elapsed() < PASSING => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test]
    async fn an_answer_that_cannot_be_read_is_asked_for_again() {
        let asked = Cell::new(0);
        let answer = readable(async || {
            asked.set(asked.get() + 1);
            if asked.get() < 3 {
                Err(Error::JsonDataError { message: String::new(), column: 0 })
            } else {
                Ok(asked.get())
            }
        });
        assert_eq!(answer.await.expect("readable in the end"), 3);
    }

    #[tokio::test]
    async fn other_failures_are_answers() {
        let asked = Cell::new(0);
        let answer: Result<(), _> = readable(async || {
            asked.set(asked.get() + 1);
            Err(Error::RequestTimeoutError)
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(asked.get(), 1);
    }
}
