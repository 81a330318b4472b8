//! How often somebody may ask: a client by its address, a tenant by its uid.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum_client_ip::ClientIpSource;
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// How often quiet addresses are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Requests by whoever sends them.
#[derive(Debug)]
pub struct Limit<K: Clone + Eq + Hash> {
    limiter: RateLimiter<K, HashMapStateStore<K>, DefaultClock>,
    clock: DefaultClock,
    swept: Mutex<Instant>,
}

impl<K: Clone + Eq + Hash> Limit<K> {
    /// So many a minute, and as many at once.
    pub fn per_minute(count: NonZeroU32) -> Self {
        Self::new(Quota::per_minute(count))
    }

    /// So many a second, and twice as many at once.
    pub fn per_second(count: NonZeroU32) -> Self {
        Self::new(Quota::per_second(count).allow_burst(count.saturating_add(count.get())))
    }

    fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::hashmap(quota), clock: DefaultClock::default(), swept: Mutex::new(Instant::now()) }
    }

    /// Takes one of somebody's requests; the wait where there is none left.
    pub fn take(&self, whose: &K) -> Result<(), Duration> {
        self.sweep();
        self.limiter.check_key(whose).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Forgets those who have been quiet, or many of them would fill the memory. Not at each request, or many of
    /// them would cost the time.
    fn sweep(&self) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limiter.len() > 1000 && swept.elapsed() >= SWEEP {
            *swept = Instant::now();
            self.limiter.retain_recent();
        }
    }
}

/// What counts as one client: an IPv6 client has a whole /64 to choose its address from.
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Where a client's address is read from.
pub fn parse_source(text: &str) -> Result<ClientIpSource, String> {
    text.parse().map_err(|_| {
        "use ConnectInfo where clients connect directly, or the header that your own proxy sets: RightmostXForwardedFor, \
         XRealIp, CfConnectingIp, TrueClientIp, FlyClientIp, CloudFrontViewerAddress or XEnvoyExternalAddress"
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_so_many_requests_and_a_network_counts_as_one() {
        let limit = Limit::per_minute(NonZeroU32::new(2).expect("not zero"));
        let take = |ip: &str| limit.take(&network(ip.parse().expect("an address")));
        assert!(take("2001:db8::1").is_ok() && take("2001:db8::2").is_ok());
        let wait = take("2001:db8::3").expect_err("the same /64");
        assert!(wait > Duration::ZERO && wait <= Duration::from_mins(1));
        assert!(take("2001:db8:0:1::1").is_ok() && take("10.0.0.1").is_ok() && take("10.0.0.2").is_ok());
        assert!(take("::ffff:10.0.0.1").is_ok() && take("10.0.0.1").is_err(), "one address in two notations");
    }

    #[test]
    fn an_unknown_source_is_named_with_those_there_are() {
        assert!(parse_source("RightmostXForwardedFor").is_ok());
        assert!(parse_source("X-Forwarded-For").expect_err("unknown").contains("RightmostXForwardedFor"));
    }
}
