//! Compares what the keys reach with the pins, for as long as it runs, and refuses calls while they differ.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::Client;

use super::{Finding, PinError, Pins, Region};
use crate::lifecycle::{Blame, Fault, Provider};
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::stripe::Stripe;
use crate::providers::vector_store::IndexIdentity;

/// How often the pins are read while all is as they say, and while it is not.
const CALM: Duration = Duration::from_secs(30);
const EAGER: Duration = Duration::from_secs(2);

/// How often a check looks again at once because the pins were written in between. At the first start the check of
/// Stripe and that of the indexes pin at the same time.
const AGAIN: usize = 5;

fn refused(provider: Provider, reason: Fault, what: &str, fix: &str) -> ProviderError {
    ProviderError {
        provider,
        status: None,
        reason,
        message: format!("{what}. {fix}"),
        blame: Blame::Mismatch,
        retryable: true,
        retry_after: None,
        tokens: None,
    }
}

/// Compares what the keys reach with the pins, for as long as it runs.
#[derive(Clone)]
pub struct Keeper {
    /// A client of the cluster.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// Whether to pin an account or index that is not pinned yet. Only the controller does.
    pub pins: bool,
}

impl Keeper {
    /// Checks the account behind Stripe's key. True when the answer to calls has changed.
    pub async fn check_stripe(&self, stripe: &Stripe) -> bool {
        match self.compare_stripe(stripe).await {
            Ok(Finding::Another { what, fix }) => {
                stripe.gate().close(refused(Provider::Stripe, Fault::AccountMismatch, &what, &fix))
            }
            Ok(Finding::Same | Finding::New) => stripe.gate().open(),
            Err(error) => self.failed(stripe.gate().is_open(), error, |error| stripe.gate().unchecked(error)),
        }
    }

    async fn compare_stripe(&self, stripe: &Stripe) -> Result<Finding, CheckError> {
        let found = stripe.identity().await?;
        let mut again = 0;
        loop {
            let pins = Pins::read(&self.client, &self.namespace).await?;
            let finding = pins.compare_stripe(&found);
            if finding != Finding::New || !self.pins {
                return Ok(finding);
            }
            match pins.pin_stripe(&self.client, &self.namespace, &found).await {
                Err(error) if error.is_conflict() && again < AGAIN => again += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(%found, "Stripe's account is pinned");
                    return Ok(finding);
                }
            }
        }
    }

    /// Checks the indexes. True when the answer to calls has changed.
    pub async fn check_indexes(&self, indexes: &Indexes) -> bool {
        let mut found = BTreeMap::new();
        let mut changed = false;
        for (region, index) in indexes.each() {
            match index.identity().await {
                Ok(there) => drop(found.insert(region.map(str::to_owned), there)),
                Err(error) => {
                    changed |= self.failed(index.gate().is_open(), error.into(), |error| index.gate().unchecked(error));
                }
            }
        }
        for (region, index) in indexes.each() {
            changed |= match self.compare_index(region, &found).await {
                Ok(None) => false,
                Ok(Some(Finding::Another { what, fix })) => {
                    index.gate().close(refused(Provider::VectorStore, Fault::IndexMismatch, &what, &fix))
                }
                Ok(Some(Finding::Same | Finding::New)) => {
                    found.get(&region.map(str::to_owned)).is_some_and(|there| index.admit(there))
                }
                Err(error) => self.failed(index.gate().is_open(), error, |error| index.gate().unchecked(error)),
            };
        }
        changed
    }

    /// None if the store did not say which index it is.
    async fn compare_index(
        &self,
        region: Option<&str>,
        found: &BTreeMap<Region, IndexIdentity>,
    ) -> Result<Option<Finding>, CheckError> {
        let Some(here) = found.get(&region.map(str::to_owned)) else { return Ok(None) };
        let mut again = 0;
        loop {
            let pins = Pins::read(&self.client, &self.namespace).await?;
            let finding = pins.compare_index(region, found);
            if finding != Finding::New || !self.pins {
                return Ok(Some(finding));
            }
            match pins.pin_index(&self.client, &self.namespace, region, here).await {
                Err(error) if error.is_conflict() && again < AGAIN => again += 1,
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    tracing::info!(region, index = %here, "{}'s index is pinned", Provider::VectorStore);
                    return Ok(Some(finding));
                }
            }
        }
    }

    /// A check that failed says nothing new of what was checked before.
    fn failed(&self, was_open: bool, error: CheckError, close: impl FnOnce(ProviderError) -> bool) -> bool {
        tracing::debug!(%error, pins = self.pins, "the pins were not compared; retrying");
        match error {
            _ if was_open => false,
            CheckError::Provider(error) => close(error),
            CheckError::Pins(error) => close(ProviderError {
                provider: Provider::Kubernetes,
                status: None,
                reason: Fault::PinsUnread,
                message: error.to_string(),
                blame: Blame::Outage,
                retryable: true,
                retry_after: None,
                tokens: None,
            }),
        }
    }

    /// Checks again and again. `changed` is called after each check that changed the answer to calls.
    pub async fn keep(&self, stripe: Option<&Stripe>, indexes: &Indexes, changed: impl Fn()) {
        loop {
            let (of_stripe, of_indexes) = tokio::join!(
                async {
                    match stripe {
                        Some(stripe) => self.check_stripe(stripe).await,
                        None => false,
                    }
                },
                self.check_indexes(indexes)
            );
            if of_stripe || of_indexes {
                changed();
            }
            let calm = stripe.is_none_or(|stripe| stripe.gate().is_open())
                && indexes.all().all(|index| index.gate().is_open());
            tokio::time::sleep(if calm { CALM } else { EAGER }).await;
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error(transparent)]
    Pins(#[from] PinError),
}
