//! API keys: `sk_live_` and a JWT signed with Ed25519. The same tenant, plan and generation give the same key, so a
//! Secret that was deleted by hand comes back with it.
//!
//! No JWT library: they take the algorithm from the token's header, which an attacker writes. Here the header is one
//! text.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::api::Timestamp;

const PREFIX: &str = "sk_live_";
/// RFC 8037: `EdDSA` in JOSE.
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// What an API key says of its bearer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The tenant's id.
    pub sub: String,
    /// The namespace of the tenant's data.
    pub ns: String,
    /// The plan that the key was made for.
    pub plan: String,
    /// The key's id: its generation.
    pub kid: String,
}

/// Signs claims into a key.
///
/// # Panics
///
/// Never: four strings are always JSON.
pub fn mint(signer: &SigningKey, claims: &Claims) -> String {
    let payload = serde_json::to_vec(claims).expect("four strings are always JSON");
    let message = format!("{}.{}", BASE64.encode(HEADER), BASE64.encode(payload));
    let signature = signer.sign(message.as_bytes());
    format!("{PREFIX}{message}.{}", BASE64.encode(signature.to_bytes()))
}

/// The claims of a key, if its signature holds.
pub fn verify(verifier: &VerifyingKey, key: &str) -> Option<Claims> {
    let token = key.strip_prefix(PREFIX)?;
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    if BASE64.decode(header).ok()? != HEADER.as_bytes() {
        return None;
    }
    let signature = Signature::from_slice(&BASE64.decode(signature).ok()?).ok()?;
    // Strict: refuses weak public keys, under which one signature can be valid for several messages.
    verifier.verify_strict(signed.as_bytes(), &signature).ok()?;
    serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
}

/// How long the key before is good after it was replaced, in seconds: a day, so that a customer can change it without
/// an outage.
pub const OVERLAP: i64 = 24 * 3600;

/// Which generations of a tenant's API key are good. The spec is the wish of the customer or an admin, and revokes by
/// itself: it needs no controller. The status says when the wish was followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysInForce {
    /// `spec.apiKeyGeneration`.
    pub wanted: u32,
    /// `status.apiKeyGeneration`: the generation in the Secret.
    pub there: Option<u32>,
    /// `status.apiKeyCreatedAt`: since when.
    pub since: Option<Timestamp>,
}

impl KeysInForce {
    /// Whether a key with this id is good: the one that the spec asks for, and for a while the one before it.
    pub fn admit(&self, kid: &str, now: Timestamp) -> bool {
        let Ok(kid) = kid.parse::<u32>() else { return false };
        kid == self.wanted || (kid.checked_add(1) == Some(self.wanted) && self.before_is_good(now))
    }

    /// Until when the key before is good, once it was replaced.
    pub fn before_until(&self) -> Option<Timestamp> {
        let replaced = self.wanted > 1 && self.there == Some(self.wanted);
        self.since.filter(|_| replaced).map(|since| since.plus(OVERLAP))
    }

    /// Until the new key is made, the customer has no other one.
    fn before_is_good(&self, now: Timestamp) -> bool {
        let not_replaced = self.there.and_then(|there| there.checked_add(1)) == Some(self.wanted);
        not_replaced || self.before_until().is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_revokes_by_itself_and_the_key_before_is_good_for_a_day() {
        let now = Timestamp::from_second(1_000_000);
        let ago = |seconds: i64| Some(Timestamp::from_second(1_000_000 - seconds));
        for (kid, wanted, there, since, good) in [
            ("1", 1, Some(1), ago(10), true),
            ("1", 2, Some(2), ago(10), true),
            ("1", 2, Some(2), ago(OVERLAP - 1), true),
            ("1", 2, Some(2), ago(OVERLAP), false),
            ("1", 2, Some(2), None, false),
            ("1", 3, Some(3), ago(10), false),
            ("2", 1, Some(1), ago(10), false),
            ("x", 1, Some(1), ago(10), false),
            ("4294967295", 0, None, ago(10), false),
            // No controller has seen it yet.
            ("1", 2, Some(1), ago(OVERLAP * 9), true),
            ("2", 2, Some(1), ago(10), true),
            ("1", 3, Some(1), ago(10), false),
            ("2", 3, Some(1), ago(10), false),
            ("3", 3, Some(1), ago(10), true),
            // The status is lost, and with it the time since when.
            ("2", 2, None, None, true),
            ("1", 2, None, None, false),
            // Back to an earlier one.
            ("3", 2, Some(3), ago(10), false),
            ("1", 2, Some(3), ago(10), false),
        ] {
            let keys = KeysInForce { wanted, there, since };
            assert_eq!(keys.admit(kid, now), good, "{kid} with {keys:?}");
        }
    }

    fn claims() -> Claims {
        Claims { sub: "t1".into(), ns: "tenant_t1".into(), plan: "starter".into(), kid: "1".into() }
    }

    #[test]
    fn the_same_claims_give_the_same_key_and_it_verifies() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let key = mint(&signer, &claims());
        assert_eq!(key, mint(&signer, &claims()));
        assert_eq!(verify(&signer.verifying_key(), &key), Some(claims()));
    }

    #[test]
    fn a_changed_or_foreign_key_is_refused() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let key = mint(&signer, &claims());
        let other = mint(&signer, &Claims { sub: "t2".into(), ..claims() });
        let (head, _) = key.rsplit_once('.').expect("three parts");
        let (_, tail) = other.rsplit_once('.').expect("three parts");
        assert_eq!(verify(&signer.verifying_key(), &format!("{head}.{tail}")), None);
        assert_eq!(verify(&SigningKey::from_bytes(&[8; 32]).verifying_key(), &key), None);
        assert_eq!(verify(&signer.verifying_key(), "sk_live_x"), None);
    }
}
