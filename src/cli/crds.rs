//! `tenant-operator crds`

use std::path::PathBuf;

use kube::CustomResourceExt;

use crate::api::{Plan, Tenant};

#[derive(clap::Args)]
pub struct Args {
    /// Write one file each into this folder instead of printing.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Each definition's file name and YAML.
pub fn definitions() -> anyhow::Result<Vec<(&'static str, String)>> {
    Ok(vec![
        ("tenants.yaml", serde_yaml::to_string(&Tenant::crd())?),
        ("plans.yaml", serde_yaml::to_string(&Plan::crd())?),
    ])
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    for (name, yaml) in definitions()? {
        match &args.out {
            Some(folder) => std::fs::write(folder.join(name), yaml)?,
            None => print!("---\n{yaml}"),
        }
    }
    Ok(())
}
