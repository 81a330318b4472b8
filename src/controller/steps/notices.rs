//! E-mails to the customer and alerts to ops.

use serde_json::json;

use crate::api::{Plan, SENT_ANNOTATION, Tenant};
use crate::controller::kubernetes::Kubernetes;
use crate::lifecycle::{Notice, Outcome};
use crate::providers::ProviderError;
use crate::providers::alerts::Alerts;
use crate::providers::mail::{Letter, Mail, Template};

pub async fn send(
    mail: &Mail,
    alerts: &Alerts,
    tenant: &Tenant,
    plan: Option<&Plan>,
    notice: &Notice,
) -> Result<Outcome, ProviderError> {
    let status = tenant.status.clone().unwrap_or_default();
    let what = status.message.as_deref().unwrap_or_default();
    let who = format!("{} ({})", tenant.place(), tenant.spec.company_name);
    let (template, refund) = match notice {
        Notice::Welcome => (Template::Welcome, None),
        Notice::FailedMail(_) => (Template::ProvisioningFailed, Some(refunded(tenant))),
        Notice::FailedAlert(_) => return alert(alerts, &format!("Provisioning of tenant {who} failed: {what}")).await,
        Notice::WelcomeFailedAlert => {
            return alert(alerts, &format!("The welcome e-mail to tenant {who} was not sent. Retrying")).await;
        }
        Notice::SlowAlert(_) => {
            return alert(alerts, &format!("Tenant {who} has paid and is still not Active: {what}")).await;
        }
        Notice::NamespaceMissingAlert(_) => {
            return alert(alerts, &format!("The Pinecone namespace of tenant {who} no longer exists")).await;
        }
    };
    let letter = Letter {
        template,
        to: &tenant.spec.admin_email,
        company: &tenant.spec.company_name,
        tenant_id: tenant.tenant_id(),
        plan: plan.and_then(|p| p.spec.display_name.as_deref()).unwrap_or(&tenant.spec.plan),
        key: &notice.key(),
        trial_ends: status.trial_ends_at.map(|t| t.to_string().chars().take(10).collect()),
        refund,
    };
    mail.send(&letter).await?;
    Ok(Outcome::Done)
}

async fn alert(alerts: &Alerts, text: &str) -> Result<Outcome, ProviderError> {
    alerts.send(text).await?;
    Ok(Outcome::Done)
}

fn refunded(tenant: &Tenant) -> String {
    let Some(refund) = tenant.status.as_ref().and_then(|s| s.refund.as_ref()) else {
        return "If you have paid, you will get your money back, and you will not be charged until the account works."
            .into();
    };
    if refund.amount == 0 {
        return "You have not been charged, and you will not be until the account works.".into();
    }
    let currency = refund.currency.as_deref().unwrap_or_default().to_uppercase();
    format!(
        "Your payment of {}.{:02} {currency} has been refunded. You will not be charged until the account works.",
        refund.amount / 100,
        refund.amount % 100
    )
}

/// Notes what was sent, in an annotation that outlives the status. Only the controller writes it, so an edit of the
/// object in the meantime is no reason to send again.
pub async fn mark(kubernetes: &Kubernetes, tenant: &Tenant, sent: &[Notice]) -> Result<Tenant, kube::Error> {
    let before = tenant.metadata.annotations.as_ref().and_then(|a| a.get(SENT_ANNOTATION));
    let before = before.into_iter().flat_map(|list| list.split(',')).filter(|s| !s.is_empty()).map(str::to_owned);
    let all: std::collections::BTreeSet<_> = before.chain(sent.iter().map(Notice::key)).collect();
    let list = all.into_iter().collect::<Vec<_>>().join(",");
    kubernetes.patch_same(tenant, "notice", json!({"metadata": {"annotations": {SENT_ANNOTATION: list}}})).await
}
