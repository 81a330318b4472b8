//! Idempotency keys. Stripe saves the answer of every request that it began to execute under the request's key for 24
//! hours, failures included, and refuses the key for a request with other parameters
//! (<https://docs.stripe.com/api/idempotent_requests>). So a key names the purpose and the parameters, and a request
//! whose failure was saved is made again under another key.
//!
//! The number in that key follows from what Stripe answers: `purpose.2` is used only after Stripe has answered under
//! `purpose` with the saved failure of an earlier call. That call has ended, and the caller has looked at Stripe since,
//! so nothing is done twice. A restart forgets no number, because Stripe is asked under the first key again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use stripe_client_core::RequestBuilder;

use super::{ProviderError, Stripe};

/// Keys of one purpose that are tried in a call.
const TRIED: u32 = 200;
/// Purposes that are remembered. Forgetting them costs calls, and nothing else.
const REMEMBERED: usize = 10_000;

/// The number of the next key of those purposes whose earlier keys hold a saved failure.
#[derive(Debug, Default)]
pub(super) struct FailedKeys(Mutex<HashMap<String, u32>>);

impl FailedKeys {
    fn next(&self, base: &str) -> u32 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(base).copied().unwrap_or(1)
    }

    fn remember(&self, base: &str, number: u32) {
        let mut numbers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers.len() >= REMEMBERED {
            numbers.clear();
        }
        numbers.insert(base.to_owned(), number);
    }

    fn forget(&self, base: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(base);
    }
}

impl Stripe {
    /// Sends a request that must happen once, under an idempotency key of its purpose and its parameters. Callers check
    /// first whether the object exists at Stripe.
    pub(super) async fn keyed<T: DeserializeOwned>(
        &self,
        request: &RequestBuilder,
        purpose: &str,
    ) -> Result<T, ProviderError> {
        let base = format!("{purpose}-{}", digest(request));
        let first = self.failed_keys.next(&base);
        for number in first..first.saturating_add(TRIED) {
            match self.send(request, Some(&numbered(&base, number))).await {
                Err(error) if error.is_saved() => self.failed_keys.remember(&base, number.saturating_add(1)),
                Err(error) => return Err(error),
                Ok(answer) => {
                    self.failed_keys.forget(&base);
                    return Ok(answer);
                }
            }
        }
        Err(ProviderError::garbage(super::PROVIDER, format!("saved failures under {TRIED} keys of {purpose}")))
    }
}

fn numbered(base: &str, number: u32) -> String {
    if number == 1 { base.to_owned() } else { format!("{base}.{number}") }
}

/// A digest of the request that does not depend on the order of its parameters.
fn digest(request: &RequestBuilder) -> String {
    let mut parameters: Vec<_> = request.body.as_deref().unwrap_or_default().split('&').collect();
    parameters.sort_unstable();
    let mut hash = Sha256::new();
    hash.update(request.path.as_bytes());
    for parameter in parameters {
        hash.update(b"&");
        hash.update(parameter.as_bytes());
    }
    hex::encode(hash.finalize())[..16].to_owned()
}

#[cfg(test)]
mod tests {
    use stripe_client_core::StripeMethod;

    use super::*;

    fn request(body: &str) -> RequestBuilder {
        let mut request = RequestBuilder::new(StripeMethod::Post, "/refunds");
        request.body = Some(body.to_owned());
        request
    }

    #[test]
    fn the_order_of_parameters_changes_no_key_and_their_values_do() {
        assert_eq!(digest(&request("a=1&b=2")), digest(&request("b=2&a=1")));
        assert_ne!(digest(&request("a=1&b=2")), digest(&request("a=2&b=1")));
        assert_ne!(digest(&request("a=1")), digest(&RequestBuilder::new(StripeMethod::Post, "/refunds")));
    }

    #[test]
    fn the_first_key_has_no_number() {
        assert_eq!((numbered("t-refund", 1), numbered("t-refund", 2)), ("t-refund".into(), "t-refund.2".into()));
    }
}
