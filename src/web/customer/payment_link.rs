//! A payment link that is made when the customer asks for it, where the one before has expired.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::progress::sentence;
use crate::api::{PAYMENT_LINK_ANNOTATION, Phase, Tenant};
use crate::lifecycle::link_on_request;
use crate::web::App;
use crate::web::serving::extract::SignupToken;
use crate::web::serving::problem::{Code, Problem, ProblemBody};

/// A payment link.
#[derive(Serialize, ToSchema)]
pub struct PaymentLink {
    /// Where to pay. Absent while it is being made: `GET /tenant/{id}` shows it a moment later.
    #[schema(example = "https://checkout.stripe.com/c/pay/cs_live_a1B2c3")]
    checkout_url: Option<String>,
}

/// Makes a payment link, or returns the open one.
#[utoipa::path(
    post, path = "/tenant/{id}/payment-link", operation_id = "make_payment_link", tag = "account",
    params(("id" = String, Path, description = "The tenant's id", example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")), security(("signup_token" = [])),
    responses((status = 200, body = PaymentLink, description = "Pay at checkout_url"),
        (status = 202, body = PaymentLink, description = "It is being made"),
        (status = 409, body = ProblemBody, description = "This account has nothing to pay at a link"))
)]
pub async fn make(
    State(app): State<Arc<App>>,
    SignupToken(tenant): SignupToken,
) -> Result<(StatusCode, Json<PaymentLink>), Problem> {
    let checkout_url = ask(&app, &tenant).await?;
    let status = if checkout_url.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(PaymentLink { checkout_url })))
}

/// The change that asks the controller for a link. None where one is open, asked for, or on its way.
fn asked(tenant: &Tenant) -> Result<Option<Value>, Problem> {
    let status = tenant.status.clone().unwrap_or_default();
    if !link_on_request(&status) {
        let comes = status.checkout.is_some() || matches!(status.phase, None | Some(Phase::PendingPayment));
        let nothing = || Problem::new(StatusCode::CONFLICT, Code::NothingToPay, sentence(&status));
        return if comes { Ok(None) } else { Err(nothing()) };
    }
    let next = tenant.next_checkout().to_string();
    let again = tenant.annotations().get(PAYMENT_LINK_ANNOTATION) == Some(&next);
    Ok((!again).then(|| json!({"metadata": {"annotations": {PAYMENT_LINK_ANNOTATION: next}}})))
}

/// Asks for a payment link where there is none, and waits a little for it.
pub async fn ask(app: &App, tenant: &Tenant) -> Result<Option<String>, Problem> {
    if app.change_tenant(tenant, asked).await?.is_some() {
        tracing::info!(target: "audit", event = "payment_link_asked", tenant = tenant.name_any());
    }
    Ok(app.wait_until(tenant, |t| Some(t.status.as_ref()?.checkout.as_ref()?.url.clone())).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(status: &Value, attempt: Option<u32>, annotation: Option<&str>) -> Tenant {
        let spec = json!({"companyName": "A", "adminEmail": "a@b.example",
            "billing": {"stripe": {"checkoutAttempt": attempt}}});
        let mut tenant = Tenant::new("a", serde_json::from_value(spec).expect("a spec"));
        tenant.status = Some(serde_json::from_value(status.clone()).expect("a status"));
        tenant.annotations_mut().extend(annotation.map(|n| (PAYMENT_LINK_ANNOTATION.to_owned(), n.to_owned())));
        tenant
    }

    #[test]
    fn a_link_is_asked_for_once_and_only_where_there_is_none() {
        let ready = |reason: &str| json!([{"type": "Ready", "status": "False", "reason": reason, "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
        let waits = json!({"phase": "Suspended", "conditions": ready("LinkOnRequest")});
        let ask = |n: &str| Some(json!({"metadata": {"annotations": {PAYMENT_LINK_ANNOTATION: n}}}));
        let of =
            |status: &Value, attempt, annotation| asked(&tenant(status, attempt, annotation)).map_err(|p| p.code());
        assert_eq!(of(&waits, None, None), Ok(ask("2")));
        assert_eq!(of(&waits, Some(4), Some("4")), Ok(ask("5")), "the one that was asked for last has expired");
        assert_eq!(of(&waits, Some(4), Some("5")), Ok(None), "it is on its way");
        let mut open = waits.clone();
        open["checkout"] =
            json!({"sessionId": "cs_1", "url": "https://pay.example", "expiresAt": "2026-01-01T00:00:00Z"});
        assert_eq!(of(&open, None, None), Ok(None));
        assert_eq!(of(&json!({"phase": "PendingPayment"}), None, None), Ok(None), "the first one follows");
        for (phase, reason) in
            [("Active", "Active"), ("Suspended", "PaymentMissing"), ("Suspended", "SuspendedByAdmin")]
        {
            let status = json!({"phase": phase, "conditions": ready(reason)});
            assert_eq!(of(&status, None, None), Err("nothing_to_pay"), "{phase} {reason}");
        }
    }
}
