//! How long web serves with what Kubernetes last sent it. While the API server is away or a watch of the Tenants fails,
//! web does not learn that a tenant is suspended, a key is revoked or a plan changes. After a limit, it refuses requests
//! instead of serving tenants that may be suspended.

use std::time::Duration;

use axum::http::StatusCode;

use super::problem::{Code, Problem};
use crate::watches::Pulse;

/// When to ask again.
const AGAIN: Duration = Duration::from_secs(30);
/// How often a silent watch lists again before its Tenants are too old.
const TRIES: u32 = 4;

/// A watch of Tenants.
#[derive(Debug)]
struct Watched {
    /// The namespace, or all of them.
    namespace: Option<String>,
    pulse: Pulse,
}

/// When Kubernetes last sent web what it serves with, and how long that is good.
#[derive(Debug)]
pub struct Trust {
    limit: Duration,
    tenants: Vec<Watched>,
    /// The public key of API keys.
    key: Pulse,
}

impl Trust {
    /// What Kubernetes sends is good for this long.
    pub fn new(limit: Duration) -> Self {
        Self { limit, tenants: Vec::new(), key: Pulse::default() }
    }

    /// The pulse of a watch of the Tenants of a namespace, or of all.
    pub fn watch(&mut self, namespace: Option<&str>) -> Pulse {
        let pulse = Pulse::default();
        self.tenants.push(Watched { namespace: namespace.map(str::to_owned), pulse: pulse.clone() });
        pulse
    }

    /// The pulse of the public key.
    pub fn key(&self) -> &Pulse {
        &self.key
    }

    /// After how long a silent watch lists again.
    pub fn silence(&self) -> Duration {
        self.limit / TRIES
    }

    /// How old the Tenants are: those of the oldest watch.
    pub fn age_of_tenants(&self) -> Duration {
        self.tenants.iter().map(|watched| watched.pulse.age()).max().unwrap_or_default()
    }

    /// Refuses if the Tenants of a namespace, or the public key, are too old to serve with. Without a namespace, refuses
    /// if those of any namespace are.
    pub fn check(&self, namespace: Option<&str>) -> Result<(), Problem> {
        let concerned = |watched: &&Watched| {
            let (watches, asked) = (watched.namespace.as_deref(), namespace);
            watches.is_none() || asked.is_none() || watches == asked
        };
        let mut ages = self.tenants.iter().filter(concerned).map(|watched| watched.pulse.age());
        if self.key.age() < self.limit && ages.all(|age| age < self.limit) {
            return Ok(());
        }
        Err(too_old())
    }

    /// Whether web can serve none of its tenants any more. If one of several namespaces is too old, the replica stays in
    /// its Service.
    pub fn is_over(&self) -> bool {
        self.key.age() >= self.limit || self.tenants.iter().all(|watched| watched.pulse.age() >= self.limit)
    }
}

/// The refusal of a request whose tenant is known from too long ago.
fn too_old() -> Problem {
    let detail = "The service could not check your account recently and does not serve this request. Try again in a \
        minute.";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, Code::AccountsUnavailable, detail).after(AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_tells_nothing_concerns_its_own_tenants() {
        let mut trust = Trust::new(Duration::from_millis(200));
        let (_silent, told) = (trust.watch(Some("a")), trust.watch(Some("b")));
        assert!(trust.check(None).is_ok());
        std::thread::sleep(Duration::from_millis(220));
        assert!(trust.is_over() && trust.check(Some("b")).is_err());
        told.beat();
        assert!(trust.check(Some("b")).is_err(), "the key is too old");
        trust.key().beat();
        assert!(trust.check(Some("b")).is_ok() && trust.check(Some("a")).is_err() && trust.check(None).is_err());
        assert!(!trust.is_over() && trust.age_of_tenants() >= Duration::from_millis(220));
        let refused = trust.check(Some("a")).expect_err("it is too old");
        assert_eq!((refused.status().as_u16(), refused.code()), (503, "accounts_unavailable"));
    }
}
