//! Whose an API key is. Web can verify keys and make none: it knows the public half only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use ed25519_dalek::VerifyingKey;
use kube::Client;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::api::Phase;
use crate::keys::{Claims, verify};
use crate::operator_keys::verifying_key;
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::{Code, Problem};

/// A key that does not verify makes us read the public key again, at most this often: it may have been replaced.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// How often, and after which wait, a tenant is looked for that is not known yet.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How long Kubernetes may take to tell it.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The wait before the key is read again that could not be read, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Good keys whose signatures need not be computed again.
const REMEMBERED: usize = 10_000;

/// The public half of the signing key, read when web starts. A client that sends a wrong key delays no other
/// client.
#[derive(Default)]
pub struct KeyRing {
    known: RwLock<Option<Arc<Known>>>,
    /// Held by the request that reads it again, with the time of the last attempt.
    reading: Mutex<Option<Instant>>,
    /// Whether Kubernetes has told it, or that there is none yet.
    told: AtomicBool,
}

/// The public key, and what was verified with it.
struct Known {
    at: Instant,
    key: VerifyingKey,
    /// The claims of good keys, by the keys' digests: how long a look-up takes tells nothing of a key. A wrong key is
    /// not remembered, so strangers cannot fill it.
    good: Lock<HashMap<[u8; 32], Claims>>,
}

impl Known {
    fn claims(&self, key: &str) -> Option<Claims> {
        let digest = Sha256::digest(key).into();
        let good = || self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let remembered = good().get(&digest).cloned();
        if remembered.is_some() {
            return remembered;
        }
        let claims = verify(&self.key, key)?;
        let mut good = good();
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert(digest, claims.clone());
        Some(claims)
    }
}

impl KeyRing {
    fn known(&self) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn claims(&self, client: &Client, namespace: &str, key: &str) -> Result<Option<Claims>, Problem> {
        // What does not even look like a key costs nothing.
        if !key.starts_with("sk_live_") || key.len() > 1024 {
            return Ok(None);
        }
        let by = |known: &Option<Arc<Known>>| known.as_ref().and_then(|known| known.claims(key));
        let at = |known: &Option<Arc<Known>>| known.as_ref().map(|known| known.at);
        let before = self.known();
        if let Some(claims) = by(&before) {
            return Ok(Some(claims));
        }
        let mut reading = self.reading.lock().await;
        // Another request may have read it meanwhile, or just before.
        let now = self.known();
        if at(&now) != at(&before) || reading.is_some_and(|at| at.elapsed() < READ_AGAIN) {
            return Ok(by(&now));
        }
        Ok(by(&self.read(&mut reading, client, namespace).await?))
    }

    async fn read(
        &self,
        reading: &mut Option<Instant>,
        client: &Client,
        namespace: &str,
    ) -> Result<Option<Arc<Known>>, Problem> {
        let read = tokio::time::timeout(READ_LIMIT, verifying_key(client, namespace)).await;
        if !matches!(read, Ok(Ok(_))) && self.known().is_some() {
            // The key that is known is good until Kubernetes says otherwise. Wrong keys do not wait for it one after the
            // other.
            *reading = Some(Instant::now());
        }
        let read = read.map_err(|_| {
            tracing::warn!("Kubernetes does not tell the public key of API keys in time");
            Problem::unavailable()
        })??;
        self.told.store(true, Ordering::Relaxed);
        // Before a controller ran there is none: that is looked at again at once.
        *reading = read.map(|_| Instant::now());
        let known = read.map(|key| Arc::new(Known { at: Instant::now(), key, good: Lock::default() }));
        self.known.write().unwrap_or_else(PoisonError::into_inner).clone_from(&known);
        Ok(known)
    }

    /// Whether Kubernetes has told the key, or that there is none yet.
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Reads the key before the first request needs it: an API server that stalls a moment later refuses no request.
    /// Ends when the key is known. A controller that starts later than web makes it then.
    pub async fn read_ahead(&self, client: &Client, namespace: &str) {
        let mut wait = FIRST_WAIT;
        loop {
            let mut reading = self.reading.lock().await;
            // An error is logged where it arises.
            if self.known().is_some() || matches!(self.read(&mut reading, client, namespace).await, Ok(Some(_))) {
                return;
            }
            drop(reading);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(READ_AGAIN);
        }
    }
}

/// No key, or a wrong one: the same answer.
pub fn unauthorized() -> Problem {
    let detail = "Send your API key as Authorization: Bearer sk_live_... It is missing, wrong, or was replaced.";
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail)
}

/// The tenant whose API key the request carries, with one of its requests of this second taken.
pub struct Admitted(pub Arc<Served>);

impl FromRequestParts<Arc<App>> for Admitted {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let tenant = app.by_api_key(parts).await?;
        app.requests.take(&tenant.uid).map_err(Problem::too_many)?;
        Ok(Self(tenant))
    }
}

/// The claims of a request's key, whose signature is good: a request is asked for its tenant before and after its body
/// has arrived, and its key is verified once. Whether the tenant may still use the key is asked each time.
#[derive(Clone)]
struct Verified(Claims);

impl App {
    /// The tenant whose API key the request carries, if it is served.
    pub async fn by_api_key(&self, request: &mut Parts) -> Result<Arc<Served>, Problem> {
        if request.extensions.get::<Verified>().is_none() {
            let header = request.headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
            let key = header.and_then(|v| v.strip_prefix("Bearer ")).ok_or_else(unauthorized)?;
            request.extensions.insert(Verified(self.verified(key).await?));
        }
        let Verified(claims) = request.extensions.get().ok_or_else(unauthorized)?;
        self.admitted(claims).await
    }

    /// What a key says, if its signature is good.
    pub async fn verified(&self, key: &str) -> Result<Claims, Problem> {
        let claims = self.api_keys.claims(&self.client, &self.config.operator_namespace, key.trim()).await?;
        claims.ok_or_else(unauthorized)
    }

    /// The tenant of a key that is real, if it is served. What changed a moment ago, such as a tenant that became
    /// Active, may not be known here yet: a refusal takes a second. So refusals have a limit, one for all of a tenant's
    /// keys, beside that of its requests: neither a suspended tenant nor the holder of many revoked keys may hold all
    /// connections, nor use up the requests of a tenant whose other key is good.
    pub async fn admitted(&self, claims: &Claims) -> Result<Arc<Served>, Problem> {
        if let Ok(tenant) = self.admit(claims) {
            return Ok(tenant);
        }
        self.requests.take(&refusals(claims)).map_err(Problem::too_many)?;
        let mut tries = 0;
        loop {
            match self.admit(claims) {
                Err(_) if tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(TRY_AGAIN).await;
                }
                decided => return decided,
            }
        }
    }

    /// The tenant of a key that is real, if it is served, as far as that is known now.
    pub fn admit(&self, claims: &Claims) -> Result<Arc<Served>, Problem> {
        let Some(tenant) = self.directory.get(&claims.sub) else {
            // Right after a start, web does not know all tenants yet.
            return Err(if self.directory.is_complete() { unauthorized() } else { Problem::unavailable() });
        };
        if !tenant.keys.admit(&claims.kid, self.now()) {
            return Err(unauthorized());
        }
        match tenant.phase {
            Some(phase) if phase.is_served() && tenant.has_api_access() => Ok(tenant),
            Some(phase) if phase.is_served() => Err(no_api_access(&tenant, &self.config.frontend_url)),
            Some(Phase::Suspended) => Err(suspended(&self.config.frontend_url)),
            Some(Phase::Deleting | Phase::Deleted) => {
                Err(Problem::new(StatusCode::GONE, Code::Closed, "This account is closed."))
            }
            _ => Err(Problem::new(StatusCode::CONFLICT, Code::NotReady, "This account is not ready to be used.")),
        }
    }
}

/// What counts a tenant's requests whose keys are refused. No uid holds a slash.
fn refusals(claims: &Claims) -> String {
    format!("{}/refused", claims.sub)
}

fn no_api_access(tenant: &Served, frontend_url: &str) -> Problem {
    let plan = tenant.config.as_ref().map_or_else(String::new, |config| config.plan.to_string());
    let plans = format!("{}/account/plan", frontend_url.trim_end_matches('/'));
    let detail = format!("The plan {plan} has no access to the API. Choose one that has at {plans}.");
    Problem::new(StatusCode::FORBIDDEN, Code::NoApiAccess, detail)
}

fn suspended(frontend_url: &str) -> Problem {
    let account = format!("{}/account", frontend_url.trim_end_matches('/'));
    let detail = format!("This account is suspended; its documents are kept. See {account} for what to do.");
    Problem::new(StatusCode::PAYMENT_REQUIRED, Code::Suspended, detail)
}
