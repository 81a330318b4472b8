//! An hour of traffic: bursts, calm and idle minutes, and a few tenants with most of the requests.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What a request is.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Question,
    Stream,
    /// A gateway has a query counted.
    Gateway,
    /// A service reports prompt tokens, in so many events.
    Report(u32),
}

/// A request of a tenant.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub tenant: usize,
    pub kind: Kind,
}

/// A minute of the hour.
pub struct Minute {
    pub requests: Vec<Request>,
    /// How many are under way at the same time.
    pub at_once: usize,
}

const MINUTES: usize = 60;

/// Shares of the hour, for each of its minutes, and how many requests are under way at once.
fn minute(number: usize) -> (usize, usize) {
    match number % 10 {
        // A burst.
        3 => (12, 96),
        // Nothing.
        4..=5 => (0, 1),
        _ => (2, 8),
    }
}

/// An hour with so many requests of so many tenants, the same for the same seed. The n-th tenant asks an n-th as much
/// as the first.
pub fn hour(seed: u64, requests: usize, tenants: usize) -> Vec<Minute> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut sums = Vec::with_capacity(tenants);
    let mut sum = 0;
    for number in 1..=tenants {
        sum += 1_000_000 / number;
        sums.push(sum);
    }
    let mut request = || {
        let point = rng.random_range(0..sum);
        let kind = match rng.random_range(0..10) {
            0..4 => Kind::Question,
            4 => Kind::Stream,
            5..8 => Kind::Gateway,
            _ => Kind::Report(rng.random_range(1..20)),
        };
        Request { tenant: sums.partition_point(|sum| *sum <= point), kind }
    };
    let shares: usize = (0..MINUTES).map(|number| minute(number).0).sum();
    let mut given = 0;
    let mut so_far = 0;
    (0..MINUTES)
        .map(|number| {
            let (share, at_once) = minute(number);
            so_far += share;
            let until = requests * so_far / shares;
            let requests = (given..until).map(|_| request()).collect();
            given = until;
            Minute { requests, at_once }
        })
        .collect()
}
