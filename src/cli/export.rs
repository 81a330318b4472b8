//! `kubectl tenant export`: asks for an export of everything that belongs to a tenant, and waits for it.

use std::time::Duration;

use anyhow::bail;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{KubeArgs, TenantArgs};
use crate::api::status::ExportState;
use crate::api::{Tenant, Timestamp, conditions};

/// How often it looks.
const EACH: Duration = Duration::from_millis(500);

/// Export everything that belongs to a tenant.
///
/// That is the profile, consent, documents with their passages and vectors, usage, invoices and history. The controller
/// writes the export, and continues if this command ends; the command prints the folder in the export storage once it
/// is complete. A new export replaces the one before.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Name of the export: letters, digits and hyphens. Default: the present time.
    #[arg(long)]
    request: Option<String>,
    /// Do not wait until it is complete.
    #[arg(long)]
    no_wait: bool,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api = args.tenant.api(kube.client().await?);
    let name = &args.tenant.name;
    let request = args.request.unwrap_or_else(|| format!("at-{}", Timestamp::now().as_second()));
    let change = json!({"spec": {"exportRequest": request}});
    let tenant = api.patch(name, &PatchParams::default(), &Patch::Merge(change)).await?;
    let status = tenant.status.unwrap_or_default();
    if status.provisioned_at.is_none() || status.erasure.is_some() {
        bail!("tenant {name} has nothing to export: it was not Active yet, or its data is erased");
    }
    if args.no_wait {
        println!("export {request} of tenant {name} begins; status.export shows how far it is");
        return Ok(());
    }
    println!("{}", wait(&api, name, &request).await?);
    Ok(())
}

/// The folder, once it is complete.
async fn wait(api: &Api<Tenant>, name: &str, request: &str) -> anyhow::Result<String> {
    let mut said = String::new();
    loop {
        let status = api.get(name).await?.status.unwrap_or_default();
        let shown = conditions::get(&status.conditions, conditions::EXPORT_READY);
        let message = shown.map(|condition| condition.message.to_string()).unwrap_or_default();
        if let Some(export) = status.export.filter(|export| *export.request == *request) {
            match export.state {
                ExportState::Ready => return Ok(export.path.map(|path| path.to_string()).unwrap_or_default()),
                ExportState::Failed => bail!("{message}"),
                ExportState::Expired => {
                    bail!("the files of export {request} were deleted. Ask for one with another name")
                }
                ExportState::Running if message != said => {
                    eprintln!("{message}");
                    said = message;
                }
                ExportState::Running => {}
            }
        }
        tokio::time::sleep(EACH).await;
    }
}
