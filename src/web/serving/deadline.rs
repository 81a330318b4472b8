//! When an upload ends. The controller erases a tenant's namespaces once more `--upload-limit` seconds after the tenant
//! was closed, because an upload that began before may make a namespace again. So none may write for longer, whatever
//! its client and the providers do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use futures::{Future, TryStreamExt};
use tokio::time::{Instant, sleep, timeout_at};

use super::bodies::in_large_pieces;
use super::problem::{Code, Problem};

/// How long the body of an upload may take to arrive, at most.
const ARRIVAL: Duration = Duration::from_mins(2);

/// The time over which the pace of a body is measured, again and again. A phone that has no network for a few seconds
/// goes on with up to as much delay again.
const WINDOW: Duration = Duration::from_secs(30);
/// Bytes that must come in each second of a window. A client that sends less gives its place to the tenants that wait.
/// What came before the window does not count: a client that sends much at once and then nothing would hold its place
/// for long.
const PACE: u64 = 16 << 10;
/// Looks at the pace in a window.
const LOOKS: u32 = 10;

/// When an upload ends that has begun.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    /// Until when the body may arrive.
    arrival: Instant,
    /// Until when the file may be read and stored.
    work: Instant,
    /// Until when what was stored in vain is deleted.
    end: Instant,
    limit: Duration,
}

impl Deadline {
    /// Of an upload that begins now. It ends a tenth of the limit early: a call that is under way then may still be
    /// carried out by the provider.
    pub fn of(limit: Duration) -> Self {
        let now = Instant::now();
        let work = now + limit * 3 / 4;
        Self { arrival: work.min(now + ARRIVAL), work, end: now + limit * 9 / 10, limit }
    }

    /// What a client sends, as `read` takes it from the request, unless it comes too slowly or takes too long.
    pub async fn arrived<T, F>(self, request: Request, read: impl FnOnce(Request) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, Code::Slow, "The file took too long to arrive.");
        let (request, count) = counted(request);
        tokio::select! {
            read = timeout_at(self.arrival, read(request)) => read.map_err(|_| slow())?,
            () = falls_behind(&count, WINDOW, PACE) => Err(slow()),
        }
    }

    /// A part of the work, unless it takes too long.
    pub async fn worked<T>(self, work: impl Future<Output = T>) -> Result<T, Problem> {
        timeout_at(self.work, work).await.map_err(|_| self.too_long())
    }

    /// The whole of it, with what has to be taken back where it fails.
    pub async fn ended<T>(self, all: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        timeout_at(self.end, all).await.map_err(|_| self.too_long())?
    }

    fn too_long(self) -> Problem {
        let detail = format!(
            "The file was not stored within {} seconds, and nothing of it is kept. Split it and upload the parts, or try again later.",
            self.limit.as_secs()
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TakesTooLong, detail)
    }
}

/// The request, and how many bytes of its body have come.
fn counted(request: Request) -> (Request, Arc<AtomicU64>) {
    let count = Arc::new(AtomicU64::new(0));
    let counter = count.clone();
    let count_up = move |bytes: &axum::body::Bytes| {
        counter.fetch_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX), Ordering::Relaxed);
    };
    let body = |body: Body| in_large_pieces(Body::from_stream(body.into_data_stream().inspect_ok(count_up)));
    (request.map(body), count)
}

/// Ends once fewer bytes have come in the last window than the pace asks for.
async fn falls_behind(count: &AtomicU64, window: Duration, pace: u64) {
    let mut seen = VecDeque::from([(Instant::now(), count.load(Ordering::Relaxed))]);
    loop {
        sleep(window / LOOKS).await;
        let (now, come) = (Instant::now(), count.load(Ordering::Relaxed));
        seen.push_back((now, come));
        // The latest look that is a whole window ago.
        while seen.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= window) {
            seen.pop_front();
        }
        let Some((since, before)) = seen.front().copied() else { continue };
        let time = now.duration_since(since);
        let asked = u128::from(pace) * time.as_millis() / 1000;
        if time >= window && u128::from(come - before) < asked {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use futures::{StreamExt, stream};

    use super::*;

    #[tokio::test]
    async fn an_upload_ends_before_its_limit_wherever_it_hangs() {
        let limit = Duration::from_secs(2);
        let begun = Instant::now();
        let deadline = Deadline::of(limit);
        let (arrived, worked, ended) = tokio::join!(
            deadline.arrived(Request::default(), |_| pending::<Result<(), Problem>>()),
            async { (deadline.worked(pending::<()>()).await, begun.elapsed()) },
            deadline.ended(pending::<Result<(), Problem>>()),
        );
        assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
        assert_eq!(arrived.expect_err("it hangs").status(), StatusCode::REQUEST_TIMEOUT);
        let (worked, after) = worked;
        for hung in [worked, ended] {
            let hung = hung.expect_err("it hangs");
            assert_eq!((hung.status(), hung.code()), (StatusCode::PAYLOAD_TOO_LARGE, "takes_too_long"));
        }
        assert!(after < limit * 17 / 20, "there is time to take back what was stored: {after:?}");
        assert!(Deadline::of(Duration::from_hours(1)).arrival <= Instant::now() + ARRIVAL);
    }

    #[tokio::test]
    async fn a_body_that_comes_too_slowly_loses_its_place_and_one_that_keeps_pace_does_not() {
        // A hundredth of the times outside of tests, at the same pace.
        let window = WINDOW / 100;
        let arrive = async |first: usize, bytes: usize, pieces: usize| {
            let pieces = stream::iter(0..=pieces).then(move |i| async move {
                sleep(window / 10).await;
                Ok::<_, std::io::Error>(vec![b'x'; if i == 0 { first } else { bytes }])
            });
            let (request, count) = counted(Request::new(Body::from_stream(pieces)));
            tokio::select! {
                body = axum::body::to_bytes(request.into_body(), usize::MAX) => body.ok().map(|body| body.len()),
                () = falls_behind(&count, window, PACE) => None,
            }
        };
        assert_eq!(arrive(0, 4 << 10, 60).await, Some(60 * (4 << 10)), "it keeps pace");
        assert_eq!(arrive(0, 10, 60).await, None, "it does not");
        assert_eq!(arrive(1 << 20, 10, 60).await, None, "it sends much at once and then hardly anything");
        assert_eq!(arrive(0, 10, 2).await, Some(20), "a small file that ends within a window");
    }
}
