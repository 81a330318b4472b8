//! `tenant-operator recover`: makes lost Tenants again from what Stripe and the vector store hold.

use std::collections::{BTreeSet, HashMap, HashSet};

use anyhow::Context as _;
use comfy_table::{Table, presets};
use futures::{StreamExt, stream};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

use super::provider_args::ProviderArgs;
use super::{KubeArgs, login};
use crate::api::tenant::{Desired, Wish};
use crate::api::{
    Data, LEGAL_HOLD_ANNOTATION, PROOF_ANNOTATION, Place, Plan, SENT_ANNOTATION, SIGNED_UP, TAKEN_OVER_ANNOTATION,
    TakenOver, Tenant, Timestamp, VERIFIED_ANNOTATION, data_namespace, data_of, login_secret,
};
use crate::controller::Providers;
use crate::lifecycle::{ObservedSubscription, Provider};
use crate::operator_keys::IdentityKey;
use crate::pins::{Finding, Pins};
use crate::plain::plain;
use crate::providers::ProviderError;
use crate::providers::indexes::Indexes;
use crate::providers::stripe::Known;
use crate::rag::embedding_of;

/// Tenants that are made at the same time.
const AT_ONCE: usize = 16;

/// Recreate lost Tenants from Stripe and Pinecone.
///
/// Use it when the Tenants are gone and there is no backup, such as after their definition was deleted. They get the
/// same ids, keys, customers and subscriptions, from Stripe's metadata and Pinecone's namespaces alone. A backup is
/// better: it also holds what Stripe never knew, such as the history. Needs the operator's keys (Secrets
/// tenant-operator-identity and tenant-operator-signing); without the second, customers get new API keys. Prints what
/// it would do; --apply does it.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    providers: ProviderArgs,
    /// Namespace of the operator's own Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
    /// Create the Tenants. Without it, the command only lists them.
    #[arg(long)]
    apply: bool,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let providers = args.providers.build()?;
    let identity = IdentityKey::read(&client, &args.operator_namespace).await?;
    let identity = identity.with_context(|| {
        format!(
            "no identity key in namespace {}: set --operator-namespace, or restore Secret tenant-operator-identity first",
            args.operator_namespace
        )
    })?;
    let there = existing(&client).await?;
    let pins = Pins::read(&client, &args.operator_namespace).await?;
    if let Finding::Another { what, fix } = pins.compare_stripe(&providers.stripe.identity().await?) {
        anyhow::bail!("{what}. {fix}");
    }
    eprintln!("Reading Stripe and {} ...", Provider::VectorStore);
    let (known, namespaces) = tokio::try_join!(providers.stripe.tenants(), namespaces(&providers.indexes))?;
    let lost: Vec<_> = known.iter().filter(|k| !there.contains(&k.tenant_id)).collect();
    let refunded = refunded(&providers, &lost).await?;
    report(&lost, &namespaces, &refunded);
    let unclaimed = unclaimed(&namespaces, &known, &there);
    if !unclaimed.is_empty() {
        eprintln!(
            "These have no subscription: create them by hand with spec.tenantId, then run `tenant-operator adopt`: {}",
            unclaimed.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
    }
    if !args.apply {
        eprintln!("{} Tenants would be made. Run it with --apply to make them.", lost.len());
        return Ok(());
    }
    let models = embedding_models(&client).await?;
    let finder = Finder { providers: &providers, namespaces: &namespaces, models: &models };
    let made =
        stream::iter(lost.iter().map(|known| make(&client, &identity, known, &finder))).buffer_unordered(AT_ONCE);
    let failed: Vec<_> = made.filter_map(|outcome| std::future::ready(outcome.err())).collect().await;
    for error in &failed {
        eprintln!("{error:#}");
    }
    anyhow::ensure!(
        failed.is_empty(),
        "{} of {} Tenants could not be created; run the command again",
        failed.len(),
        lost.len()
    );
    println!(
        "{} Tenants made. The controller takes each to Active; `kubectl tenant list` shows how far it is.",
        lost.len()
    );
    Ok(())
}

/// The ids of the Tenants that are there.
async fn existing(client: &Client) -> anyhow::Result<HashSet<String>> {
    let api: Api<Tenant> = Api::all(client.clone());
    let all = api.list(&ListParams::default()).await?;
    Ok(all.items.iter().map(|tenant| tenant.tenant_id().to_owned()).collect())
}

/// The tenants whose collection is paused after their last payment was refunded.
async fn refunded(providers: &Providers, lost: &[&Known]) -> Result<HashSet<String>, ProviderError> {
    let mut refunded = HashSet::new();
    for known in lost.iter().filter(|known| known.subscription.paused) {
        if providers.stripe.was_refunded(&known.subscription.id).await? {
            refunded.insert(known.tenant_id.clone());
        }
    }
    Ok(refunded)
}

/// What was wished of a tenant, as far as Stripe knows: a subscription that ends because the account was closed, or
/// whose collection was paused because the tenant was not served, is neither renewed nor charged.
fn desired(subscription: &ObservedSubscription) -> Desired {
    match (subscription.ends, subscription.paused) {
        (true, _) => Desired::Deleted,
        (false, true) => Desired::Suspended,
        (false, false) => Desired::Active,
    }
}

/// The suspension of a tenant whose collection is paused. It outlives what the customer does, also where the account
/// was closed afterwards.
fn suspension(subscription: &ObservedSubscription) -> Option<Wish> {
    let reason = "Collection was paused at Stripe when the Tenant was recovered";
    subscription.paused.then(|| Wish::of_admin(Desired::Suspended, None, Some(reason), Timestamp::now()))
}

fn report(lost: &[&Known], namespaces: &Namespaces, refunded: &HashSet<String>) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NAMESPACE", "NAME", "COMPANY", "PLAN", "SUBSCRIPTION", "DESIRED", "DATA"]);
    table.add_rows(lost.iter().map(|known| {
        let data = generation(namespaces, &known.tenant_id).is_some();
        let desired = match (desired(&known.subscription), refunded.contains(&known.tenant_id)) {
            (Desired::Suspended, true) => "Suspended (refunded)".into(),
            (desired, _) => desired.to_string(),
        };
        [
            known.namespace.clone(),
            known.name.clone(),
            plain(&known.company),
            known.subscription.plan.clone().unwrap_or_default(),
            known.subscription.status.clone(),
            desired,
            if data { "there" } else { "none" }.to_owned(),
        ]
    }));
    println!("{table}");
    if lost.iter().any(|known| known.subscription.paused) {
        eprintln!(
            "Collection is paused for the Suspended ones: an admin suspended them, a payment was disputed, or provisioning \
             failed and the payment was refunded. They are not charged. `kubectl tenant resume NAME` serves and charges one."
        );
    }
    if lost.iter().any(|known| known.subscription.ends) {
        eprintln!(
            "The customers of the Deleted ones closed their accounts. The retention of their data starts again, and \
             Stripe does not know legal holds: set the annotation {LEGAL_HOLD_ANNOTATION} again. `kubectl tenant \
             reactivate NAME` takes one \
             back; one whose collection is paused comes back suspended."
        );
    }
}

/// Namespaces of tenants that neither Stripe nor Kubernetes knows, such as of contracts by hand.
fn unclaimed(namespaces: &Namespaces, known: &[Known], there: &HashSet<String>) -> BTreeSet<String> {
    let claimed: HashSet<_> =
        known.iter().map(|k| k.tenant_id.as_str()).chain(there.iter().map(String::as_str)).collect();
    let unclaimed = |name: &&String| data_of(name).is_some_and(|(id, _)| !claimed.contains(id));
    namespaces.keys().filter(unclaimed).cloned().collect()
}

/// The generation of a tenant's data: of several, the one that holds the most, and of equal ones the newest. During a
/// copy that is the old one, and after the switch the new one. The controller shows the others and asks for a choice
/// where they hold documents.
fn generation(namespaces: &Namespaces, tenant_id: &str) -> Option<u32> {
    let own = namespaces.iter().filter_map(|(name, there)| Some((data_of(name)?, there.vectors)));
    let own = own.filter(|((id, _), _)| *id == tenant_id);
    own.max_by_key(|((_, generation), vectors)| (*vectors, *generation)).map(|((_, generation), _)| generation)
}

/// A namespace, as the vector store lists it.
#[derive(Default)]
struct There {
    /// The region of its index, where each region has one.
    region: Option<String>,
    vectors: u64,
}

/// All namespaces, by their names.
type Namespaces = HashMap<String, There>;

async fn namespaces(indexes: &Indexes) -> Result<Namespaces, ProviderError> {
    let mut all = HashMap::new();
    for (region, index) in indexes.each() {
        for (name, vectors) in index.namespaces("").await? {
            let there: &mut There = all.entry(name).or_default();
            if there.region.is_none() || vectors > there.vectors {
                *there = There { region: region.map(str::to_owned), vectors };
            }
        }
    }
    Ok(all)
}

/// The embedding models that the Plans name.
async fn embedding_models(client: &Client) -> anyhow::Result<Vec<String>> {
    let plans = Api::<Plan>::all(client.clone()).list(&ListParams::default()).await?;
    let all = plans.items.iter().flat_map(|plan| plan.spec.models.embeddings()).map(ToString::to_string);
    Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
}

/// Finds out where a tenant's data is.
struct Finder<'a> {
    providers: &'a Providers,
    namespaces: &'a Namespaces,
    models: &'a [String],
}

impl Finder<'_> {
    /// None where it follows from the Plan: there is one index and one model, and the namespace is the first one.
    async fn data(&self, tenant_id: &str) -> anyhow::Result<Option<Data>> {
        let Some(generation) = generation(self.namespaces, tenant_id) else { return Ok(None) };
        let namespace = data_namespace(tenant_id, generation);
        let region = self.namespaces.get(&namespace).and_then(|there| there.region.as_deref());
        let model = match self.models {
            [] | [_] if generation == 1 && region.is_none() => return Ok(None),
            [only] if generation == 1 => Some(only.clone()),
            models => {
                let (index, embedder) = (self.providers.indexes.of(region)?, &*self.providers.embedder);
                let model = embedding_of(index, embedder, &namespace, models).await;
                model.with_context(|| format!("the embedding model of the vectors in {namespace} is not known"))?
            }
        };
        Ok(model.map(|embedding| Data { generation, embedding: embedding.into(), region: region.map(Into::into) }))
    }
}

/// Creates a Tenant. An existing one of that name stays as it is.
async fn make(client: &Client, identity: &IdentityKey, known: &Known, finder: &Finder<'_>) -> anyhow::Result<()> {
    let data = finder.data(&known.tenant_id).await?;
    let tenant = tenant(identity, known, data.as_ref())?;
    if tenant.spec.login.is_some() {
        let secrets = Api::namespaced(client.clone(), &known.namespace);
        let made = login::make(&secrets, &known.name).await;
        made.with_context(|| format!("the login Secret of {}/{} could not be created", known.namespace, known.name))?;
    }
    let api: Api<Tenant> = Api::namespaced(client.clone(), &known.namespace);
    match api.create(&PostParams::default(), &tenant).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        Err(error) => {
            Err(error).with_context(|| format!("Tenant {}/{} could not be created", known.namespace, known.name))
        }
    }
}

/// As it was, as far as Stripe knows. What was sent to a customer who has paid is not sent again, and the address that
/// they paid with needs no confirmation. The ledger has what the lost object counted.
fn tenant(identity: &IdentityKey, known: &Known, data: Option<&Data>) -> anyhow::Result<Tenant> {
    let place = Place { namespace: &known.namespace, name: &known.name };
    let login = known.name.starts_with(SIGNED_UP).then(|| json!({"secretName": login_secret(&known.name)}));
    let company = if known.company.trim().is_empty() { &known.email } else { &known.company };
    let plan = known.subscription.plan.clone().unwrap_or_else(|| "starter".into());
    let plan_in_force = known.subscription.plan_before.as_ref().unwrap_or(&plan).clone();
    Ok(serde_json::from_value(json!({
        "apiVersion": "tenant-operator.dev/v1alpha1",
        "kind": "Tenant",
        "metadata": {"name": known.name, "namespace": known.namespace, "annotations": {
            PROOF_ANNOTATION: identity.identity_proof(&known.tenant_id, place),
            SENT_ANNOTATION: "welcome,first-question,data-processing-agreement",
            VERIFIED_ANNOTATION: identity.email_hash(&known.email),
            TAKEN_OVER_ANNOTATION: serde_json::to_string(&TakenOver::by_another_object())?,
        }},
        "spec": {
            "companyName": company,
            "adminEmail": known.email,
            "plan": plan,
            "planInForce": plan_in_force,
            "tenantId": known.tenant_id,
            "apiKeyGeneration": known.key_generation,
            "data": data,
            "login": login,
            "desired": desired(&known.subscription),
            "suspension": suspension(&known.subscription),
            "billing": {"mode": "Stripe", "approved": false,
                "stripe": {"customerId": known.customer_id, "subscriptionId": known.subscription.id}},
        },
    }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_tenant_comes_back_suspended_whether_its_customer_closed_it_or_not() {
        for (ends, paused, wanted) in [
            (false, false, Desired::Active),
            (false, true, Desired::Suspended),
            (true, false, Desired::Deleted),
            (true, true, Desired::Deleted),
        ] {
            let known = ObservedSubscription { paused, ends, ..ObservedSubscription::default() };
            assert_eq!((desired(&known), suspension(&known).is_some()), (wanted, paused));
        }
    }

    #[test]
    fn of_two_namespaces_the_one_that_holds_more_is_recovered() {
        let there = |all: &[(u32, u64)]| -> Namespaces {
            let there = |(generation, vectors): &(u32, u64)| {
                (data_namespace("t", *generation), There { region: None, vectors: *vectors })
            };
            all.iter().map(there).chain([(data_namespace("other", 9), There { region: None, vectors: 99 })]).collect()
        };
        for (all, wanted) in [
            (&[][..], None),
            (&[(2, 5)], Some(2)),
            (&[(1, 10), (2, 4)], Some(1)),
            (&[(1, 10), (2, 12)], Some(2)),
            (&[(1, 10), (2, 10)], Some(2)),
            (&[(1, 3), (3, 10)], Some(3)),
        ] {
            assert_eq!(generation(&there(all), "t"), wanted, "{all:?}");
        }
    }
}
