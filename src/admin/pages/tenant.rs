//! `GET /admin/tenants/{namespace}/{name}`: everything that is known of one tenant.

mod facts;
mod stripe;

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use serde::Serialize;
use strum::IntoEnumIterator;

use super::error::PageError;
use super::needs::Shown;
use super::parameters::Parameters;
use super::words::{Moment, Named, Stage, duration};
use super::{PageResult, page};
use crate::admin::attention::items;
use crate::admin::computing::ComputeError;
use crate::admin::{Admin, Owner};
use crate::analytics::{Journey, Milestone};
use crate::api::money::thousands;
use crate::api::phase::Transition;
use crate::api::{Condition, Tenant, TenantStatus, Timestamp, Unit, size};
use crate::plain::plain;

/// The page.
#[derive(Debug, Serialize)]
pub struct OneTenant {
    tenant: Named,
    phase: String,
    message: String,
    needs: Vec<Shown>,
    facts: Vec<Fact>,
    billing: Vec<Fact>,
    milestones: Vec<Reached>,
    usage: Vec<Used>,
    usage_at: Option<Moment>,
    conditions: Vec<Shows>,
    transitions: Vec<Change>,
    at: String,
}

/// A name and a value.
#[derive(Debug, Serialize)]
pub struct Fact {
    pub name: &'static str,
    pub value: String,
    /// Where more of it is, at a provider.
    pub href: Option<String>,
}

impl Fact {
    pub fn new(name: &'static str, value: impl Into<String>) -> Self {
        Self { name, value: value.into(), href: None }
    }
}

/// A milestone.
#[derive(Debug, Serialize)]
struct Reached {
    name: &'static str,
    at: Option<Moment>,
    /// How long after the signup.
    after: Option<String>,
}

/// What is used of a unit.
#[derive(Debug, Serialize)]
struct Used {
    unit: &'static str,
    amount: String,
    limit: Option<String>,
    /// Of the limit, in per cent. Above 100 where a limit was passed or lowered.
    percent: Option<i64>,
    /// The same, as far as a bar can show it.
    bar: i64,
    level: bool,
}

/// A condition.
#[derive(Debug, Serialize)]
struct Shows {
    name: String,
    status: String,
    reason: String,
    message: String,
    since: Moment,
}

/// A change of phase.
#[derive(Debug, Serialize)]
struct Change {
    number: i64,
    from: String,
    to: String,
    at: Moment,
    by: String,
    reason: String,
}

impl OneTenant {
    pub(super) fn of(tenant: &Tenant, now: Timestamp) -> Self {
        let status = tenant.status.clone().unwrap_or_default();
        let message = status
            .message
            .as_deref()
            .unwrap_or("The controller has not handled it yet. Check that it runs and watches this namespace");
        Self {
            tenant: Named::of(tenant),
            phase: Stage::of(tenant).to_string(),
            message: plain(message),
            needs: items(tenant, now).iter().map(|item| Shown::of(item, now)).collect(),
            facts: facts::of(tenant, &status),
            billing: stripe::of(tenant, &status),
            milestones: milestones(tenant, now),
            usage: usage(&status),
            usage_at: status.usage.map(|usage| Moment::of(usage.observed_at, now)),
            conditions: status.conditions.iter().map(|condition| Shows::of(condition, now)).collect(),
            transitions: status.transitions.iter().rev().map(|change| Change::of(change, now)).collect(),
            at: now.to_string(),
        }
    }
}

/// All milestones of a customer, whether they were reached or not. None of a tenant that was erased.
fn milestones(tenant: &Tenant, now: Timestamp) -> Vec<Reached> {
    let Some(journey) = Journey::of(tenant) else { return Vec::new() };
    let reached = |milestone| {
        let at = journey.reached(milestone);
        Reached {
            name: milestone_words(milestone),
            at: at.map(|at| Moment::of(at, now)),
            after: at.filter(|_| milestone != Milestone::Signup).map(|at| duration(at.since(journey.signed_up).max(0))),
        }
    };
    Milestone::iter().map(reached).collect()
}

/// A milestone, as a page names it.
pub const fn milestone_words(milestone: Milestone) -> &'static str {
    match milestone {
        Milestone::Signup => "Signed up",
        Milestone::EmailVerified => "E-mail confirmed",
        Milestone::Payment => "Paid",
        Milestone::Provisioned => "Set up",
        Milestone::FirstLogin => "Logged in",
        Milestone::SampleQuery => "First answer",
        Milestone::FirstDocument => "Own document",
        Milestone::OwnQuery => "Own answer",
        Milestone::TenQueries => "Ten answers",
        Milestone::Completed => "Completed",
    }
}

fn usage(status: &TenantStatus) -> Vec<Used> {
    let Some(counted) = &status.usage else { return Vec::new() };
    let used = |unit: Unit| {
        let counted = counted.of(unit);
        let written = |amount: i64| if unit.is_size() { size(amount) } else { thousands(amount) };
        let limit = counted.limit.filter(|limit| *limit > 0);
        let percent = limit.map(|limit| percent(counted.used, limit));
        Used {
            unit: unit_words(unit),
            amount: written(counted.used),
            limit: counted.limit.map(written),
            percent,
            bar: percent.unwrap_or_default().clamp(0, 100),
            level: unit.is_level(),
        }
    };
    Unit::iter().map(used).collect()
}

/// Rounded down: 100 is the limit itself.
fn percent(used: i64, limit: i64) -> i64 {
    i64::try_from(i128::from(used) * 100 / i128::from(limit)).unwrap_or(i64::MAX)
}

const fn unit_words(unit: Unit) -> &'static str {
    match unit {
        Unit::Queries => "Questions",
        Unit::PromptTokens => "Tokens read by the chat model",
        Unit::CompletionTokens => "Tokens written by the chat model",
        Unit::EmbeddingTokens => "Tokens read by the embedding model",
        Unit::EmbeddedBytes => "Text embedded",
        Unit::Documents => "Documents stored",
        Unit::Bytes => "Files stored",
    }
}

impl Shows {
    fn of(condition: &Condition, now: Timestamp) -> Self {
        Self {
            name: condition.type_.to_string(),
            status: condition.status.to_string(),
            reason: condition.reason.to_string(),
            message: plain(&condition.message),
            since: Moment::of(condition.last_transition_time, now),
        }
    }
}

impl Change {
    fn of(change: &Transition, now: Timestamp) -> Self {
        Self {
            number: change.seq,
            from: change.from_state.map_or_else(String::new, |phase| phase.to_string()),
            to: change.to_state.to_string(),
            at: Moment::of(change.timestamp, now),
            by: change.triggered_by.to_string(),
            reason: plain(&change.reason),
        }
    }
}

/// `GET /admin/tenants/{namespace}/{name}`
pub async fn show(
    State(admin): State<Arc<Admin>>,
    owner: Owner,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> PageResult {
    Parameters::of(query.as_deref(), &[])?;
    if !admin.tenants.is_filled() {
        return Err(ComputeError::NotFilled.into());
    }
    let Some(tenant) = admin.tenants.get(&namespace, &name) else {
        return Err(PageError::NoSuchTenant { namespace: plain(&namespace), name: plain(&name) });
    };
    let view = OneTenant::of(&tenant, admin.clock.read().now);
    page(&owner, "/admin/tenants", "admin/tenant.html", &view)
}
