//! `tenant-operator audit`: how many tenants are where, and what is odd about their records.

use std::collections::BTreeMap;
use std::process::ExitCode;

use comfy_table::{Table, presets};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{KubeArgs, ScopeArgs};
use crate::api::{Tenant, Timestamp};
use crate::lifecycle::{Finding, audit};
use crate::plain::CsvLines;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    scope: ScopeArgs,
    /// `table`, `json` with the tenants in each phase, or `csv` with a line for each finding.
    #[arg(long, short, default_value = "table", value_parser = ["table", "json", "csv"])]
    output: String,
}

/// 0 when nothing is odd, 1 when something is.
pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<ExitCode> {
    let (mut phases, mut findings) = (BTreeMap::<String, usize>::new(), Vec::new());
    let look = |tenant: &Tenant| {
        let phase = tenant.status.as_ref().and_then(|s| s.phase).map_or_else(|| "New".into(), |p| p.to_string());
        *phases.entry(phase).or_default() += 1;
        let place = [tenant.namespace().unwrap_or_default(), tenant.name_any()];
        findings.extend(audit(tenant, Timestamp::now()).into_iter().map(|finding| (place.clone(), finding)));
    };
    args.scope.each(kube.client().await?, look).await?;
    let odd = !findings.is_empty();
    if args.output == "csv" {
        let mut lines = CsvLines::new(&["namespace", "name", "finding", "message"])?;
        for ([namespace, name], Finding { kind, message }) in findings {
            let kind: &str = kind.into();
            lines.push([namespace, name, kind.to_owned(), message])?;
        }
        print!("{}", lines.text()?);
    } else if args.output == "json" {
        let findings: Vec<Value> = findings
            .into_iter()
            .map(|([namespace, name], f)| json!({"namespace": namespace, "name": name, "kind": f.kind, "message": f.message}))
            .collect();
        println!("{}", serde_json::to_string_pretty(&json!({"phases": phases, "findings": findings}))?);
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["PHASE", "TENANTS"]);
        for (phase, count) in phases {
            table.add_row([phase, count.to_string()]);
        }
        println!("{table}\n");
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["NAMESPACE", "NAME", "FINDING", "MESSAGE"]);
        for ([namespace, name], finding) in findings {
            let kind: &str = finding.kind.into();
            table.add_row([namespace, name, kind.to_owned(), finding.message]);
        }
        println!("{}", if odd { table.to_string() } else { "Nothing is odd.".into() });
    }
    Ok(ExitCode::from(u8::from(odd)))
}
