//! Rules of `flip`, `hold` and `retire`.

use http::{HeaderName, HeaderValue};

use crate::{file::Retire, units::Span};

use super::{Add, At, Part, Problem, exactly_one, http_url, json_path, not_zero, quote, url_path};

pub(super) fn check(top: &At<'_>, add: Add<'_>) {
    if let Some(flip) = top.get("flip") {
        load_balancer(&flip, add);
        preview(&flip, add);
        if let Some(url) = flip.get("url") {
            http_url(url, "such as https://hello.example.com", add);
        }
        url_path(flip.find("version.path"), add);
        if let Some(json) = flip.find("version.json")
            && let Some(text) = json.text()
        {
            json_path(text, &json.path, Part::Value, add);
        }
        not_zero(flip.get("timeout"), add);
        quiet(&flip, add);
        strategy(&flip, add);
    }
    not_zero(top.find("watch.every"), add);
    if let Some(hold) = top.find("hold.for")
        && hold.span().is_some_and(Span::is_zero)
    {
        add(Problem::warning(
            "no-hold",
            &hold.path,
            "without a hold, blue is retired at once and a rollback launches servers",
        )
        .help("hold: { for: 5m } keeps blue ready that long"));
    }
    not_zero(top.find("retire.timeout"), add);
    retire(top, add);
}

/// A proof that needs longer than it has can never come.
fn quiet(flip: &At<'_>, add: Add<'_>) {
    let (Some(quiet), Some(timeout)) = (flip.span_or_default("quiet"), flip.span_or_default("timeout")) else { return };
    if quiet >= timeout && !timeout.is_zero() {
        let key = if flip.has("quiet") { "quiet" } else { "timeout" };
        let message = format!("the quiet period ({quiet}) must be shorter than the timeout ({timeout})");
        add(Problem::error("out-of-range", &flip.path.key(key), message));
    }
}

/// How traffic moves, and who keeps a visitor where.
fn strategy(flip: &At<'_>, add: Add<'_>) {
    if let (Some(canary), Some(_)) = (flip.get("canary"), flip.get("linear")) {
        add(Problem::error(
            "more-than-one-of",
            &canary.path,
            "`flip` has `canary` and `linear`, but can have only one of them",
        )
        .help("remove one; without both, all traffic moves at once"));
    }
    let shares = flip.list("canary.shares");
    for pair in shares.windows(2) {
        if let (Some(one), Some(next)) = (pair[0].number(), pair[1].number())
            && next <= one
        {
            let message = format!("a share of {next} % does not follow one of {one} %: shares rise");
            add(Problem::error("out-of-range", &pair[1].path, message).help("such as [5, 25, 50]"));
        }
    }
    for key in ["canary.pause", "linear.pause"] {
        not_zero(flip.find(key), add);
    }
    let Some(sticky) = flip.get("sticky") else { return };
    // Elastic Load Balancing API, TargetGroupStickinessConfig: 1 to 604800 seconds.
    if let Some(span) = sticky.span()
        && !(1..=604_800).contains(&span.as_secs())
    {
        add(Problem::error("out-of-range", &sticky.path, "a balancer's cookie lasts 1 s to 7 days"));
    }
    if !flip.has("canary") && !flip.has("linear") {
        add(Problem::warning("no-effect", &sticky.path, "`sticky` matters only while two versions share the traffic")
            .help("add `canary` or `linear`, or leave it out"));
    }
}

/// A balancer's name: at most 32 letters, digits and hyphens (CreateLoadBalancer, Name), or an ARN.
fn load_balancer(flip: &At<'_>, add: Add<'_>) {
    let Some(at) = flip.find("listener.load_balancer") else { return };
    let Some(text) = at.text() else { return };
    let named = (1..=32).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        && !text.starts_with('-')
        && !text.ends_with('-')
        && !text.starts_with("internal-");
    let arn = text.strip_prefix("arn:").is_some_and(|rest| rest.contains(":loadbalancer/app/"));
    if !named && !arn {
        add(Problem::error("bad-name", &at.path, format!("{} is no load balancer's name or ARN", quote(text)))
            .help("a name has at most 32 letters, digits and hyphens; the ARN is an application load balancer's"));
    }
}

fn preview(flip: &At<'_>, add: Add<'_>) {
    let Some(preview) = flip.get("preview") else { return };
    exactly_one(&preview, &["header", "port"], add);
    if let (Some(test), Some(port)) = (preview.get("port"), flip.find("listener.port"))
        && test.number().is_some()
        && test.number() == port.number()
    {
        add(Problem::error("port-conflict", &test.path, "the preview needs a port of its own, not the listener's"));
    }
    let Some(header) = preview.get("header").filter(|header| header.value.is_object()) else { return };
    if let Some(name) = header.get("name")
        && let Some(text) = name.text()
    {
        // Elastic Load Balancing, HttpHeaderConditionConfig: at most 40 characters, and not the Host header.
        let legal = HeaderName::from_bytes(text.as_bytes()).is_ok() && text.len() <= 40;
        if !legal || text.eq_ignore_ascii_case("host") {
            add(Problem::error("bad-header", &name.path, format!("{} cannot be the preview's header", quote(text)))
                .help("use at most 40 letters, digits and hyphens, such as X-Alcedo-Preview; `Host` is not allowed"));
        }
    }
    if let Some(value) = header.get("value")
        && let Some(text) = value.text()
    {
        if text.is_empty() || text.len() > 128 || HeaderValue::from_str(text).is_err() {
            add(Problem::error("bad-header", &value.path, format!("{} cannot be a header's value", quote(text)))
                .help("use 1 to 128 visible characters"));
        } else if text.contains(['*', '?']) {
            add(Problem::error("bad-header", &value.path, "a balancer takes `*` and `?` for any characters")
                .help("use a value without them, so that only requests meant for green get there"));
        }
    }
    priorities(flip, &header, add);
}

/// Rules are asked in the order of their priorities, lowest first, so the preview must come before the app's own rule.
fn priorities(flip: &At<'_>, header: &At<'_>, add: Add<'_>) {
    let Some(rule) = flip.find("listener.rule") else { return };
    let priority = header.get("priority");
    let (Some(preview), Some(app)) = (priority.as_ref().map_or(Some(1), At::number), rule.number()) else { return };
    if preview >= app {
        let message =
            format!("the preview's rule (priority {preview}) must come before the app's rule (priority {app})");
        let path = priority.map_or(rule.path, |priority| priority.path);
        add(Problem::error("preview-behind-rule", &path, message)
            .help("lower priorities are asked first: give the preview the lower one"));
    }
}

fn retire(top: &At<'_>, add: Add<'_>) {
    let Some(delay) = top.find("launch.deregistration_delay") else { return };
    let longest = match top.find("retire.timeout") {
        Some(at) => at.span(),
        None => Some(Retire::default().timeout),
    };
    if let (Some(drain), Some(longest)) = (delay.span(), longest)
        && drain >= longest
        && !longest.is_zero()
    {
        let message = format!("`retire.timeout` ({longest}) leaves no time after the drain ({drain})");
        let path = top.find("retire.timeout").unwrap_or(delay).path;
        add(Problem::error("out-of-range", &path, message)
            .help("make it some minutes longer than `launch.deregistration_delay`"));
    }
}
