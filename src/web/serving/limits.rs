//! How often a caller may send requests: clients are counted by their address, tenants by their uid.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum_client_ip::ClientIpSource;
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

/// How often quiet addresses are forgotten.
const SWEEP: Duration = Duration::from_secs(10);

/// Limits requests by their sender.
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

    /// So many a day, and as many at once.
    pub fn per_day(count: NonZeroU32) -> Self {
        let each = Duration::from_hours(24) / count.get();
        let quota = Quota::with_period(each).map(|quota| quota.allow_burst(count));
        Self::new(quota.unwrap_or(Quota::per_hour(count)))
    }

    /// So many a second, and twice as many at once.
    pub fn per_second(count: NonZeroU32) -> Self {
        Self::new(Quota::per_second(count).allow_burst(count.saturating_add(count.get())))
    }

    fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::hashmap(quota), clock: DefaultClock::default(), swept: Mutex::new(Instant::now()) }
    }

    /// Takes one of a sender's requests. Fails with the wait until the next one where none is left.
    pub fn take(&self, sender: &K) -> Result<(), Duration> {
        self.sweep();
        self.limiter.check_key(sender).map_err(|until| until.wait_time_from(self.clock.now()))
    }

    /// Forgets senders that have been quiet, so that they do not fill the memory. Not at each request: it takes time.
    fn sweep(&self) {
        let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limiter.len() > 1000 && swept.elapsed() >= SWEEP {
            *swept = Instant::now();
            self.limiter.retain_recent();
        }
    }
}

/// How long it takes until a tenant may do it once more: 20 times a minute.
const EACH: Duration = Duration::from_secs(3);

/// What tenants may do so often at once, and then 20 times more in a minute, by their ids; and others by names of theirs. It is counted when it is
/// done, because only then it is known what it came to. A tenant that did more at the same time waits for all of it.
#[derive(Debug)]
pub struct Allowance {
    at_once: u32,
    /// When each tenant may do as much at once as ever.
    whole: Mutex<HashMap<String, Instant>>,
}

impl Allowance {
    /// Files that were read and refused, because they hold no text or because the plan has no room for it. To read a
    /// file costs a process and its processor time, and one that is refused takes nothing from the plan.
    pub fn of_refused_files() -> Self {
        Self::of(20)
    }

    /// Questions that took tokens and count as none. Each leaves a line in the ledger for ever, and the plan's queries
    /// do not limit them.
    pub fn of_vain_questions() -> Self {
        Self::of(60)
    }

    /// Documents that are deleted soon after their upload. Each leaves two lines in the ledger for ever, and gives its
    /// place in the plan back.
    pub fn of_early_deletions() -> Self {
        Self::of(200)
    }

    /// Wrong admin tokens of one address.
    pub fn of_wrong_tokens() -> Self {
        Self::of(10)
    }

    /// Wrong admin tokens of all addresses together.
    pub fn of_all_wrong_tokens() -> Self {
        Self::of(100)
    }

    fn of(at_once: u32) -> Self {
        Self { at_once, whole: Mutex::default() }
    }

    /// Whether the tenant may do it once more; the wait where it did too much.
    pub fn check(&self, tenant: &str) -> Result<(), Duration> {
        let whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = whole.get(tenant).map_or(Duration::ZERO, |at| at.saturating_duration_since(Instant::now()));
        let wait = spent.saturating_sub(EACH * self.at_once.saturating_sub(1));
        if wait.is_zero() { Ok(()) } else { Err(wait) }
    }

    /// The tenant did it once.
    pub fn note(&self, tenant: &str) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        whole.retain(|_, at| *at > now);
        let at = whole.entry(tenant.to_owned()).or_insert(now);
        *at += EACH;
    }

    /// The tenant may do it once more: it did something that has a limit of its own instead.
    pub fn give_back(&self, tenant: &str) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = whole.get_mut(tenant) {
            *at = at.checked_sub(EACH).unwrap_or(*at);
        }
    }
}

/// Requests in a row from one private address, after which that address must be a proxy's.
const SUSPICIOUS: u64 = 100;
/// How often web logs this.
const SAY_AGAIN: Duration = Duration::from_hours(1);

/// Whether web sees its clients' addresses, or those of a proxy that it was not told of.
#[derive(Debug, Default)]
pub struct Sight(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    peer: Option<IpAddr>,
    count: u64,
    said: Option<Instant>,
}

impl Sight {
    /// A request came from this address, with or without a header that proxies set. True while so many requests in a
    /// row came from one private address with such a header that it must be a proxy's, and all clients are taken for
    /// one.
    pub fn request(&self, peer: IpAddr, forwarded: bool) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !forwarded || !is_private(peer) || seen.peer.is_some_and(|before| before != peer) {
            (seen.peer, seen.count) = (forwarded.then_some(peer), u64::from(forwarded && is_private(peer)));
            return false;
        }
        (seen.peer, seen.count) = (Some(peer), seen.count.saturating_add(1));
        let hidden = seen.count >= SUSPICIOUS;
        if hidden && seen.said.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            seen.said = Some(Instant::now());
            tracing::warn!(
                %peer,
                "every request comes from one private address with a forwarding header, so that all clients share one limit: \
                 set CLIENT_IP_SOURCE (web.clientIp in the chart) to the header that your proxy sets, such as RightmostXForwardedFor"
            );
        }
        hidden
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
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
    use crate::serve::client::network;

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
    fn a_tenant_whose_files_are_refused_waits_and_others_do_not() {
        let refused = Allowance::of_refused_files();
        for _ in 0..20 {
            assert_eq!(refused.check("a"), Ok(()));
            refused.note("a");
        }
        let wait = refused.check("a").expect_err("too many");
        assert!(wait > Duration::ZERO && wait <= EACH, "{wait:?}");
        assert_eq!(refused.check("b"), Ok(()));
    }

    #[test]
    fn what_is_done_at_the_same_time_is_waited_for_in_full() {
        let vain = Allowance::of_vain_questions();
        (0..100).for_each(|_| vain.note("a"));
        let wait = vain.check("a").expect_err("40 too many");
        assert!(wait > EACH * 39 && wait <= EACH * 41, "{wait:?}");
    }

    #[test]
    fn what_is_given_back_is_free_again_and_never_more_than_at_first() {
        let vain = Allowance::of_vain_questions();
        for _ in 0..200 {
            assert_eq!(vain.check("a"), Ok(()), "each other question is answered");
            vain.note("a");
            vain.give_back("a");
        }
        (0..100).for_each(|_| vain.give_back("a"));
        (0..60).for_each(|_| vain.note("a"));
        assert!(vain.check("a").is_err());
    }

    #[test]
    fn a_proxy_that_web_was_not_told_of_is_noticed_and_clients_are_not() {
        let seen = |peers: &[(&str, bool)]| {
            let sight = Sight::default();
            (0..SUSPICIOUS + 5)
                .map(|i| peers[usize::try_from(i).expect("few") % peers.len()])
                .fold(false, |_, (peer, header)| sight.request(peer.parse().expect("an address"), header))
        };
        assert!(seen(&[("10.0.0.7", true)]) && seen(&[("fd00::7", true)]) && seen(&[("127.0.0.1", true)]));
        assert!(!seen(&[("10.0.0.7", false)]), "no proxy");
        assert!(!seen(&[("192.0.2.1", true)]), "a client that writes the header itself");
        assert!(!seen(&[("10.0.0.7", true), ("10.0.0.8", true)]), "several");
        assert!(!seen(&[("10.0.0.7", true), ("10.0.0.7", false)]), "not every request");
        let sight = Sight::default();
        let peer = "10.0.0.7".parse().expect("an address");
        let first = (1..=2 * SUSPICIOUS).find(|_| sight.request(peer, true));
        assert_eq!(first, Some(SUSPICIOUS));
        assert!(!sight.request("192.0.2.1".parse().expect("an address"), true), "it sees clients now");
    }

    #[test]
    fn an_unknown_source_is_named_with_those_there_are() {
        assert!(parse_source("RightmostXForwardedFor").is_ok());
        assert!(parse_source("X-Forwarded-For").expect_err("unknown").contains("RightmostXForwardedFor"));
    }
}
