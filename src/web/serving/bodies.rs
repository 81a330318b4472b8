//! Bodies of requests: how they are read into memory, and how many of them one client may have on their way.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::http::StatusCode;
use futures::{StreamExt, stream};
use tokio::time::{Instant, timeout_at};

use super::arrivals::{Arrival, Arrivals};
use super::problem::{Code, Problem};
use super::shares::{Share, Shares};
use crate::serve::client::site;

/// The largest file of an upload.
pub const LARGEST_FILE: usize = 10 << 20;
/// What surrounds a file in a form.
pub const FORM: usize = 64 << 10;

/// Bodies of one sender that may be on their way at the same time. Without this limit, one client that sends slowly
/// fills all connections of a web behind a proxy.
const ARRIVING: usize = 128;
/// How long a body may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(10);

/// What of a webhook is read without a place. Stripe's events have 2 to 40 kB, so none of them waits for one.
const SHORT: usize = 64 << 10;
/// Longer webhooks that are held at the same time: 16 MB of the largest.
const LONG: usize = 32;
/// Those of one client.
const LONG_OWN: usize = 8;
/// Those of one client that wait for a place.
const LONG_WAITING: usize = 32;
/// How long a webhook waits for its place. Where none becomes free, Stripe sends the event again.
const WAIT: Duration = Duration::from_secs(2);
/// How long the rest of a longer webhook may take to arrive once it has a place.
const REST: Duration = Duration::from_secs(2);

/// Why there is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It is longer than it may be.
    Large,
    /// It ended too early, or is not of the form that HTTP asks for.
    Broken,
    /// It did not arrive in time.
    Slow,
    /// Newer ones of the same sender, or of all, took its place.
    GivenUp,
}

impl From<Unread> for Problem {
    fn from(why: Unread) -> Self {
        match why {
            Unread::Large => Self::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, "The request is too large."),
            Unread::Broken => Self::new(StatusCode::BAD_REQUEST, Code::Malformed, "The body of the request broke off."),
            Unread::Slow => Self::new(StatusCode::REQUEST_TIMEOUT, Code::Slow, "The request took too long to arrive."),
            Unread::GivenUp => Self::too_many(ARRIVAL),
        }
    }
}

/// A body on its way. Each piece is copied into one buffer and dropped: a piece that is kept, however small, keeps the
/// buffer of several kB alive into which hyper read it.
struct Arriving {
    pieces: BodyDataStream,
    bytes: Vec<u8>,
    largest: usize,
}

impl Arriving {
    fn new(body: Body, largest: usize) -> Self {
        Self { pieces: body.into_data_stream(), bytes: Vec::new(), largest }
    }

    /// Reads on until more than so many bytes are there. True at the end of the body.
    async fn read_past(&mut self, count: usize) -> Result<bool, Unread> {
        while self.bytes.len() <= count {
            let Some(piece) = self.pieces.next().await else { return Ok(true) };
            self.append(&piece.map_err(|_| Unread::Broken)?)?;
        }
        Ok(false)
    }

    /// The buffer grows by doubling, and never beyond the largest body.
    fn append(&mut self, piece: &[u8]) -> Result<(), Unread> {
        let needed = self.bytes.len() + piece.len();
        if needed > self.largest {
            return Err(Unread::Large);
        }
        if needed > self.bytes.capacity() {
            let room = needed.max(self.bytes.capacity() * 2).min(self.largest);
            self.bytes.reserve_exact(room - self.bytes.len());
        }
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// As `read_past`, until a moment, and unless it is given up for others.
    async fn read_past_until(
        &mut self,
        count: usize,
        end: Instant,
        arrival: &mut Arrival<Sender>,
    ) -> Result<bool, Unread> {
        tokio::select! {
            biased;
            read = timeout_at(end, self.read_past(count)) => read.map_err(|_| Unread::Slow)?,
            () = arrival.given_up() => Err(Unread::GivenUp),
        }
    }
}

/// The whole of a body. The caller limits its time.
pub async fn whole(body: Body, largest: usize) -> Result<Vec<u8>, Unread> {
    let mut arriving = Arriving::new(body, largest);
    arriving.read_past(usize::MAX).await?;
    Ok(arriving.bytes)
}

/// The pieces of a body that is read while it arrives, but the last.
const PIECE: usize = 64 << 10;

/// The same body in pieces of a good size. The parser of forms searches all of a part's headers again with each piece:
/// with small ones, headers of 10 MB would take minutes of processor time.
pub fn in_large_pieces(body: Body) -> Body {
    let pieces = stream::unfold(Some(body.into_data_stream()), async |pieces| {
        let mut arriving = Arriving { pieces: pieces?, bytes: Vec::new(), largest: usize::MAX };
        match arriving.read_past(PIECE - 1).await {
            Ok(true) if arriving.bytes.is_empty() => None,
            Ok(over) => Some((Ok(Bytes::from(arriving.bytes)), (!over).then_some(arriving.pieces))),
            Err(_) => Some((Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof)), None)),
        }
    });
    Body::from_stream(pieces)
}

/// Who sends a body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// A client that is not known yet, by its site.
    Client(IpAddr),
    /// The tenant whose API key came with the request, by its uid.
    Tenant(String),
    /// The owner's own services, by their token.
    Service,
}

impl Sender {
    /// The client at this address.
    pub fn client(address: IpAddr) -> Self {
        Self::Client(site(address))
    }
}

/// Bodies that are read before their handlers run.
#[derive(Debug)]
pub struct Bodies {
    /// All but webhooks.
    requests: Arrivals<Sender>,
    /// Webhooks. Stripe may share an address with strangers, where web does not see the clients' addresses.
    webhooks: Arrivals<Sender>,
    /// Webhooks that are longer than Stripe's.
    long: Shares<Sender>,
    arrival: Duration,
    rest: Duration,
}

/// The place of a webhook among those whose bodies are in memory. It is kept until the signature is checked.
#[derive(Debug)]
pub struct WebhookPlace {
    _arrival: Arrival<Sender>,
    _long: Option<Share>,
}

impl Bodies {
    /// For a web that takes so many connections. Bodies on their way take a quarter of them, and webhooks another
    /// quarter, so that many senders together leave half of them for others.
    pub fn new(connections: usize) -> Self {
        let arrivals = || Arrivals::new(ARRIVING.min(connections / 4), connections / 4);
        Self {
            requests: arrivals(),
            webhooks: arrivals(),
            long: Shares::new(LONG, LONG_OWN, LONG_WAITING, WAIT),
            arrival: ARRIVAL,
            rest: REST,
        }
    }

    /// The whole body of a request, unless it is too large, takes too long, or is given up for newer ones.
    pub async fn request(&self, sender: Sender, body: Body, largest: usize) -> Result<Bytes, Problem> {
        let end = Instant::now() + self.arrival;
        let mut arrival = self.requests.begin(sender);
        let mut arriving = Arriving::new(body, largest);
        arriving.read_past_until(usize::MAX, end, &mut arrival).await?;
        Ok(arriving.bytes.into())
    }

    /// The whole body of a webhook, and its place, to be kept until the signature is checked. Where it is given up for
    /// newer ones, or finds no place, Stripe sends it again.
    pub async fn webhook(&self, client: IpAddr, body: Body, largest: usize) -> Result<(Bytes, WebhookPlace), Problem> {
        let (end, sender) = (Instant::now() + self.arrival, Sender::client(client));
        let mut arrival = self.webhooks.begin(sender.clone());
        let mut arriving = Arriving::new(body, largest);
        let again = |why: Unread| if why == Unread::GivenUp { Problem::unavailable() } else { why.into() };
        if arriving.read_past_until(SHORT, end, &mut arrival).await.map_err(again)? {
            return Ok((arriving.bytes.into(), WebhookPlace { _arrival: arrival, _long: None }));
        }
        let long = tokio::select! {
            biased;
            long = self.long.take(sender) => long,
            () = arrival.given_up() => None,
        };
        let long = long.ok_or_else(Problem::unavailable)?;
        let end = Instant::now() + self.rest;
        arriving.read_past_until(usize::MAX, end, &mut arrival).await.map_err(again)?;
        Ok((arriving.bytes.into(), WebhookPlace { _arrival: arrival, _long: Some(long) }))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    type Piece = Result<Bytes, std::io::Error>;

    fn client(n: u8) -> IpAddr {
        Ipv4Addr::new(192, 0, 2, n).into()
    }

    /// So many bytes, and then nothing more.
    fn stalled(bytes: usize) -> Body {
        let sent = stream::iter([Piece::Ok(vec![b'x'; bytes].into())]);
        Body::from_stream(sent.chain(stream::pending()))
    }

    /// Bodies that stop arriving, and how many of them web has read until there.
    #[derive(Clone, Default)]
    struct Stalls(Arc<AtomicUsize>);

    impl Stalls {
        /// As `stalled`, and counted once all of it is read.
        fn body(&self, bytes: usize) -> Body {
            let (sent, read) = (stream::iter([Piece::Ok(vec![b'x'; bytes].into())]), self.0.clone());
            let rest = stream::once(async move {
                read.fetch_add(1, Ordering::SeqCst);
                std::future::pending().await
            });
            Body::from_stream(sent.chain(rest))
        }

        /// Waits until so many are read.
        async fn reach(&self, count: usize) {
            until(|| self.0.load(Ordering::SeqCst) >= count).await;
        }
    }

    /// Waits until something holds, however busy the machine is.
    async fn until(holds: impl Fn() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(30), "it never came");
            tokio::task::yield_now().await;
        }
    }

    fn quick() -> Arc<Bodies> {
        let mut bodies = Bodies { arrival: Duration::from_mins(1), rest: Duration::from_mins(1), ..Bodies::new(4096) };
        bodies.long.wait = Duration::from_millis(50);
        Arc::new(bodies)
    }

    #[tokio::test]
    async fn a_body_in_small_pieces_is_whole_and_takes_no_more_room_than_it_may() {
        let pieces =
            |count: usize| Body::from_stream(stream::iter((0..count).map(|_| Piece::Ok(b"xyz".as_slice().into()))));
        let bytes = whole(pieces(1000), 3000).await.expect("it fits");
        assert_eq!((bytes.len(), &bytes[2997..]), (3000, b"xyz".as_slice()));
        assert!(bytes.capacity() <= 3000, "{}", bytes.capacity());
        assert_eq!(whole(pieces(1001), 3000).await, Err(Unread::Large));
        assert_eq!(whole(Body::empty(), 0).await, Ok(Vec::new()));
        let broken = stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("it broke off"))]);
        assert_eq!(whole(Body::from_stream(broken), 10).await, Err(Unread::Broken));
    }

    #[tokio::test]
    async fn small_pieces_become_large_ones() {
        let small = stream::iter((0..100_000).map(|_| Piece::Ok(Bytes::from("xyz"))));
        let large: Vec<_> = in_large_pieces(Body::from_stream(small)).into_data_stream().collect().await;
        let sizes: Vec<_> = large.iter().map(|piece| piece.as_ref().expect("a piece").len()).collect();
        assert!(sizes.len() == 5 && sizes[..4].iter().all(|size| *size >= PIECE), "{sizes:?}");
        assert_eq!(sizes.iter().sum::<usize>(), 300_000);
        assert_eq!(in_large_pieces(Body::empty()).into_data_stream().count().await, 0);
        let broken = stream::iter([Ok(Bytes::from("x")), Err(std::io::Error::other("it broke off"))]);
        let pieces: Vec<_> = in_large_pieces(Body::from_stream(broken)).into_data_stream().collect().await;
        assert!(matches!(pieces[..], [Err(_)]), "{pieces:?}");
    }

    #[tokio::test]
    async fn a_body_that_does_not_arrive_is_given_up() {
        let short = Duration::from_millis(50);
        let bodies = Bodies { arrival: short, rest: short, ..Bodies::new(4096) };
        let slow = bodies.request(Sender::client(client(1)), stalled(1), 10).await.expect_err("slow");
        assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
        for sent in [1, SHORT + 1] {
            let slow = bodies.webhook(client(1), stalled(sent), 2 * SHORT).await.expect_err("slow");
            assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
        }
        let large = bodies.request(Sender::client(client(1)), Body::from("12345678901"), 10).await.expect_err("large");
        assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(
            bodies.request(Sender::client(client(1)), Body::from("1234567890"), 10).await.expect("it fits").len(),
            10
        );
    }

    #[tokio::test]
    async fn slow_bodies_displace_each_other_and_no_quick_one_behind_the_same_address() {
        let (bodies, stalls) = (quick(), Stalls::default());
        let slow: Vec<_> = (0..2 * ARRIVING)
            .map(|_| {
                let (bodies, body) = (bodies.clone(), stalls.body(1));
                tokio::spawn(async move { bodies.request(Sender::client(client(1)), body, 10).await })
            })
            .collect();
        stalls.reach(2 * ARRIVING).await;
        let sender = Sender::client(client(1));
        assert!(bodies.request(sender.clone(), Body::from("x"), 10).await.is_ok(), "a quick one of the same address");
        let ended = || slow.iter().filter(|slow| slow.is_finished()).count();
        // Half of them were given up for newer slow ones, and one for the quick one. Each ends with its next turn.
        until(|| ended() > ARRIVING).await;
        assert_eq!(ended(), ARRIVING + 1, "were given up");
        let given_up = slow.into_iter().next().expect("the oldest").await.expect("it ends").expect_err("given up");
        assert_eq!(given_up.status(), StatusCode::TOO_MANY_REQUESTS);
        let webhook = bodies.webhook(client(1), stalled(1), 10);
        let newer = (0..=ARRIVING).map(|_| bodies.webhook(client(1), stalled(1), 10));
        let given_up = tokio::select! {
            biased;
            given_up = webhook => given_up.expect_err("given up"),
            _ = futures::future::join_all(newer) => unreachable!("they never arrive"),
        };
        assert_eq!(given_up.status(), StatusCode::SERVICE_UNAVAILABLE, "Stripe sends it again");
    }

    #[tokio::test]
    async fn slow_webhooks_take_no_place_and_long_ones_leave_room_for_those_of_stripe() {
        let (bodies, stalls, long_stalls) = (quick(), Stalls::default(), Stalls::default());
        let event = || Body::from(vec![b'x'; 40 << 10]);
        let long = || Body::from(vec![b'x'; SHORT + 1]);
        let open = |n: u8, body: Body| {
            let bodies = bodies.clone();
            tokio::spawn(async move { bodies.webhook(client(n), body, 8 * SHORT).await })
        };
        let each = || (0..16).flat_map(|n| (0..8).map(move |_| n));
        let slow: Vec<_> = each().map(|n| open(n, stalls.body(1))).collect();
        stalls.reach(slow.len()).await;
        assert!(bodies.webhook(client(99), long(), 8 * SHORT).await.is_ok(), "no place is taken");
        let held: Vec<_> = each().map(|n| open(n, long_stalls.body(SHORT + 1))).collect();
        // Only those that have a place are read further.
        long_stalls.reach(LONG).await;
        let refused = bodies.webhook(client(99), long(), 8 * SHORT).await.expect_err("all places are taken");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(bodies.webhook(client(99), event(), 8 * SHORT).await.is_ok(), "an event of Stripe needs none");
        assert!(bodies.webhook(client(3), event(), 8 * SHORT).await.is_ok(), "nor where strangers share its address");
        slow.iter().chain(&held).for_each(tokio::task::JoinHandle::abort);
    }
}
