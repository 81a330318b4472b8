//! What only the operator of the service can fix, told once however many tenants it holds up.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lifecycle::Failure;
use crate::providers::alerts::Alerts;

/// An incident that nobody has met for this long is over, for all that is known.
const SILENT: Duration = Duration::from_mins(10);

/// The incidents that are open.
pub struct Incidents {
    open: Mutex<HashMap<String, Incident>>,
    alerts: Arc<Alerts>,
}

struct Incident {
    message: String,
    seen: Instant,
    told: bool,
}

impl Incidents {
    pub fn new(alerts: Arc<Alerts>) -> Self {
        Self { open: Mutex::default(), alerts }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, Incident>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, incident| incident.seen.elapsed() < SILENT);
        open
    }

    /// A failure that the operator of the service must end. The first one alerts; so does the next one, where the alert
    /// could not be sent.
    pub async fn raise(&self, failure: &Failure) {
        let tell = {
            let mut open = self.open();
            let incident = open.entry(failure.reason.clone()).or_insert_with(|| Incident {
                message: failure.message.clone(),
                seen: Instant::now(),
                told: false,
            });
            incident.seen = Instant::now();
            !std::mem::replace(&mut incident.told, true)
        };
        if !tell {
            return;
        }
        let text = format!(
            "{}. Tenants are on hold until you fix it; nobody is charged or failed for it before the limit (--hold-limit).",
            failure.message
        );
        if self.alerts.send(&text).await.is_err()
            && let Some(incident) = self.open().get_mut(&failure.reason)
        {
            incident.told = false;
        }
    }

    /// A call succeeded that could not while this provider's incidents last.
    pub fn clear(&self, provider: &str) {
        self.open().retain(|reason, _| !reason.starts_with(provider));
    }

    /// Why no new tenant has room, when that is known.
    pub fn capacity_missing(&self) -> Option<String> {
        self.open().get("PineconeQuotaExceeded").map(|incident| incident.message.clone())
    }
}
