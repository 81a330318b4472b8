//! Room for bodies of callers who are not known yet: what is held in memory before a signature is checked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::problem::Problem;

/// Bodies that are held at the same time: 16 MB of the largest.
const ALL: usize = 32;
/// Those of one client.
const OWN: usize = 8;
/// How long a request waits for its place. Stripe gives up on an answer later than that, and sends the event again.
const WAIT: Duration = Duration::from_secs(2);
/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);
/// Clients without a body are forgotten when there are so many.
const KEPT: usize = 1000;

/// The places.
#[derive(Debug)]
pub struct Bodies {
    all: Arc<Semaphore>,
    own: Mutex<HashMap<IpAddr, Arc<Semaphore>>>,
    wait: Duration,
}

impl Default for Bodies {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(ALL)), own: Mutex::default(), wait: WAIT }
    }
}

/// A place, until the caller is known.
#[derive(Debug)]
pub struct Held {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl Bodies {
    /// Waits a moment for a place for a body of this client. Its own places come first, so that one client that sends slowly
    /// leaves places for all others.
    pub async fn take(&self, client: IpAddr) -> Result<Held, Problem> {
        let own = self.own(client);
        let held = async {
            let own = own.acquire_owned().await.ok()?;
            let all = self.all.clone().acquire_owned().await.ok()?;
            Some(Held { _own: own, _all: all })
        };
        timeout(self.wait, held).await.ok().flatten().ok_or_else(Problem::unavailable)
    }

    fn own(&self, client: IpAddr) -> Arc<Semaphore> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.len() > KEPT {
            // A permit that is out, or waited for, holds its semaphore.
            own.retain(|_, places| Arc::strong_count(places) > 1);
        }
        own.entry(client).or_insert_with(|| Arc::new(Semaphore::new(OWN))).clone()
    }
}

/// The whole of a body, unless it is too large or takes too long.
pub async fn arrived(body: Body, largest: usize) -> Result<Bytes, Problem> {
    arrived_within(ARRIVAL, body, largest).await
}

async fn arrived_within(limit: Duration, body: Body, largest: usize) -> Result<Bytes, Problem> {
    let slow = || Problem::new(StatusCode::REQUEST_TIMEOUT, "slow", "The request took too long to arrive.");
    let large = || Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "The request is too large.");
    timeout(limit, to_bytes(body, largest)).await.map_err(|_| slow())?.map_err(|_| large())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[tokio::test]
    async fn one_client_holds_some_places_and_all_together_no_more_than_there_are() {
        let bodies = Bodies { wait: Duration::from_millis(20), ..Bodies::default() };
        let client = |n: u8| IpAddr::from(Ipv4Addr::new(192, 0, 2, n));
        let mut held = Vec::new();
        for n in 0..4 {
            for _ in 0..OWN {
                held.push(bodies.take(client(n)).await.expect("a place"));
            }
            assert_eq!(
                bodies.take(client(n)).await.expect_err("its own are taken").status(),
                StatusCode::SERVICE_UNAVAILABLE
            );
        }
        assert_eq!(held.len(), ALL);
        assert!(bodies.take(client(9)).await.is_err(), "all are taken");
        held.truncate(ALL - 1);
        assert!(bodies.take(client(9)).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(
            arrived_within(ARRIVAL / 100, never, 10).await.expect_err("slow").status(),
            StatusCode::REQUEST_TIMEOUT
        );
        assert_eq!(
            arrived(Body::from("12345678901"), 10).await.expect_err("large").status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
        assert_eq!(arrived(Body::from("1234567890"), 10).await.expect("it fits").len(), 10);
    }
}
