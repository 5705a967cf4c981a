//! Whether green's servers keep an idle connection for longer than the balancer does. One that closes first may close right
//! when the balancer sends a request over it, and then a visitor gets 502.
//!
//! **Flow.** Each server is asked once over a connection that is then left idle while the smoke tests run. What a server
//! announces, or does in that time, is known without waiting. Only one that has closed its connection is asked a second time,
//! for which a deploy waits where its tests are good.
//! **Caveat.** A server that says nothing and closes later is not seen: the run says for how long it has looked.

use std::{collections::BTreeMap, time::Duration};

use alcedo_pipeline::{context::StepContext, error::StepError, units::Span};
use alcedo_smoke_tests::{
    Target,
    keep_alive::{self, Kept},
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::{clients::Clients, cloud_error::CloudError, smoke::because_of_all};

/// How long a balancer keeps connections that nobody uses (Elastic Load Balancing, load balancer attributes).
const IDLE_TIMEOUT: &str = "idle_timeout.timeout_seconds";
/// A server that keeps them no longer than this after the balancer's time is not told from one that closes at the same moment.
const LONGER: Duration = Duration::from_secs(1);

const NOT_REQUIRED: &str = "or take it as it is: `flip: { keep_alive: warn }` in the file";

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepAlive {
    /// The balancer, by ARN.
    pub balancer: String,
    /// What is asked for: the health check's path.
    pub path: String,
    /// Servers that are seen to close sooner get no traffic.
    #[serde(default)]
    pub required: bool,
}

impl KeepAlive {
    /// Looks at the servers for as long as something else takes, and says what it has seen. Answers why they get no traffic
    /// beside what came of the other thing, which may have more to say of them: where it is not `good`, nobody waits for a
    /// second look.
    pub async fn beside<T>(
        &self,
        clients: &Clients,
        context: &StepContext,
        servers: Vec<(String, Target)>,
        work: impl Future<Output = Result<T, StepError>>,
        good: impl Fn(&T) -> bool,
    ) -> Result<(T, Option<StepError>), StepError> {
        let idle = match self.idle_timeout(clients).await {
            Ok(idle) => idle,
            Err(error) => {
                if self.required {
                    let refused = error.is_refused();
                    let step = StepError::from(error);
                    return Err(if refused { step.hint(NOT_REQUIRED) } else { step });
                }
                context.warn(format!("how long the balancer keeps idle connections cannot be read: {error}"), None);
                return Ok((work.await?, None));
            }
        };
        let (done, in_vain) = (CancellationToken::new(), context.cancellation().child_token());
        let looks = servers.iter().map(async |(server, target)| {
            let (enough, in_vain) = (done.cancelled(), in_vain.cancelled());
            (server.as_str(), keep_alive::look(target, &self.path, idle + LONGER, enough, in_vain).await)
        });
        let work = async {
            let _guard = done.clone().drop_guard();
            let worked = work.await;
            if !worked.as_ref().is_ok_and(&good) {
                in_vain.cancel();
            }
            worked
        };
        let (worked, seen) = futures::join!(work, futures::future::join_all(looks));
        Ok((worked?, self.judge(context, idle, &seen)))
    }

    async fn idle_timeout(&self, clients: &Clients) -> Result<Duration, CloudError> {
        let call = clients.elb.describe_load_balancer_attributes().load_balancer_arn(&self.balancer);
        let answer = call.send().await.map_err(|error| CloudError::of("read the balancer's attributes", error))?;
        let idle = answer.attributes().iter().find(|it| it.key() == Some(IDLE_TIMEOUT));
        // AWS's own default.
        Ok(Duration::from_secs(idle.and_then(|it| it.value()?.parse().ok()).unwrap_or(60)))
    }

    fn judge(&self, context: &StepContext, idle: Duration, seen: &[(&str, Result<Kept, String>)]) -> Option<StepError> {
        // What is closed after half a second is not kept for none, and what is open after it is not open after a whole one.
        let up = |it: Duration| Span::from(Duration::from_secs(it.as_secs_f64().ceil() as u64));
        let down = |it: Duration| match it.as_secs() {
            0 => Span::from(Duration::from_millis(it.as_millis() as u64)),
            seconds => Span::from(Duration::from_secs(seconds)),
        };
        let mut short: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        let mut least: Option<Duration> = None;
        for (server, kept) in seen {
            match kept {
                Ok(kept) if kept.is_shorter_than(idle) => {
                    let how = match kept {
                        Kept::Announced(after) => {
                            format!("says that it closes idle connections after {}", up(*after))
                        }
                        Kept::Closed(after) => format!("closed two idle connections, after {} at most", up(*after)),
                        Kept::Never | Kept::Open(_) | Kept::ClosedOnce(..) => continue,
                    };
                    short.entry(how).or_default().push(server);
                }
                Ok(Kept::ClosedOnce(first, second)) => context.output_line(format!(
                    "{server}: closed an idle connection after {}, and another was still open after {}",
                    up(*first),
                    down(*second),
                )),
                Ok(Kept::Open(after)) => least = Some(least.map_or(*after, |least| least.min(*after))),
                Ok(_) => {}
                Err(why) => {
                    context.output_line(format!("{server}: nobody saw how long it keeps idle connections: {why}"))
                }
            }
        }
        let attribute = format!(
            "let the app keep them for longer, or: aws elbv2 modify-load-balancer-attributes --load-balancer-arn {} \
             --attributes Key={IDLE_TIMEOUT},Value=… (docs/flip.md, *Idle connections*)",
            self.balancer
        );
        let told = short.iter().map(|(how, servers)| {
            format!(
                "{} {how}, and the balancer keeps them for {}: a request that it sends at that moment is answered with 502",
                servers.join(", "),
                down(idle),
            )
        });
        if self.required && !short.is_empty() {
            let refused = StepError::failed("the servers close idle connections too soon; no traffic was moved");
            return Some(because_of_all(refused.hint(attribute).hint(NOT_REQUIRED), told.collect()));
        }
        for message in told {
            context.warn(message, Some(attribute.clone()));
        }
        if let Some(least) = least.filter(|least| *least <= idle) {
            context.output_line(format!(
                "idle connections stayed open for the {} that somebody looked; that they do for the balancer's {} is not proven \
                 (http.kept_open proves it)",
                down(least),
                down(idle),
            ));
        }
        None
    }
}
