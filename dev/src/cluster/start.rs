//! Starting and stopping etcd and kube-apiserver on loopback.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;
use tokio::process::Command;

use super::Binaries;
use crate::certificate::SelfSigned;
use crate::process::Process;

/// The Service `kubernetes`, the first of the range.
const SERVICE_IP: &str = "10.96.0.1";
const START_LIMIT: Duration = Duration::from_mins(2);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running control plane.
#[derive(Debug)]
pub struct Cluster {
    etcd: Process,
    apiserver: Process,
    /// A kubeconfig of a cluster admin.
    pub kubeconfig: PathBuf,
    /// kubectl, if it is beside the servers.
    pub kubectl: Option<PathBuf>,
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The addresses and settings of a control plane.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// The address of the API server; loopback unless pods are to reach it.
    pub address: IpAddr,
    /// More arguments of kube-apiserver.
    pub apiserver_args: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        // Nothing runs on a cluster without nodes that would renew this lease's address.
        let apiserver_args = vec!["--endpoint-reconciler-type=none".into()];
        Self { address: Ipv4Addr::LOCALHOST.into(), apiserver_args }
    }
}

impl Cluster {
    /// Starts both with their data in `folder`, and waits until they are ready.
    pub async fn start(binaries: &Binaries, folder: &Path) -> anyhow::Result<Self> {
        Self::start_with(binaries, folder, &ClusterOptions::default()).await
    }

    /// The same with options. The certificate and key of the API server, which are those of its service accounts as
    /// well, are `apiserver.crt` and `apiserver.key` in the folder.
    pub async fn start_with(binaries: &Binaries, folder: &Path, options: &ClusterOptions) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (client, peer, port) = (free_port()?, free_port()?, free_port()?);
        let etcd_url = format!("http://127.0.0.1:{client}");
        let etcd = Process::start(
            "etcd",
            Command::new(&binaries.etcd).args([
                format!("--data-dir={}", folder.join("etcd").display()),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peer}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peer}"),
                // The data is as private and short-lived as the cluster.
                "--unsafe-no-fsync".into(),
                "--log-level=error".into(),
            ]),
            folder,
        )?;
        let files = Files::write(folder, options.address, port)?;
        let mut args = files.apiserver_args(&etcd_url, options.address, port);
        args.extend(options.apiserver_args.iter().cloned());
        let apiserver = Process::start("kube-apiserver", Command::new(&binaries.apiserver).args(args), folder)?;
        let mut cluster =
            Self { etcd, apiserver, kubeconfig: files.kubeconfig.clone(), kubectl: binaries.kubectl.clone() };
        if let Err(error) = cluster.wait_ready(&files, options.address, port).await {
            cluster.stop().await;
            return Err(error);
        }
        Ok(cluster)
    }

    async fn wait_ready(&mut self, files: &Files, address: IpAddr, port: u16) -> anyhow::Result<()> {
        let http = reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(files.cert.as_bytes())?])
            .timeout(Duration::from_secs(5))
            .build()?;
        let ready = || http.get(format!("https://{address}:{port}/readyz")).bearer_auth(&files.token);
        self.apiserver.ready(ready, START_LIMIT).await
    }

    /// The process ids of etcd and kube-apiserver; 0 for one that has ended.
    pub fn pids(&self) -> (u32, u32) {
        (self.etcd.id(), self.apiserver.id())
    }

    /// Stops the apiserver, then etcd, and waits for both.
    pub async fn stop(mut self) {
        self.apiserver.stop(STOP_LIMIT).await;
        self.etcd.stop(STOP_LIMIT).await;
    }
}

struct Files {
    cert: String,
    cert_path: PathBuf,
    key_path: PathBuf,
    public_path: PathBuf,
    token: String,
    tokens: PathBuf,
    kubeconfig: PathBuf,
}

impl Files {
    fn write(folder: &Path, address: IpAddr, port: u16) -> anyhow::Result<Self> {
        let names = [&address.to_string(), SERVICE_IP, "localhost", "kubernetes.default.svc"];
        let own = SelfSigned::new(&names).context("making a certificate")?;
        let token = hex::encode(rand::random::<[u8; 16]>());
        let path = |name: &str| folder.join(name);
        let files = Self {
            cert: own.certificate_pem(),
            cert_path: path("apiserver.crt"),
            key_path: path("apiserver.key"),
            public_path: path("service-account.pub"),
            tokens: path("tokens.csv"),
            kubeconfig: path("kubeconfig"),
            token,
        };
        std::fs::write(&files.cert_path, &files.cert)?;
        private(&files.key_path, &own.key_pem())?;
        std::fs::write(&files.public_path, own.public_key_pem())?;
        private(&files.tokens, &format!("{},admin,admin,system:masters\n", files.token))?;
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "dev",
            "clusters": [{"name": "dev", "cluster": {"server": format!("https://{address}:{port}"), "certificate-authority": files.cert_path}}],
            "users": [{"name": "admin", "user": {"token": files.token}}],
            "contexts": [{"name": "dev", "context": {"cluster": "dev", "user": "admin"}}],
        });
        private(&files.kubeconfig, &serde_json::to_string_pretty(&config)?)?;
        Ok(files)
    }

    fn apiserver_args(&self, etcd_url: &str, address: IpAddr, port: u16) -> Vec<String> {
        vec![
            format!("--etcd-servers={etcd_url}"),
            format!("--secure-port={port}"),
            format!("--bind-address={address}"),
            format!("--advertise-address={address}"),
            format!("--tls-cert-file={}", self.cert_path.display()),
            format!("--tls-private-key-file={}", self.key_path.display()),
            format!("--service-account-key-file={}", self.public_path.display()),
            format!("--service-account-signing-key-file={}", self.key_path.display()),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--token-auth-file={}", self.tokens.display()),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
        ]
    }
}

/// Writes a file that only its owner can read.
fn private(path: &Path, text: &str) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())
}
