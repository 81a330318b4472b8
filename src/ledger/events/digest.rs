//! Digests of lines, by which a ledger that was restored is noticed.

use sha2::{Digest, Sha256};

use crate::ledger::store::StoredLine;

/// A digest of all that a line says.
pub fn digest(line: &StoredLine) -> String {
    let StoredLine { seq, operation, tenant, period_start, at, hour, kind, amounts } = line;
    let kind: &'static str = (*kind).into();
    let mut hasher = Sha256::new();
    // Names have no spaces.
    let times = [period_start, at, hour].map(|time| time.as_second());
    hasher.update(format!("{seq} {operation} {tenant} {times:?} {kind}"));
    for (unit, amount) in amounts.each() {
        hasher.update(format!(" {unit}={amount}"));
    }
    hex::encode(&hasher.finalize()[..16])
}
