//! The end of a tenant that left: what each provider holds of it, and the object without anything personal.

use ed25519_dalek::SigningKey;
use kube::ResourceExt;
use serde_json::{Map, Value, json};

use super::{StepError, billing, data, secrets};
use crate::api::tenant::BillingMode;
use crate::api::{EMAIL_LABEL, ERASED_ANNOTATION, PROOF_ANNOTATION, Tenant};
use crate::controller::kubernetes::Kubernetes;
use crate::controller::tasks::exports::Exports;
use crate::lifecycle::{Holdings, Outcome};
use crate::providers::indexes::Indexes;
use crate::providers::stripe::{self, Stripe};

/// In place of the customer's address. The domain can never exist: <https://www.rfc-editor.org/rfc/rfc6761#section-6.4>
const NO_ADDRESS: &str = "erased@erased.invalid";
/// In place of the customer's name.
const NO_NAME: &str = "Erased";

/// What holds something of a tenant outside of Kubernetes.
#[derive(Clone, Copy)]
pub struct Holders<'a> {
    pub stripe: &'a Stripe,
    pub indexes: &'a Indexes,
    pub exports: &'a Exports,
}

/// Counts what each provider holds of a tenant, as the providers say it. The leads with its e-mail address count as
/// Secrets.
pub async fn count(
    kubernetes: &Kubernetes,
    signer: &SigningKey,
    Holders { stripe, indexes, exports }: Holders<'_>,
    tenant: &Tenant,
    leads: u64,
) -> Result<Outcome, StepError> {
    let (mut namespaces, mut vectors) = (0, 0);
    for name in data::names(indexes, tenant).await? {
        for index in indexes.all() {
            if let Some(count) = index.count(&name).await? {
                (namespaces, vectors) = (namespaces + 1, vectors + count);
            }
        }
    }
    let at_stripe = match tenant.spec.billing.mode {
        BillingMode::Stripe => stripe.count(&billing::payer(tenant)).await?,
        BillingMode::Manual => stripe::Holdings::default(),
    };
    Ok(Outcome::Holdings(Holdings {
        namespaces,
        vectors,
        secrets: secrets::count(kubernetes, signer, tenant).await? + leads,
        subscriptions: at_stripe.subscriptions,
        customers: at_stripe.customers,
        kept_customers: at_stripe.kept_customers,
        exports: exports.count(tenant).await?,
    }))
}

/// Takes everything personal out of the object: address, name, login, and every annotation and label of ours and of
/// `kubectl apply`, which keeps a copy of the manifest. What was erased is written down in the same patch.
pub async fn erase_identity(kubernetes: &Kubernetes, tenant: &Tenant) -> Result<Tenant, StepError> {
    let erasure = tenant.status.as_ref().and_then(|status| status.erasure.as_ref());
    let erased = json!(erasure).to_string();
    let mut annotations: Map<String, Value> = tenant
        .annotations()
        .keys()
        .filter(|key| *key != PROOF_ANNOTATION)
        .map(|key| (key.clone(), Value::Null))
        .collect();
    annotations.insert(ERASED_ANNOTATION.into(), erased.into());
    let change = json!({
        "metadata": {"annotations": annotations, "labels": {EMAIL_LABEL: null}},
        "spec": {"adminEmail": NO_ADDRESS, "companyName": NO_NAME, "login": null, "terms": null},
    });
    Ok(kubernetes.patch(tenant, change).await?)
}
