//! The tables in Postgres.

use deadpool_postgres::Client;

use super::connection::begin;
use crate::ledger::answers::ROW;
use crate::ledger::store::StoreError;
use crate::ledger::store::columns::declared;
use crate::ledger::store::{hours, migration};

/// The schema that this version writes. A later one migrates from each before it.
const VERSION: i64 = 4;
/// Replicas that start at the same moment migrate one after the other. `TnOp` in ASCII, and the first of our locks.
pub const MIGRATION_LOCK: i64 = 0x546e_4f70_0001;
/// Held by each transaction that writes a line, and taken by a reader for a moment: what it reads then has no gaps.
pub const LINE_LOCK: i64 = 0x546e_4f70_0002;
/// Parts of the sum of what answers take.
const PARTS: u32 = 64;

fn first() -> String {
    let amounts = |prefix| declared(prefix, "BIGINT");
    let (used, reserved, posted, units) = (amounts("used_"), amounts("reserved_"), amounts("posted_"), amounts(""));
    format!(
        "CREATE TABLE tenant (id TEXT PRIMARY KEY, period_start BIGINT NOT NULL, period_end BIGINT NOT NULL);
         CREATE TABLE account (tenant TEXT NOT NULL, period_start BIGINT NOT NULL, period_end BIGINT NOT NULL,
             {used}, {reserved}, PRIMARY KEY (tenant, period_start));
         CREATE TABLE operation (id TEXT PRIMARY KEY, tenant TEXT NOT NULL, period_start BIGINT NOT NULL,
             period_end BIGINT NOT NULL, state TEXT NOT NULL, expires_after BIGINT NOT NULL, at BIGINT NOT NULL,
             {reserved}, {posted});
         CREATE INDEX pending ON operation (id) WHERE state = 'pending';
         CREATE TABLE line (seq BIGSERIAL PRIMARY KEY, operation TEXT NOT NULL, tenant TEXT NOT NULL,
             period_start BIGINT NOT NULL, at BIGINT NOT NULL, kind TEXT NOT NULL, {units});
         CREATE TABLE tenant_day (tenant TEXT NOT NULL, day BIGINT NOT NULL, {units}, PRIMARY KEY (tenant, day));
         CREATE TABLE site_day (day BIGINT NOT NULL, part BIGINT NOT NULL, {units}, PRIMARY KEY (day, part));
         CREATE TABLE ledger (version BIGINT NOT NULL);
         INSERT INTO ledger VALUES (1);"
    )
}

fn second() -> String {
    migration::second("BIGINT")
        + "CREATE TABLE answer (id BIGSERIAL PRIMARY KEY, tenant TEXT NOT NULL, key TEXT NOT NULL, request TEXT NOT NULL,
               attempt TEXT NOT NULL,
               until BIGINT NOT NULL, size BIGINT NOT NULL, answer TEXT, UNIQUE (tenant, key));
           CREATE INDEX answer_until ON answer (until);"
}

/// From schema 3 to 4: what the keys of all tenants take, in parts, so that commits do not wait for each other. A
/// trigger keeps it, because a replica of an earlier version writes keys beside this one during an upgrade. It runs at
/// the commit: a transaction then holds all rows that it needs, so no two wait for each other.
fn fourth() -> String {
    format!(
        "CREATE TABLE answer_bytes (part BIGINT PRIMARY KEY, bytes BIGINT NOT NULL);
         CREATE FUNCTION answer_bytes_add() RETURNS trigger LANGUAGE plpgsql AS $$
             DECLARE change BIGINT := 0;
             BEGIN
                 IF TG_OP <> 'DELETE' THEN change := change + NEW.size + {ROW}; END IF;
                 IF TG_OP <> 'INSERT' THEN change := change - OLD.size - {ROW}; END IF;
                 INSERT INTO answer_bytes VALUES (pg_backend_pid() % {PARTS}, change)
                     ON CONFLICT (part) DO UPDATE SET bytes = answer_bytes.bytes + EXCLUDED.bytes WHERE EXCLUDED.bytes <> 0;
                 RETURN NULL;
             END $$;
         CREATE CONSTRAINT TRIGGER answer_bytes AFTER INSERT OR DELETE OR UPDATE OF size ON answer
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION answer_bytes_add();
         INSERT INTO answer_bytes SELECT -1, coalesce(sum(size + {ROW}), 0) FROM answer;"
    )
}

/// Makes the tables of a new database, and brings those of an earlier version up to this one. Refuses what a later
/// version wrote.
pub async fn migrate(client: &mut Client) -> Result<(), StoreError> {
    let transaction = begin(client).await?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    let there = transaction.query_one("SELECT to_regclass('ledger') IS NOT NULL", &[]).await?.get(0);
    let version = if there {
        let found: Option<i64> = transaction.query_one("SELECT max(version) FROM ledger", &[]).await?.get(0);
        let found = found.ok_or_else(|| StoreError::Database("its table ledger is empty, and so not ours".into()))?;
        if found > VERSION {
            return Err(StoreError::Newer { found, known: VERSION });
        }
        found
    } else {
        transaction.batch_execute(&first()).await?;
        1
    };
    if version < 2 {
        transaction.batch_execute(&second()).await?;
    }
    if version < 3 {
        transaction.batch_execute(&hours::tables("BIGINT", &declared("", "BIGINT"), "")).await?;
    }
    if version < 4 {
        transaction.batch_execute(&fourth()).await?;
        transaction.batch_execute(&hours::of_lines("BIGINT")).await?;
        transaction.batch_execute("ALTER TABLE ledger ADD COLUMN id TEXT NOT NULL DEFAULT ''").await?;
        let id = hex::encode(rand::random::<[u8; 8]>());
        transaction.execute("UPDATE ledger SET version = $1, id = $2", &[&VERSION, &id]).await?;
    }
    Ok(transaction.commit().await?)
}
