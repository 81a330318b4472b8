//! Lines and marks as rows, and back.

use clickhouse::Row;
use serde::{Deserialize, Serialize};
use strum::{EnumCount, IntoEnumIterator};

use crate::api::Timestamp;
use crate::ledger::events::{Asked, Batch, EventsError, Mark, Position, Sum};
use crate::ledger::store::StoredLine;
use crate::ledger::units::{Amounts, Unit};

/// How far a generation is fed. The row with the greatest version is right.
#[derive(Clone, Debug, Default, Row, Serialize, Deserialize)]
pub struct Fed {
    pub generation: i64,
    pub ledger: String,
    pub version: u64,
    /// What the latest batch follows.
    pub after: i64,
    pub after_digest: String,
    /// Its last line.
    pub last: i64,
    pub last_digest: String,
    /// Whether it has arrived.
    pub done: bool,
}

impl Fed {
    /// The beginning of a generation after another one. Two that begin at the same moment differ, so lines that were
    /// meant for one are not read in the other.
    pub fn first(ledger: &str, after: i64) -> Self {
        let generation = after + 1 + i64::from(rand::random::<u32>());
        Self { generation, ledger: ledger.to_owned(), done: true, ..Self::default() }
    }

    /// A batch that is about to be sent.
    pub fn begun(ledger: &str, batch: &Batch) -> Self {
        let last = batch.last();
        Self {
            generation: batch.generation,
            ledger: ledger.to_owned(),
            version: u64::try_from(last.seq).unwrap_or(0).saturating_mul(2),
            after: batch.after.seq,
            after_digest: batch.after.digest.clone(),
            last: last.seq,
            last_digest: last.digest,
            done: false,
        }
    }

    /// The same, once it has arrived.
    pub fn done(self) -> Self {
        Self { version: self.version + 1, done: true, ..self }
    }

    /// What it says.
    pub fn position(&self) -> Position {
        let mark = |seq: i64, digest: &str| Mark { seq, digest: digest.to_owned() };
        let (mark, begun) = if self.done {
            (mark(self.last, &self.last_digest), None)
        } else {
            (mark(self.after, &self.after_digest), Some(mark(self.last, &self.last_digest)))
        };
        Position { generation: self.generation, mark, begun }
    }
}

/// Amounts as columns. A new unit is a new column, and a new schema.
macro_rules! with_units {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* } $($unit:ident),*) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Row, Serialize, Deserialize)]
        pub struct $name { $($(#[$field_meta])* pub $field: $kind,)* $(pub $unit: i64,)* }

        impl $name {
            fn amounts(&self) -> Amounts {
                amounts([$(self.$unit),*])
            }
        }
    };
}

with_units! {
    /// A line.
    LineRow {
        generation: i64,
        tenant: String,
        at: i64,
        seq: i64,
        hour: i64,
        operation: String,
        period_start: i64,
        kind: String,
    } queries, prompt_tokens, completion_tokens, embedding_tokens, embedded_bytes, documents, bytes
}

with_units! {
    /// A sum.
    SumRow {
        of: String,
        start: i64,
    } queries, prompt_tokens, completion_tokens, embedding_tokens, embedded_bytes, documents, bytes
}

/// In the order of the units, which is that of the columns.
fn amounts(each: [i64; Unit::COUNT]) -> Amounts {
    Unit::iter().zip(each).fold(Amounts::ZERO, |all, (unit, amount)| all.with(unit, amount))
}

impl LineRow {
    /// That of a line.
    pub fn of(generation: i64, line: &StoredLine) -> Self {
        let StoredLine { seq, operation, tenant, period_start, at, hour, kind, amounts } = line;
        let kind: &'static str = (*kind).into();
        let of = |unit: Unit| amounts[unit];
        Self {
            generation,
            tenant: tenant.clone(),
            at: at.as_second(),
            seq: *seq,
            hour: hour.as_second(),
            operation: operation.clone(),
            period_start: period_start.as_second(),
            kind: kind.to_owned(),
            queries: of(Unit::Queries),
            prompt_tokens: of(Unit::PromptTokens),
            completion_tokens: of(Unit::CompletionTokens),
            embedding_tokens: of(Unit::EmbeddingTokens),
            embedded_bytes: of(Unit::EmbeddedBytes),
            documents: of(Unit::Documents),
            bytes: of(Unit::Bytes),
        }
    }

    /// Its line.
    pub fn line(self) -> Result<StoredLine, EventsError> {
        let amounts = self.amounts();
        let Self { tenant, at, seq, hour, operation, period_start, kind, .. } = self;
        let kind =
            kind.parse().map_err(|_| EventsError::Failed(format!("line {seq} is of an unknown kind, {kind}")))?;
        let [period_start, at, hour] = [period_start, at, hour].map(Timestamp::from_second);
        Ok(StoredLine { seq, operation, tenant, period_start, at, hour, kind, amounts })
    }
}

impl From<SumRow> for Sum {
    fn from(row: SumRow) -> Self {
        let amounts = row.amounts();
        Self { tenant: row.of, start: Timestamp::from_second(row.start), amounts }
    }
}

/// The statement of sums. It takes the generation, the tenant if it is about one, and the span.
pub fn sums(asked: &Asked) -> String {
    let shape = asked.shape();
    let each: Vec<_> = Unit::iter().map(|unit| format!("sum(line.{unit}) AS {unit}")).collect();
    let tenant = if asked.tenant().is_some() { "AND tenant = ?" } else { "" };
    format!(
        "SELECT {} AS of, toInt64({}) AS start, {} FROM line FINAL
         WHERE generation = ? {tenant} AND {moment} >= ? AND {moment} < ? AND {} GROUP BY of, start ORDER BY of, start",
        shape.tenant,
        shape.start,
        each.join(", "),
        shape.only,
        moment = shape.moment
    )
}
