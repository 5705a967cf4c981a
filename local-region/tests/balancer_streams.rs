//! Long bodies, and connections that become something else than HTTP.

use std::convert::Infallible;

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

mod balancer_support;
use balancer_support::{Backend, Lab, client, get, no_lags, target_form, within};

const MEBIBYTES: usize = 48;
/// WebSockets that are opened one after another.
const CONNECTIONS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_bodies_stream_both_ways() {
    let lab = Lab::start(no_lags()).await;
    let server = Backend::start("one").await;
    let group = lab.group("blue", &[&server]).await;
    let (_, port) = lab.serve(&group).await;
    lab.until_state(&group, &server, "healthy").await;

    let chunk = Bytes::from(vec![7u8; 1 << 20]);
    let body = stream::iter((0..MEBIBYTES).map(move |_| Ok::<_, Infallible>(chunk.clone())));
    let sent = client().post(lab.url(0, port, "/count")).body(reqwest::Body::wrap_stream(body)).send();
    let counted = within("the upload", sent).await.unwrap().text().await.unwrap();
    assert_eq!(counted, (MEBIBYTES << 20).to_string());

    let answer = client().get(lab.url(0, port, &format!("/send/{MEBIBYTES}"))).send().await.unwrap();
    let mut received = 0;
    let mut body = answer.bytes_stream();
    while let Some(chunk) = within("the download", body.next()).await {
        received += chunk.unwrap().len();
    }
    assert_eq!(received, MEBIBYTES << 20);
    assert_eq!(get(&client(), &lab.url(0, port, "/")).await, "one");
}

/// Answers every upgrade to WebSocket, then sends back what it gets.
async fn echo_server() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            tokio::spawn(async move {
                let head = head(&mut stream).await;
                if !head.to_lowercase().contains("upgrade: websocket") {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                    return;
                }
                let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                              sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
                let _ = stream.write_all(answer.as_bytes()).await;
                let mut buffer = [0; 1024];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Reads up to the empty line after the headers.
async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn websockets_pass() {
    let lab = Lab::start(no_lags()).await;
    let address = echo_server().await;
    let group = lab.group("blue", &[]).await;
    lab.must("RegisterTargets", &target_form(&group, address)).await;
    let (_, port) = lab.serve(&group).await;
    // Many, because what a client sends in the very moment of the switch has been lost before.
    for turn in 0..CONNECTIONS {
        let mut stream = within("a connection", TcpStream::connect(("127.0.0.1", port))).await.unwrap();
        let request = "GET /chat HTTP/1.1\r\nhost: shop\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
                       sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let answer = within("the upgrade", head(&mut stream)).await;
        assert!(answer.starts_with("HTTP/1.1 101"), "connection {turn}: {answer}");
        for message in ["first", "second"] {
            stream.write_all(message.as_bytes()).await.unwrap();
            let mut echo = vec![0; message.len()];
            let read = within("the echo", stream.read_exact(&mut echo)).await;
            assert!(read.is_ok(), "connection {turn}, {message}: {read:?}");
            assert_eq!(echo, message.as_bytes());
        }
    }
}
