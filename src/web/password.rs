//! Passwords: hashed where they cannot starve the rest, tried a limited number of times, in equal time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::rand_core::OsRng;
use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;

use super::problem::Problem;
use crate::api::{PASSWORD_HASH, Timestamp};

/// Passwords hashed at the same time: each takes 19 MiB and a core.
const HASHERS: usize = 2;
/// Those that may wait for it; more are turned away.
const WAITING: usize = 16;
/// Wrong passwords of one account in a window of time, as `count@start`; kept where all replicas see it.
pub const TRIES_ANNOTATION: &str = "tenant-operator.dev/password-tries";
/// Wrong passwords allowed in a window.
const TRIES: u32 = 10;
/// The window, in seconds.
const WINDOW: i64 = 900;

/// Whether it may be a password.
pub fn acceptable(password: &str) -> bool {
    password.chars().count() >= 8 && password.len() <= 256
}

/// Hashes and verifies.
#[derive(Debug)]
pub struct Passwords {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        Self { places: Arc::new(Semaphore::new(HASHERS)), waiting: AtomicUsize::new(0) }
    }
}

impl Passwords {
    /// The hash to store.
    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let hash = move || {
            let salt = SaltString::generate(&mut OsRng);
            Argon2::default().hash_password(password.as_bytes(), &salt).map(|h| h.to_string())
        };
        self.run(hash).await?.map_err(|e| Problem::internal("argon2", &e))
    }

    /// Takes as long as [`Self::verify`], where there is nothing to verify.
    pub async fn pretend(&self, password: String) -> Result<(), Problem> {
        self.hash(password).await.map(drop)
    }

    /// Whether it is the password of this login Secret.
    async fn matches(&self, secret: &Secret, password: String) -> Result<bool, Problem> {
        let hash = secret.data.as_ref().and_then(|d| d.get(PASSWORD_HASH)).map(|b| b.0.clone()).unwrap_or_default();
        self.run(move || {
            let hash = String::from_utf8(hash).unwrap_or_default();
            PasswordHash::new(&hash).is_ok_and(|h| Argon2::default().verify_password(password.as_bytes(), &h).is_ok())
        })
        .await
    }

    /// Whether it is the password, unless too many wrong ones were tried lately: by anybody, at any replica.
    pub async fn verify(&self, api: &Api<Secret>, secret: &Secret, password: String) -> Result<bool, Problem> {
        let now = Timestamp::now().as_second();
        let (tries, start) = tries(secret, now);
        if tries >= TRIES {
            let left = (start + WINDOW - now).max(1).unsigned_abs();
            return Err(Problem::too_many(Duration::from_secs(left)));
        }
        if self.matches(secret, password).await? {
            return Ok(true);
        }
        note_try(api, secret.name_any()).await?;
        Ok(false)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
        struct Waiting<'a>(&'a AtomicUsize);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Problem::too_many(Duration::from_secs(2)));
        }
        let waiting = Waiting(&self.waiting);
        let place = self.places.clone().acquire_owned().await.map_err(|e| Problem::internal("hashers", &e))?;
        drop(waiting);
        // The place goes with the work: a client that hangs up does not free it early.
        let job = tokio::task::spawn_blocking(move || {
            let _place = place;
            work()
        });
        job.await.map_err(|e| Problem::internal("argon2", &e))
    }
}

/// Wrong passwords in the present window, and when it began.
fn tries(secret: &Secret, now: i64) -> (u32, i64) {
    let noted = secret.annotations().get(TRIES_ANNOTATION).and_then(|v| v.split_once('@'));
    let noted = noted.and_then(|(count, start)| Some((count.parse().ok()?, start.parse().ok()?)));
    noted.filter(|(_, start)| (0..WINDOW).contains(&(now - start))).unwrap_or((0, now))
}

/// Counts a wrong password. Two replicas that count at once do not lose one.
async fn note_try(api: &Api<Secret>, name: String) -> Result<(), Problem> {
    for _ in 0..5 {
        let secret = api.get(&name).await?;
        let now = Timestamp::now().as_second();
        let (count, start) = tries(&secret, now);
        let change = json!({"metadata": {
            "resourceVersion": secret.resource_version(),
            "annotations": {TRIES_ANNOTATION: format!("{}@{start}", count.saturating_add(1))},
        }});
        match api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            other => return other.map(drop).map_err(Into::into),
        }
    }
    Err(Problem::too_many(Duration::from_secs(1)))
}
