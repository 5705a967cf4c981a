//! How long does a server keep an idle connection? Seen in passing, in whatever time there is; [`crate::kept_open`] is the
//! check that takes the time to prove it.

use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response, StatusCode, Version,
    body::Bytes,
    client::conn::http1,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use crate::{http::chain, target::Target};

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The server says with its answer that it closes the connection: nobody sends another request over it.
    Never,
    /// It says for how long it keeps it: `Keep-Alive: timeout=…`.
    Announced(Duration),
    /// It closed it after this long, without a word before.
    Closed(Duration),
    /// It closed one after this long, and kept another for longer than that: the second time. The first had another cause.
    ClosedOnce(Duration, Duration),
    /// It was still open after this long.
    Open(Duration),
}

impl Kept {
    /// Whether a balancer that keeps it for `idle` may send a request into its end.
    pub fn is_shorter_than(self, idle: Duration) -> bool {
        match self {
            Self::Never | Self::Open(_) | Self::ClosedOnce(..) => false,
            Self::Announced(kept) | Self::Closed(kept) => kept <= idle,
        }
    }
}

/// A second look takes this much longer, at least, than the first connection was open.
const LONGER: Duration = Duration::from_secs(1);
/// Longest time that a second look waits for its answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Asks once, and leaves the connection idle until `enough`, or until it has been so for `at_most`. A connection that is
/// closed may have been so for another reason, such as a restart: a second one is looked at for twice the time that the
/// first was open, also after `enough`, unless it is `in_vain`. What both have shown is the answer.
///
/// # Errors
/// There was no answer, or `enough` came before it, or nobody waited for a second look; in words.
pub async fn look(
    target: &Target,
    path: &str,
    at_most: Duration,
    enough: impl Future<Output = ()>,
    in_vain: impl Future<Output = ()>,
) -> Result<Kept, String> {
    let first = match look_once(target, path, at_most, enough).await? {
        Kept::Closed(after) => after,
        seen => return Ok(seen),
    };
    let once = |why: &str| format!("it closed one after {:.1} s, and then: {why}", first.as_secs_f64());
    let span = (first * 2).max(first + LONGER).min(at_most);
    let again = tokio::select! {
        biased;
        again = look_once(target, path, span, tokio::time::sleep(span + ANSWER)) => again,
        () = in_vain => Err("nobody waited for another".to_owned()),
    };
    Ok(match again.map_err(|why| once(&why))? {
        Kept::Closed(second) => Kept::Closed(first.max(second)),
        Kept::Open(second) => Kept::ClosedOnce(first, second),
        seen => seen,
    })
}

async fn look_once(
    target: &Target,
    path: &str,
    at_most: Duration,
    enough: impl Future<Output = ()>,
) -> Result<Kept, String> {
    tokio::pin!(enough);
    let answered = async {
        let port = target.url.port_or_known_default().unwrap_or(80);
        let stream = TcpStream::connect((target.host.as_str(), port))
            .await
            .map_err(|error| format!("no connection: {error}"))?;
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await.map_err(|error| chain(&error))?;
        let connection = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(connection));
        let request = Request::get(path).header("host", format!("{}:{port}", target.host)).body(Empty::new());
        let request = request.map_err(|error| format!("no request can be made of {path}: {error}"))?;
        let answer = sender.send_request(request).await.map_err(|error| format!("no answer: {}", chain(&error)))?;
        let says = announced(&answer);
        answer.into_body().collect().await.map_err(|error| format!("half an answer: {}", chain(&error)))?;
        Ok::<_, String>((says, sender, connection))
    };
    // The sender is held: without it the connection would be closed from this side.
    let (says, _sender, connection) = tokio::select! {
        answered = answered => answered?,
        () = &mut enough => return Err("there was no time to".to_owned()),
    };
    if let Some(says) = says {
        return Ok(says);
    }
    let begun = Instant::now();
    tokio::select! {
        _ = connection => Ok(Kept::Closed(begun.elapsed())),
        () = tokio::time::sleep(at_most) => Ok(Kept::Open(begun.elapsed())),
        () = enough => Ok(Kept::Open(begun.elapsed())),
    }
}

/// What an answer says of its connection. Without a word, both sides know that no other request comes over it where the
/// answer is HTTP/1.0's, or ends only with the connection (RFC 9112, 6.3 and 9.3).
fn announced<B>(answer: &Response<B>) -> Option<Kept> {
    let headers = answer.headers();
    let words = |name: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        let words = values.flat_map(|value| value.split(',')).map(|word| word.trim().to_ascii_lowercase());
        words.collect::<Vec<_>>()
    };
    let says = |wanted: &str| words("connection").iter().any(|word| word == wanted);
    let has_no_body = matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let has_end = has_no_body || headers.contains_key(CONTENT_LENGTH) || headers.contains_key(TRANSFER_ENCODING);
    if says("close") || !has_end || (answer.version() == Version::HTTP_10 && !says("keep-alive")) {
        return Some(Kept::Never);
    }
    let timeout = words("keep-alive").iter().find_map(|word| {
        let seconds = word.strip_prefix("timeout")?.trim_start().strip_prefix('=')?.trim();
        seconds.parse().ok()
    });
    timeout.map(|seconds| Kept::Announced(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers each connection's request with these headers, and closes it after a while where there is one:
    /// the first, the second, and so on.
    async fn server(headers: &'static str, closes: &'static [Option<Duration>]) -> Target {
        answering(format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n{headers}\r\nok"), closes).await
    }

    async fn answering(answer: String, closes: &'static [Option<Duration>]) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            for closes in closes {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                match closes {
                    Some(after) => tokio::time::sleep(*after).await,
                    None => std::future::pending().await,
                }
            }
        });
        Target::server("127.0.0.1", port).unwrap()
    }

    async fn seen(headers: &'static str, closes: &'static [Option<Duration>]) -> Result<Kept, String> {
        let target = server(headers, closes).await;
        let enough = tokio::time::sleep(Duration::from_millis(400));
        look(&target, "/", Duration::from_secs(60), enough, std::future::pending()).await
    }

    /// Python's own servers answer so.
    #[tokio::test]
    async fn a_connection_that_ends_with_its_answer_is_known_to() {
        for answer in ["HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\n\r\nok"] {
            let target = answering(answer.to_owned(), &[Some(Duration::ZERO)]).await;
            let enough = tokio::time::sleep(Duration::from_secs(2));
            let seen = look(&target, "/", Duration::from_secs(60), enough, std::future::pending()).await;
            assert_eq!(seen, Ok(Kept::Never), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_server_says_it_or_shows_it() {
        let announced = Kept::Announced(Duration::from_secs(5));
        assert_eq!(seen("keep-alive: timeout=5, max=100\r\n", &[None]).await, Ok(announced));
        assert_eq!(seen("Connection: close\r\n", &[None]).await, Ok(Kept::Never));
        assert!(matches!(seen("", &[None]).await, Ok(Kept::Open(after)) if after >= Duration::from_millis(300)));
    }

    const SOON: Option<Duration> = Some(Duration::from_millis(50));
    /// After `enough`, and before a second look ends.
    const LATER: Option<Duration> = Some(Duration::from_millis(600));

    #[tokio::test]
    async fn a_server_that_closes_twice_does_so_after_the_longer_of_the_two() {
        let closed = seen("", &[SOON, SOON]).await;
        assert!(matches!(closed, Ok(Kept::Closed(after)) if after < LONGER), "{closed:?}");
        let later = seen("", &[SOON, LATER]).await;
        assert!(matches!(later, Ok(Kept::Closed(after)) if after >= Duration::from_millis(600)), "{later:?}");
    }

    #[tokio::test]
    async fn one_close_alone_says_nothing_of_how_long_it_keeps_them() {
        let open = seen("", &[SOON, None]).await;
        let longer = |first: Duration, second: Duration| second >= LONGER && second >= first * 2;
        assert!(matches!(open, Ok(Kept::ClosedOnce(first, second)) if longer(first, second)), "{open:?}");
        let gone = seen("", &[SOON]).await.unwrap_err();
        assert!(gone.starts_with("it closed one after 0.") && gone.contains("and then: no connection"), "{gone}");
    }

    #[tokio::test]
    async fn a_second_look_ends_where_it_is_in_vain() {
        let target = server("", &[SOON, None]).await;
        let begun = Instant::now();
        let (enough, in_vain) = [400, 500].map(|ms| tokio::time::sleep(Duration::from_millis(ms))).into();
        let seen = look(&target, "/", Duration::from_secs(60), enough, in_vain).await;
        assert!(seen.is_err_and(|why| why.contains("nobody waited")));
        assert!(begun.elapsed() < LONGER, "{:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn nobody_waits_for_a_server_that_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = Target::server("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
        let enough = tokio::time::sleep(Duration::from_millis(50));
        assert!(look(&target, "/", Duration::from_secs(60), enough, std::future::pending()).await.is_err());
    }

    #[test]
    fn it_is_too_short_where_a_request_can_come_into_its_end() {
        let (five, sixty) = (Duration::from_secs(5), Duration::from_secs(60));
        for kept in [Kept::Announced(five), Kept::Announced(sixty), Kept::Closed(five)] {
            assert!(kept.is_shorter_than(sixty), "{kept:?}");
        }
        for kept in
            [Kept::Never, Kept::Announced(Duration::from_secs(75)), Kept::Open(five), Kept::ClosedOnce(five, sixty)]
        {
            assert!(!kept.is_shorter_than(sixty), "{kept:?}");
        }
    }
}
