//! API keys: `sk_live_` and a JWT signed with Ed25519. The same tenant, plan and generation give the same key, so a
//! Secret that was deleted by hand comes back with it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ed25519_dalek::{Signature, Signer, SigningKey, Verifier, VerifyingKey};
use serde::{Deserialize, Serialize};

const PREFIX: &str = "sk_live_";
/// RFC 8037: `EdDSA` in JOSE.
const HEADER: &str = r#"{"alg":"EdDSA","typ":"JWT"}"#;

/// What an API key says of its bearer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The tenant's id.
    pub sub: String,
    /// The tenant's Pinecone namespace.
    pub ns: String,
    /// The plan that the key was made for.
    pub plan: String,
    /// The key's id: its generation.
    pub kid: String,
}

/// Signs claims into a key.
pub fn mint(signer: &SigningKey, claims: &Claims) -> String {
    let payload = serde_json::to_vec(claims).unwrap_or_default();
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
    verifier.verify(signed.as_bytes(), &signature).ok()?;
    serde_json::from_slice(&BASE64.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
