//! E-mails to the customer and alerts to ops.

use kube::ResourceExt;
use serde_json::json;

use super::identity::patch_as_is;
use crate::api::{Plan, SENT_ANNOTATION, Tenant};
use crate::controller::context::Context;
use crate::lifecycle::{Notice, Outcome, View};
use crate::providers::ProviderError;
use crate::providers::mail::{Letter, Template};

pub async fn send(
    context: &Context,
    tenant: &Tenant,
    plan: Option<&Plan>,
    notice: &Notice,
) -> Result<Outcome, ProviderError> {
    let status = tenant.status.clone().unwrap_or_default();
    let what = status.message.as_deref().unwrap_or_default();
    let who =
        format!("{}/{} ({})", tenant.namespace().unwrap_or_default(), tenant.name_any(), tenant.spec.company_name);
    let alerts = &context.providers.alerts;
    let (template, refund) = match notice {
        Notice::Welcome => (Template::Welcome, None),
        Notice::FailedMail(_) => (Template::ProvisioningFailed, refunded(tenant)),
        Notice::FailedAlert(_) => {
            alerts.send(&format!("Provisioning of tenant {who} was given up: {what}")).await?;
            return Ok(Outcome::Done);
        }
        Notice::WelcomeFailedAlert => {
            alerts.send(&format!("The welcome e-mail to tenant {who} cannot be sent; it is tried again")).await?;
            return Ok(Outcome::Done);
        }
        Notice::SlowAlert => {
            alerts.send(&format!("Tenant {who} has paid and is still not Active: {what}")).await?;
            return Ok(Outcome::Done);
        }
    };
    let view = View::of(tenant);
    let letter = Letter {
        template,
        to: &tenant.spec.admin_email,
        company: &tenant.spec.company_name,
        tenant_id: view.tenant_id(),
        plan: plan.and_then(|p| p.spec.display_name.as_deref()).unwrap_or(&tenant.spec.plan),
        key: &notice.key(),
        trial_ends: status.trial_ends_at.map(|t| t.to_string().chars().take(10).collect()),
        refund,
    };
    context.providers.mail.send(&letter).await?;
    Ok(Outcome::Done)
}

fn refunded(tenant: &Tenant) -> Option<String> {
    let refund = tenant.status.as_ref()?.refund.as_ref()?;
    Some(if refund.amount == 0 {
        "Nothing was charged, and nothing will be until the account works.".into()
    } else {
        let currency = refund.currency.as_deref().unwrap_or_default().to_uppercase();
        format!(
            "What you paid, {}.{:02} {currency}, is on its way back to you, and nothing more is charged until the account works.",
            refund.amount / 100,
            refund.amount % 100
        )
    })
}

/// Writes down what was sent, in an annotation that outlives the status. Only the controller writes it, so an edit of
/// the object in the meantime is no reason to send again.
pub async fn mark(context: &Context, tenant: &Tenant, sent: &[Notice]) -> Result<Tenant, kube::Error> {
    let mut all = View::of(tenant).sent;
    all.extend(sent.iter().map(Notice::key));
    let list = all.into_iter().collect::<Vec<_>>().join(",");
    patch_as_is(context, tenant, "notice", json!({"metadata": {"annotations": {SENT_ANNOTATION: list}}})).await
}
