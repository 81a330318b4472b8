//! Uploads that web answers before they have arrived, as where the key is wrong or the tenant sends too many. A
//! connection that is closed while the client still sends is reset, and the client loses the answer: it sees a broken
//! connection instead of the reason. So web reads on for a while and keeps nothing.
//! <https://www.rfc-editor.org/rfc/rfc9112#section-9.6>
//!
//! An upload that waits for its place stops its client's connection: web reads nothing, and the client's kernel asks
//! again and again whether it may send. Linux counts these waits together where one connection carries several uploads,
//! and ends the connection after the client's `TCP_USER_TIMEOUT` (30 seconds in reqwest), even though each wait is
//! shorter. So web ends the connection of an upload that waited, with the answer, and the next upload begins on a new
//! one. <https://www.rfc-editor.org/rfc/rfc5482>

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use axum::body::{Body, BodyDataStream, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use futures::{Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::bodies::{FORM, LARGEST_FILE};
use super::guards;
use crate::web::App;

/// How long web reads what it does not need.
const LINGER: Duration = Duration::from_secs(5);
/// The same, where anyone may send: honest bodies of this size are there at once.
const SHORT_LINGER: Duration = Duration::from_secs(1);
/// How long a connection may have been stopped by an upload that waited, and carry another one all the same.
const STOPPED: Duration = Duration::from_secs(1);
/// How much of it: the longest upload there can be.
const MOST: usize = LARGEST_FILE + FORM;
/// The part of web's connections that may linger at the same time. Where more of them do, a connection is closed at
/// once.
const PART: usize = 8;

/// The connections that linger.
#[derive(Clone, Debug)]
pub struct Lingers(Arc<Semaphore>);

impl Lingers {
    /// For a web that takes so many connections.
    pub fn new(connections: usize) -> Self {
        Self(Arc::new(Semaphore::new(connections / PART)))
    }

    /// Reads on for a moment after the answer to a short body that was not read.
    pub fn short(&self, headers: &HeaderMap, body: Body) {
        if !waits_to_be_asked(headers) {
            self.discard(body.into_data_stream(), SHORT_LINGER);
        }
    }

    fn discard(&self, mut rest: BodyDataStream, time: Duration) {
        // Without a runtime, web ends, and its connections with it.
        let (Ok(place), Ok(runtime)) = (self.0.clone().try_acquire_owned(), Handle::try_current()) else { return };
        runtime.spawn(async move {
            let discard = async {
                let mut read = 0;
                while read <= MOST
                    && let Some(Ok(piece)) = rest.next().await
                {
                    read += piece.len();
                }
            };
            drop(tokio::time::timeout(time, discard).await);
            drop(place);
        });
    }
}

/// Whether the client sends its body only when it is asked for it. After another answer it sends none.
fn waits_to_be_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(header::EXPECT)
}

/// Answers an upload, also where the answer comes before its end.
pub async fn linger(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !guards::is_upload(&request) || request.body().is_end_stream() || waits_to_be_asked(request.headers()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let waited = Arc::new(AtomicBool::new(false));
    let body = Lingering {
        pieces: Some(body.into_data_stream()),
        lingers: app.lingers.clone(),
        unread_since: Some(Instant::now()),
        waited: waited.clone(),
    };
    let mut response = next.run(Request::from_parts(parts, Body::from_stream(body))).await;
    if waited.load(Ordering::Relaxed) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A body whose rest is read when it is dropped.
struct Lingering {
    pieces: Option<BodyDataStream>,
    lingers: Lingers,
    /// None once the first piece was asked for.
    unread_since: Option<Instant>,
    /// Whether the body waited for so long that its connection ends with the answer.
    waited: Arc<AtomicBool>,
}

impl Lingering {
    /// The wait for the first look at the body is over.
    fn begin(&mut self) {
        if self.unread_since.take().is_some_and(|since| since.elapsed() >= STOPPED) {
            self.waited.store(true, Ordering::Relaxed);
        }
    }
}

impl Stream for Lingering {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.begin();
        let Some(pieces) = &mut self.pieces else { return Poll::Ready(None) };
        let piece = ready!(pieces.poll_next_unpin(cx));
        if !matches!(piece, Some(Ok(_))) {
            self.pieces = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        self.begin();
        if let Some(rest) = self.pieces.take() {
            self.lingers.discard(rest, LINGER);
        }
    }
}
