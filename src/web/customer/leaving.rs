//! `POST /tenant/{id}/delete` and `/reactivate`: a customer leaves, and may come back until the data is erased.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::progress::sentence;
use crate::api::tenant::{Desired, Wish};
use crate::api::{Phase, SESSIONS_ANNOTATION, Tenant, Timestamp};
use crate::events::Event;
use crate::web::App;
use crate::web::serving::extract::{SignupToken, Then};
use crate::web::serving::problem::{Code, Problem, ProblemBody};
use crate::web::serving::tokens::Generation;

/// The longest comment, in characters.
const COMMENT: usize = 500;

/// Why customers leave: the word for programs, and what the page says.
pub const REASONS: [(&str, &str); 6] = [
    ("too-expensive", "It costs too much"),
    ("missing-feature", "Something that I need is missing"),
    ("answers", "The answers are not good enough"),
    ("other-service", "I use another service"),
    ("not-needed", "I no longer need it"),
    ("other", "Something else"),
];

/// Why a customer leaves, if they want to say.
#[derive(Deserialize, ToSchema, Default)]
#[serde(default)]
pub struct Leave {
    /// One of too-expensive, missing-feature, answers, other-service, not-needed, other.
    #[schema(example = "not-needed")]
    pub reason: String,
    /// In the customer's own words, 500 characters at most.
    #[schema(example = "The project has ended.")]
    pub comment: String,
}

/// What becomes of the account.
#[derive(Serialize, ToSchema)]
pub struct Left {
    /// Where the account stands.
    #[schema(value_type = Option<String>, example = "Deleting")]
    phase: Option<Phase>,
    /// When its data is erased. Until then it can be taken back.
    #[schema(value_type = Option<String>, format = DateTime, example = "2027-01-08T17:31:36Z")]
    erases_at: Option<Timestamp>,
    /// In words.
    #[schema(example = "Your account is closed.")]
    message: &'static str,
    /// A new token for `/reactivate`: those from before the end of the account are over. Only the request that closes
    /// the account is answered one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    token: Option<String>,
}

impl Left {
    fn of(tenant: &Tenant, token: Option<String>) -> Self {
        let status = tenant.status.clone().unwrap_or_default();
        Self { phase: status.phase, erases_at: status.erases_at, message: sentence(&status), token }
    }
}

/// Closes the account. Its data is kept for the retention of its plan, and erased then. The answer carries a new token,
/// unless the account was closed already, or a new password or the first proof of the address ended the tokens
/// meanwhile.
#[utoipa::path(
    post, path = "/tenant/{id}/delete", operation_id = "close_account", tag = "account", request_body = Leave,
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    responses((status = 202, body = Left, description = "The account is closed"), (status = 400, body = ProblemBody))
)]
pub async fn delete(
    State(app): State<Arc<App>>,
    Then(Json(leave), SignupToken(tenant)): Then<Json<Leave>, SignupToken>,
) -> Result<(StatusCode, Json<Left>), Problem> {
    let (left, generation) = close_account(&app, &tenant, &leave, None).await?;
    let token = generation.map(|generation| app.token_of(&left, generation));
    Ok((StatusCode::ACCEPTED, Json(Left::of(&left, token))))
}

/// Takes a closed account back, until its data is erased.
#[utoipa::path(
    post, path = "/tenant/{id}/reactivate", operation_id = "reactivate_account", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    responses((status = 202, body = Left, description = "The account is taken back"),
        (status = 410, description = "The erasure has begun", body = ProblemBody, example = json!(erased().body())))
)]
pub async fn reactivate(
    State(app): State<Arc<App>>,
    SignupToken(tenant): SignupToken,
) -> Result<(StatusCode, Json<Left>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(Left::of(&come_back(&app, &tenant, None).await?, None))))
}

fn erased() -> Problem {
    let detail = "The data of this account is erased. You are welcome to sign up again.";
    Problem::new(StatusCode::GONE, Code::Erased, detail)
}

fn check(leave: &Leave) -> Result<(), Problem> {
    let invalid = |field, why: &str| Err(Problem::invalid([(field, why.to_owned())].into()));
    if !leave.reason.is_empty() && !REASONS.iter().any(|(name, _)| *name == leave.reason) {
        return invalid("reason", "is not one of the reasons");
    }
    if leave.comment.chars().count() > COMMENT {
        return invalid("comment", "must have at most 500 characters");
    }
    Ok(())
}

/// The change that closes an account; None where it is closed already. A suspension that an admin wrote into
/// `spec.desired` is kept in `spec.suspension`, so that it is in force again when the customer reopens the account.
fn closed(tenant: &Tenant, now: Timestamp) -> Option<Value> {
    let spec = &tenant.spec;
    if spec.desired == Desired::Deleted {
        return None;
    }
    let wish = Wish::of_customer(Desired::Deleted, now);
    let mut change = json!({"spec": {"desired": Desired::Deleted, "wish": wish.patch()}});
    if spec.desired == Desired::Suspended && spec.suspension.is_none() {
        let unnamed = || Wish::of_admin(Desired::Suspended, None, None, now);
        let suspension = spec.wisher().cloned().unwrap_or_else(unnamed);
        change["spec"]["suspension"] = suspension.patch();
    }
    Some(change)
}

/// Whether a page showed this end of the account. The API shows none.
fn is_shown(tenant: &Tenant, shown: Option<&str>) -> bool {
    shown.is_none_or(|shown| shown == seen(tenant))
}

/// Whether a Tenant that was read later has the same customer's passes: neither a new password nor another address has
/// ended those from before.
fn is_same_customer(before: &Tenant, later: &Tenant) -> bool {
    let ended = |tenant: &Tenant| tenant.annotations().get(SESSIONS_ANNOTATION).cloned();
    ended(before) == ended(later) && before.spec.admin_email == later.spec.admin_email
}

/// Closes an account, and waits a little to say until when it can be taken back. Closing it again changes nothing.
/// Nor does a form of a page that showed another end of the account than the object that is written: see [`seen`].
///
/// The generation of a new pass, where the bearer of the pass that opened `tenant` may have one: this call closed
/// the account, and nothing but that has ended the pass. A pass from before a new password must not be exchanged
/// for one from after it, and no pass on a closed account for another one again and again. The new pass begins with
/// the end of the account and not now: a new password that web's watch has not shown yet ends it too.
pub async fn close_account(
    app: &App,
    tenant: &Tenant,
    leave: &Leave,
    shown: Option<&str>,
) -> Result<(Tenant, Option<Generation>), Problem> {
    check(leave)?;
    let wanted = |t: &Tenant| Ok(closed(t, app.now()).filter(|_| is_shown(t, shown)));
    let closes = app.change_tenant(tenant, wanted).await?.is_some();
    if closes {
        let metadata: Map<String, Value> = [("reason", &leave.reason), ("comment", &leave.comment)]
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(key, text)| (key.to_owned(), text.clone().into()))
            .collect();
        app.happened(&Event::of(tenant, "account-closed", metadata, app.now()));
        tracing::info!(target: "audit", event = "account_closed", tenant = tenant.name_any(), reason = leave.reason);
    }
    let left = settled(app, tenant, |phase| phase == Some(Phase::Deleting)).await?;
    let generation = App::generation_of(&left).filter(|_| closes && is_same_customer(tenant, &left));
    Ok((left, generation))
}

/// Takes it back. A form of a page that showed another end of the account changes nothing.
pub async fn come_back(app: &App, tenant: &Tenant, shown: Option<&str>) -> Result<Tenant, Problem> {
    let wanted = |t: &Tenant| {
        if !is_shown(t, shown) {
            return Ok(None);
        }
        let status = t.status.clone().unwrap_or_default();
        if status.erasure.is_some() || status.phase == Some(Phase::Deleted) {
            return Err(erased());
        }
        // An admin's suspension, in `spec.suspension`, stays.
        let wish = Wish::of_customer(Desired::Active, app.now());
        let back = json!({"spec": {"desired": Desired::Active, "wish": wish.patch()}});
        Ok((t.spec.desired == Desired::Deleted).then_some(back))
    };
    if app.change_tenant(tenant, wanted).await?.is_some() {
        app.happened(&Event::of(tenant, "account-reactivated", Map::new(), app.now()));
        tracing::info!(target: "audit", event = "account_reactivated", tenant = tenant.name_any());
    }
    settled(app, tenant, |phase| phase != Some(Phase::Deleting)).await
}

/// The tenant once it is in such a phase, or as it is after a while.
async fn settled(app: &App, tenant: &Tenant, there: impl Fn(Option<Phase>) -> bool) -> Result<Tenant, Problem> {
    let name = tenant.name_any();
    let uid = tenant.uid();
    let shows = |t: &Tenant| {
        let phase = t.status.as_ref().and_then(|s| s.phase);
        (t.uid() == uid && there(phase)).then(|| t.clone())
    };
    match app.wait_until(tenant, shows).await {
        Some(tenant) => Ok(tenant),
        None => app.tenants().get_opt(&name).await?.filter(|t| t.uid() == uid).ok_or_else(Problem::not_found),
    }
}

/// Which end of the account a page shows: when it was asked for. A form to take the account back carries it, so that
/// one from an earlier page does not undo a later end, and the form that closes an account likewise.
pub fn seen(tenant: &Tenant) -> String {
    tenant.spec.wish.as_ref().map(|wish| wish.at.to_string()).unwrap_or_default()
}
