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
/// For how long a price or a meter that cannot bill is not read again: all tenants of a plan would read it, in vain.
const FAILS: Duration = Duration::from_mins(2);

/// What was read, or why not.
pub type Read<V> = Result<V, UsagePriceError>;

/// What was read.
#[derive(Debug, Default)]
pub struct Meters {
    by_id: Remembered<String, Meter>,
    prices: Remembered<UsagePrice, String>,
    any: Remembered<String, Option<String>>,
}

impl Meters {
    /// A meter by its id.
    pub async fn meter(&self, stripe: &Stripe, id: &str) -> Read<Meter> {
        if let Some(known) = self.by_id.get(&id.to_owned()) {
            return known;
        }
        let meter = stripe.usage_meter(id).await;
        self.by_id.put(id.to_owned(), meter.clone());
        meter
    }

    /// The id of the meter of a price, whatever it charges.
    pub async fn any_of_price(&self, stripe: &Stripe, price: &str) -> Read<Option<String>> {
        if let Some(known) = self.any.get(&price.to_owned()) {
            return known;
        }
        let id = stripe.any_meter_of_price(price).await;
        self.any.put(price.to_owned(), id.clone());
        id
    }

    /// The meter of a price, which charges what the Plan says.
    pub async fn of_price(&self, stripe: &Stripe, price: &UsagePrice) -> Read<Meter> {
        if let Some(id) = self.prices.get(price) {
            return self.meter(stripe, &id?).await;
        }
        let id = stripe.meter_of_price(price).await;
        self.prices.put(price.clone(), id.clone());
        self.meter(stripe, &id?).await
    }
}

/// Whether what was read so long ago still holds. Stripe being away is not remembered.
pub fn holds<V>(read: &Read<V>, ago: Duration) -> bool {
    match read {
        Ok(_) => ago < HOLDS,
        Err(UsagePriceError::Provider(error)) if !error.is_not_found() => false,
        Err(_) => ago < FAILS,
    }
}

#[derive(Debug)]
struct Remembered<K, V>(Mutex<HashMap<K, (Instant, Read<V>)>>);

impl<K, V> Default for Remembered<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Remembered<K, V> {
    fn get(&self, key: &K) -> Option<Read<V>> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(key).filter(|(at, read)| holds(read, at.elapsed())).map(|(_, read)| read.clone())
    }

    fn put(&self, key: K, read: Read<V>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key, (Instant::now(), read));
    }
}
