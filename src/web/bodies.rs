//! Room for bodies of callers who are not known yet: what is held in memory before a signature is checked.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::problem::Problem;
use super::shares::{Share, Shares};

/// Bodies that are held at the same time: 16 MB of the largest.
const ALL: usize = 32;
/// Those of one client.
const OWN: usize = 8;
/// How long a request waits for its place. Stripe gives up on an answer later than that, and sends the event again.
const WAIT: Duration = Duration::from_secs(2);
/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// The places, by the clients' networks. As many requests of a client may wait as it has connections.
#[derive(Debug)]
pub struct Bodies(Shares<IpAddr>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Shares::new(ALL, OWN, Semaphore::MAX_PERMITS - OWN, WAIT))
    }
}

impl Bodies {
    /// Waits a moment for a place for a body of this client.
    pub async fn take(&self, client: IpAddr) -> Result<Share, Problem> {
        self.0.take(client).await.ok_or_else(Problem::unavailable)
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
        let mut bodies = Bodies::default();
        bodies.0.wait = Duration::from_millis(20);
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
