//! Where etcd, kube-apiserver and kubectl come from: `KUBEBUILDER_ASSETS`, `PATH`, or built once into the user's cache.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

const GO_MOD: &str = include_str!("../../../cluster/go.mod");
const GO_SUM: &str = include_str!("../../../cluster/go.sum");
const PACKAGES: [&str; 3] =
    ["go.etcd.io/etcd/server/v3", "k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl"];

/// The programs of a control plane.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Binaries {
    pub etcd: PathBuf,
    pub apiserver: PathBuf,
    pub kubectl: Option<PathBuf>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum BinariesError {
    /// `KUBEBUILDER_ASSETS` points to something else.
    #[error("KUBEBUILDER_ASSETS={0} does not hold etcd and kube-apiserver: correct it or unset it")]
    Assets(PathBuf),
    /// No Go.
    #[error(
        "Go 1.26 or later is needed to build etcd and kube-apiserver: install it from https://go.dev/dl, or set KUBEBUILDER_ASSETS to a folder that holds both"
    )]
    NoGo,
    /// No cache folder.
    #[error("neither XDG_CACHE_HOME nor HOME is set, so there is no place for the built programs")]
    NoHome,
    /// The build failed.
    #[error("building Kubernetes failed; the last lines were:\n{0}")]
    Build(String),
    /// The disk.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Binaries {
    fn in_folder(folder: &Path) -> Option<Self> {
        let (etcd, apiserver, kubectl) = (folder.join("etcd"), folder.join("kube-apiserver"), folder.join("kubectl"));
        let kubectl = kubectl.is_file().then_some(kubectl);
        (etcd.is_file() && apiserver.is_file()).then_some(Self { etcd, apiserver, kubectl })
    }

    /// Finds the programs, or builds them.
    pub async fn find() -> Result<Self, BinariesError> {
        if let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS") {
            let folder = PathBuf::from(folder);
            return Self::in_folder(&folder).ok_or(BinariesError::Assets(folder));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path = |name: &str| std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
        if let (Some(etcd), Some(apiserver)) = (on_path("etcd"), on_path("kube-apiserver")) {
            return Ok(Self { etcd, apiserver, kubectl: on_path("kubectl") });
        }
        let cache = cache_folder("kubernetes", GO_SUM.as_bytes())?;
        if let Some(built) = Self::in_folder(&cache) {
            return Ok(built);
        }
        build(&cache).await?;
        Self::in_folder(&cache).ok_or_else(|| BinariesError::Build("the programs are missing after the build".into()))
    }
}

/// Where programs of this kind are kept. Keyed by the lock file: a new release is built beside the old one.
pub fn cache_folder(kind: &str, go_sum: &[u8]) -> Result<PathBuf, BinariesError> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .ok_or(BinariesError::NoHome)?;
    let key = hex::encode(&Sha256::digest(go_sum)[..8]);
    Ok(base.join("tenant-operator").join(format!("{kind}-{key}")))
}

/// The version of Kubernetes that a go.mod pins.
fn version(go_mod: &str) -> &str {
    go_mod
        .lines()
        .find_map(|l| l.trim().strip_prefix("k8s.io/kubernetes "))
        .and_then(|v| v.split(' ').next())
        .unwrap_or("v1.37.2")
}

/// What the linker writes into programs of the Kubernetes that a go.mod pins. Without a version, kubectl and helm
/// refuse the server's answer.
pub fn linker_flags(go_mod: &str) -> String {
    let version = version(go_mod);
    let (major, minor) = version.trim_start_matches('v').split_once('.').unwrap_or(("1", "37"));
    let minor = minor.split('.').next().unwrap_or("37");
    let base = "k8s.io/component-base/version";
    format!("-s -w -X {base}.gitVersion={version} -X {base}.gitMajor={major} -X {base}.gitMinor={minor}")
}

async fn build(cache: &Path) -> Result<(), BinariesError> {
    let go = Command::new("go").arg("version").stdin(Stdio::null()).output().await;
    if !go.is_ok_and(|o| o.status.success()) {
        return Err(BinariesError::NoGo);
    }
    let work = cache.with_extension(format!("build-{}", std::process::id()));
    std::fs::create_dir_all(&work)?;
    std::fs::write(work.join("go.mod"), GO_MOD)?;
    std::fs::write(work.join("go.sum"), GO_SUM)?;
    eprintln!("Building etcd and Kubernetes {} from source, once, into {}.", version(GO_MOD), cache.display());
    eprintln!(
        "This takes 4 to 7 minutes on 2 cores (measured), most of it for kube-apiserver; every later start takes seconds."
    );
    let start = Instant::now();
    let total = count(&work).await?;
    compile(&work, total).await?;
    std::fs::rename(work.join("server"), work.join("etcd"))?;
    if std::fs::rename(&work, cache).is_err() {
        // Another process has built them first.
        std::fs::remove_dir_all(&work)?;
    }
    eprintln!("Built in {} s.", start.elapsed().as_secs());
    Ok(())
}

/// Downloads the modules and counts what is to be compiled.
async fn count(work: &Path) -> Result<u64, BinariesError> {
    eprintln!("Downloading the Go modules (about 300 MB) ...");
    let out = go(work).args(["list", "-deps"]).args(PACKAGES).output().await?;
    if !out.status.success() {
        return Err(BinariesError::Build(String::from_utf8_lossy(&out.stderr).into_owned()));
    }
    Ok(String::from_utf8_lossy(&out.stdout).lines().count() as u64)
}

fn go(work: &Path) -> Command {
    let mut go = Command::new("go");
    go.current_dir(work).env("CGO_ENABLED", "0").env("GOBIN", work).env("GOWORK", "off").stdin(Stdio::null());
    go.kill_on_drop(true);
    go
}

async fn compile(work: &Path, total: u64) -> Result<(), BinariesError> {
    let mut child = go(work)
        .args(["install", "-v", "-trimpath", "-ldflags", &linker_flags(GO_MOD)])
        .args(PACKAGES)
        .stderr(Stdio::piped())
        .spawn()?;
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} packages, {elapsed}");
    let bar = ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let terminal = std::io::stderr().is_terminal();
    let (mut last, mut said, mut done) = (Vec::new(), Instant::now(), 0u64);
    if let Some(stderr) = child.stderr.take() {
        let mut lines = BufReader::new(stderr).lines();
        while let Some(line) = lines.next_line().await? {
            done += 1;
            bar.set_position(done);
            if !terminal && said.elapsed() > Duration::from_secs(20) {
                eprintln!("  compiled {done} of at most {total} packages");
                said = Instant::now();
            }
            last.push(line);
            if last.len() > 20 {
                last.remove(0);
            }
        }
    }
    let status = child.wait().await?;
    bar.finish_and_clear();
    if status.success() { Ok(()) } else { Err(BinariesError::Build(last.join("\n"))) }
}
