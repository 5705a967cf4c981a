//! A network that damages one part of an upload on its way.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
};

/// What is found in the first line of a request that sends the part.
const PART: &[u8] = b"partNumber=2&";
/// Where a byte is changed: well behind the request's headers, well within a part.
const BYTES_AFTER: usize = 100_000;

/// Starts passing connections on to `to` (`http://host:port`). Answers its own URL. It ends with the test's runtime.
pub async fn start(to: &str) -> String {
    let to = to.trim_start_matches("http://").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&to).await.unwrap();
            let (from_client, mut to_client) = client.into_split();
            let (mut from_server, to_server) = server.into_split();
            tokio::spawn(pass_on(from_client, to_server));
            tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
        }
    });
    url
}

/// Passes everything on, but for one byte of each sending of the part.
async fn pass_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    let mut buffer = vec![0; 64 * 1024];
    // The end of what was passed on: the mark may come in two pieces.
    let mut tail: Vec<u8> = Vec::new();
    let mut left: Option<usize> = None;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = &mut buffer[..count];
        match left {
            Some(distance) if distance < count => {
                bytes[distance] ^= 1;
                left = None;
                tail.clear();
            }
            Some(distance) => left = Some(distance - count),
            None => {
                tail.extend_from_slice(bytes);
                if tail.windows(PART.len()).any(|window| window == PART) {
                    left = Some(BYTES_AFTER);
                }
                tail.drain(..tail.len().saturating_sub(PART.len() - 1));
            }
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}
