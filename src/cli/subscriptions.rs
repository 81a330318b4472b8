//! `kubectl tenant subscriptions`: what Stripe bills for a tenant, and the end of a subscription that is one too many.

use anyhow::{Context as _, bail};
use comfy_table::{Table, presets};

use super::provider_args::ProviderArgs;
use super::{KubeArgs, TenantArgs};
use crate::api::Tenant;
use crate::controller::payer;
use crate::lifecycle::ObservedSubscription;

/// List the subscriptions that Stripe bills for a tenant, or cancel a surplus one.
///
/// A tenant has one subscription. A second one appears when a customer pays two links, or when a subscription is made
/// in Stripe's dashboard with the tenant's metadata. The controller shows it in the condition `SingleSubscription` and
/// never ends one itself.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    #[command(flatten)]
    providers: ProviderArgs,
    /// The subscription to cancel at once, such as `sub_1PgafmB7WZ01zgkW`. The last one is refused: it pays for the
    /// tenant.
    #[arg(long, value_name = "SUBSCRIPTION", requires = "confirm")]
    end: Option<String>,
    /// Refund the payment for the current period of that subscription.
    #[arg(long, requires = "end")]
    refund: bool,
    /// The tenant's name again, to confirm.
    #[arg(long)]
    confirm: Option<String>,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let providers = args.providers.build()?;
    let tenant: Tenant = args.tenant.api(kube.client().await?).get(&args.tenant.name).await?;
    let living = providers.stripe.living(&payer(&tenant)).await?;
    println!("{}", table(&tenant, &living));
    let Some(id) = &args.end else { return Ok(()) };
    if args.confirm.as_deref() != Some(args.tenant.name.as_str()) {
        bail!("nothing was ended: to end {id}, add --confirm {}", args.tenant.name);
    }
    let ended = living.iter().find(|s| s.id == *id);
    ended.with_context(|| format!("{id} is no subscription of this tenant that Stripe bills"))?;
    if !living.iter().any(|other| other.id != *id && other.served()) {
        bail!("{id} is the only subscription that pays for the tenant; `kubectl tenant delete` closes the tenant");
    }
    if args.refund {
        let refund = providers.stripe.refund(tenant.tenant_id(), id).await?;
        println!("Refunded {} {}.", refund.amount, refund.currency.unwrap_or_default());
        if refund.waived > 0 {
            println!("{} were left to a person, as the subscription's metadata waived_refund says.", refund.waived);
        }
    }
    providers.stripe.end(id).await?;
    println!("{id} is cancelled. The controller sees it with the next event of Stripe or resync.");
    Ok(())
}

fn table(tenant: &Tenant, living: &[ObservedSubscription]) -> Table {
    let known = tenant.spec.billing.stripe.as_ref().and_then(|refs| refs.subscription_id.as_deref());
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["SUBSCRIPTION", "STATUS", "PLAN", "PRICE", "PERIOD ENDS", "IN SPEC"]);
    table.add_rows(living.iter().map(|s| {
        [
            s.id.clone(),
            s.status.clone(),
            s.plan.clone().unwrap_or_default(),
            s.price.clone().unwrap_or_default(),
            s.period_ends_at.map(|at| at.to_string()).unwrap_or_default(),
            if known == Some(s.id.as_str()) { "yes" } else { "" }.to_owned(),
        ]
    }));
    table
}
