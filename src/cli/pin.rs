//! `kubectl tenant pin`: which Stripe account and which indexes the tenants are in, and another one on purpose.

use anyhow::{bail, ensure};
use comfy_table::{Table, presets};
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};

use super::KubeArgs;
use crate::controller::LEASE;
use crate::lifecycle::Provider;
use crate::pins::Pins;
use crate::providers::stripe::Identity;
use crate::providers::vector_store::IndexIdentity;

/// Show or change the Stripe account and the Pinecone indexes that hold the tenants.
///
/// The controller records them at its first start, and does nothing at another account or index. Change them only after
/// you moved the customers and documents there, or while there are none.
#[derive(clap::Args)]
pub struct Args {
    /// Namespace of the operator.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
    /// The Stripe account, `acct_...`.
    #[arg(long, requires = "livemode")]
    stripe_account: Option<String>,
    /// Whether it is used in live mode.
    #[arg(long, requires = "stripe_account")]
    livemode: Option<bool>,
    /// The name of the Pinecone index.
    #[arg(long, requires_all = ["pinecone_host", "dimension"])]
    pinecone_index: Option<String>,
    /// The host of the index, as Pinecone's console shows it.
    #[arg(long, requires = "pinecone_index")]
    pinecone_host: Option<String>,
    /// The dimension of the index.
    #[arg(long, requires = "pinecone_index")]
    dimension: Option<u64>,
    /// The region whose index it is, where each region has one.
    #[arg(long, requires = "pinecone_index")]
    region: Option<String>,
    /// Write it. Without it, the command prints what would change.
    #[arg(long)]
    yes: bool,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let namespace = &args.operator_namespace;
    has_operator(&client, namespace).await?;
    let (pins, unreadable) = Pins::read_each(&client, namespace).await?;
    let account = args.stripe_account.clone().zip(args.livemode);
    let account = account.map(|(account, livemode)| Identity { account, livemode });
    let index = args.pinecone_index.clone().zip(args.pinecone_host.clone()).zip(args.dimension);
    let index = index.map(|((index, host), dimension)| IndexIdentity { index, host, dimension });
    if account.is_none() && index.is_none() {
        show(&pins);
        return unreadable.into_iter().next().map_or(Ok(()), |error| Err(error.into()));
    }
    let (stripe_before, index_before) = (pins.stripe.as_ref(), pins.indexes.get(&args.region));
    let none = || "none".to_owned();
    if let Some(account) = &account {
        println!("Stripe: {} becomes {account}", stripe_before.map_or_else(none, ToString::to_string));
    }
    if let Some(index) = &index {
        let before = index_before.map_or_else(none, ToString::to_string);
        println!("{}: {before} becomes {index}", Provider::VectorStore);
    }
    if !args.yes {
        bail!("nothing was changed: to change it, add --yes");
    }
    if let Some(account) = &account {
        pins.pin_stripe(&client, namespace, account).await?;
    }
    if let Some(index) = &index {
        // The first write has changed the version.
        let (pins, _) = Pins::read_each(&client, namespace).await?;
        pins.pin_index(&client, namespace, args.region.as_deref(), index).await?;
    }
    println!("changed; the controller follows within half a minute");
    Ok(())
}

/// Pins in a namespace that no controller reads have no effect.
async fn has_operator(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let there = leases.get_opt(LEASE).await?.is_some();
    ensure!(
        there,
        "no controller of the operator has run in the namespace {namespace}: set --operator-namespace to the namespace of the release"
    );
    Ok(())
}

fn show(pins: &Pins) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(["PROVIDER", "REGION", "PINNED"]);
    table.add_rows(pins.stripe.iter().map(|account| ["Stripe".to_owned(), String::new(), account.to_string()]));
    table.add_rows(pins.indexes.iter().map(|(region, index)| {
        [Provider::VectorStore.to_string(), region.clone().unwrap_or_default(), index.to_string()]
    }));
    println!("{table}");
}
