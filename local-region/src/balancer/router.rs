//! One node's treatment of the requests of one listener, in the phases that the proxy library calls.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use http::{HeaderName, header};
use pingora_core::{Error, ErrorType, upstreams::peer::HttpPeer, upstreams::peer::Tracer};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, Session};
use rand::{Rng, rngs::StdRng};

use super::{
    answers::{Answer, status_of},
    link::Link,
    nodes::Node,
    routes::ForwardedFor,
    stickiness::{self, GROUP_COOKIE, TARGET_COOKIE},
    upstreams::{Fitness, InFlight},
    view::{GroupView, ListenerView},
};
use crate::{
    clock::Clock,
    metrics::{Ending, Metrics},
    state::elbv2::{ActionKind, Forward, condition::Request, listener::RedirectedRequest, names},
};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const TRACE_ID: HeaderName = HeaderName::from_static("x-amzn-trace-id");

pub struct Router {
    pub node: Arc<Node>,
    pub listener_arn: String,
    /// `app/<name>/<id>`: its balancer, as metrics name it.
    pub balancer: String,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub random: Mutex<StdRng>,
}

/// What is known of one request while it passes through.
#[derive(Default)]
pub struct Passage {
    listener: Option<Arc<ListenerView>>,
    group_arn: Option<String>,
    request: Option<InFlight>,
    /// When a target was asked last, and what it answered after how long.
    asked: Option<Instant>,
    answered: Option<(u16, Duration)>,
    /// `Set-Cookie` values for the answer.
    cookies: Vec<String>,
}

impl Passage {
    fn group<'a>(&self, listener: &'a ListenerView) -> Option<&'a GroupView> {
        listener.group_by_arn(self.group_arn.as_deref()?)
    }
}

impl Router {
    /// Chooses group and target, and counts the request in; `false` where there is no target.
    fn choose(
        &self,
        listener: &Arc<ListenerView>,
        forward: &Forward,
        header: &RequestHeader,
        passage: &mut Passage,
    ) -> bool {
        let group_cookie = cookie(header, GROUP_COOKIE);
        let Some(group) = listener.group(forward, group_cookie, &self.random) else { return false };
        passage.cookies.clear();
        if let Some(seconds) = forward.sticky_seconds {
            passage.cookies.extend(stickiness::set_cookies(GROUP_COOKIE, &stickiness::token(&group.arn), seconds));
        }
        passage.listener = Some(Arc::clone(listener));
        passage.group_arn = Some(group.arn.clone());
        passage.request = self.begin(group, cookie(header, TARGET_COOKIE));
        if let (Some(request), Some(seconds)) = (&passage.request, group.sticky_seconds) {
            let token = stickiness::target_token(&request.upstream.key);
            passage.cookies.extend(stickiness::set_cookies(TARGET_COOKIE, &token, seconds));
        }
        passage.request.is_some()
    }

    /// A target that leaves between being chosen and being counted is not used; each such turn leaves one fewer.
    fn begin(&self, group: &GroupView, cookie: Option<&str>) -> Option<InFlight> {
        loop {
            let upstream = group.target(self.node.index, cookie)?;
            if let Some(request) = upstream.begin(self.node.index, self.clock.now()) {
                return Some(request);
            }
        }
    }

    /// Begins the passage of a request to a target, or says what the balancer answers itself.
    ///
    /// The node may take up a change after the request was given its view, and the targets that the view knows may have
    /// left by then: such a request is decided anew, by the newer view.
    fn decide(&self, mut listener: Arc<ListenerView>, asked: &Asked<'_>, passage: &mut Passage) -> Option<Answer> {
        loop {
            match &listener.action(asked).kind {
                ActionKind::Forward(forward) => {
                    if self.choose(&listener, forward, asked.header, passage) {
                        return None;
                    }
                    match self.node.listener(&self.listener_arn) {
                        Some(newer) if !Arc::ptr_eq(&newer, &listener) => listener = newer,
                        _ => return Some(Answer::error(503)),
                    }
                }
                ActionKind::FixedResponse(response) => {
                    return Some(Answer {
                        status: response.status,
                        content_type: Some(response.content_type.clone().unwrap_or_else(|| "text/plain".into())),
                        location: None,
                        body: response.body.clone().unwrap_or_default().into(),
                    });
                }
                ActionKind::Redirect(redirect) => {
                    let location = redirect.location(&RedirectedRequest {
                        host: asked.host(),
                        port: listener.port,
                        path: asked.path(),
                        query: asked.query(),
                    });
                    return Some(Answer::redirect(redirect.status, location));
                }
            }
        }
    }

    async fn answer(&self, session: &mut Session, answer: Answer) -> pingora_core::Result<bool> {
        answer.send(session, self.clock.now()).await?;
        Ok(true)
    }
}

#[async_trait]
impl ProxyHttp for Router {
    type CTX = Passage;

    fn new_ctx(&self) -> Passage {
        Passage::default()
    }

    async fn request_filter(&self, session: &mut Session, passage: &mut Passage) -> pingora_core::Result<bool> {
        let Some(listener) = self.node.listener(&self.listener_arn) else {
            // The listener is being deleted: this connection gets no further request.
            session.set_keepalive(None);
            return self.answer(session, Answer::error(503)).await;
        };
        if !session.is_process_shutting_down() {
            session.set_keepalive(Some(listener.idle_timeout.as_secs()));
        }
        if !session.is_upgrade_req() {
            session.set_read_timeout(Some(listener.idle_timeout));
        }
        session.set_write_timeout(Some(listener.idle_timeout));
        let asked = Asked { header: session.req_header(), source: client(session) };
        match self.decide(listener, &asked, passage) {
            None => Ok(false),
            Some(answer) => self.answer(session, answer).await,
        }
    }

    /// Called again where a request that no target has seen is to be repeated: a reused connection turned out closed.
    async fn upstream_peer(&self, session: &mut Session, passage: &mut Passage) -> pingora_core::Result<Box<HttpPeer>> {
        let left = passage.request.as_ref().is_some_and(|request| {
            request.upstream.is_leaving(self.node.index) || request.upstream.fitness() == Fitness::Dead
        });
        if left && let Some(listener) = passage.listener.clone() {
            let cookie = cookie(session.req_header(), TARGET_COOKIE);
            let other = passage.group(&listener).and_then(|group| self.begin(group, cookie));
            // Where there is no other target, this one still may answer.
            if other.is_some() {
                passage.request = other;
            }
        }
        let (Some(request), Some(listener)) = (&passage.request, &passage.listener) else {
            return Err(Error::explain(ErrorType::HTTPStatus(503), "no target"));
        };
        let upstream = &request.upstream;
        let mut peer = HttpPeer::new(upstream.address, false, String::new());
        let upgrades = session.is_upgrade_req();
        // A connection that is to become something else is a new one: no pool has this key.
        peer.group_key = if upgrades { !upstream.pool(self.node.index) } else { upstream.pool(self.node.index) };
        peer.options.read_timeout = Some(listener.idle_timeout);
        peer.options.write_timeout = Some(listener.idle_timeout);
        peer.options.idle_timeout = Some(listener.idle_timeout);
        let link = Link::new(Arc::clone(upstream), self.node.index, upgrades);
        peer.options.tracer = Some(Tracer(Box::new(link.clone())));
        peer.options.custom_l4 = Some(Arc::new(link));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        passage: &mut Passage,
    ) -> pingora_core::Result<()> {
        passage.asked = Some(Instant::now());
        let Some(listener) = &passage.listener else { return Ok(()) };
        let client = client(session);
        match listener.forwarded_for {
            ForwardedFor::Append => {
                let before = request.headers.get_all(&FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
                let chain: Vec<String> = before.map(str::to_owned).chain([client.to_string()]).collect();
                request.insert_header(FORWARDED_FOR, chain.join(", "))?;
            }
            ForwardedFor::Preserve => {}
            ForwardedFor::Remove => drop(request.remove_header(&FORWARDED_FOR)),
        }
        request.insert_header(FORWARDED_PROTO, "http")?;
        request.insert_header(FORWARDED_PORT, listener.port.to_string())?;
        if !request.headers.contains_key(&TRACE_ID) {
            request.insert_header(TRACE_ID, self.trace_id())?;
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        _: &mut Session,
        response: &mut ResponseHeader,
        passage: &mut Passage,
    ) -> pingora_core::Result<()> {
        if !response.status.is_informational() {
            let took = passage.asked.map(|asked| asked.elapsed()).unwrap_or_default();
            passage.answered = Some((response.status.as_u16(), took));
            for cookie in passage.cookies.drain(..) {
                response.append_header(header::SET_COOKIE, cookie)?;
            }
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, _: &mut Passage) -> FailToProxy {
        let status = status_of(error);
        tracing::debug!(%error, ?status, "a request failed");
        if let Some(status) = status
            && session.response_written().is_none()
            && let Err(error) = Answer::error(status).send_and_close(session, self.clock.now()).await
        {
            tracing::debug!(%error, "the client is gone");
        }
        FailToProxy { error_code: status.unwrap_or_default(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, error: Option<&Error>, passage: &mut Passage) {
        let answered = session.response_written().map(|response| response.status.as_u16());
        self.measure(passage, answered, error);
        let Some(request) = passage.request.take() else { return };
        if answered.or(error.and_then(status_of)).is_some_and(|status| status >= 500) {
            request.upstream.count_error();
        }
    }

    /// Failures are told by [`Router::fail_to_proxy`], in this process's own log.
    fn suppress_error_log(&self, _: &Session, _: &Passage, _: &Error) -> bool {
        true
    }
}

impl Router {
    /// A request that its client broke off, before anything came back, counts as none.
    fn measure(&self, passage: &Passage, written: Option<u16>, error: Option<&Error>) {
        let ending = match (passage.answered, error.and_then(status_of).or(written)) {
            (Some((status, took)), _) => Ending::Target { status, took },
            (None, Some(status)) if passage.request.is_some() && status >= 500 => Ending::NoAnswer,
            (None, Some(status)) => Ending::Balancer { status },
            (None, None) => return,
        };
        let (now, group) = (self.clock.now(), passage.group_arn.as_deref().map(names::full_name));
        self.metrics.count(now, &self.balancer, group, ending);
        if ending == Ending::NoAnswer {
            // The client was answered by the balancer, with 502 or 504.
            self.metrics.count(now, &self.balancer, None, Ending::Balancer { status: 502 });
        }
    }

    /// In the form of `X-Amzn-Trace-Id`: the time in seconds, and 96 random bits.
    fn trace_id(&self) -> String {
        let mut random = self.random.lock().expect("no panic while the numbers are held");
        let (high, low) = (random.random::<u32>(), random.random::<u64>());
        format!("Root=1-{:08x}-{high:08x}{low:016x}", self.clock.now().as_second())
    }
}

fn client(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip());
    address.unwrap_or(Ipv4Addr::UNSPECIFIED.into())
}

fn cookie<'a>(header: &'a RequestHeader, name: &str) -> Option<&'a str> {
    let cookies = header.headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    stickiness::cookie(cookies, name)
}

/// A request as rules see it.
struct Asked<'a> {
    header: &'a RequestHeader,
    source: IpAddr,
}

impl Request for Asked<'_> {
    fn method(&self) -> &str {
        self.header.method.as_str()
    }

    fn path(&self) -> &str {
        self.header.uri.path()
    }

    fn query(&self) -> &str {
        self.header.uri.query().unwrap_or_default()
    }

    fn host(&self) -> &str {
        let sent = self.header.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = sent.or_else(|| self.header.uri.host()).unwrap_or_default();
        match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
            _ => host,
        }
    }

    fn header(&self, name: &str) -> Vec<&str> {
        self.header.headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect()
    }

    fn source(&self) -> IpAddr {
        self.source
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, BTreeSet},
        time::Duration,
    };

    use rand::SeedableRng;

    use super::*;
    use crate::{
        balancer::{
            routes::{GroupRoutes, ListenerRoutes, Routes},
            upstreams::Upstreams,
            view::View,
        },
        clock::SystemClock,
        state::elbv2::{Action, TargetKey, WeightedGroup},
    };

    /// A listener that forwards to one group, whose one target is on `port`.
    fn routes(port: u16) -> Routes {
        let arn = port.to_string();
        let target = TargetKey { group_arn: arn.clone(), id: "127.0.0.1".into(), port };
        let targets = vec![(target, ([127, 0, 0, 1], port).into())];
        let forward = Forward { groups: vec![WeightedGroup { arn: arn.clone(), weight: 1 }], sticky_seconds: None };
        let listener = ListenerRoutes {
            port: 80,
            idle_timeout: Duration::from_secs(60),
            forwarded_for: ForwardedFor::Append,
            rules: Vec::new(),
            default: Action { order: None, kind: ActionKind::Forward(forward) },
            groups: BTreeMap::from([(arn, GroupRoutes { targets, sticky_seconds: None, least_outstanding: false })]),
        };
        Routes { listeners: BTreeMap::from([("listener".into(), listener)]), draining: BTreeSet::new() }
    }

    #[test]
    fn a_request_that_a_change_overtakes_goes_where_the_change_says() {
        let upstreams = Upstreams::new(1);
        let node = Arc::new(Node::new(0, Ipv4Addr::LOCALHOST));
        let adopt = |routes: &Routes| node.adopt(routes, Arc::new(View::new(routes, &upstreams)), &upstreams);
        let router = Router {
            node: Arc::clone(&node),
            listener_arn: "listener".into(),
            balancer: "app/web/1".into(),
            metrics: Arc::default(),
            clock: Arc::new(SystemClock),
            random: Mutex::new(StdRng::seed_from_u64(7)),
        };
        let header = RequestHeader::build("GET", b"/", None).unwrap();
        let asked = Asked { header: &header, source: Ipv4Addr::LOCALHOST.into() };

        adopt(&routes(1));
        let old = node.listener("listener").unwrap();
        adopt(&routes(2));
        let mut passage = Passage::default();
        assert!(router.decide(old, &asked, &mut passage).is_none(), "it is not answered 503");
        assert_eq!(passage.request.unwrap().upstream.key.port, 2);
    }
}
