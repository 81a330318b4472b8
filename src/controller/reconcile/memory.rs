//! What the controller remembers of each tenant between reconciles. A restart loses all of it, without harm.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::controller::watch::claims::Rivals;
use crate::lifecycle::Samples;

/// What is remembered, by the objects' uids.
#[derive(Default)]
pub struct Memory(Mutex<HashMap<String, Remembered>>);

/// What is remembered of one tenant.
#[derive(Clone, Default)]
pub struct Remembered {
    /// The newest resource version that was seen or written.
    pub version: u64,
    /// When it was.
    pub version_at: Option<Instant>,
    /// The last Stripe event that was acted on, once the tenant was looked at: what was there before is the bulk
    /// resync's.
    pub stripe_event: Option<LastEvent>,
    /// Counts the hints to read everything back.
    pub hints: u64,
    /// The number of the last transition that was shipped.
    pub shipped: i64,
    /// How many of them were acted on.
    pub hints_done: u64,
    /// The API-key Secret as it was last made or found right, and when.
    pub api_key: Option<(ApiKey, Instant)>,
    /// The state that was found to need nothing, and until when.
    pub settled: Option<(Settled, Option<Instant>)>,
    /// Reconciles in a row that ended with a failure.
    pub failures: u32,
    /// A generation of the tenant's data that is not in use and still has a namespace, as the bulk resync saw.
    pub leftover: Option<u32>,
    /// How far provisioning came, and since when it waits to see what it wrote.
    pub progress: Option<ProvisioningProgress>,
}

/// The event in the annotation, if there was one.
#[derive(Clone, PartialEq, Eq)]
pub struct LastEvent(pub Option<String>);

/// How far provisioning came.
#[derive(Clone)]
pub struct ProvisioningProgress {
    pub namespace: bool,
    pub samples: Samples,
    pub since: Instant,
}

/// A version of the API-key Secret, and the generation and the plan of the key that it was right for.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub version: String,
    pub generation: u32,
    pub plan: String,
}

/// All that a decision rests on, short of the providers: versions, and who else claims the tenant.
#[derive(Clone, PartialEq, Eq)]
pub struct Settled {
    pub version: u64,
    pub plans: [Option<i64>; 2],
    pub secret: Option<String>,
    pub rivals: Rivals,
    /// What there is to see of the tasks that run: an export, and a move of data.
    pub tasks: [u64; 2],
}

/// No cache lags behind a write for this long.
const LAG: Duration = Duration::from_secs(10);

impl Remembered {
    /// Takes in a resource version that was seen or written.
    pub fn saw(&mut self, version: u64) {
        if version > self.version {
            (self.version, self.version_at) = (version, Some(Instant::now()));
        }
    }

    /// Whether that was so long ago that a cache with an older object does not merely lag.
    pub fn version_lags(&self) -> bool {
        self.version_at.is_none_or(|at| at.elapsed() >= LAG)
    }
}

impl Memory {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Remembered>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is remembered of a tenant.
    pub fn recall(&self, uid: &str) -> Remembered {
        self.all().get(uid).cloned().unwrap_or_default()
    }

    /// Remembers something of a tenant.
    pub fn remember(&self, uid: &str, change: impl FnOnce(&mut Remembered)) {
        change(self.all().entry(uid.to_owned()).or_default());
    }

    /// Everything is to be read back.
    pub fn hint(&self, uid: &str) {
        self.remember(uid, |m| m.hints += 1);
    }

    /// Forgets a tenant that is gone.
    pub fn forget(&self, uid: &str) {
        self.all().remove(uid);
    }
}
