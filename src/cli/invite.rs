//! `kubectl tenant invite`: an account for a customer of the sales team, who only chooses a password.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::{KubeArgs, login};
use crate::api::{LinkKind, MAIL_REQUESTS_ANNOTATION, MailRequest, Phase, Tenant, Timestamp, login_secret};
use crate::email;
use crate::operator_keys::IdentityKey;
use crate::web::accounts;

/// How long the controller may take to see a new Tenant.
const SEEN_WITHIN: Duration = Duration::from_secs(15);

/// Prepare an account for a customer of the sales team, and invite the customer to it.
///
/// Sends the customer an e-mail with a link to choose a password; the account is set up after that. With --manual you
/// bill the customer yourself; otherwise the customer pays by Stripe once the password is chosen. The link is valid for
/// a week; run the command again to send another one. Needs the operator's identity key (Secret
/// tenant-operator-identity) and, with the chart's admission policy, an account that is named in
/// `admission.exemptUsers` or `admission.exemptGroups`.
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
    /// Namespace of signups (`signupNamespace` of the chart, such as rag-tenants); otherwise the kubeconfig's. In
    /// another namespace, the customer's link does not open.
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
    let namespace = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    if let Some(pages) = pages_namespace(&client, &args.operator_namespace).await
        && pages != namespace
    {
        bail!(
            "namespace {namespace} has no pages: the link in the e-mail would not work. The signups of this operator are in \
             namespace {pages} (the chart's signupNamespace); invite with --namespace {pages}"
        );
    }
    let (tenants, secrets): (Api<Tenant>, Api<Secret>) =
        (Api::namespaced(client.clone(), &namespace), Api::namespaced(client, &namespace));
    // As a signup with this address would be named, so that there is never a second account.
    let hash = identity.email_hash(&address);
    let place = accounts::place(&tenants, &hash).await?;
    let (name, there) = place.with_context(|| format!("{address} has signed up and was erased too often"))?;
    if let Some(other) = accounts::other(&tenants, &hash, &name).await? {
        bail!("there is an account with this address already: Tenant {other} in namespace {namespace}");
    }
    let request = MailRequest { kind: LinkKind::Invitation, at: Timestamp::now() };
    if let Some(there) = there {
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
    seen(&tenants, &name, &namespace).await?;
    println!("{address} is invited. `kubectl tenant why {name}` shows how far the account is.");
    Ok(())
}

/// The namespace whose tenants have pages, by the Deployment of web. None where the operator's namespace has no such
/// Deployment, or the user may not read it: then the wait for the controller has to do.
async fn pages_namespace(client: &Client, operator_namespace: &str) -> Option<String> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), operator_namespace);
    let web = ListParams::default().labels("app.kubernetes.io/name=tenant-operator,app.kubernetes.io/component=web");
    let found = match deployments.list(&web).await {
        Ok(found) => found.items,
        Err(error) => {
            eprintln!(
                "The Deployment of web cannot be read, so the namespace is not compared with that of signups: {error}"
            );
            return None;
        }
    };
    let containers = found.into_iter().filter_map(|d| d.spec?.template.spec).flat_map(|pod| pod.containers);
    let mut variables = containers.flat_map(|container| container.env.unwrap_or_default());
    variables.find(|variable| variable.name == "TENANT_NAMESPACE")?.value
}

/// Waits until the controller has seen a Tenant: it then gives the Tenant its id, and sends the e-mail. Fails where no
/// controller watches the namespace.
async fn seen(tenants: &Api<Tenant>, name: &str, namespace: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut said = false;
    while tenants.get(name).await?.spec.tenant_id.is_none() {
        if !std::mem::replace(&mut said, true) {
            eprintln!("Waiting for the controller to take Tenant {name} in namespace {namespace} ...");
        }
        if start.elapsed() > SEEN_WITHIN {
            bail!(
                "no controller has taken Tenant {name} within {} s, so the invitation is not sent yet: the controller does not run, or \
                 it does not watch namespace {namespace}. If it does not watch it, delete the Tenant: `kubectl delete tenant/{name} \
                 secret/{} -n {namespace}`. Then invite with --namespace set to the chart's signupNamespace",
                SEEN_WITHIN.as_secs(),
                login_secret(name)
            );
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    Ok(())
}

/// Sends another link to an invited customer who has not accepted yet.
async fn again(tenants: &Api<Tenant>, there: &Tenant, request: MailRequest) -> anyhow::Result<()> {
    let name = there.place().name;
    let annotations = there.metadata.annotations.clone().unwrap_or_default();
    let invited =
        annotations.get(MAIL_REQUESTS_ANNOTATION).is_some_and(|list| list.contains(LinkKind::Invitation.name()));
    let phase = there.status.as_ref().and_then(|status| status.phase);
    if !invited || !matches!(phase, None | Some(Phase::PendingPayment)) {
        bail!(
            "an account with this address exists already: Tenant {name}. If it is Deleted, the customer can sign up again at /signup"
        );
    }
    seen(tenants, name, there.place().namespace).await?;
    let change = json!({"metadata": {"annotations": {MAIL_REQUESTS_ANNOTATION: request.to_string()}}});
    tenants.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("{} is invited again.", there.spec.admin_email);
    Ok(())
}
