//! Whose an API key is. Web can verify keys and make none: it knows the public half only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as Lock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use kube::Client;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use crate::api::Phase;
use crate::keys::{Claims, verify};
use crate::operator_keys::{PublishedKey, verifying_key};
use crate::watches::Pulse;
use crate::web::App;
use crate::web::serving::directory::Served;
use crate::web::serving::problem::{Code, Problem};
use crate::web::serving::tokens::bearer;

/// A key that does not verify makes us read the public key again, at most this often: it may have been replaced.
const READ_AGAIN: Duration = Duration::from_secs(30);

/// How long what was read stands for those who ask for the key set; also that there is no key yet, or that the API
/// server does not answer. Anyone may ask.
const STANDS: Duration = Duration::from_secs(10);

/// How often, and after which wait, a tenant is looked for that is not known yet.
const TRIES: u32 = 10;
const TRY_AGAIN: Duration = Duration::from_millis(100);
/// How long Kubernetes may take to tell it.
const READ_LIMIT: Duration = Duration::from_secs(5);

/// The wait before the key is read again that could not be read, doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Good keys whose signatures need not be computed again.
const REMEMBERED: usize = 10_000;

/// The public half of the signing key, read when web starts: for requests with an API key, and for gateways that
/// verify keys by themselves. A client that sends a wrong key delays no other client.
pub struct KeyRing {
    known: RwLock<Option<Arc<Known>>>,
    /// Held by the request that reads it again, with the time of the last attempt.
    reading: Mutex<Option<Instant>>,
    /// Whether Kubernetes has told it, or that there is none yet.
    told: AtomicBool,
    /// When it did last.
    pulse: Pulse,
}

/// The public key, and what was verified with it.
struct Known {
    at: Instant,
    published: PublishedKey,
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
        let claims = verify(&self.published.key, key)?;
        let mut good = good();
        if good.len() >= REMEMBERED {
            good.clear();
        }
        good.insert(digest, claims.clone());
        Some(claims)
    }
}

/// What does not even look like a key costs nothing.
fn looks_like_a_key(key: &str) -> bool {
    key.starts_with("sk_live_") && key.len() <= 1024
}

impl KeyRing {
    /// One that knows no key yet.
    pub fn new(pulse: Pulse) -> Self {
        Self { known: RwLock::default(), reading: Mutex::default(), told: AtomicBool::new(false), pulse }
    }

    fn known(&self) -> Option<Arc<Known>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a key says by the public key that is known.
    fn known_claims(&self, key: &str) -> Option<Claims> {
        self.known().filter(|_| looks_like_a_key(key))?.claims(key)
    }

    async fn claims(&self, client: &Client, namespace: &str, key: &str) -> Result<Option<Claims>, Problem> {
        if !looks_like_a_key(key) {
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
        // Before a controller has run there is no key: web reads it again at once.
        let just_read = now.is_some() && reading.is_some_and(|at| at.elapsed() < READ_AGAIN);
        if at(&now) != at(&before) || just_read {
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
        // Also after a failure: the key that is known is good until Kubernetes says otherwise, and wrong keys do not wait
        // for it one after the other.
        *reading = Some(Instant::now());
        let read = read.map_err(|_| {
            tracing::warn!("Kubernetes does not tell the public key of API keys in time");
            Problem::unavailable()
        })??;
        self.told.store(true, Ordering::Relaxed);
        let before = self.known();
        if before.is_some() && read.is_none() {
            // The controller publishes the key at its start and never removes it. Until it does so again, the key that
            // is known stays, as while Kubernetes is away: without it, web would answer 401 to every customer.
            tracing::warn!(
                "the ConfigMap with the public key of API keys is missing or unreadable: web goes on with the key it knows. Restart the controller, which publishes it"
            );
            return Ok(before);
        }
        self.pulse.beat();
        let same = |known: &Arc<Known>, read: &PublishedKey| known.published.key == read.key;
        let known = match (before, read) {
            // What was verified with it stays.
            (Some(known), Some(read)) if same(&known, &read) => return Ok(Some(known)),
            (_, read) => read.map(|published| Arc::new(Known { at: Instant::now(), published, good: Lock::default() })),
        };
        self.known.write().unwrap_or_else(PoisonError::into_inner).clone_from(&known);
        Ok(known)
    }

    /// The published key set, as Kubernetes told it last. One request at a time reads it.
    pub async fn key_set(&self, client: &Client, namespace: &str) -> Option<Value> {
        let mut reading = self.reading.lock().await;
        if reading.is_none_or(|at| at.elapsed() >= STANDS)
            && let Err(problem) = self.read(&mut reading, client, namespace).await
        {
            tracing::debug!(code = problem.code(), "the key set stands as it was");
        }
        self.known().map(|known| known.published.set.clone())
    }

    /// Whether Kubernetes has told the key, or that there is none yet.
    pub fn is_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    /// Reads the key before the first request needs it: an API server that stalls a moment later refuses no request. A
    /// controller that starts later than web makes it then. Goes on to read it every now and then: one that was replaced
    /// is not good any more, also if no new key is used.
    pub async fn follow(&self, client: &Client, namespace: &str, every: Duration) {
        let mut wait = FIRST_WAIT;
        loop {
            let mut reading = self.reading.lock().await;
            // An error is logged where it arises.
            let read = self.read(&mut reading, client, namespace).await;
            drop(reading);
            let known = matches!(read, Ok(Some(_)));
            tokio::time::sleep(if known { every } else { wait.min(every) }).await;
            wait = if known { FIRST_WAIT } else { (wait * 2).min(READ_AGAIN) };
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
            let key = bearer(&request.headers).ok_or_else(unauthorized)?;
            request.extensions.insert(Verified(self.verified(key).await?));
        }
        let Verified(claims) = request.extensions.get().ok_or_else(unauthorized)?;
        self.admitted(claims).await
    }

    /// The tenant whose key this is, as far as it is known at this moment, whether it is served or not. None for a key
    /// that was revoked, and for a tenant that is known from too long ago.
    pub fn holder(&self, key: &str) -> Option<Arc<Served>> {
        let claims = self.api_keys.known_claims(key.trim())?;
        let tenant = self.directory.get(&claims.sub)?;
        self.trust.check(Some(&tenant.namespace)).ok()?;
        tenant.keys.admit(&claims.kid, self.now()).then_some(tenant)
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
        match self.admit(claims) {
            // What is too old does not change in a moment.
            Err(problem) if problem.is(Code::AccountsUnavailable) => return Err(problem),
            Err(_) => {}
            admitted => return admitted,
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
            if !self.directory.is_complete() {
                return Err(Problem::unavailable());
            }
            self.trust.check(None)?;
            return Err(unauthorized());
        };
        self.trust.check(Some(&tenant.namespace))?;
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
