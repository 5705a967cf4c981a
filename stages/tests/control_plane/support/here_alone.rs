//! An HTTP client that reaches nothing but this machine. Servers on records alone have addresses at which, on somebody's
//! network, somebody else may answer; and whoever waits for an answer from there does so in the machine's time, not in a
//! simulation's.

use std::{net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Proxy,
    dns::{Name, Resolve, Resolving},
    redirect,
};

pub fn client() -> Client {
    let elsewhere = Proxy::custom(|url| {
        let here = url.host_str().is_some_and(|host| host.parse().is_ok_and(|host: IpAddr| host.is_loopback()));
        (!here).then_some("http://no-network.invalid")
    });
    // The rest is as the program has it.
    let client = Client::builder().connect_timeout(Duration::from_secs(5)).timeout(Duration::from_secs(30));
    let client = client.pool_max_idle_per_host(0).redirect(redirect::Policy::none());
    client.proxy(elsewhere).dns_resolver(Arc::new(NoNames)).build().unwrap()
}

/// Knows no name at all, and asks nobody.
struct NoNames;

impl Resolve for NoNames {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(std::future::ready(Err("these tests have no network".into())))
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_reached_but_this_machine_and_no_time_goes_by() {
    let begun = tokio::time::Instant::now();
    for elsewhere in ["http://10.213.0.4:8080/health", "http://203.0.113.9/", "http://a-balancer.example/"] {
        let error = client().get(elsewhere).send().await.unwrap_err();
        assert!(format!("{error:?}").contains("these tests have no network"), "{elsewhere}: {error:?}");
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let hangs_up = async { listener.accept().await.map(drop) };
    let (reached, _) = tokio::join!(hangs_up, client().get(url).send());
    reached.unwrap();
}
