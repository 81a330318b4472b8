//! `kubectl tenant move`: customers to another namespace, with their id, password, API key and subscription.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::{KubeArgs, in_namespace};
use crate::api::{
    COMPONENT_LABEL, ERASE_ANNOTATION, KEEP_DATA_ANNOTATION, LEAD_COMPONENT, PROOF_ANNOTATION, Phase, Place, Tenant,
    login_secret,
};
use crate::operator_keys::IdentityKey;

/// Move customers to another Kubernetes namespace.
///
/// They keep their data, password, API key and subscription. Each Tenant is written to a file, deleted with the
/// annotation `tenant-operator.dev/keep-data=true`, and created again in the other namespace. Run the command again
/// after an interruption: it continues with the files. The controller must watch both namespaces and run. Needs the
/// operator's identity key and, with the chart's admission policy, an account that is named in `admission.exemptUsers`
/// or `admission.exemptGroups`.
#[derive(clap::Args)]
pub struct Args {
    /// Names of Tenants.
    #[arg(required_unless_present = "all")]
    names: Vec<String>,
    /// All customers who can log in, with the waitlist and the people who wrote to the sales team.
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// Their namespace; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
    /// The Kubernetes namespace to move them to.
    #[arg(long)]
    to: String,
    /// Folder of the files.
    #[arg(long, default_value = "moved-tenants")]
    folder: PathBuf,
    /// Namespace of the operator's own Secrets.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    operator_namespace: String,
}

/// How long the controller may take to let an object go.
const LIMIT: Duration = Duration::from_mins(2);
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Both ends of a move.
struct Mover {
    tenants: Api<Tenant>,
    secrets: Api<Secret>,
    to_tenants: Api<Tenant>,
    to_secrets: Api<Secret>,
    to: String,
    folder: PathBuf,
    identity: IdentityKey,
}

pub async fn run(kube: &KubeArgs, args: Args) -> anyhow::Result<()> {
    let client = kube.client().await?;
    let from = args.namespace.clone().unwrap_or_else(|| client.default_namespace().to_owned());
    ensure!(from != args.to, "the Tenants are in namespace {from} already");
    let identity = IdentityKey::read(&client, &args.operator_namespace).await?.with_context(|| {
        format!("no identity key in namespace {}: set --operator-namespace", args.operator_namespace)
    })?;
    std::fs::create_dir_all(&args.folder).with_context(|| format!("making {}", args.folder.display()))?;
    let mover = Mover::new(&client, &from, args.to.clone(), args.folder, identity);
    let names = if args.all { mover.all().await? } else { args.names };
    for name in &names {
        mover.relocate(name).await.with_context(|| format!("moving tenant {name}"))?;
        println!("tenant/{name} is in namespace {} now", args.to);
    }
    if args.all {
        let leads = mover.leads().await?;
        println!("{} customers and {leads} leads moved to namespace {}", names.len(), args.to);
    }
    Ok(())
}

impl Mover {
    fn new(client: &Client, from: &str, to: String, folder: PathBuf, identity: IdentityKey) -> Self {
        Self {
            tenants: in_namespace(client.clone(), Some(from)),
            secrets: in_namespace(client.clone(), Some(from)),
            to_tenants: in_namespace(client.clone(), Some(&to)),
            to_secrets: in_namespace(client.clone(), Some(&to)),
            to,
            folder,
            identity,
        }
    }

    /// All customers who can log in, and those whose move was interrupted.
    async fn all(&self) -> anyhow::Result<Vec<String>> {
        let there = self.tenants.list(&ListParams::default()).await?.items;
        let mut names: Vec<_> =
            there.iter().filter(|tenant| tenant.spec.login.is_some()).map(ResourceExt::name_any).collect();
        for file in std::fs::read_dir(&self.folder)? {
            let path = file?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
            names.extend(name.map(str::to_owned));
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    async fn relocate(&self, name: &str) -> anyhow::Result<()> {
        let file = self.folder.join(format!("{name}.json"));
        let there = self.tenants.get_opt(name).await?;
        let tenant = match &there {
            Some(tenant) => {
                self.check(tenant)?;
                keep(&file, tenant)?;
                tenant.clone()
            }
            None if file.is_file() => serde_json::from_slice(&std::fs::read(&file)?).context("reading its file")?,
            None => bail!("there is none with this name, and no file {}", file.display()),
        };
        let login = login_secret(name);
        if tenant.spec.login.is_some() {
            copy(&self.secrets, &self.to_secrets, &login).await?;
        }
        if let Some(there) = there {
            self.let_go(&there).await?;
        }
        match self.to_tenants.create(&PostParams::default(), &self.moved(&tenant)).await {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 409 => {
                let other = self.to_tenants.get(name).await?;
                ensure!(
                    other.spec.tenant_id == tenant.spec.tenant_id && self.identity.has_proof(&other),
                    "namespace {} has another Tenant of this name; {} holds the Tenant to be moved",
                    self.to,
                    file.display()
                );
            }
            Err(error) => return Err(error.into()),
        }
        remove(&self.secrets, &login).await?;
        std::fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))
    }

    /// Only what is certain to be this object's is moved, and nothing that ends.
    fn check(&self, tenant: &Tenant) -> anyhow::Result<()> {
        let id = tenant.spec.tenant_id.as_ref().context("it has no spec.tenantId yet: wait for the controller")?;
        let rightful = tenant.uid().as_ref() == Some(id) || self.identity.has_proof(tenant);
        ensure!(rightful, "its tenant id {id} is not its own: see `kubectl tenant adopt`");
        let status = tenant.status.as_ref();
        let ends = status.is_some_and(|status| status.erasure.is_some() && status.phase != Some(Phase::Deleted));
        ensure!(!ends, "it is being erased: wait until that is done");
        ensure!(!tenant.annotations().contains_key(ERASE_ANNOTATION), "it is to be erased: {ERASE_ANNOTATION} is set");
        Ok(())
    }

    /// Deletes the object and nothing else, and waits for the controller to let it go.
    async fn let_go(&self, tenant: &Tenant) -> anyhow::Result<()> {
        let name = tenant.name_any();
        let change = json!({"metadata": {"uid": tenant.uid(), "annotations": {KEEP_DATA_ANNOTATION: "true"}}});
        self.tenants.patch(&name, &PatchParams::default(), &Patch::Merge(change)).await?;
        self.tenants.delete(&name, &DeleteParams::default()).await?;
        let start = tokio::time::Instant::now();
        while self.tenants.get_opt(&name).await?.is_some_and(|there| there.uid() == tenant.uid()) {
            ensure!(
                start.elapsed() < LIMIT,
                "the controller does not release it: check that it runs, then run this again"
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }

    /// The Tenant as it is to be in the other namespace.
    fn moved(&self, tenant: &Tenant) -> Tenant {
        let name = tenant.name_any();
        let mut annotations = tenant.annotations().clone();
        annotations.remove(KEEP_DATA_ANNOTATION);
        let proof = self.identity.identity_proof(tenant.tenant_id(), Place { namespace: &self.to, name: &name });
        annotations.insert(PROOF_ANNOTATION.into(), proof);
        let mut moved = Tenant::new(&name, tenant.spec.clone());
        *moved.meta_mut() = ObjectMeta {
            name: Some(name),
            namespace: Some(self.to.clone()),
            labels: tenant.meta().labels.clone(),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        };
        moved
    }

    /// Moves the people who are not customers yet; how many there were.
    async fn leads(&self) -> anyhow::Result<usize> {
        let leads = ListParams::default().labels(&format!("{COMPONENT_LABEL}={LEAD_COMPONENT}"));
        let leads = self.secrets.list(&leads).await?.items;
        for lead in &leads {
            copy(&self.secrets, &self.to_secrets, &lead.name_any()).await?;
            remove(&self.secrets, &lead.name_any()).await?;
        }
        Ok(leads.len())
    }
}

/// Keeps the Tenant in a file that only its owner can read: between its deletion and its return there is nothing else.
fn keep(file: &Path, tenant: &Tenant) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let written = || {
        let mut open = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(file)?;
        open.write_all(&serde_json::to_vec_pretty(tenant)?)?;
        open.sync_all()
    };
    written().with_context(|| format!("writing {}", file.display()))
}

/// Copies a Secret, unless it was copied before. One that is gone was moved before.
async fn copy(from: &Api<Secret>, to: &Api<Secret>, name: &str) -> anyhow::Result<()> {
    let Some(there) = from.get_opt(name).await? else { return Ok(()) };
    let metadata = ObjectMeta {
        name: Some(name.into()),
        labels: there.metadata.labels,
        annotations: there.metadata.annotations,
        ..ObjectMeta::default()
    };
    let copy = Secret { metadata, data: there.data, type_: there.type_, ..Secret::default() };
    match to.create(&PostParams::default(), &copy).await {
        Err(kube::Error::Api(e)) if e.code == 409 => {
            let other = to.get(name).await?;
            ensure!(other.data == copy.data, "the other namespace has another Secret {name}: delete one of the two");
            Ok(())
        }
        made => Ok(made.map(drop)?),
    }
}

async fn remove(api: &Api<Secret>, name: &str) -> anyhow::Result<()> {
    match api.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(e)) if e.code == 404 => Ok(()),
        done => Ok(done.map(drop)?),
    }
}
