//! The live table of tenants and their steps.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use comfy_table::presets;
use futures::TryStreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tenant_operator::api::conditions::{
    API_KEY_READY, NAMESPACE_READY, PAYMENT_RECEIVED, SAMPLE_DATA_READY, WELCOME_EMAIL_SENT, is_true,
};
use tenant_operator::api::{Phase, Tenant};
use tenant_operator::cli::fitted_table;

const STEPS: [(&str, &str); 5] = [
    ("paid", PAYMENT_RECEIVED),
    ("namespace", NAMESPACE_READY),
    ("key", API_KEY_READY),
    ("samples", SAMPLE_DATA_READY),
    ("mail", WELCOME_EMAIL_SENT),
];

/// Shows the tenants as they change: redrawn on a terminal, a line for each change elsewhere. Ends when the tenant
/// that is waited for is Active or Failed.
pub async fn show(client: &Client, until: Option<&str>) -> anyhow::Result<()> {
    let api: Api<Tenant> = Api::all(client.clone());
    let mut changes = std::pin::pin!(watcher(api, watcher::Config::default()).default_backoff().applied_objects());
    let mut rows: BTreeMap<String, [String; 4]> = BTreeMap::new();
    let mut drawn = 0;
    while let Some(tenant) = changes.try_next().await? {
        let name = tenant.name_any();
        let row = row(&tenant);
        if rows.get(&name) != Some(&row) {
            if std::io::stdout().is_terminal() {
                rows.insert(name.clone(), row);
                drawn = draw(&rows, drawn)?;
            } else {
                println!("{:<24} {:<15} {:<40} {}", row[0], row[1], row[2], row[3]);
                rows.insert(name.clone(), row);
            }
        }
        let phase = tenant.status.as_ref().and_then(|s| s.phase);
        if until == Some(name.as_str()) && matches!(phase, Some(Phase::Active | Phase::Failed)) {
            return Ok(());
        }
    }
    Ok(())
}

fn row(tenant: &Tenant) -> [String; 4] {
    let status = tenant.status.clone().unwrap_or_default();
    let steps = STEPS.iter().map(|(name, condition)| {
        let mark = if is_true(&status.conditions, condition) { "✓" } else { "·" };
        format!("{mark} {name}")
    });
    [
        tenant.spec.company_name.chars().take(24).collect(),
        status.phase.map_or_else(|| "New".into(), |p| p.to_string()),
        steps.collect::<Vec<_>>().join("  "),
        status.message.unwrap_or_default().to_string(),
    ]
}

/// Draws over what was drawn before, and answers the number of lines.
fn draw(rows: &BTreeMap<String, [String; 4]>, before: usize) -> std::io::Result<usize> {
    let mut table = fitted_table();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["Company", "Phase", "Steps", "Message"]);
    for row in rows.values() {
        table.add_row(row);
    }
    let text = table.to_string();
    let mut out = std::io::stdout().lock();
    if before > 0 {
        // Up to the first line of the last drawing, and clear to the end of the screen.
        write!(out, "\x1b[{before}A\x1b[J")?;
    }
    writeln!(out, "{text}")?;
    out.flush()?;
    Ok(text.lines().count())
}
