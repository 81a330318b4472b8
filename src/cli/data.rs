//! `kubectl tenant data`: where tenants' documents are.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use comfy_table::{Table, presets};
use kube::Client;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use secrecy::SecretString;
use serde_json::json;

use super::provider_args::IndexArgs;
use super::{KubeArgs, ScopeArgs, TenantArgs};
use crate::api::{CHOOSE_DATA_ANNOTATION, Phase, conditions, data_of};
use crate::providers::CallLimits;
use crate::providers::indexes::Indexes;

/// Calls a second to the vector store: this command is in no hurry.
const RATE: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Timeout of one call.
const TIMEOUT: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Subcommand)]
enum DataCommand {
    /// Choose which of several namespaces holds a tenant's data. The others are deleted.
    ///
    /// The condition `DataInOnePlace` of the Tenant names the namespaces, their generations, and how many vectors each
    /// holds.
    Choose(ChooseArgs),
    /// List the namespaces at Pinecone that belong to no Tenant, and delete one of them.
    ///
    /// A namespace without a Tenant may hold the documents of a customer whose object was deleted by accident: restore
    /// the object, or run `tenant-operator recover`, before you delete it.
    Unowned(UnownedArgs),
}

#[derive(clap::Args)]
struct ChooseArgs {
    #[command(flatten)]
    tenant: TenantArgs,
    /// The generation to answer questions from.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    generation: u32,
    /// The tenant's name once more, to say that the namespaces of all other generations may be deleted.
    #[arg(long)]
    confirm: Option<String>,
}

#[derive(clap::Args)]
struct UnownedArgs {
    /// Pinecone API key.
    #[arg(long, env = "PINECONE_API_KEY", hide_env_values = true)]
    pinecone_api_key: SecretString,
    #[command(flatten)]
    index: IndexArgs,
    /// Delete this namespace.
    #[arg(long, value_name = "NAMESPACE")]
    delete: Option<String>,
    /// The namespace's name once more, to say that its documents may be deleted.
    #[arg(long, requires = "delete")]
    confirm: Option<String>,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    match args.command {
        DataCommand::Choose(args) => choose(client, args).await,
        DataCommand::Unowned(args) => unowned(client, args).await,
    }
}

async fn choose(client: Client, args: ChooseArgs) -> anyhow::Result<()> {
    let api = args.tenant.api(client);
    let tenant = api.get(&args.tenant.name).await?;
    let (name, generation) = (tenant.name_any(), args.generation);
    let status = tenant.status.clone().unwrap_or_default();
    if status.data_unclear_since.is_none() {
        bail!("{name} has one namespace, {}: there is nothing to choose", tenant.data_namespace());
    }
    if args.confirm.as_deref() != Some(name.as_str()) {
        let shown = conditions::get(&status.conditions, conditions::DATA_IN_ONE_PLACE);
        println!("{}.", shown.map(|condition| &*condition.message).unwrap_or_default());
        bail!(
            "nothing was changed: to answer from generation {generation} and to delete the others, add --confirm {name}"
        );
    }
    let choice = format!("{generation}.{}", tenant.uid().unwrap_or_default());
    let change = json!({"metadata": {
        "uid": tenant.uid(), "resourceVersion": tenant.resource_version(), "annotations": {CHOOSE_DATA_ANNOTATION: choice},
    }});
    api.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
    println!(
        "{name} is served from generation {generation}; the condition DataInOnePlace says when the others are deleted."
    );
    Ok(())
}

async fn unowned(client: Client, args: UnownedArgs) -> anyhow::Result<()> {
    let calls = CallLimits { per_second: RATE, timeout: TIMEOUT, retries: 2 };
    let indexes = args.index.open(args.pinecone_api_key.clone(), calls);
    let found = find(client, &indexes).await?;
    let Some(name) = &args.delete else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["PINECONE NAMESPACE", "VECTORS"]);
        table.add_rows(found.iter().map(|(name, vectors)| [name.clone(), vectors.to_string()]));
        println!("{table}");
        return Ok(());
    };
    let vectors = found.get(name).with_context(|| format!("{name} is not a Pinecone namespace without a Tenant"))?;
    ensure!(
        args.confirm.as_ref() == Some(name),
        "nothing was deleted: to delete {name} with its {vectors} vectors, add --confirm {name}"
    );
    for index in indexes.all() {
        index.delete_namespace(name).await?;
    }
    println!("{name} is deleted, with {vectors} vectors.");
    Ok(())
}

/// The namespaces of tenants without a Tenant, and how many vectors each holds. The vector store is read first: a
/// Tenant that is made meanwhile is then known.
async fn find(client: Client, indexes: &Indexes) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for index in indexes.all() {
        for (name, vectors) in index.namespaces("tenant_").await? {
            *all.entry(name).or_default() += vectors;
        }
    }
    let mut owned = HashSet::new();
    let everywhere = ScopeArgs { namespace: None, all_namespaces: true };
    let look = everywhere.each(client, |tenant| {
        let erased = tenant.status.as_ref().and_then(|status| status.phase) == Some(Phase::Deleted);
        if !erased {
            owned.insert(tenant.tenant_id().to_owned());
        }
    });
    look.await?;
    all.retain(|name, _| data_of(name).is_some_and(|(id, _)| !owned.contains(id)));
    Ok(all)
}
