//! When an upload ends. The controller erases a tenant's namespaces once more `--upload-limit` seconds after the tenant was closed,
//! because an upload that began before may make a namespace again. So none may write for longer, whatever its client and the
//! providers do.

use std::time::Duration;

use axum::http::StatusCode;
use futures::Future;
use tokio::time::{Instant, timeout_at};

use super::problem::Problem;

/// How long the body of an upload may take to arrive, at most.
const ARRIVAL: Duration = Duration::from_mins(2);

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
    /// Of an upload that begins now. It ends a tenth of the limit early: a call that is under way then may still be carried out by the
    /// provider.
    pub fn of(limit: Duration) -> Self {
        let now = Instant::now();
        let work = now + limit * 3 / 4;
        Self { arrival: work.min(now + ARRIVAL), work, end: now + limit * 9 / 10, limit }
    }

    /// What a client sends, unless it takes too long.
    pub async fn arrived<T>(self, body: impl Future<Output = Result<T, Problem>>) -> Result<T, Problem> {
        let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", "The file took too long to arrive.");
        timeout_at(self.arrival, body).await.map_err(|_| slow())?
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
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "takes_too_long", detail)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn an_upload_ends_before_its_limit_wherever_it_hangs() {
        let limit = Duration::from_secs(2);
        let begun = Instant::now();
        let deadline = Deadline::of(limit);
        let (arrived, worked, ended) = tokio::join!(
            deadline.arrived(pending::<Result<(), Problem>>()),
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
}
