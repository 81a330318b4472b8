//! `kubectl tenant settle-usage`: a person decides of usage whose numbers differ, or that waits for a price.

use anyhow::{Context as _, bail, ensure};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::usage_prices::{KeptUsage, UsageChoice};
use crate::api::{SETTLE_USAGE_ANNOTATION, Tenant, Timestamp, Unit, UsageBilling};

/// Decide about usage whose numbers differ, or that waits for a price.
///
/// `kubectl tenant usage NAME --billed` shows the numbers, and `--hours` the hours behind them. Nothing is decided without
/// --confirm, and the decision holds for the numbers that are shown now: if they change meanwhile, decide again. The
/// controller carries it out within two minutes, writes an Event, and keeps it in `status.usageBilling.decision`.
///
/// Exit codes: 0 when the decision is noted, 1 if there is nothing to decide or --confirm is missing.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The unit, as `usage --billed` names it.
    #[arg(long, value_parser = unit)]
    unit: Unit,
    /// `stripe`: the customer pays what Stripe's meter has. `ledger`: the controller sends the difference to Stripe, once,
    /// so that the customer pays what was sent before. `nothing`: drop what waits for a price.
    #[arg(long, value_parser = ["stripe", "ledger", "nothing"])]
    keep: String,
    /// The tenant's name once more, to say that this is what the customer is to pay.
    #[arg(long)]
    confirm: Option<String>,
}

fn unit(name: &str) -> Result<Unit, String> {
    serde_json::from_value(json!(name)).map_err(|_| format!("{name} is no unit: try queries or promptTokens"))
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let tenant = api.get(&args.tenant.name).await?;
    let (name, uid) = (tenant.name_any(), tenant.uid().unwrap_or_default());
    let billing = tenant.status.as_ref().and_then(|status| status.usage_billing.as_deref());
    let keep = args.keep.parse().context("--keep")?;
    let choice = billing.and_then(|billing| choice(billing, args.unit, keep, Timestamp::now()));
    let Some((choice, effect)) = choice else {
        bail!("{name} has nothing to decide: `kubectl tenant usage {name} --billed` shows what differs or waits")
    };
    ensure!(args.confirm.as_ref() == Some(&name), "nothing was decided. {effect}. To decide so, add --confirm {name}");
    let change = json!({"metadata": {
        "uid": tenant.uid(), "annotations": {SETTLE_USAGE_ANNOTATION: choice.annotation(&uid)},
    }});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!("tenant/{name}: {effect}. `kubectl tenant usage {name} --billed` shows when it is done");
    Ok(())
}

/// What is to be decided of a unit, and what that means. None if nothing of that kind is shown.
fn choice(billing: &UsageBilling, unit: Unit, keep: KeptUsage, at: Timestamp) -> Option<(UsageChoice, String)> {
    let name = unit.in_plans();
    if keep == KeptUsage::Nothing {
        let amount = billing.waiting.iter().find(|waiting| waiting.usage.unit == unit)?.amount;
        let choice = UsageChoice { keep, unit, ledger: amount, stripe: 0, at };
        return Some((choice, format!("{amount} {name} that wait for a price are dropped, and never billed")));
    }
    let differs = billing.differences.iter().find(|difference| difference.unit == unit)?;
    let (ledger, stripe) = (differs.sent, differs.at_stripe);
    let effect = if keep == KeptUsage::Stripe {
        let unsent = differs.unsent;
        format!(
            "The customer pays the {stripe} {name} that Stripe has, and not the {ledger} that were sent. Of the {unsent} that were not sent \
             yet, those that Stripe's number covers are taken as sent"
        )
    } else {
        format!(
            "The controller sends {} {name} to Stripe, so that the customer pays the {ledger} that were sent. If Stripe only shows them \
             late, that bills them twice: wait until its number has stayed the same for an hour",
            ledger - stripe
        )
    };
    Some((UsageChoice { keep, unit, ledger, stripe, at }, effect))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Timestamp;
    use crate::api::usage_prices::{MeteredUsage, UsageDifference, WaitingUsage};

    #[test]
    fn what_is_decided_has_the_numbers_that_are_shown() {
        let at = Timestamp::from_second(0);
        let usage = MeteredUsage {
            unit: Unit::PromptTokens,
            price: "price_1".into(),
            meter: "mtr_1".into(),
            since: at,
            through: at,
            sent: 0,
            unpriced: None,
        };
        let billing = UsageBilling {
            differences: vec![UsageDifference { unit: Unit::Queries, sent: 120, unsent: 3, at_stripe: 100 }],
            waiting: vec![WaitingUsage { subscription: "sub_1".into(), until: at, amount: 35, usage }],
            ..UsageBilling::default()
        };
        let shown = |unit, keep| choice(&billing, unit, keep, at);
        let (ledger, said) = shown(Unit::Queries, KeptUsage::Ledger).expect("it differs");
        assert_eq!((ledger.ledger, ledger.stripe), (120, 100));
        assert!(said.contains("sends 20 queries"), "{said}");
        assert!(shown(Unit::Queries, KeptUsage::Stripe).expect("it differs").1.contains("pays the 100 queries"));
        assert_eq!(shown(Unit::PromptTokens, KeptUsage::Nothing).expect("it waits").0.ledger, 35);
        assert!(shown(Unit::Queries, KeptUsage::Nothing).is_none());
        assert!(shown(Unit::PromptTokens, KeptUsage::Stripe).is_none());
        assert!(unit("promptTokens").is_ok() && unit("prompts").is_err());
    }
}
