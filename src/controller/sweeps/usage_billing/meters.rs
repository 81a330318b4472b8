//! The meters and prices at Stripe, remembered for a while: tenants of a plan share them.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::UsagePrice;
use crate::providers::biller::Meter;
use crate::providers::stripe::{Stripe, UsagePriceError};

/// For how long an answer holds. Stripe changes neither, but a meter can be archived.
const HOLDS: Duration = Duration::from_mins(15);

/// What was read.
#[derive(Debug, Default)]
pub struct Meters {
    meters: Remembered<String, Meter>,
    prices: Remembered<UsagePrice, String>,
}

impl Meters {
    /// A meter by its id.
    pub async fn meter(&self, stripe: &Stripe, id: &str) -> Result<Meter, UsagePriceError> {
        if let Some(known) = self.meters.get(&id.to_owned()) {
            return Ok(known);
        }
        let meter = stripe.usage_meter(id).await?;
        self.meters.put(id.to_owned(), meter.clone());
        Ok(meter)
    }

    /// The meter of a price, which charges what the Plan says.
    pub async fn of_price(&self, stripe: &Stripe, price: &UsagePrice) -> Result<Meter, UsagePriceError> {
        let id = if let Some(known) = self.prices.get(price) {
            known
        } else {
            let id = stripe.meter_of_price(price).await?;
            self.prices.put(price.clone(), id.clone());
            id
        };
        self.meter(stripe, &id).await
    }
}

#[derive(Debug)]
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(read, _)| read.elapsed() < HOLDS).map(|(_, value)| value.clone())
    }

    fn put(&self, key: K, value: V) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (Instant::now(), value));
    }
}
