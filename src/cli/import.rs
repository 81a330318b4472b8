//! `tenant-operator import`: brings the documents of an export into a tenant.

use anyhow::{Context as _, bail};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use super::provider_args::RagArgs;
use super::{KubeArgs, TenantArgs};
use crate::api::{TAKEN_OVER_ANNOTATION, TakenOver, Tenant, USAGE_ANNOTATION, Usage};
use crate::export::{Import, Plan, Store};

/// Import the documents of an export into a tenant.
///
/// Passages and vectors are stored as they are: nothing is embedded again. Every file is checked against the manifest
/// before the first vector is stored. Documents that the tenant already has stay as they are, so run the command again
/// if it broke off. It prints what it would do; --apply does it. It counts the documents in an annotation that the
/// chart's admission policy keeps for the operator: name the account that runs it in `admission.exemptUsers` or
/// `admission.exemptGroups`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    tenant: TenantArgs,
    /// Folder of the export: a path, <file:///a/folder> or <s3://bucket/folder>.
    #[arg(long)]
    from: String,
    #[command(flatten)]
    providers: RagArgs,
    /// Store the documents. Without it, they are only checked and counted.
    #[arg(long)]
    apply: bool,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let api = args.tenant.api(kube.client().await?);
    let tenant = api.get(&args.tenant.name).await?;
    let from = open(&args.from)?;
    let indexes = args.providers.indexes();
    let index = indexes.of(tenant.region())?;
    let namespace = tenant.data_namespace();
    let import = Import { from: &from, index, namespace: &namespace };
    eprintln!("Checking the export ...");
    let plan = import.plan().await?;
    fits(&tenant, &plan)?;
    let (documents, all) = (plan.missing.len(), plan.manifest.documents);
    eprintln!("{documents} of {all} documents are not in tenant {} yet", args.tenant.name);
    if !args.apply {
        eprintln!("Run it with --apply to store them.");
        return Ok(());
    }
    may_count(&api, &tenant).await?;
    let others = import.others().await?;
    for (number, document) in plan.missing.iter().enumerate() {
        import.document(document).await.with_context(|| format!("document {:?} was not stored", document.title))?;
        count(&api, &tenant, document.bytes).await?;
        eprintln!("{} of {documents}: {}", number + 1, document.title);
    }
    println!("{documents} documents and {others} other vectors stored in tenant {}", args.tenant.name);
    Ok(())
}

fn open(from: &str) -> anyhow::Result<Store> {
    if from.contains("://") {
        return Ok(Store::open(from, None)?);
    }
    let path = std::fs::canonicalize(from).with_context(|| format!("{from} cannot be opened"))?;
    let url = url::Url::from_file_path(&path).map_err(|()| anyhow::anyhow!("{from} is not a folder"))?;
    Ok(Store::open(url.as_str(), None)?)
}

/// Whether the tenant can take them.
fn fits(tenant: &Tenant, plan: &Plan) -> anyhow::Result<()> {
    let name = tenant.name_any();
    let status = tenant.status.clone().unwrap_or_default();
    let Some(config) = status.config.filter(|_| status.provisioned_at.is_some() && status.erasure.is_none()) else {
        bail!("tenant {name} is not set up. Wait until it is Active");
    };
    if tenant.moving().is_some() {
        bail!(
            "the documents of tenant {name} are being embedded with another model. Wait until its condition DataMigrated is True, \
             then import"
        );
    }
    let (theirs, ours) = (&plan.manifest.embedding_model, tenant.embedding().unwrap_or(&config.models.embedding));
    if **theirs != **ours {
        bail!(
            "the vectors of the export were made by {theirs}, and tenant {name} uses {ours}: questions would not find them. \
             Use a plan with {theirs}, or choose it for the tenant with spec.settings.embedding"
        );
    }
    let Usage { documents, bytes, .. } = Usage::shown(tenant);
    let new = i64::try_from(plan.missing.len()).unwrap_or(i64::MAX);
    for (what, used, new, limit) in [
        ("documents", documents, new, config.limits.documents),
        ("bytes of documents", bytes, plan.bytes(), config.limits.bytes),
    ] {
        if used + new > limit {
            bail!(
                "tenant {name} has {used} {what} and would get {new} more, and its plan holds {limit}. Use a larger plan"
            );
        }
    }
    Ok(())
}

/// Finds out before anything is stored.
async fn may_count(api: &Api<Tenant>, tenant: &Tenant) -> anyhow::Result<()> {
    let patch = json!({"metadata": {"annotations": {USAGE_ANNOTATION: serde_json::to_string(&Usage::of(tenant))?}}});
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    api.patch(&tenant.name_any(), &params, &Patch::Merge(patch)).await.context(
        "the documents could not be counted, so none was stored. With the chart, your account must be \
         named in admission.exemptUsers or admission.exemptGroups",
    )?;
    Ok(())
}

/// Counts a document. The ledger is not reached from here: web tells it what it lacks of the annotation. If another
/// writer changed the usage meanwhile, reads it and tries again.
async fn count(api: &Api<Tenant>, tenant: &Tenant, bytes: i64) -> anyhow::Result<()> {
    loop {
        let there = api.get(&tenant.name_any()).await?;
        anyhow::ensure!(there.uid() == tenant.uid(), "tenant {} was replaced meanwhile", tenant.name_any());
        let mut used = Usage::of(&there);
        (used.documents, used.bytes) = (used.documents + 1, used.bytes + bytes);
        let mut annotations = json!({USAGE_ANNOTATION: serde_json::to_string(&used)?});
        if takes_the_place_of_another(&there) {
            annotations[TAKEN_OVER_ANNOTATION] = serde_json::to_string(&TakenOver::by_another_object())?.into();
        }
        let patch = json!({"metadata": {"resourceVersion": there.resource_version(), "annotations": annotations}});
        match api.patch(&tenant.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether an object was made for a tenant that had another one, and knows nothing of what that one counted: it was
/// applied again from a manifest.
fn takes_the_place_of_another(tenant: &Tenant) -> bool {
    let is_first = tenant.spec.tenant_id.is_none() || tenant.spec.tenant_id == tenant.uid();
    let has = |annotation| tenant.annotations().contains_key(annotation);
    !is_first && !has(USAGE_ANNOTATION) && !has(TAKEN_OVER_ANNOTATION)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::export::Manifest;

    /// What is wrong with an import of vectors of that model, if anything.
    fn refusal(model: &str, spec: &Value, status: &Value) -> Option<String> {
        let mut all = json!({"companyName": "A", "adminEmail": "a@b.example"});
        all.as_object_mut().expect("an object").extend(spec.as_object().expect("an object").clone());
        let mut tenant = Tenant::new("a", serde_json::from_value(all).expect("a spec"));
        let mut known = json!({"provisionedAt": "2026-11-26T10:00:00Z", "config": {
            "plan": "starter", "limits": {}, "models": {"embedding": "small"}, "features": [],
        }});
        known.as_object_mut().expect("an object").extend(status.as_object().expect("an object").clone());
        tenant.status = serde_json::from_value(known).expect("a status");
        let manifest = Manifest {
            format: 1,
            tenant_id: "t".into(),
            embedding_model: model.into(),
            documents: 0,
            vectors: 0,
            files: Vec::new(),
        };
        fits(&tenant, &Plan { manifest, missing: Vec::new() }).err().map(|error| error.to_string())
    }

    #[test]
    fn an_object_that_takes_the_place_of_another_says_so_when_it_counts_first() {
        let mut tenant = Tenant::new(
            "a",
            serde_json::from_value(json!({"companyName": "A", "adminEmail": "a@b.example"})).expect("a spec"),
        );
        tenant.metadata.uid = Some("new".into());
        assert!(!takes_the_place_of_another(&tenant), "it has no id yet");
        for (id, wanted) in [("new", false), ("old", true)] {
            tenant.spec.tenant_id = Some(id.into());
            assert_eq!(takes_the_place_of_another(&tenant), wanted, "{id}");
        }
        for annotation in [USAGE_ANNOTATION, TAKEN_OVER_ANNOTATION] {
            tenant.metadata.annotations = Some([(annotation.to_owned(), "{}".to_owned())].into());
            assert!(!takes_the_place_of_another(&tenant), "{annotation}: it was restored from a backup");
        }
    }

    #[test]
    fn vectors_fit_the_model_that_the_tenants_data_has_now() {
        let nothing = json!({});
        assert_eq!(refusal("small", &nothing, &nothing), None);
        assert!(refusal("large", &nothing, &nothing).is_some_and(|why| why.contains("uses small")));
        let moved = json!({"data": {"generation": 2, "embedding": "large"}});
        assert_eq!(refusal("large", &moved, &nothing), None);
        assert!(refusal("small", &moved, &nothing).is_some_and(|why| why.contains("uses large")));
    }

    #[test]
    fn nothing_is_imported_into_data_that_moves() {
        let status = |state: &str, generation: u32| {
            let at = "2026-11-26T10:00:00Z";
            json!({"migration": {"generation": generation, "embedding": "large", "state": state, "startedAt": at, "since": at}})
        };
        let now = json!({"data": {"generation": 1, "embedding": "small"}});
        for state in ["Copying", "Copied", "Switching"] {
            let why = refusal("small", &now, &status(state, 2));
            assert!(why.is_some_and(|why| why.contains("DataMigrated")), "{state}");
        }
        assert_eq!(refusal("small", &now, &status("Failed", 2)), None);
        assert_eq!(refusal("small", &now, &status("Switched", 1)), None, "it is at rest");
    }
}
