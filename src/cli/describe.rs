//! `kubectl tenant describe`: everything that is known of one tenant, on one screen.

use comfy_table::{Table, presets};
use k8s_openapi::api::core::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use strum::IntoEnumIterator;

use super::{KubeArgs, TenantArgs};
use crate::api::status::PlanConfig;
use crate::api::tenant::BillingMode;
use crate::api::usage::Quota;
use crate::api::{Tenant, TenantStatus, Timestamp, Unit, size};
use crate::plain::plain;

/// Transitions shown; the status keeps more.
const SHOWN: usize = 10;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let tenant = args.tenant.api(client.clone()).get(&args.tenant.name).await?;
    let events = events(client, &tenant).await?;
    println!("{}", text(&tenant, &events));
    Ok(())
}

/// The tenant's Events, oldest first.
async fn events(client: Client, tenant: &Tenant) -> anyhow::Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(client, &tenant.namespace().unwrap_or_default());
    let of = format!("involvedObject.uid={}", tenant.uid().unwrap_or_default());
    let mut events = api.list(&ListParams::default().fields(&of)).await?.items;
    events.sort_by_key(seen);
    Ok(events)
}

/// When it was seen last. Kubernetes has three fields for it, and fills one.
fn seen(event: &Event) -> String {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0.to_string());
    let single = || event.event_time.as_ref().map(|t| t.0.to_string());
    let old = || event.last_timestamp.as_ref().map(|t| t.0.to_string());
    series.or_else(single).or_else(old).unwrap_or_default()
}

fn text(tenant: &Tenant, events: &[Event]) -> String {
    let status = tenant.status.clone().unwrap_or_default();
    let mut parts = vec![table(facts(tenant, &status).map(|(name, value)| [format!("{name}:"), value]))];
    let conditions: Vec<_> = status
        .conditions
        .iter()
        .map(|c| {
            [
                c.type_.to_string(),
                c.status.to_string(),
                c.reason.to_string(),
                c.last_transition_time.to_string(),
                c.message.to_string(),
            ]
        })
        .collect();
    parts.push(section("Conditions", &["TYPE", "STATUS", "REASON", "SINCE", "MESSAGE"], &conditions));
    let skipped = status.transitions.len().saturating_sub(SHOWN);
    let transitions: Vec<_> = status
        .transitions
        .iter()
        .skip(skipped)
        .map(|t| {
            let from = t.from_state.map_or_else(|| "-".into(), |p| p.to_string());
            [
                t.seq.to_string(),
                t.timestamp.to_string(),
                from,
                t.to_state.to_string(),
                word(&t.triggered_by),
                t.reason.to_string(),
            ]
        })
        .collect();
    parts.push(section("Transitions", &["SEQ", "TIME", "FROM", "TO", "BY", "WHY"], &transitions));
    let events: Vec<_> = events
        .iter()
        .map(|e| {
            let field = |text: &Option<String>| text.clone().unwrap_or_default();
            [seen(e), field(&e.type_), field(&e.reason), field(&e.message)]
        })
        .collect();
    parts.push(section("Events", &["LAST SEEN", "TYPE", "REASON", "MESSAGE"], &events));
    parts.join("\n")
}

/// Name and value of what is set.
fn facts(tenant: &Tenant, status: &TenantStatus) -> impl Iterator<Item = (&'static str, String)> {
    let stripe = tenant.spec.billing.stripe.clone().unwrap_or_default();
    let mode = match tenant.spec.billing.mode {
        BillingMode::Stripe => "Stripe",
        BillingMode::Manual if tenant.spec.billing.approved => "Manual, approved",
        BillingMode::Manual => "Manual, not approved",
    };
    let time = |at: &Option<Timestamp>| at.as_ref().map(ToString::to_string);
    let attempts = status.provisioning.as_ref().filter(|run| run.attempts > 0).map(|run| run.attempts.to_string());
    let facts = [
        ("Name", Some(tenant.name_any())),
        ("Namespace", tenant.namespace()),
        ("Tenant id", tenant.spec.tenant_id.clone()),
        ("Company", Some(plain(&tenant.spec.company_name))),
        ("Admin e-mail", Some(plain(&tenant.spec.admin_email))),
        ("Phase", status.phase.map(|p| p.to_string())),
        ("Message", status.message.as_ref().map(ToString::to_string)),
        ("Plan", Some(tenant.plan_in_force().to_owned())),
        ("Wanted plan", (tenant.plan_in_force() != tenant.spec.plan).then(|| tenant.spec.plan.clone())),
        ("Limits", status.config.as_ref().map(limits)),
        ("Quota period", status.quota.as_ref().map(period)),
        ("Billing", Some(mode.to_owned())),
        ("Subscription", status.subscription.as_ref().map(ToString::to_string)),
        ("Stripe customer", stripe.customer_id),
        ("Stripe subscription", stripe.subscription_id),
        ("Payment link", status.checkout.as_ref().map(|c| c.url.clone())),
        ("Paid", time(&status.paid_at)),
        ("Trial ends", time(&status.trial_ends_at)),
        ("Active since", time(&status.provisioned_at)),
        ("Pinecone namespace", status.namespace.clone()),
        ("Region", status.region.as_ref().map(ToString::to_string)),
        ("API key Secret", status.api_key_secret.clone()),
        ("Failed attempts", attempts),
    ];
    facts.into_iter().filter_map(|(name, value)| Some((name, value?)))
}

fn limits(config: &PlanConfig) -> String {
    let (levels, flows): (Vec<_>, Vec<_>) = Unit::iter().partition(|unit| unit.is_level());
    let written = |units: Vec<Unit>| {
        let limited = units.into_iter().filter_map(|unit| Some((unit, config.limits.of(unit)?)));
        let texts = limited.map(|(unit, limit)| {
            let soft = if config.quota.is_soft(unit) { " (soft)" } else { "" };
            let written = match unit {
                Unit::Bytes => format!("{} of files", size(limit)),
                Unit::EmbeddedBytes => format!("{} of embedded text", size(limit)),
                _ => format!("{limit} {}", unit.name().replace('_', " ")),
            };
            written + soft
        });
        texts.collect::<Vec<_>>().join(", ")
    };
    format!("{}; in a period {}", written(levels), written(flows))
}

fn period(quota: &Quota) -> String {
    format!("{} to {}", quota.period_start, quota.period_end)
}

/// How an enum is written in JSON.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn table<const N: usize>(rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.add_rows(rows);
    table.to_string()
}

fn section<const N: usize>(title: &str, header: &[&str; N], rows: &[[String; N]]) -> String {
    if rows.is_empty() {
        return format!("\n{title}: none");
    }
    let header = header.map(str::to_owned);
    format!("\n{title}\n{}", table(std::iter::once(header).chain(rows.iter().cloned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::hostile;

    #[test]
    fn a_name_of_a_manifest_controls_no_terminal() {
        let said = text(&hostile(), &[]);
        assert!(!said.chars().any(|c| c.is_control() && c != '\n'), "{said:?}");
        assert!(said.contains("Acme [2J") && said.contains("ada @example.com"), "{said}");
    }
}
