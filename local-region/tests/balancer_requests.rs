//! The way of a request: rules, weights, headers, stickiness, and what the balancer answers by itself.

use reqwest::header::{COOKIE, LOCATION, SERVER, SET_COOKIE};

mod balancer_support;
use balancer_support::{Backend, Lab, client, eventually, forward, free_port, fresh_client, get, no_lags, target_form};

/// Two groups of one healthy server each, behind one listener that forwards to the first.
struct TwoColors {
    lab: Lab,
    blue: Backend,
    green: Backend,
    blue_group: String,
    green_group: String,
    listener: String,
    port: u16,
}

async fn two_colors() -> TwoColors {
    let lab = Lab::start(no_lags()).await;
    let (blue, green) = (Backend::start("blue").await, Backend::start("green").await);
    let blue_group = lab.group("blue", &[&blue]).await;
    let green_group = lab.group("green", &[&green]).await;
    let (listener, port) = lab.serve(&blue_group).await;
    lab.until_state(&blue_group, &blue, "healthy").await;
    TwoColors { lab, blue, green, blue_group, green_group, listener, port }
}

impl TwoColors {
    fn url(&self, path: &str) -> String {
        self.lab.url(0, self.port, path)
    }

    async fn rule(&self, priority: u32, condition: &[&str], action: &[String]) {
        let mut form = vec![format!("ListenerArn={}", self.listener), format!("Priority={priority}")];
        form.extend(condition.iter().map(|pair| format!("Conditions.member.1.{pair}")));
        form.extend(action.iter().map(|pair| format!("Actions.member.1.{pair}")));
        self.lab.must("CreateRule", &form).await;
    }
}

#[tokio::test]
async fn a_header_leads_to_the_preview() {
    let colors = two_colors().await;
    let condition =
        ["Field=http-header", "HttpHeaderConfig.HttpHeaderName=X-Preview", "HttpHeaderConfig.Values.member.1=green"];
    colors.rule(10, &condition, &forward(&[(&colors.green_group, 1)])).await;
    colors.lab.until_state(&colors.green_group, &colors.green, "healthy").await;
    let preview = client().get(colors.url("/")).header("x-preview", "Green").send().await.unwrap();
    assert_eq!(preview.text().await.unwrap(), "green");
    assert_eq!(get(&client(), &colors.url("/")).await, "blue");
}

#[tokio::test]
async fn the_lowest_priority_that_fits_wins() {
    let colors = two_colors().await;
    let fixed = |status: u16, body: &str| {
        ["Type=fixed-response".to_owned(), format!("FixedResponseConfig.StatusCode={status}")]
            .into_iter()
            .chain([format!("FixedResponseConfig.MessageBody={body}")])
            .collect::<Vec<_>>()
    };
    colors.rule(20, &["Field=path-pattern", "Values.member.1=/a/*"], &fixed(200, "wide")).await;
    colors.rule(10, &["Field=path-pattern", "Values.member.1=/a/b"], &fixed(200, "narrow")).await;
    eventually("the second rule to be taken up", async || {
        let now = get(&client(), &colors.url("/a/b")).await;
        if now == "narrow" { Ok(()) } else { Err(now) }
    })
    .await;
    assert_eq!(get(&client(), &colors.url("/a/c?x=1")).await, "wide");
    assert_eq!(get(&client(), &colors.url("/A/c")).await, "blue");
}

#[tokio::test]
async fn weights_share_requests_out() {
    let colors = two_colors().await;
    let (blue, green) = (colors.blue_group.as_str(), colors.green_group.as_str());
    colors.lab.modify_listener(&colors.listener, &forward(&[(blue, 80), (green, 20)])).await;
    colors.lab.until_state(green, &colors.green, "healthy").await;
    let client = client();
    let before = colors.green.requests();
    for _ in 0..1000 {
        get(&client, &colors.url("/")).await;
    }
    // Five standard deviations of a binomial distribution with n = 1,000 and p = 0.2 are 63.
    let hits = colors.green.requests() - before;
    assert!((137..=263).contains(&hits), "{hits} of 1,000 requests at a weight of 20 %");
    assert!(colors.blue.requests() >= 737);
}

#[tokio::test]
async fn a_sticky_client_stays_with_its_group() {
    let colors = two_colors().await;
    let mut action = forward(&[(&colors.blue_group, 50), (&colors.green_group, 50)]);
    action.push("ForwardConfig.TargetGroupStickinessConfig.Enabled=true".into());
    action.push("ForwardConfig.TargetGroupStickinessConfig.DurationSeconds=60".into());
    colors.lab.modify_listener(&colors.listener, &action).await;
    colors.lab.until_state(&colors.green_group, &colors.green, "healthy").await;
    let first = client().get(colors.url("/")).send().await.unwrap();
    let cookies: Vec<String> =
        first.headers().get_all(SET_COOKIE).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    let cookie = cookies.iter().find(|cookie| cookie.starts_with("AWSALBTG=")).expect("the group's cookie");
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let name = first.text().await.unwrap();
    for _ in 0..30 {
        let next = client().get(colors.url("/")).header(COOKIE, &cookie).send().await.unwrap();
        assert_eq!(next.text().await.unwrap(), name);
    }
}

#[tokio::test]
async fn a_sticky_client_stays_with_its_target() {
    let lab = Lab::start(no_lags()).await;
    let (one, two) = (Backend::start("one").await, Backend::start("two").await);
    let group = lab.group("blue", &[&one, &two]).await;
    let form = [
        format!("TargetGroupArn={group}"),
        "Attributes.member.1.Key=stickiness.enabled".into(),
        "Attributes.member.1.Value=true".into(),
    ];
    lab.must("ModifyTargetGroupAttributes", &form).await;
    let (_, port) = lab.serve(&group).await;
    lab.until_state(&group, &one, "healthy").await;
    lab.until_state(&group, &two, "healthy").await;
    let first = client().get(lab.url(0, port, "/")).send().await.unwrap();
    let cookie = first.headers()[SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("AWSALB="), "{cookie}");
    let name = first.text().await.unwrap();
    for _ in 0..10 {
        let next = client().get(lab.url(0, port, "/")).header(COOKIE, &cookie).send().await.unwrap();
        assert_eq!(next.text().await.unwrap(), name);
    }
}

#[tokio::test]
async fn targets_learn_where_a_request_came_from() {
    let colors = two_colors().await;
    let sent = client().get(colors.url("/headers")).header("x-forwarded-for", "192.0.2.7").header("host", "shop:81");
    let seen = sent.send().await.unwrap().text().await.unwrap();
    for line in [
        "x-forwarded-for: 192.0.2.7, 127.0.0.1\n",
        "x-forwarded-proto: http\n",
        &format!("x-forwarded-port: {}\n", colors.port),
        "x-amzn-trace-id: Root=1-",
        "host: shop:81\n",
    ] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
}

#[tokio::test]
async fn a_redirect_is_answered_without_a_target() {
    let colors = two_colors().await;
    let action = ["Type=redirect", "RedirectConfig.StatusCode=HTTP_301", "RedirectConfig.Path=/new/#{path}"];
    colors.lab.modify_listener(&colors.listener, &action.map(str::to_owned)).await;
    eventually("the redirect to be taken up", async || {
        let now = get(&client(), &colors.url("/")).await;
        if now == "301" { Ok(()) } else { Err(now) }
    })
    .await;
    let answer = client().get(colors.url("/old?q=1")).send().await.unwrap();
    let expected = format!("http://127.0.0.1:{}/new/old?q=1", colors.port);
    assert_eq!(answer.headers()[LOCATION], expected.as_str());
}

#[tokio::test]
async fn an_empty_group_is_503_and_a_target_that_refuses_is_502() {
    let lab = Lab::start(no_lags()).await;
    let group = lab.group("blue", &[]).await;
    let (_, port) = lab.serve(&group).await;
    let answer = fresh_client().get(lab.url(0, port, "/")).send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()[SERVER], "awselb/2.0");
    lab.must("RegisterTargets", &target_form(&group, ([127, 0, 0, 1], free_port()).into())).await;
    eventually("the node to send requests on", async || {
        match get(&fresh_client(), &lab.url(0, port, "/")).await.as_str() {
            "502" => Ok(()),
            other => Err(other.to_owned()),
        }
    })
    .await;
}

#[tokio::test]
async fn a_target_that_is_silent_for_the_idle_timeout_is_504() {
    let lab = Lab::start(no_lags()).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    let load_balancer = lab.load_balancer("web").await;
    let form = [
        format!("LoadBalancerArn={load_balancer}"),
        "Attributes.member.1.Key=idle_timeout.timeout_seconds".into(),
        "Attributes.member.1.Value=1".into(),
    ];
    lab.must("ModifyLoadBalancerAttributes", &form).await;
    let (_, port) = lab.listener(&load_balancer, &forward(&[(&group, 1)])).await;
    lab.until_state(&group, &server, "healthy").await;
    assert_eq!(get(&client(), &lab.url(0, port, "/slow")).await, "504");
    assert_eq!(server.slow_requests(), 1, "it is not sent twice");
}

#[tokio::test]
async fn the_targets_own_errors_pass_through() {
    let colors = two_colors().await;
    let before = colors.lab.counted(&colors.blue);
    let answer = client().get(colors.url("/status/500")).send().await.unwrap();
    assert_eq!(answer.status(), 500);
    assert_ne!(answer.headers().get(SERVER).map(|value| value.as_bytes()), Some("awselb/2.0".as_bytes()));
    get(&client(), &colors.url("/")).await;
    eventually("both to be counted, and one as an error", async || {
        let now = colors.lab.counted(&colors.blue);
        if now == (before.0 + 2, before.1 + 1) { Ok(()) } else { Err(format!("{before:?} {now:?}")) }
    })
    .await;
}
