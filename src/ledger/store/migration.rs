//! What both databases do to come from one schema to the next.

/// From schema 1 to 2: when an operation ended, and the latest line of each tenant. Schema 1 did not note when an
/// operation ended, so each counts as ended with the latest that the ledger knows: it is kept for longer than it would
/// have to be.
pub fn second(integer: &str) -> String {
    format!(
        "ALTER TABLE operation ADD COLUMN ended_at {integer};
         UPDATE operation SET ended_at = (SELECT max(at) FROM
             (SELECT max(at) AS at FROM operation UNION ALL SELECT max(at) FROM line) AS latest) WHERE state <> 'pending';
         CREATE INDEX ended ON operation (ended_at) WHERE ended_at IS NOT NULL;
         ALTER TABLE tenant ADD COLUMN seq {integer} NOT NULL DEFAULT 0;
         UPDATE tenant SET seq = latest.seq FROM (SELECT tenant, max(seq) AS seq FROM line GROUP BY tenant) AS latest
             WHERE latest.tenant = tenant.id;
         CREATE INDEX changed ON tenant (seq);"
    )
}
