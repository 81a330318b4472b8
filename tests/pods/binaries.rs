//! The programs of a node, built from source once into the user's cache folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use tenant_operator_dev::cluster::{cache_folder, linker_flags};

use crate::{ROOT, step};

const KUBERNETES: [&str; 5] = [
    "helm.sh/helm/v4/cmd/helm",
    "k8s.io/kubernetes/cmd/kube-controller-manager",
    "k8s.io/kubernetes/cmd/kube-proxy",
    "k8s.io/kubernetes/cmd/kube-scheduler",
    "k8s.io/kubernetes/cmd/kubelet",
];
const DNS: [&str; 1] = ["github.com/coredns/coredns"];

/// Builds missing binaries, and returns their folder.
pub fn build() -> PathBuf {
    let sums = ["node", "dns"].map(|module| std::fs::read(format!("{ROOT}/cluster/{module}/go.sum")).expect("go.sum"));
    let done = cache_folder("node", &sums.concat()).expect("a place for them");
    if !done.is_dir() {
        let work = done.with_extension(format!("build-{}", std::process::id()));
        step("building helm, kubelet and the rest of a node from source, once: about 15 minutes on 2 cores ...");
        install("node", &KUBERNETES, &work);
        install("dns", &DNS, &work);
        std::fs::rename(&work, &done).expect("the folder can be moved");
    }
    done
}

fn install(module: &str, packages: &[&str], folder: &Path) {
    let flags = linker_flags(&std::fs::read_to_string(format!("{ROOT}/cluster/node/go.mod")).expect("go.mod"));
    for package in packages {
        step(&format!("  {package}"));
        let done = Command::new("go")
            .args(["install", "-trimpath", "-ldflags", &flags, package])
            .current_dir(format!("{ROOT}/cluster/{module}"))
            .envs([("CGO_ENABLED", "0"), ("GOWORK", "off")])
            .env("GOBIN", folder)
            .status()
            .expect("go runs");
        assert!(done.success(), "building {package} failed");
    }
}

/// Builds kube-score; a few seconds, once Go has it in its cache.
pub fn kube_score() -> PathBuf {
    let binary = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kube-score");
    let done = Command::new("go")
        .args(["build", "-o"])
        .arg(&binary)
        .arg("github.com/zegl/kube-score/cmd/kube-score")
        .current_dir(format!("{ROOT}/cluster/score"))
        .envs([("CGO_ENABLED", "0"), ("GOWORK", "off")])
        .status()
        .expect("go runs");
    assert!(done.success(), "building kube-score failed");
    binary
}

/// Definitions of other projects that the chart makes objects of, where the user has them.
const FOREIGN: [(&str, &str); 3] = [
    ("sigs.k8s.io/gateway-api", "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    (
        "github.com/prometheus-operator/prometheus-operator",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ),
];

/// Fetches those definitions, in the versions that `cluster/foreign` pins.
pub fn foreign_definitions() -> Vec<PathBuf> {
    FOREIGN
        .iter()
        .map(|(module, path)| {
            let go = |args: &[&str]| {
                let mut command = Command::new("go");
                command.args(args).arg(module).current_dir(format!("{ROOT}/cluster/foreign")).env("GOWORK", "off");
                let output = command.output().expect("go runs");
                assert!(output.status.success(), "{module}: {}", String::from_utf8_lossy(&output.stderr));
                String::from_utf8(output.stdout).expect("text")
            };
            go(&["mod", "download"]);
            let file = Path::new(go(&["list", "-m", "-f", "{{.Dir}}"]).trim()).join(path);
            assert!(file.is_file(), "{}", file.display());
            file
        })
        .collect()
}
