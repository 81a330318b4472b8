//! Problems that only an admin can fix. One alert is sent for all tenants that wait for the fix.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lifecycle::{Failure, Fault, Provider, Reason, Step};
use crate::providers::alerts::Alerts;

/// An incident that no reconcile has met for this long counts as over.
const SILENT: Duration = Duration::from_mins(10);

/// How many deleted objects of customers get an alert each; later ones share alerts.
const TOLD_EACH: usize = 3;

/// The incidents that are open.
pub struct Incidents {
    open: Mutex<HashMap<Reason, Incident>>,
    kept: Mutex<Kept>,
    alerts: Arc<Alerts>,
}

/// Customers whose objects were deleted without the wish to erase them.
#[derive(Default)]
struct Kept {
    count: usize,
    last: Option<Instant>,
}

struct Incident {
    message: String,
    seen: Instant,
    told: bool,
}

impl Kept {
    fn one_more(&mut self, now: Instant) -> Option<usize> {
        if self.last.is_none_or(|last| now.saturating_duration_since(last) >= SILENT) {
            self.count = 0;
        }
        (self.count, self.last) = (self.count + 1, Some(now));
        let power = self.count >= 10 && self.count == 10_usize.pow(self.count.ilog10());
        (self.count <= TOLD_EACH || power).then_some(self.count)
    }
}

impl Incidents {
    pub fn new(alerts: Arc<Alerts>) -> Self {
        Self { open: Mutex::default(), kept: Mutex::default(), alerts }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Reason, Incident>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, incident| incident.seen.elapsed() < SILENT);
        open
    }

    /// Notes a failure that an admin must fix. The first one sends an alert; if that fails, the next failure tries the
    /// alert again.
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
        let effect = match failure.step {
            Step::Outbox => "They stay in the status of their tenants until you fix it; tenants are served as before",
            Step::Brake => "They are served as before until you confirm it",
            Step::Pin => {
                "The controller suspends, refunds, charges and deletes nothing there; tenants are served as before"
            }
            Step::Notice => "E-mails wait until you fix it; tenants are served as before",
            Step::Export => "Exports wait until you fix it; tenants are served as before",
            _ => {
                "Tenants are on hold until you fix it. New tenants fail and are refunded after the limit (--hold-limit)"
            }
        };
        let text = format!("{}. {effect}.", failure.message);
        if self.alerts.send(&text).await.is_err()
            && let Some(incident) = self.open().get_mut(&failure.reason)
        {
            incident.told = false;
        }
    }

    /// Closes the incidents that a success proves to be over, by their reasons.
    pub fn clear(&self, over: impl Fn(&Reason) -> bool) {
        self.open().retain(|reason, _| !over(reason));
    }

    /// Counts a customer whose object was deleted without the annotation to erase them, and answers how many there were
    /// lately when an alert is due: for each of the first, and then each time that their number has grown tenfold. A
    /// thousand alerts would hide that it is one accident.
    pub fn kept(&self) -> Option<usize> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).one_more(Instant::now())
    }

    /// The alert could not be sent: the next one counts as this one.
    pub fn untold(&self) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.count = kept.count.saturating_sub(1);
    }

    /// Why no new tenant has room, when that is known.
    pub fn capacity_missing(&self) -> Option<String> {
        self.open()
            .get(&Reason::Provider(Provider::VectorStore, Fault::QuotaExceeded))
            .map(|incident| incident.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_deletions_are_few_alerts() {
        let (mut kept, now) = (Kept::default(), Instant::now());
        let told: Vec<_> = (0..1200).filter_map(|_| kept.one_more(now)).collect();
        assert_eq!(told, [1, 2, 3, 10, 100, 1000]);
        assert_eq!(kept.one_more(now + SILENT), Some(1), "another accident");
    }
}
