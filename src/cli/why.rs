//! `kubectl tenant why`: why a tenant is not Ready, and what to do.

use std::process::ExitCode;

use kube::{Api, ResourceExt};

use super::{KubeArgs, TenantArgs};
use crate::api::{ConditionStatus, Tenant, Timestamp, conditions};
use crate::lifecycle::advice;

/// Explain why a tenant is not Ready, and how to fix it.
///
/// Exit codes: 0 when the tenant is Ready, 1 when it is not.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<ExitCode> {
    let api: Api<Tenant> = args.tenant.api(kube.client().await?);
    let tenant = api.get(&args.tenant.name).await?;
    println!("{}", explain(&tenant, Timestamp::now()));
    let ready = tenant.status.is_some_and(|s| conditions::is_true(&s.conditions, conditions::READY));
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The words of the conditions, not others.
fn explain(tenant: &Tenant, now: Timestamp) -> String {
    let name = tenant.name_any();
    let Some(status) = &tenant.status else {
        return format!(
            "{name}: no controller has handled it yet\n  Fix: Check that the controller runs and watches this namespace"
        );
    };
    let phase = status.phase.map_or_else(String::new, |p| p.to_string());
    let message = status.message.as_deref().unwrap_or_default();
    let ready = conditions::get(&status.conditions, conditions::READY);
    let reason = ready.map(|c| &*c.reason).unwrap_or_default();
    let mut lines = vec![format!("{name} is {phase}: {message}"), format!("  Reason: {reason}")];
    if let Some(condition) = ready {
        lines.push(format!("  Since: {}", condition.last_transition_time));
    }
    for condition in &status.conditions {
        let of_step = ![conditions::READY, conditions::RECONCILING, conditions::STALLED].contains(&&*condition.type_);
        if of_step && condition.status != ConditionStatus::True {
            lines.push(format!("  {}: {}: {}", condition.type_, condition.reason, condition.message));
        }
    }
    if let Some(run) = &status.provisioning {
        if run.attempts > 0 {
            let step = run.failed_step.as_deref().unwrap_or("an unknown step");
            lines.push(format!("  Attempts that failed: {}, the last at {step}", run.attempts));
        }
        if let Some(at) = run.next_retry_at {
            lines.push(format!("  Next retry: {at} (in {} s)", at.since(now).max(0)));
        }
    }
    lines.push(format!("  Fix: {}", advice(status.phase, reason)));
    lines.join("\n")
}
