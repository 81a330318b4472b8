//! `kubectl tenant leads` and `kubectl tenant admit`: people who are not customers yet.

use anyhow::{Context as _, bail};
use comfy_table::presets;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{KubeArgs, fitted_table, in_namespace};
use crate::api::{
    ADMISSION_MAIL_ANNOTATION, ADMITTED_ANNOTATION, COMPONENT_LABEL, LEAD_COMPONENT, LEAD_LABEL, Timestamp,
};
use crate::plain::plain;

#[derive(clap::Args)]
pub struct Args {
    /// Namespace of the signups; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Only these.
    #[arg(long, value_parser = ["sales", "waitlist"])]
    kind: Option<String>,
    /// Output format.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json"])]
    output: String,
}

#[derive(clap::Args)]
pub struct AdmitArgs {
    /// E-mail address of a visitor on the waitlist.
    email: String,
    /// Namespace of the signups; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
}

fn field(secret: &Secret, name: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(name)).map(|b| b.0.clone()).unwrap_or_default();
    plain(&String::from_utf8_lossy(&bytes))
}

fn fact(secret: &Secret) -> Value {
    json!({
        "kind": secret.labels().get(LEAD_LABEL), "email": field(secret, "email"), "company": field(secret, "company"),
        "plan": field(secret, "plan"), "text": field(secret, "text"), "at": field(secret, "at"),
        "admitted": secret.annotations().get(ADMITTED_ANNOTATION),
    })
}

async fn all(api: &Api<Secret>, kind: Option<&str>) -> anyhow::Result<Vec<Secret>> {
    let kind = kind.map(|kind| format!(",{LEAD_LABEL}={kind}")).unwrap_or_default();
    let params = ListParams::default().labels(&format!("{COMPONENT_LABEL}={LEAD_COMPONENT}{kind}"));
    let mut found = api.list(&params).await?.items;
    found.sort_by_key(|secret| field(secret, "at"));
    Ok(found)
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api: Api<Secret> = in_namespace(kube.client().await?, args.namespace.as_deref());
    let leads: Vec<Value> = all(&api, args.kind.as_deref()).await?.iter().map(fact).collect();
    if args.output == "json" {
        println!("{}", serde_json::to_string_pretty(&leads)?);
        return Ok(());
    }
    let mut table = fitted_table();
    table.load_preset(presets::NOTHING);
    table.set_header(["KIND", "E-MAIL", "COMPANY", "PLAN", "AT", "ADMITTED", "TEXT"]);
    for lead in &leads {
        let text = |name: &str| lead[name].as_str().unwrap_or_default().to_owned();
        table.add_row(["kind", "email", "company", "plan", "at", "admitted", "text"].map(text));
    }
    println!("{table}");
    Ok(())
}

/// Lets a person on the waitlist sign up. The controller tells them by e-mail; another run sends another e-mail.
pub async fn admit(kube: &KubeArgs, args: AdmitArgs) -> anyhow::Result<()> {
    let email = crate::email::parse(&args.email).map_err(|why| anyhow::anyhow!("{:?} {why}", args.email))?;
    let api: Api<Secret> = in_namespace(kube.client().await?, args.namespace.as_deref());
    let same = |secret: &&Secret| crate::email::normalize(&field(secret, "email")) == crate::email::normalize(&email);
    let waiting = all(&api, Some("waitlist")).await?;
    let Some(secret) = waiting.iter().find(same) else {
        bail!("{email} is not on the waitlist: `kubectl tenant leads --kind waitlist` lists who is");
    };
    let change = json!({"metadata": {"annotations": {ADMITTED_ANNOTATION: Timestamp::now(), ADMISSION_MAIL_ANNOTATION: "requested"}}});
    api.patch(&secret.name_any(), &PatchParams::default(), &Patch::Merge(change)).await.context("admitting")?;
    println!("{email} may sign up now at /signup?admitted=true. The controller tells them by e-mail within a minute.");
    Ok(())
}
