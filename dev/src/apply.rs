//! Applies `crds/` and `examples/` to the cluster of `dev`.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;
use tenant_operator::api::{Plan, Tenant, definitions};
use tenant_operator::pins::{PINS, Pins};
use tenant_operator_sandbox::Sandbox;

const PLANS: &str = include_str!("../../examples/plans.yaml");
const TENANTS: &str = include_str!("../../examples/tenants.yaml");
const MANAGER: &str = "tenant-operator-dev";

fn documents<T: DeserializeOwned>(yaml: &str) -> anyhow::Result<Vec<T>> {
    serde_yaml::from_multiple(yaml).context("reading an example")
}

/// The API server lets every create wait for as long, while a definition is this young, so that another API server
/// hears of it first (`crdHandler` in k8s.io/apiextensions-apiserver: `justCreated`). Its clock has whole seconds.
pub const CREATES_WAIT: Duration = Duration::from_secs(3);

/// Makes a namespace, unless it is there.
pub async fn namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    match Api::all(client.clone()).create(&PostParams::default(), &namespace).await {
        Err(kube::Error::Api(e)) if e.code == 409 => Ok(()),
        made => Ok(made.map(drop)?),
    }
}

/// Applies both definitions and waits until the API server serves them.
pub async fn apply_crds(client: &Client) -> anyhow::Result<()> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in definitions() {
        let name = crd.name_any();
        api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&crd)).await?;
        let served = await_condition(api.clone(), &name, conditions::is_crd_established());
        match tokio::time::timeout(Duration::from_mins(1), served).await {
            Ok(done) => drop(done?),
            Err(_) => bail!("the API server does not serve {name} after 60 s"),
        }
    }
    Ok(())
}

/// Applies plans from YAML and answers them.
pub async fn apply_yaml(client: &Client, yaml: &str) -> anyhow::Result<Vec<Plan>> {
    let plans: Vec<Plan> = documents(yaml)?;
    let api: Api<Plan> = Api::all(client.clone());
    for plan in &plans {
        api.patch(&plan.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(plan)).await?;
    }
    Ok(plans)
}

/// Applies the example plans, and makes their prices known to the sandbox.
pub async fn plans(client: &Client, sandbox: &Sandbox) -> anyhow::Result<()> {
    for plan in apply_yaml(client, PLANS).await? {
        if let Some(price) = &plan.spec.stripe_price_id {
            sandbox.add_price(price, plan.spec.monthly_price.amount, &plan.spec.monthly_price.currency);
        }
    }
    Ok(())
}

/// Applies the example tenants.
pub async fn tenants(client: &Client) -> anyhow::Result<()> {
    for tenant in documents::<Tenant>(TENANTS)? {
        let api: Api<Tenant> = Api::namespaced(client.clone(), &tenant.namespace().unwrap_or_else(|| "default".into()));
        api.patch(&tenant.name_any(), &PatchParams::apply(MANAGER).force(), &Patch::Apply(&tenant)).await?;
    }
    Ok(())
}

/// Forgets all pins if an index is on this machine: the sandbox of an earlier run is gone, and with it its address.
pub async fn forget_pins(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let pins = Pins::read(client, namespace).await?;
    if pins.indexes.values().any(|index| index.host.starts_with("http://127.0.0.1:")) {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        api.delete(PINS, &DeleteParams::default()).await?;
    }
    Ok(())
}
