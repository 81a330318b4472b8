//! `kubectl tenant logs`: what the operator's pods say of one tenant.

use anyhow::bail;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};

use super::{KubeArgs, TenantArgs, span};
use crate::api::Tenant;

/// The pods of every release of the chart.
const PODS: &str = "app.kubernetes.io/name=tenant-operator,app.kubernetes.io/component in (controller,web,ledger)";

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Namespace of the operator's pods. Default: all namespaces.
    #[arg(long)]
    operator_namespace: Option<String>,
    /// Look back this far.
    #[arg(long, default_value = "1d", value_parser = span::seconds)]
    since: i64,
}

/// Prints the lines that name the tenant, of all pods and of the container before a restart, in the order of time.
pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let tenant = args.tenant.api(client.clone()).get(&args.tenant.name).await?;
    let pods: Api<Pod> = match &args.operator_namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let pods = pods.list(&ListParams::default().labels(PODS)).await?.items;
    if pods.is_empty() {
        bail!(
            "there are no pods of the operator here. With `make dev`, read the logs in .dev/; otherwise check --context and --operator-namespace"
        );
    }
    let mut lines = Vec::new();
    for pod in &pods {
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
        for previous in [true, false] {
            let params =
                LogParams { previous, since_seconds: Some(args.since), timestamps: true, ..LogParams::default() };
            // A container that never restarted has no earlier log.
            let Ok(text) = api.logs(&pod.name_any(), &params).await else { continue };
            lines
                .extend(text.lines().filter(|line| names(line, &tenant)).map(|line| (line.to_owned(), pod.name_any())));
        }
    }
    lines.sort();
    for (line, pod) in lines {
        println!("{pod} {line}");
    }
    Ok(())
}

/// Whether a line is about the tenant: by its name as a whole word, or by its id.
fn names(line: &str, tenant: &Tenant) -> bool {
    let name = tenant.name_any();
    let part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let whole = |at: usize| {
        let (before, after) = (line[..at].chars().next_back(), line[at + name.len()..].chars().next());
        !before.is_some_and(part) && !after.is_some_and(part)
    };
    let id = tenant.tenant_id();
    (!id.is_empty() && line.contains(id)) || line.match_indices(&name).any(|(at, _)| whole(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_a_tenant_by_the_whole_name() {
        let spec = serde_json::json!({"companyName": "Acme", "adminEmail": "it@acme.example", "tenantId": "id-1"});
        let tenant = Tenant::new("acme", serde_json::from_value(spec).expect("a spec"));
        for (line, wanted) in [
            (r#"{"tenant":"acme","message":"phase changed"}"#, true),
            ("tenant=rag/acme reconcile failed", true),
            ("tenant=acme-2 phase changed", false),
            ("tenant=big-acme phase changed", false),
            ("sub-acme acme.", false),
            ("namespace tenant_id-1 created", true),
        ] {
            assert_eq!(names(line, &tenant), wanted, "{line}");
        }
    }
}
