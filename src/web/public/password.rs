//! Passwords: hashed where they cannot starve the rest, tried a limited number of times, in equal time.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier, generate_salt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;

use crate::api::{COMPONENT_LABEL, LOGIN_COMPONENT, PASSWORD_HASH, TENANT_LABEL, Tenant, Timestamp, login_secret};
use crate::serve::client::network;
use crate::web::serving::optimistic::change;
use crate::web::serving::problem::Problem;
use crate::web::serving::tokens::Generation;
use crate::web::{App, FIELD_MANAGER};

/// Passwords hashed at the same time: each takes 19 MiB and a core.
const HASHERS: usize = 2;
/// Those that may wait for it; more are turned away.
const WAITING: usize = 16;
/// Wrong passwords of one account in a window of time, as `count@start`; kept where all replicas see it.
const TRIES_ANNOTATION: &str = "tenant-operator.dev/password-tries";
/// Wrong passwords allowed in a window.
const TRIES: u32 = 10;
/// The window, in seconds.
const WINDOW: i64 = 900;

/// The hash of the address, on a login Secret, whose owner is known to have chosen the password: it was set with a
/// link, or the address was confirmed by the customer who holds it.
const PROVEN_ANNOTATION: &str = "tenant-operator.dev/password-proven";
/// In place of a hash: no password fits it.
const NO_PASSWORD: &[u8] = b"!";

/// A password as it is compared: other spaces become U+0020, and the text is composed. So a password that is typed on
/// another keyboard or system is the same one: <https://www.rfc-editor.org/rfc/rfc8265#section-4.2>
fn prepared(password: &str) -> String {
    let space = |c: char| if c != ' ' && is_space(c) { ' ' } else { c };
    password.chars().map(space).nfc().collect()
}

/// Unicode's space separators.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}')
}

/// Whether it may be a password.
pub fn acceptable(password: &str) -> bool {
    // A character has at most 4 bytes; what is longer need not be composed.
    password.len() <= 4 * 256 && (8..=256).contains(&prepared(password).chars().count())
}

/// The hash of no password, compared where there is none: the work is the same, so that the time of an answer does not
/// tell which addresses are known.
static NONE: LazyLock<String> = LazyLock::new(|| {
    let hash = Argon2::default().hash_password(&generate_salt());
    hash.map(|hash| hash.to_string()).expect("argon2 takes every password and salt of this length")
});

/// Whether a password is that of a hash.
fn fits(hash: &str, password: &str) -> bool {
    let own = PasswordHash::new(hash).ok();
    let Ok(compared) = own.as_ref().map_or_else(|| PasswordHash::new(&NONE), |own| Ok(own.clone())) else {
        return false;
    };
    let fits = |text: &str| Argon2::default().verify_password(text.as_bytes(), &compared).is_ok();
    let prepared = prepared(password);
    // A hash from before passwords were prepared is one of the bytes that were typed.
    (fits(&prepared) || (prepared != password && fits(password))) && own.is_some()
}

/// Hashes and verifies.
#[derive(Debug)]
pub struct Passwords {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Passwords {
    fn default() -> Self {
        // Not with the first log-in, which would take longer.
        LazyLock::force(&NONE);
        Self { places: Arc::new(Semaphore::new(HASHERS)), waiting: AtomicUsize::new(0) }
    }
}

impl Passwords {
    /// The hash to store.
    pub async fn hash(&self, password: String) -> Result<String, Problem> {
        let hash = move || Argon2::default().hash_password(prepared(&password).as_bytes()).map(|h| h.to_string());
        self.run(hash).await?.map_err(|e| Problem::internal("argon2", &e))
    }

    /// Takes as long as [`Self::verify`], where there is nothing to verify.
    pub async fn pretend(&self, password: String) -> Result<(), Problem> {
        self.matches(&Secret::default(), password).await.map(drop)
    }

    /// Whether it is the password of this login Secret.
    async fn matches(&self, secret: &Secret, password: String) -> Result<bool, Problem> {
        let hash = secret.data.as_ref().and_then(|d| d.get(PASSWORD_HASH)).map(|b| b.0.clone()).unwrap_or_default();
        self.run(move || fits(&String::from_utf8(hash).unwrap_or_default(), &password)).await
    }

    /// Whether it is the password, and not too many wrong ones were tried lately, at all replicas together. The answer
    /// to one try too many is the one to a wrong password, after the same work: another one says that the address is
    /// known.
    pub async fn verify(
        &self,
        api: &Api<Secret>,
        secret: &Secret,
        password: String,
        now: Timestamp,
    ) -> Result<bool, Problem> {
        let (tries, _) = tries(secret, now.as_second());
        let fits = self.matches(secret, password).await?;
        if tries >= TRIES {
            return Ok(false);
        }
        if !fits {
            // Beside the answer, which takes no longer than the one for an unknown address.
            let (api, name) = (api.clone(), secret.name_any());
            tokio::spawn(async move {
                if let Err(problem) = note_try(&api, &name, now).await {
                    tracing::error!(problem = problem.detail(), secret = name, "a wrong password was not counted");
                }
            });
        }
        Ok(fits)
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

impl App {
    /// The tenant of this address, if the password is right, and the generation of the passes that the password opens.
    /// Whether the address is known cannot be told from the answer or its time.
    pub async fn by_password(
        &self,
        client: IpAddr,
        email: &str,
        password: String,
    ) -> Result<Option<(Tenant, Generation)>, Problem> {
        self.signups.take(&network(client)).map_err(Problem::too_many)?;
        let secrets = self.secrets();
        let tenant = match crate::email::parse(email) {
            Ok(email) => self.by_email(&email).await?,
            Err(_) => None,
        };
        // Read before the password is checked: a password that changes meanwhile ends what is issued for the one
        // before.
        let tenant = tenant.map(|tenant| (self.generation(&tenant), tenant));
        // An unknown address costs the same read, of a Secret that no tenant has.
        let name = tenant.as_ref().map_or_else(|| "unknown".into(), |(_, tenant)| tenant.name_any());
        let secret = secrets.get_opt(&login_secret(&name)).await?.filter(|_| tenant.is_some());
        // Without a password there is nothing to compare with, and the answer takes as long.
        let Some(secret) = secret.filter(has_password) else {
            self.passwords.pretend(password).await?;
            return Ok(None);
        };
        let right = self.passwords.verify(&secrets, &secret, password, self.now()).await?;
        Ok(tenant.filter(|_| right).map(|(generation, tenant)| (tenant, generation)))
    }

    /// Stores the hash of a password that was set with a link, and so by the owner of the address.
    pub async fn set_password(&self, tenant: &Tenant, hash: String) -> Result<(), Problem> {
        self.change_login(tenant, &ByteString(hash.into_bytes())).await
    }

    /// Notes that the customer who holds the password reads the address.
    pub async fn prove_password(&self, tenant: &Tenant) -> Result<(), Problem> {
        let name = login_secret(&tenant.name_any());
        let address = self.identity.email_hash(&tenant.spec.admin_email);
        let change = json!({"metadata": {"annotations": {PROVEN_ANNOTATION: address}}});
        match self.secrets().patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
            Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
            patched => patched.map(drop).map_err(Into::into),
        }
    }

    /// Whether the password was chosen before its holder proved to read the address: a stranger who signed up with the
    /// address of another person knows it.
    pub async fn has_unproven_password(&self, tenant: &Tenant) -> Result<bool, Problem> {
        let Some(secret) = self.secrets().get_opt(&login_secret(&tenant.name_any())).await? else { return Ok(false) };
        let address = self.identity.email_hash(&tenant.spec.admin_email);
        Ok(has_password(&secret) && secret.annotations().get(PROVEN_ANNOTATION) != Some(&address))
    }

    /// Ends the password. The owner of the address sets another one by e-mail.
    pub async fn end_password(&self, tenant: &Tenant) -> Result<(), Problem> {
        self.change_login(tenant, &ByteString(NO_PASSWORD.to_vec())).await?;
        tracing::info!(target: "audit", event = "unproven_password_ended", tenant = tenant.name_any());
        Ok(())
    }

    async fn change_login(&self, tenant: &Tenant, hash: &ByteString) -> Result<(), Problem> {
        let address = self.identity.email_hash(&tenant.spec.admin_email);
        let annotations = json!({TRIES_ANNOTATION: null, PROVEN_ANNOTATION: address});
        let change = json!({"metadata": {"annotations": annotations}, "data": {PASSWORD_HASH: hash}});
        let name = login_secret(&tenant.name_any());
        match self.secrets().patch(&name, &PatchParams::default(), &Patch::Merge(change)).await {
            Err(kube::Error::Api(e)) if e.code == 404 => self.make_login(tenant, &address, hash).await,
            patched => patched.map(drop).map_err(Into::into),
        }
    }

    /// The first login of a tenant that was applied as a manifest.
    async fn make_login(&self, tenant: &Tenant, address: &str, hash: &ByteString) -> Result<(), Problem> {
        let name = tenant.name_any();
        let labels = [(TENANT_LABEL, name.as_str()), (COMPONENT_LABEL, LOGIN_COMPONENT)];
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(login_secret(&name)),
                labels: Some(labels.map(|(key, value)| (key.into(), value.into())).into()),
                annotations: Some([(PROVEN_ANNOTATION.to_owned(), address.to_owned())].into()),
                ..ObjectMeta::default()
            },
            data: Some([(PASSWORD_HASH.to_owned(), hash.clone())].into()),
            ..Secret::default()
        };
        self.secrets().create(&PostParams::default(), &secret).await?;
        Ok(())
    }
}

/// Whether a login Secret holds the hash of a password.
fn has_password(secret: &Secret) -> bool {
    secret.data.as_ref().and_then(|data| data.get(PASSWORD_HASH)).is_some_and(|hash| hash.0 != NO_PASSWORD)
}

/// Wrong passwords in the present window, and when it began.
fn tries(secret: &Secret, now: i64) -> (u32, i64) {
    let noted = secret.annotations().get(TRIES_ANNOTATION).and_then(|v| v.split_once('@'));
    let noted = noted.and_then(|(count, start)| Some((count.parse().ok()?, start.parse().ok()?)));
    noted.filter(|(_, start)| (0..WINDOW).contains(&(now - start))).unwrap_or((0, now))
}

/// Counts a wrong password. Two replicas that count at the same time lose none.
async fn note_try(api: &Api<Secret>, name: &str, now: Timestamp) -> Result<(), Problem> {
    let counted = |secret: &Secret| {
        let (count, start) = tries(secret, now.as_second());
        let tries = format!("{}@{start}", count.saturating_add(1));
        Ok::<_, Problem>(Some(json!({"metadata": {"annotations": {TRIES_ANNOTATION: tries}}})))
    };
    change(api, &api.get(name).await?, FIELD_MANAGER, counted).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_same_on_every_keyboard() {
        let same = [("pa\u{df}w\u{f6}rter", "pa\u{df}wo\u{308}rter"), ("one two three", "one\u{a0}two\u{3000}three")];
        for (one, other) in same {
            assert_eq!(prepared(one), prepared(other));
        }
        assert_ne!(prepared("Password"), prepared("password"), "case counts");
        assert_ne!(prepared("\u{ff21}bcdefgh"), prepared("Abcdefgh"), "compatible characters are others");
    }

    #[test]
    fn the_length_counts_characters() {
        for good in ["12345678", &"\u{6f22}".repeat(256), &"o\u{308}".repeat(256), &"\u{1f600}".repeat(8)] {
            assert!(acceptable(good), "{good}");
        }
        for bad in ["1234567", &"\u{6f22}".repeat(257), &"o\u{308}".repeat(7), &"x".repeat(1_000_000)] {
            assert!(!acceptable(bad), "{}", bad.len());
        }
    }

    #[test]
    fn a_password_is_compared_with_as_much_work_where_there_is_no_hash() {
        let stored = Argon2::default().hash_password(b"another password").expect("hashed");
        let none = PasswordHash::new(&NONE).expect("a hash");
        assert_eq!((none.algorithm, none.version), (stored.algorithm, stored.version));
        assert_eq!(none.params.to_string(), stored.params.to_string());
        for hash in ["", "!", &stored.to_string()] {
            assert!(!fits(hash, "a wrong password") && !fits(hash, "o\u{308}abcdefgh"));
        }
    }

    #[tokio::test]
    async fn a_hash_from_before_stays_valid() {
        let passwords = Passwords::default();
        let typed = "pa\u{df}wo\u{308}rter";
        let old = Argon2::default().hash_password(typed.as_bytes()).expect("hashed").to_string();
        let secret = |hash: String| Secret {
            data: Some([(PASSWORD_HASH.to_owned(), ByteString(hash.into_bytes()))].into()),
            ..Secret::default()
        };
        assert!(passwords.matches(&secret(old), typed.into()).await.expect("compared"));
        let new = passwords.hash(typed.into()).await.expect("hashed");
        for typed in [typed, "pa\u{df}w\u{f6}rter"] {
            assert!(passwords.matches(&secret(new.clone()), typed.into()).await.expect("compared"));
        }
        assert!(!passwords.matches(&secret(new), "passw\u{f6}rter".into()).await.expect("compared"));
    }

    /// Written by argon2 0.5, which stored the hashes of customers before.
    #[test]
    fn a_hash_of_the_library_before_stays_valid() {
        let old = "$argon2id$v=19$m=19456,t=2,p=1$c2l4dGVlbiBieXRlcyBvaw$ZcAhZ6KWCd/rnfssRzpge8DhCNH2IpijgoGVgIMlHdE";
        assert!(fits(old, "pa\u{df}w\u{f6}rter"));
        assert!(!fits(old, "passw\u{f6}rter"));
    }
}
