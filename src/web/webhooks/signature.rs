//! Stripe's signature scheme v1: HMAC-SHA256 of `timestamp.body`, with several signatures while a secret rotates
//! (<https://docs.stripe.com/webhooks#verify-manually>).

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use subtle::ConstantTimeEq;

/// How old a signature may be, in seconds; Stripe's own libraries use the same.
const TOLERANCE: i64 = 300;
/// Signatures that are looked at: Stripe sends one for each secret that is valid, two while one rotates.
const SIGNATURES: usize = 8;
/// The longest header: eight signatures and some of a scheme that is not used.
const HEADER: usize = 1024;

/// Why an event is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// No header, or not of Stripe's form.
    #[error("The Stripe-Signature header is missing or malformed")]
    Malformed,
    /// Made more than five minutes before or after now.
    #[error("The signature's timestamp is not within five minutes of the server's clock")]
    Expired,
    /// Signed with another secret.
    #[error("No signature matches a webhook secret. Check STRIPE_WEBHOOK_SECRET")]
    Mismatch,
}

/// What the header says, not yet compared with the body.
#[derive(Debug)]
pub struct Signature<'a> {
    time: &'a str,
    signatures: Vec<[u8; 32]>,
}

impl<'a> Signature<'a> {
    /// Reads the header. Refuses one that is malformed, or was made more than five minutes before or after now.
    pub fn read(header: &'a str, now: i64) -> Result<Self, SignatureError> {
        if header.len() > HEADER {
            return Err(SignatureError::Malformed);
        }
        let (mut time, mut signatures) = ("", Vec::new());
        for (key, value) in header.split(',').filter_map(|part| part.trim().split_once('=')) {
            match key {
                "t" => time = value,
                "v1" if signatures.len() < SIGNATURES => {
                    let mut signature = [0u8; 32];
                    if hex::decode_to_slice(value, &mut signature).is_ok() {
                        signatures.push(signature);
                    }
                }
                _ => {}
            }
        }
        let seconds: i64 = time.parse().map_err(|_| SignatureError::Malformed)?;
        if now.abs_diff(seconds) > TOLERANCE.unsigned_abs() {
            return Err(SignatureError::Expired);
        }
        if signatures.is_empty() {
            return Err(SignatureError::Malformed);
        }
        Ok(Self { time, signatures })
    }

    /// Checks it against the body. Costs one MAC for each secret, whatever the header holds.
    pub fn verify(&self, body: &[u8], secrets: &[SecretString]) -> Result<(), SignatureError> {
        for secret in secrets {
            let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes()) else { continue };
            mac.update(self.time.as_bytes());
            mac.update(b".");
            mac.update(body);
            let right = mac.finalize().into_bytes();
            if self.signatures.iter().any(|signature| right.as_slice().ct_eq(signature).into()) {
                return Ok(());
            }
        }
        Err(SignatureError::Mismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000;

    fn sign(secret: &str, time: i64, body: &str) -> String {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any length");
        mac.update(format!("{time}.{body}").as_bytes());
        hex::encode(mac.finalize().into_bytes())
    }

    fn check(header: &str) -> Result<(), SignatureError> {
        Signature::read(header, NOW)?.verify(b"{}", &["old".into(), "new".into()])
    }

    #[test]
    fn a_signature_of_either_secret_is_believed_within_five_minutes() {
        for (secret, time) in [("old", NOW), ("new", NOW), ("new", NOW - 300), ("new", NOW + 300)] {
            assert_eq!(check(&format!("t={time},v1={}", sign(secret, time, "{}"))), Ok(()));
        }
        for time in [NOW - 301, NOW + 301] {
            assert_eq!(check(&format!("t={time},v1={}", sign("new", time, "{}"))), Err(SignatureError::Expired));
        }
        let rotated = format!("t={NOW},v1={},v1={},v0=x", sign("unknown", NOW, "{}"), sign("new", NOW, "{}"));
        assert_eq!(check(&rotated), Ok(()));
    }

    #[test]
    fn anything_else_is_refused() {
        let good = sign("new", NOW, "{}");
        let cases = [
            (String::new(), SignatureError::Malformed),
            (format!("v1={good}"), SignatureError::Malformed),
            (format!("t={NOW}"), SignatureError::Malformed),
            (format!("t={NOW},v1={}", &good[..62]), SignatureError::Malformed),
            (format!("t={NOW},v1={good}00"), SignatureError::Malformed),
            (format!("t={NOW},v1={}", sign("unknown", NOW, "{}")), SignatureError::Mismatch),
            (format!("t={NOW},v1={}", sign("new", NOW, "other")), SignatureError::Mismatch),
            (format!("t={NOW},v0={good}"), SignatureError::Malformed),
        ];
        for (header, wanted) in cases {
            assert_eq!(check(&header), Err(wanted), "{header}");
        }
    }

    #[test]
    fn a_flood_of_signatures_costs_nothing() {
        let flood = format!("t={NOW}{}", ",v1=".repeat(95_000));
        assert_eq!(check(&flood), Err(SignatureError::Malformed));
        let wrong = sign("unknown", NOW, "{}");
        let many = format!("t={NOW}{},v1={}", format!(",v1={wrong}").repeat(SIGNATURES), sign("new", NOW, "{}"));
        assert_eq!(check(&many), Err(SignatureError::Mismatch), "only the first few are looked at");
    }
}
