//! The ledger's own lines of an hour of a tenant: what makes a number that is billed. No index leads from a tenant to its
//! lines, because every commit would write it. Lines are in the order of their commits, so the beginning of the hour is
//! found by halves, and a call reads a bounded number of lines from there on.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;

use super::Shared;
use super::answers::{ServiceProblem, check_page};
use super::extract::{Name, Parameters};
use crate::api::Timestamp;
use crate::ledger::store::{Store, StoreError, StoredLine};
use crate::ledger::wire::{HourLines, TenantLine};

const HOUR: i64 = 3600;
/// Lines of one answer.
const MOST: u32 = 1000;
/// Lines that are read at a time, and how often for one answer.
const PAGE: u32 = 1000;
const PAGES: usize = 20;
/// Seconds by which a later line may be dated before an earlier one: more than a commit takes.
const APART: i64 = 60;

/// What is asked for: `?hour=2026-12-01T13:00:00Z&after=0&most=1000`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    hour: Timestamp,
    #[serde(default)]
    after: i64,
    most: u32,
}

/// `GET /v1/tenants/{tenant}/hours/lines`: the lines of an hour.
pub async fn lines(
    State(shared): State<Arc<Shared>>,
    Name(tenant): Name,
    Parameters(Asked { hour, after, most }): Parameters<Asked>,
) -> Result<Json<HourLines>, ServiceProblem> {
    check_page(most, MOST, "lines")?;
    if hour != hour.hour() || after < 0 {
        return Err(ServiceProblem::Malformed(format!("hour={hour}&after={after}: ask for a full hour of UTC")));
    }
    Ok(Json(of_hour(&*shared.store, &tenant, hour, (after, most)).await?))
}

/// The moment that a line is placed by. One that comes after its hour was closed is part of a later hour.
fn placed(line: &StoredLine) -> Timestamp {
    line.at.max(line.hour)
}

async fn of_hour(
    store: &dyn Store,
    tenant: &str,
    hour: Timestamp,
    (after, most): (i64, u32),
) -> Result<HourLines, StoreError> {
    let mut after = if after > 0 { after } else { before(store, hour.plus(-APART)).await? };
    let mut lines: Vec<TenantLine> = Vec::new();
    for _ in 0..PAGES {
        let page = store.lines(after, PAGE).await?;
        let full = page.len() >= PAGE as usize;
        for line in page {
            if placed(&line) >= hour.plus(HOUR + APART) && line.hour > hour {
                return Ok(HourLines { lines, next: None });
            }
            after = line.seq;
            if line.tenant == tenant && line.hour == hour {
                lines.push(line.into());
                if lines.len() >= most as usize {
                    return Ok(HourLines { lines, next: Some(after) });
                }
            }
        }
        if !full {
            return Ok(HourLines { lines, next: None });
        }
    }
    Ok(HourLines { lines, next: Some(after) })
}

/// The number of a line before the first one that is placed at a moment or later.
async fn before(store: &dyn Store, moment: Timestamp) -> Result<i64, StoreError> {
    let mut earlier = 0;
    let Some(mut later) = last(store).await? else { return Ok(0) };
    // Numbers may be missing: the first line after one stands for it.
    while later - earlier > i64::from(PAGE) {
        let middle = earlier + (later - earlier) / 2;
        match store.lines(middle, 1).await?.first() {
            Some(line) if placed(line) < moment => earlier = line.seq.min(later),
            _ => later = middle,
        }
    }
    Ok(earlier)
}

/// The number of the last line.
async fn last(store: &dyn Store) -> Result<Option<i64>, StoreError> {
    let (mut there, mut step) = (None, 1_i64);
    let mut after = 0;
    // Doubled steps, until there is none: the store tells lines after a number, and no last one.
    loop {
        match store.lines(after, 1).await?.first() {
            Some(line) => {
                there = Some(line.seq);
                after = line.seq.saturating_add(step);
                step = step.saturating_mul(2);
            }
            None => return Ok(there.map(|_| after)),
        }
    }
}
