//! `tenant-operator crds`

use std::path::{Path, PathBuf};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

use crate::api::{self, reserved};

#[derive(clap::Args)]
pub struct Args {
    /// Write one file each into this folder instead of printing.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Print the reference of all fields as Markdown instead.
    #[arg(long, conflicts_with = "out")]
    reference: bool,
    /// Write what the Helm chart takes from the code into its folder of files instead.
    #[arg(long, conflicts_with_all = ["out", "reference"])]
    chart: Option<PathBuf>,
}

/// Each definition's file name and YAML.
pub fn definitions() -> anyhow::Result<Vec<(String, String)>> {
    let file =
        |crd: CustomResourceDefinition| Ok((format!("{}.yaml", crd.spec.names.plural), serde_yaml::to_string(&crd)?));
    api::definitions().into_iter().map(file).collect()
}

/// What the operator alone may write, for the chart's admission policy.
pub fn reserved_json() -> anyhow::Result<String> {
    let reserved = json!({
        "specFields": reserved::SPEC_FIELDS, "annotations": reserved::ANNOTATIONS, "labels": reserved::LABELS,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&reserved)?))
}

fn write(folder: &Path) -> anyhow::Result<()> {
    for (name, yaml) in definitions()? {
        std::fs::write(folder.join(name), yaml)?;
    }
    Ok(())
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    if args.reference {
        print!("{}", super::reference::markdown()?);
    } else if let Some(chart) = &args.chart {
        std::fs::create_dir_all(chart.join("crds"))?;
        write(&chart.join("crds"))?;
        std::fs::write(chart.join("reserved.json"), reserved_json()?)?;
    } else if let Some(folder) = &args.out {
        write(folder)?;
    } else {
        for (_, yaml) in definitions()? {
            print!("---\n{yaml}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// The definitions of the present revision. When they change, increase `CRD_REVISION`, and note the new digest
    /// here: by the revision, the chart and the preflight tell an older definition from a newer one.
    const DIGEST: &str = "8fe95da687da870e96799089cf5e384a8753e8907a1dd3f1d5f5c620e0997a84";

    #[test]
    fn a_changed_definition_has_a_new_revision() {
        let all: String = definitions().expect("YAML").into_iter().map(|(_, yaml)| yaml).collect();
        assert_eq!(hex::encode(Sha256::digest(all)), DIGEST, "increase CRD_REVISION and note the new digest");
    }
}
