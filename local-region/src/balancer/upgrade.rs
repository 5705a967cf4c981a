//! Connections to targets that are to become something else than HTTP: WebSockets.
//!
//! The proxy library (pingora-proxy 0.9.1, `proxy_handle_upstream`) tells the side that writes to the target of the end of
//! the request's empty body, and takes it for the end of the whole exchange where the target's `101` was read before. Both
//! are ready at once where a target answers at once, and then it picks one by chance: about one WebSocket in thirty ended
//! right after its beginning. So the first byte of the answer is held back for a moment, in which the other is dealt with.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// Far longer than one task takes to hand something to another, and too short to be noticed.
const MOMENT: Duration = Duration::from_millis(20);

/// A socket that waits a moment before its first read.
#[derive(Debug)]
pub struct Hesitant {
    stream: TcpStream,
    moment: Moment,
}

#[derive(Debug)]
enum Moment {
    NotBegun,
    Lasts(Pin<Box<Sleep>>),
    Over,
}

impl Hesitant {
    pub const fn new(stream: TcpStream) -> Self {
        Self { stream, moment: Moment::NotBegun }
    }
}

impl AsyncRead for Hesitant {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if matches!(self.moment, Moment::NotBegun) {
            self.moment = Moment::Lasts(Box::pin(sleep(MOMENT)));
        }
        if let Moment::Lasts(sleep) = &mut self.moment {
            ready!(sleep.as_mut().poll(cx));
            self.moment = Moment::Over;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Hesitant {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl VirtualSocket for Hesitant {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // Both ends are on this machine.
            _ => Ok(()),
        }
    }
}
