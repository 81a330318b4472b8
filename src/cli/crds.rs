//! `tenant-operator crds`

use std::path::PathBuf;

use kube::CustomResourceExt;

use crate::api::{Plan, Tenant};

#[derive(clap::Args)]
pub struct Args {
    /// Write one file each into this folder instead of printing.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the reference of all fields as Markdown instead.
    #[arg(long, conflicts_with = "out")]
    reference: bool,
}

/// Each definition's file name and YAML.
pub fn definitions() -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("tenants.yaml", serde_yaml::to_string(&Tenant::crd())?),
        ("plans.yaml", serde_yaml::to_string(&Plan::crd())?),
    ])
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.reference {
        print!("{}", super::reference::markdown()?);
        return Ok(());
    }
    for (name, yaml) in definitions()? {
        match &args.out {
            Some(folder) => std::fs::write(folder.join(name), yaml)?,
            None => print!("---\n{yaml}"),
        }
    }
    Ok(())
}
