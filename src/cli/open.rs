//! `kubectl tenant open`: the URL that matters now.

use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::{PAYMENT_LINK_ANNOTATION, Phase, Tenant};
use crate::lifecycle::link_on_request;

/// How long the controller may take to make a link.
const LIMIT: Duration = Duration::from_secs(30);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// URL at which customers reach the service.
    #[arg(long, env = "FRONTEND_URL", default_value = "http://localhost:8080")]
    frontend_url: String,
}

/// Prints the payment link of a tenant that has one or gets one when it is asked for, and where the customer logs in
/// otherwise.
pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let tenant = api.get(&args.tenant.name).await?;
    let status = tenant.status.clone().unwrap_or_default();
    match (status.phase, &status.checkout) {
        (None | Some(Phase::PendingPayment | Phase::Suspended), Some(checkout)) => println!("{}", checkout.url),
        _ if link_on_request(&status) => println!("{}", made(&api, &tenant).await?),
        (None | Some(Phase::PendingPayment), None) => {
            let why = status.message.as_deref().unwrap_or("no controller has handled it yet").to_owned();
            bail!("{} has no payment link: {why}", args.tenant.name);
        }
        _ => println!("{}", args.frontend_url),
    }
    Ok(())
}

/// Asks the controller for a link, and waits for it.
async fn made(api: &Api<Tenant>, tenant: &Tenant) -> anyhow::Result<String> {
    let name = tenant.name_any();
    let next = tenant.next_checkout().to_string();
    let ask = json!({"metadata": {"uid": tenant.uid(), "annotations": {PAYMENT_LINK_ANNOTATION: next}}});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(ask)).await.context("asking for a payment link")?;
    let start = tokio::time::Instant::now();
    loop {
        let status = api.get(&name).await?.status.unwrap_or_default();
        if let Some(checkout) = status.checkout {
            return Ok(checkout.url);
        }
        if start.elapsed() >= LIMIT {
            let why = status.message.as_deref().unwrap_or_default();
            bail!("the controller has made no payment link in {} s: {why}", LIMIT.as_secs());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
