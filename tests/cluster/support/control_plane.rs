//! An API server with etcd, as `tenant-operator-dev --cluster-only` starts them, and a client of it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tenant_operator_dev::{apply_crds, apply_yaml};
use tokio::sync::OnceCell;

use super::plans::{PAID_PLAN, PLANS, SIZES};
use super::{ROOT, folder, install_crypto, plan_of_size};
use crate::programs::program;

/// The control plane. It ends with the test process, which holds its standard input.
pub struct ControlPlane {
    pub kubeconfig: PathBuf,
    pub kubectl: PathBuf,
    child: Child,
    _stdin: ChildStdin,
}

pub fn control_plane() -> &'static ControlPlane {
    static PLANE: OnceLock<ControlPlane> = OnceLock::new();
    PLANE.get_or_init(|| ControlPlane::start(&folder("test")))
}

impl ControlPlane {
    pub fn start(folder: &Path) -> Self {
        let mut child = Command::new(program("tenant-operator-dev"))
            .args(["--cluster-only", "--folder"])
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the control plane starts");
        let stdin = child.stdin.take().expect("piped");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (mut kubeconfig, mut kubectl) = (None, PathBuf::from("kubectl"));
        for line in lines.map_while(Result::ok) {
            match line.split_once('=') {
                Some(("KUBECONFIG", path)) => kubeconfig = Some(PathBuf::from(path)),
                Some(("KUBECTL", path)) => kubectl = PathBuf::from(path),
                _ if line == "READY" => break,
                _ => {}
            }
        }
        let kubeconfig = kubeconfig.expect("the control plane is ready");
        Self { kubeconfig, kubectl, child, _stdin: stdin }
    }

    /// The process that started it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub async fn client(&self) -> Client {
        let config = Kubeconfig::read_from(&self.kubeconfig).expect("a kubeconfig");
        let config =
            kube::Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await.expect("a config");
        Client::try_from(config).expect("a client")
    }
}

/// Definitions and plans.
pub async fn define(client: &Client) {
    apply_crds(client).await.expect("the definitions apply");
    apply_yaml(client, PLANS).await.expect("the plans apply");
    apply_yaml(client, PAID_PLAN).await.expect("the plan applies");
    for size in SIZES {
        apply_yaml(client, &plan_of_size(size)).await.expect("the plan applies");
    }
}

pub async fn client() -> Client {
    static DEFINED: OnceCell<()> = OnceCell::const_new();
    install_crypto();
    let plane = tokio::task::spawn_blocking(control_plane).await.expect("the control plane starts");
    let client = plane.client().await;
    DEFINED.get_or_init(|| define(&client)).await;
    client
}

/// Runs kubectl in the checkout.
pub async fn kubectl(args: &[&str]) -> Output {
    let plane = control_plane();
    let mut command = tokio::process::Command::new(&plane.kubectl);
    command.arg("--kubeconfig").arg(&plane.kubeconfig).args(args).current_dir(ROOT);
    command.output().await.expect("kubectl runs")
}
