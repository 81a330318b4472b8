//! `kubectl tenant open`: the URL that matters now.

use anyhow::bail;
use kube::Api;

use super::{KubeArgs, TenantArgs};
use crate::api::{Phase, Tenant};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// URL at which customers reach the service.
    #[arg(long, env = "FRONTEND_URL", default_value = "http://localhost:8080")]
    frontend_url: String,
}

/// Prints the payment link of a tenant that has not paid, and where the customer logs in otherwise.
pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let status = api.get(&args.tenant.name).await?.status.unwrap_or_default();
    match (status.phase, status.checkout) {
        (None | Some(Phase::PendingPayment), Some(checkout)) => println!("{}", checkout.url),
        (None | Some(Phase::PendingPayment), None) => {
            let why = status.message.as_deref().unwrap_or("no controller has looked at it yet").to_owned();
            bail!("{} has no payment link: {why}", args.tenant.name);
        }
        _ => println!("{}", args.frontend_url),
    }
    Ok(())
}
