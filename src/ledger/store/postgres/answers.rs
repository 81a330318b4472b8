//! Answers for idempotency keys.

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::Row;

use super::{ATTEMPTS, Interrupted, Postgres, connection, pause};
use crate::api::Timestamp;
use crate::ledger::answers::{Finish, KEPT, Kept, Key, ROOM, begin, finish, make_room, too_many};
use crate::ledger::store::{Answers, StoreError};
use crate::ledger::wire::{AnswerState, KeptAnswer};

#[async_trait]
impl Answers for Postgres {
    async fn begin(&self, key: Key, until: Timestamp, now: Timestamp) -> Result<AnswerState, StoreError> {
        for attempt in 0..ATTEMPTS {
            match self.ask(async |client: &mut Client| begin_one(client, &key, until, now).await).await {
                Err(Interrupted::Again) => pause(attempt).await,
                done => return Ok(done?),
            }
        }
        Err(StoreError::Busy)
    }

    async fn finish(
        &self,
        key: Key,
        answer: Option<KeptAnswer>,
        most: i64,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let kept = self.ask(async |client: &mut Client| finish_one(client, &key, answer.as_ref(), now).await).await?;
        if kept {
            self.ask(async |client: &mut Client| shrink(client, most).await).await?;
        }
        Ok(kept)
    }

    async fn bytes(&self) -> Result<i64, StoreError> {
        Ok(self.ask(async |client: &mut Client| total(client).await).await?)
    }

    async fn erase(&self, tenant: &str) -> Result<u64, StoreError> {
        let erase =
            async |client: &mut Client| client.execute("DELETE FROM answer WHERE tenant = $1", &[&tenant]).await;
        Ok(self.ask(erase).await?)
    }

    async fn sweep(&self, now: Timestamp, most: u32) -> Result<u32, StoreError> {
        let sql = "DELETE FROM answer WHERE id IN
            (SELECT id FROM answer WHERE until <= $1 ORDER BY until LIMIT $2 FOR UPDATE SKIP LOCKED)";
        let (now, at_most) = (now.as_second(), i64::from(most));
        let swept = self.ask(async |client: &mut Client| client.execute(sql, &[&now, &at_most]).await).await?;
        Ok(u32::try_from(swept).unwrap_or(most))
    }
}

async fn begin_one(
    client: &mut Client,
    key: &Key,
    until: Timestamp,
    now: Timestamp,
) -> Result<AnswerState, Interrupted> {
    let transaction = connection::begin(client).await?;
    let sql = "INSERT INTO answer (tenant, key, request, attempt, until, size) VALUES ($1, $2, $3, $4, $5, 0)
        ON CONFLICT DO NOTHING";
    let insert = transaction.prepare_cached(sql).await?;
    let until = until.as_second();
    let state = if transaction.execute(&insert, &[&key.tenant, &key.key, &key.request, &key.attempt, &until]).await?
        == 1
    {
        AnswerState::New
    } else {
        // It can have been deleted since.
        let kept = kept(&transaction, key).await?.ok_or(Interrupted::Again)?;
        let state = begin(Some(kept), key, now);
        if state == AnswerState::New {
            // It is the newest from now on.
            let sql =
                "UPDATE answer SET id = nextval('answer_id_seq'), request = $3, until = $4, attempt = $5, size = 0, answer = NULL
                WHERE tenant = $1 AND key = $2";
            let update = transaction.prepare_cached(sql).await?;
            transaction.execute(&update, &[&key.tenant, &key.key, &key.request, &until, &key.attempt]).await?;
        }
        state
    };
    if state == AnswerState::New {
        trim(&transaction, &key.tenant).await?;
    }
    transaction.commit().await?;
    Ok(state)
}

async fn finish_one(
    client: &mut Client,
    key: &Key,
    answer: Option<&KeptAnswer>,
    now: Timestamp,
) -> Result<bool, Interrupted> {
    let transaction = connection::begin(client).await?;
    let finish = finish(kept(&transaction, key).await?, key, now);
    match (answer, finish) {
        (Some(answer), Finish::Keep) => {
            let sql = "UPDATE answer SET until = $3, size = $4, answer = $5 WHERE tenant = $1 AND key = $2";
            let (until, size, text) = (now.plus(KEPT).as_second(), answer.size(), answer.text());
            transaction.execute(sql, &[&key.tenant, &key.key, &until, &size, &text]).await?;
            trim(&transaction, &key.tenant).await?;
        }
        (None, Finish::Keep) => {
            let sql = "DELETE FROM answer WHERE tenant = $1 AND key = $2";
            transaction.execute(sql, &[&key.tenant, &key.key]).await?;
        }
        _ => {}
    }
    transaction.commit().await?;
    Ok(finish == Finish::KeptBefore || (finish == Finish::Keep && answer.is_some()))
}

/// What is kept for a key, which is locked.
async fn kept(client: &impl GenericClient, key: &Key) -> Result<Option<Kept>, tokio_postgres::Error> {
    let sql = "SELECT request, attempt, until, answer FROM answer WHERE tenant = $1 AND key = $2 FOR UPDATE";
    let row = client.query_opt(&client.prepare_cached(sql).await?, &[&key.tenant, &key.key]).await?;
    let read = |row: &Row| {
        let answer: Option<String> = row.get(3);
        let answer = answer.and_then(|text| serde_json::from_str(&text).ok());
        Kept { request: row.get(0), attempt: row.get(1), until: Timestamp::from_second(row.get(2)), answer }
    };
    Ok(row.as_ref().map(read))
}

/// Deletes the oldest keys of a tenant that has too many.
async fn trim(transaction: &Transaction<'_>, tenant: &str) -> Result<(), tokio_postgres::Error> {
    let sql = "SELECT id, size FROM answer WHERE tenant = $1 ORDER BY id DESC";
    let keys = transaction.query(&transaction.prepare_cached(sql).await?, &[&tenant]).await?;
    if let Some(last) = too_many(keys.iter().map(|row| (row.get(0), row.get(1)))) {
        let sql = "DELETE FROM answer WHERE tenant = $1 AND id <= $2";
        transaction.execute(sql, &[&tenant, &last]).await?;
    }
    Ok(())
}

async fn total(client: &impl GenericClient) -> Result<i64, tokio_postgres::Error> {
    // The sum of whole numbers is a number of any length.
    let sql = "SELECT coalesce(sum(bytes), 0)::BIGINT FROM answer_bytes";
    Ok(client.query_one(&client.prepare_cached(sql).await?, &[]).await?.get(0))
}

/// Deletes the oldest answers of all tenants where they take more than so many bytes. A request that is being served
/// keeps its key. It waits for no other transaction: what another one holds is left to that one.
async fn shrink(client: &mut Client, most: i64) -> Result<(), tokio_postgres::Error> {
    let over = total(client).await?.saturating_sub(most);
    if over <= 0 {
        return Ok(());
    }
    let sql = "SELECT id, size FROM answer WHERE answer IS NOT NULL ORDER BY id LIMIT $1";
    let oldest = client.query(&client.prepare_cached(sql).await?, &[&ROOM]).await?;
    let ids = make_room(oldest.iter().map(|row| (row.get(0), row.get(1))), over);
    let sql = "DELETE FROM answer WHERE id IN (SELECT id FROM answer WHERE id = ANY($1) FOR UPDATE SKIP LOCKED)";
    client.execute(&client.prepare_cached(sql).await?, &[&ids]).await.map(drop)
}
