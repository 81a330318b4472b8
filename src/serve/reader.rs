//! A connection whose client has to read. Without this, a client that reads nothing keeps its connection, and what its
//! answer holds, for as long as it likes: nothing asks the body for its next piece while the last one cannot be
//! written.

use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// When a connection ends, whatever its client has read by then.
#[derive(Clone, Debug, Default)]
pub struct End(Arc<Mutex<Option<Instant>>>);

/// Ends a connection at its time, unless it is dropped before.
#[derive(Debug)]
pub struct Ending(End);

impl End {
    /// Ends the connection at this moment.
    pub fn at(&self, moment: Instant) -> Ending {
        self.set(Some(moment));
        Ending(self.clone())
    }

    fn set(&self, moment: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = moment;
    }

    fn get(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

/// The connection.
#[derive(Debug)]
pub struct Reader<S> {
    stream: S,
    patience: Duration,
    end: End,
    /// Set while the client reads nothing.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl<S> Reader<S> {
    /// Of a client that may read nothing for so long.
    pub fn new(stream: S, patience: Duration, end: End) -> Self {
        Self { stream, patience, end, blocked: None }
    }

    fn written<T>(&mut self, context: &mut Context<'_>, written: Poll<Result<T, Error>>) -> Poll<Result<T, Error>> {
        if written.is_ready() {
            self.blocked = None;
            return written;
        }
        let (patience, end) = (Instant::now() + self.patience, self.end.get());
        let until = || Box::pin(sleep_until(end.map_or(patience, |end| end.min(patience))));
        ready!(self.blocked.get_or_insert_with(until).as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Reader<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Reader<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Error>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.written(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.written(context, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.written(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(400);

    /// Writes until it cannot; the client reads a byte from time to time.
    async fn ended_after(end: End, every: Option<Duration>) -> Duration {
        let (client, server) = tokio::io::duplex(16);
        let mut reader = Reader::new(server, PATIENCE, end);
        let client = tokio::spawn(async move {
            let mut client = client;
            loop {
                match every {
                    Some(every) => tokio::time::sleep(every).await,
                    None => std::future::pending().await,
                }
                if client.read_u8().await.is_err() {
                    return;
                }
            }
        });
        let start = Instant::now();
        let error = loop {
            if let Err(error) = reader.write_all(b"ever more").await {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        client.abort();
        start.elapsed()
    }

    #[tokio::test]
    async fn a_client_that_reads_nothing_is_hung_up_on_and_a_slow_one_at_the_end() {
        assert!(ended_after(End::default(), None).await >= PATIENCE);
        let end = End::default();
        let hour = end.at(Instant::now() + 3 * PATIENCE);
        let slow = ended_after(end.clone(), Some(PATIENCE / 8)).await;
        assert!(slow >= 2 * PATIENCE, "it reads, and is let: {slow:?}");
        drop(hour);
        assert_eq!(end.get(), None, "the next answer of the connection has its own time");
    }
}
