//! Bytes between code that blocks (archives) and code that must not (the engine's connection).

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

/// Chunks that may wait on the way, and their size: at most 4 MiB in memory, whatever is sent.
const WAITING_CHUNKS: usize = 64;
const CHUNK: usize = 64 << 10;

/// The end that blocking code writes to. What it wrote is sent when a chunk is full, and by [`Write::flush`].
pub(crate) struct Writer {
    chunk: Vec<u8>,
    queue: mpsc::Sender<io::Result<Bytes>>,
}

/// A pipe that blocking code writes and a request sends.
pub(crate) fn outgoing() -> (Writer, impl Stream<Item = io::Result<Bytes>> + Send + 'static) {
    let (queue, mut waiting) = mpsc::channel(WAITING_CHUNKS);
    let stream = stream::poll_fn(move |context| waiting.poll_recv(context));
    (Writer { chunk: Vec::with_capacity(CHUNK), queue }, stream)
}

impl Writer {
    /// Ends the stream with an error, so that a half-written request is refused rather than taken for whole.
    pub(crate) fn abort(self) {
        let _ = self.queue.blocking_send(Err(io::Error::other("the source could not be read to its end")));
    }
}

impl Write for Writer {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(buffer);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.queue.blocking_send(Ok(chunk.into())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}

/// The end that blocking code reads from.
pub(crate) struct Reader {
    chunk: Bytes,
    queue: mpsc::Receiver<io::Result<Bytes>>,
}

/// A pipe that a response fills and blocking code reads. The future moves the bytes and must be polled meanwhile.
pub(crate) fn incoming<E: std::error::Error + Send + Sync + 'static>(
    source: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> (impl Future<Output = ()> + Send, Reader) {
    let (queue, waiting) = mpsc::channel(WAITING_CHUNKS);
    let moving = async move {
        let mut source = std::pin::pin!(source);
        while let Some(chunk) = source.next().await {
            if queue.send(chunk.map_err(io::Error::other)).await.is_err() {
                return;
            }
        }
    };
    (moving, Reader { chunk: Bytes::new(), queue: waiting })
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            match self.queue.blocking_recv() {
                Some(chunk) => self.chunk = chunk?,
                None => return Ok(0),
            }
        }
        let count = self.chunk.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.chunk.split_to(count));
        Ok(count)
    }
}
