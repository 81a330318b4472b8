//! `kubectl tenant invite`: an account for a customer of the sales team, who only chooses a password.

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::{KubeArgs, in_namespace, login};
use crate::api::{LinkKind, MAIL_REQUESTS_ANNOTATION, MailRequest, Phase, Tenant, Timestamp, login_secret, signed_up};
use crate::email;
use crate::operator_keys::IdentityKey;

/// Prepares an account for a customer, and sends them an e-mail with a link to choose a password. The account is set up once they do.
///
/// With --manual you bill the customer yourself; otherwise they pay by Stripe after that. The link is valid for a week; run the
/// command again to send another one. Needs the key of the operator (Secret tenant-operator-identity) and, with the chart's
/// admission policy, an account that is named in `admission.exemptUsers` or `admission.exemptGroups`.
#[derive(clap::Args)]
pub struct Args {
    /// Their e-mail address.
    email: String,
    /// The company's name.
    #[arg(long)]
    company: String,
    /// Name of the Plan.
    #[arg(long, default_value = "starter")]
    plan: String,
    /// You bill the customer yourself: the contract is signed.
    #[arg(long)]
    manual: bool,
    /// Namespace of signups (`signupNamespace` of the chart, such as rag-tenants); otherwise the kubeconfig's. In another namespace,
    /// the customer's link does not open.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Namespace of the operator's own Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let address = email::parse(&args.email).map_err(|why| anyhow::anyhow!("{}: {why}", args.email))?;
    let identity = IdentityKey::read(&client, &args.operator_namespace).await?;
    let identity = identity.with_context(|| {
        format!("no identity key in namespace {}: set --operator-namespace", args.operator_namespace)
    })?;
    let plans: Api<crate::api::Plan> = Api::all(client.clone());
    if plans.get_opt(&args.plan).await?.is_none() {
        bail!("no Plan is named {}. `kubectl get plans` lists the plans", args.plan);
    }
    // As a signup with this address would be named, so that there is never a second account.
    let name = signed_up(&identity.email_hash(&address));
    let namespace = args.namespace.as_deref();
    let (tenants, secrets): (Api<Tenant>, Api<Secret>) =
        (in_namespace(client.clone(), namespace), in_namespace(client, namespace));
    let request = MailRequest { kind: LinkKind::Invitation, at: Timestamp::now() };
    if let Some(there) = tenants.get_opt(&name).await? {
        return again(&tenants, &there, request).await;
    }
    login::make(&secrets, &name).await?;
    let tenant: Tenant = serde_json::from_value(json!({
        "apiVersion": "tenant-operator.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": name, "annotations": {MAIL_REQUESTS_ANNOTATION: request.to_string()}},
        "spec": {
            "companyName": args.company,
            "adminEmail": address,
            "plan": args.plan,
            "billing": {"mode": if args.manual { "Manual" } else { "Stripe" }, "approved": args.manual},
            "login": {"secretName": login_secret(&name)},
        },
    }))?;
    tenants.create(&PostParams::default(), &tenant).await?;
    println!("{address} is invited. `kubectl tenant why {name}` shows how far the account is.");
    Ok(())
}

/// Another link for somebody who has not accepted yet.
async fn again(tenants: &Api<Tenant>, there: &Tenant, request: MailRequest) -> anyhow::Result<()> {
    let name = there.place().name;
    let annotations = there.metadata.annotations.clone().unwrap_or_default();
    let invited =
        annotations.get(MAIL_REQUESTS_ANNOTATION).is_some_and(|list| list.contains(LinkKind::Invitation.name()));
    let phase = there.status.as_ref().and_then(|status| status.phase);
    if !invited || !matches!(phase, None | Some(Phase::PendingPayment)) {
        bail!("there is an account with this address already: {name}");
    }
    let change = json!({"metadata": {"annotations": {MAIL_REQUESTS_ANNOTATION: request.to_string()}}});
    tenants.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("{} is invited again.", there.spec.admin_email);
    Ok(())
}
