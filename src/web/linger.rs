//! Uploads that web answers before they have arrived, as where the key is wrong or the tenant sends too many. A connection that is closed
//! while the client still sends is reset, and the client loses the answer: it sees a broken connection instead of the reason. So web reads
//! on for a while and keeps nothing. <https://www.rfc-editor.org/rfc/rfc9112#section-9.6>

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;

use super::api::documents;
use super::guards;

/// How long web reads what it does not need.
const LINGER: Duration = Duration::from_secs(5);
/// The same, where anyone may send: honest bodies of this size are there at once.
const SHORT_LINGER: Duration = Duration::from_secs(1);
/// How much of it: the longest upload there can be.
const MOST: usize = documents::LARGEST + documents::FORM;

/// Answers an upload, also where the answer comes before its end.
pub async fn linger(request: Request, next: Next) -> Response {
    if !guards::is_upload(&request) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = if body.is_end_stream() { body } else { Body::from_stream(Lingering(Some(body.into_data_stream()))) };
    next.run(Request::from_parts(parts, body)).await
}

/// Reads on for a moment after the answer to a short body that was not read.
pub fn short(body: Body) {
    tokio::spawn(tokio::time::timeout(SHORT_LINGER, discard(body.into_data_stream())));
}

/// A body whose rest is read when it is dropped.
struct Lingering(Option<BodyDataStream>);

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(pieces) = &mut self.0 else { return Poll::Ready(None) };
        let piece = ready!(pieces.poll_next_unpin(cx));
        if !matches!(piece, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        // Without a runtime, web ends, and its connections with it.
        if let Some(rest) = self.0.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(LINGER, discard(rest)));
        }
    }
}

async fn discard(mut pieces: BodyDataStream) {
    let mut read = 0;
    while read <= MOST
        && let Some(Ok(piece)) = pieces.next().await
    {
        read += piece.len();
    }
}
