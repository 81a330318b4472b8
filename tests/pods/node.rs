//! A cluster of one node that runs real pods: kubelet, containerd, kube-proxy and DNS beside a real control plane.
//! Everything listens on the node's own bridge or on loopback.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tenant_operator_dev::cluster::{Binaries, Cluster, ClusterOptions};

use crate::ROOT;

/// The bridge's address, and so the node's.
const NODE: &str = "10.88.0.1";
const BRIDGE: &str = "tenop0";
/// What a node needs beside the programs that are built: of Debian's packages containerd, runc,
/// containernetworking-plugins, nftables, iptables and iproute2.
const TOOLS: [&str; 5] = ["containerd", "ctr", "runc", "nft", "ip"];
const CNI: &str = "/usr/lib/cni/bridge";
const PACKAGES: &str = "apt-get install containerd runc containernetworking-plugins nftables iptables iproute2";
/// The time limit of each command, in seconds. Without it, a command that hangs blocks the whole run and shows no
/// error.
const COMMAND_LIMIT: &str = "400";

/// A running node.
pub struct Node {
    pub folder: PathBuf,
    pub kubeconfig: PathBuf,
    binaries: PathBuf,
    kubectl: PathBuf,
    cluster: Option<Cluster>,
    daemons: Vec<Child>,
}

/// Why there can be no node on this machine, if so.
pub fn why_not() -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &str| std::env::split_paths(&path).any(|dir| dir.join(tool).is_file());
    let missing: Vec<_> = TOOLS.into_iter().filter(|tool| !there(tool)).collect();
    if !rustix::process::geteuid().is_root() {
        return Some("a node needs root".into());
    }
    if !missing.is_empty() || !Path::new(CNI).is_file() {
        return Some(format!("a node needs {} and {CNI}: {PACKAGES}", TOOLS.join(", ")));
    }
    None
}

impl Node {
    /// Starts everything; `binaries` holds helm, kubelet and the rest of Kubernetes.
    pub async fn start(binaries: &Path, folder: &Path) -> Self {
        drop(std::fs::remove_dir_all(folder));
        std::fs::create_dir_all(folder.join("cni")).expect("a folder");
        bridge();
        let audit = folder.join("audit.log");
        std::fs::write(folder.join("audit.yaml"), AUDIT).expect("a file");
        let options = ClusterOptions {
            address: NODE.parse().expect("an address"),
            apiserver_args: vec![
                "--allow-privileged=true".into(),
                "--kubelet-preferred-address-types=InternalIP".into(),
                format!("--audit-policy-file={}", folder.join("audit.yaml").display()),
                format!("--audit-log-path={}", audit.display()),
            ],
        };
        let servers = Binaries::find().await.expect("etcd and kube-apiserver");
        let kubectl = servers.kubectl.clone().expect("kubectl beside them");
        let cluster = Cluster::start_with(&servers, folder, &options).await.expect("a control plane");
        let kubeconfig = cluster.kubeconfig.clone();
        let mut node = Self {
            folder: folder.into(),
            kubeconfig,
            binaries: binaries.into(),
            kubectl,
            cluster: Some(cluster),
            daemons: Vec::new(),
        };
        node.control_plane();
        node.containers();
        node.network();
        node.kubelet();
        node.wait("the node is ready", Duration::from_mins(3), |node| {
            let nodes = node.get(&["nodes"]);
            nodes["items"][0]["status"]["conditions"]
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        });
        for daemon in &mut node.daemons {
            let ended = daemon.try_wait().expect("its state");
            assert!(ended.is_none(), "a part of the node has ended: see the logs in {}", node.folder.display());
        }
        node
    }

    fn daemon(&mut self, program: &Path, args: &[String]) {
        let name = program.file_name().expect("a name").to_string_lossy().into_owned();
        let log = File::create(self.folder.join(format!("{name}.log"))).expect("a log");
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone().expect("a handle")).stderr(log);
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        self.daemons.push(command.spawn().unwrap_or_else(|e| panic!("{name}: {e}")));
    }

    fn built(&self, name: &str) -> PathBuf {
        self.binaries.join(name)
    }

    fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    fn control_plane(&mut self) {
        let kubeconfig = format!("--kubeconfig={}", self.kubeconfig.display());
        let common = [kubeconfig, "--leader-elect=false".into(), "--bind-address=127.0.0.1".into()];
        let mut args = common.to_vec();
        args.extend([
            format!("--service-account-private-key-file={}", self.path("apiserver.key")),
            format!("--root-ca-file={}", self.path("apiserver.crt")),
            "--controllers=*,-nodeipam".into(),
        ]);
        self.daemon(&self.built("kube-controller-manager"), &args);
        self.daemon(&self.built("kube-scheduler"), &common);
    }

    fn containers(&mut self) {
        std::fs::write(self.folder.join("cni/10-net.conflist"), CNI_CONFIG).expect("a file");
        let run = self.folder.display().to_string();
        std::fs::write(self.folder.join("containerd.toml"), CONTAINERD.replace("RUN", &run)).expect("a file");
        self.daemon(Path::new("containerd"), &["--config".into(), self.path("containerd.toml")]);
        let socket = self.folder.join("ctrd.sock");
        self.wait("containerd listens", Duration::from_mins(1), |_| socket.exists());
    }

    fn network(&mut self) {
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("forwarding");
        let kubeconfig = self.kubeconfig.display().to_string();
        let corefile = COREFILE.replace("NODE", NODE).replace("KUBECONFIG", &kubeconfig);
        std::fs::write(self.folder.join("Corefile"), corefile).expect("a file");
        self.daemon(&self.built("coredns"), &["-conf".into(), self.path("Corefile")]);
        let args = [
            format!("--kubeconfig={kubeconfig}"),
            "--proxy-mode=nftables".into(),
            // Without br_netfilter, a pod cannot reach a Service whose pod is on the same bridge otherwise.
            "--masquerade-all".into(),
            "--hostname-override=node".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--healthz-bind-address=127.0.0.1:{}", free_port()),
            format!("--metrics-bind-address=127.0.0.1:{}", free_port()),
        ];
        self.daemon(&self.built("kube-proxy"), &args);
    }

    fn kubelet(&mut self) {
        let run = self.folder.display().to_string();
        std::fs::write(self.folder.join("kubelet.yaml"), KUBELET.replace("RUN", &run).replace("NODE", NODE))
            .expect("a file");
        let args = [
            format!("--kubeconfig={}", self.kubeconfig.display()),
            format!("--config={}", self.path("kubelet.yaml")),
            format!("--root-dir={}", self.path("kubelet")),
            format!("--cert-dir={}", self.path("kubelet-pki")),
            format!("--node-ip={NODE}"),
            "--hostname-override=node".into(),
        ];
        self.daemon(&self.built("kubelet"), &args);
    }

    /// Loads a docker-archive.
    pub fn import(&self, archive: &Path) {
        let socket = self.path("ctrd.sock");
        let done = Command::new("ctr").args(["-a", &socket, "-n", "k8s.io", "images", "import"]).arg(archive).output();
        check("importing the image", &done.expect("ctr runs"));
    }

    /// Kills a container's first process.
    pub fn kill_container(&self, id: &str) {
        let socket = self.path("ctrd.sock");
        let done =
            Command::new("ctr").args(["-a", &socket, "-n", "k8s.io", "tasks", "kill", "-s", "SIGKILL", id]).output();
        check("killing the container", &done.expect("ctr runs"));
    }

    /// Runs kubectl, and answers what it did.
    pub fn try_kubectl(&self, args: &[&str]) -> Output {
        limited(&self.kubectl).arg("--kubeconfig").arg(&self.kubeconfig).args(args).output().expect("kubectl runs")
    }

    /// Runs kubectl, which must succeed.
    pub fn kubectl(&self, args: &[&str]) -> String {
        let done = self.try_kubectl(args);
        check(&format!("kubectl {}", args.join(" ")), &done);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Objects as JSON. Null if there are none.
    pub fn get(&self, args: &[&str]) -> Value {
        let args: Vec<_> = ["get", "-o", "json"].iter().chain(args).copied().collect();
        serde_json::from_slice(&self.try_kubectl(&args).stdout).unwrap_or(Value::Null)
    }

    /// Runs helm, and answers what it did.
    pub fn try_helm(&self, args: &[&str]) -> Output {
        let kubeconfig = self.kubeconfig.display().to_string();
        let home = self.path("helm");
        limited(&self.built("helm"))
            .args(args)
            .envs([("KUBECONFIG", &kubeconfig), ("HELM_CACHE_HOME", &home), ("HELM_DATA_HOME", &home)])
            .output()
            .expect("helm runs")
    }

    /// Runs helm, which must succeed.
    pub fn helm(&self, args: &[&str]) -> String {
        let done = self.try_helm(args);
        if !done.status.success() {
            eprintln!("{}", self.state());
        }
        check(&format!("helm {}", args.join(" ")), &done);
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Runs a user's commands, which must succeed, in a folder that has what the checkout has.
    pub fn shell(&self, script: &str, env: &[(&str, String)]) {
        for name in ["charts", "examples"] {
            drop(std::os::unix::fs::symlink(format!("{ROOT}/{name}"), self.folder.join(name)));
        }
        let folders = [Some(self.binaries.as_path()), self.kubectl.parent()];
        let folders: Vec<_> = folders.into_iter().flatten().map(|p| p.display().to_string()).collect();
        let path = format!("{}:{}", folders.join(":"), std::env::var("PATH").unwrap_or_default());
        // With -x, the error names the command that failed or did not end.
        let done = limited(Path::new("sh"))
            .args(["-euxc", script])
            .current_dir(&self.folder)
            .envs([("PATH", &path), ("KUBECONFIG", &self.kubeconfig.display().to_string())])
            .envs([("HELM_CACHE_HOME", self.path("helm")), ("HELM_DATA_HOME", self.path("helm"))])
            .envs(env.iter().map(|(name, value)| (*name, value)))
            .output()
            .expect("a shell");
        if !done.status.success() {
            eprintln!("{}", self.state());
        }
        check(script, &done);
    }

    /// Waits until something is so.
    pub fn wait(&self, what: &str, limit: Duration, so: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !so(self) {
            assert!(start.elapsed() < limit, "after {limit:?} it is still not so that {what}\n{}", self.state());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The output that helps most with a failure.
    fn state(&self) -> String {
        let look = |args: &[&str]| String::from_utf8_lossy(&self.try_kubectl(args).stdout).into_owned();
        let pods = look(&["describe", "pods", "-A"]);
        let events = look(&["get", "events", "-A", "--sort-by=.lastTimestamp"]);
        let events: Vec<_> = events.lines().rev().take(15).collect();
        let logs = look(&[
            "logs",
            "-n",
            "rag",
            "--all-containers",
            "--prefix",
            "--tail=8",
            "-l",
            "app.kubernetes.io/instance=rag",
        ]);
        format!("{pods}\n{}\n{logs}\nlogs of the node: {}", events.join("\n"), self.folder.display())
    }

    /// Ends everything that was started.
    pub async fn stop(mut self) {
        self.kill();
        if let Some(cluster) = self.cluster.take() {
            cluster.stop().await;
        }
    }

    /// Pods first, while there is still something that can take them away.
    fn kill(&mut self) {
        self.try_kubectl(&["delete", "deployments,statefulsets,jobs,pods", "--all", "-A", "--wait=false"]);
        let start = Instant::now();
        while self.get(&["pods", "-A"])["items"].as_array().is_some_and(|pods| !pods.is_empty())
            && start.elapsed() < Duration::from_secs(40)
        {
            std::thread::sleep(Duration::from_millis(200));
        }
        let end = |mut daemon: Child| {
            drop(daemon.kill());
            drop(daemon.wait());
        };
        // The kubelet first, which would start again what is ended next.
        self.daemons.pop().map(end);
        self.end_containers();
        self.daemons.drain(..).rev().for_each(end);
        drop(Command::new(self.built("kube-proxy")).args(["--cleanup", "--proxy-mode=nftables"]).output());
        drop(Command::new("ip").args(["link", "delete", BRIDGE]).output());
    }
}

impl Node {
    /// Containers that are still there, what keeps them, and the file systems that they saw.
    fn end_containers(&self) {
        let socket = self.path("ctrd.sock");
        let ctr = |args: &[&str]| Command::new("ctr").args(["-a", &socket, "-n", "k8s.io"]).args(args).output();
        if let Ok(tasks) = ctr(&["tasks", "ls", "-q"]) {
            for task in String::from_utf8_lossy(&tasks.stdout).lines() {
                drop(ctr(&["tasks", "kill", "-a", "-s", "SIGKILL", task]));
                drop(ctr(&["tasks", "delete", "-f", task]));
            }
        }
        let folder = self.folder.display().to_string();
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
        let ours = mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).filter(|at| at.starts_with(&folder));
        for at in ours {
            drop(Command::new("umount").args(["-l", at]).output());
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.daemons.is_empty() {
            self.kill();
        }
    }
}

/// A command that is ended after `COMMAND_LIMIT`, with exit code 124.
fn limited(program: &Path) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", COMMAND_LIMIT]).arg(program);
    command
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address").port()
}

fn check(what: &str, done: &Output) {
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{what}: {}\n{out}{err}", done.status);
}

/// The node's address must be there before the API server listens on it.
fn bridge() {
    let ip = |args: &[&str]| Command::new("ip").args(args).output().expect("ip runs").status.success();
    if !ip(&["link", "show", BRIDGE]) {
        assert!(ip(&["link", "add", BRIDGE, "type", "bridge"]), "no bridge can be made here");
    }
    ip(&["addr", "add", &format!("{NODE}/16"), "dev", BRIDGE]);
    assert!(ip(&["link", "set", BRIDGE, "up"]), "the bridge does not come up");
}

/// The audit policy: logs which account used which right, for the comparison with the rights that it has.
const AUDIT: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: Metadata
    userGroups: [system:serviceaccounts:rag]
  - level: None
";

const CNI_CONFIG: &str = r#"{
  "cniVersion": "0.4.0", "name": "node", "plugins": [
    {"type": "bridge", "bridge": "tenop0", "isGateway": true, "ipMasq": false,
     "ipam": {"type": "host-local", "dataDir": "/run/tenant-operator-cni", "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}]
}"#;

const CONTAINERD: &str = r#"
version = 2
root = "RUN/ctrd/root"
state = "RUN/ctrd/state"
[grpc]
  address = "RUN/ctrd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "local/pause:1"
  # Without it, runc cannot lower the score in a container and breaks off.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "RUN/cni"
"#;

const COREFILE: &str = "
.:53 {
  bind NODE
  errors
  kubernetes cluster.local {
    kubeconfig KUBECONFIG
  }
}
";

const KUBELET: &str = r#"
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
containerRuntimeEndpoint: unix://RUN/ctrd.sock
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
address: NODE
healthzPort: 0
resolvConf: /etc/resolv.conf
evictionHard: {"memory.available": "50Mi", "nodefs.available": "1%"}
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
clusterDNS: [NODE]
clusterDomain: cluster.local
"#;
