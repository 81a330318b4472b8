//! A restore of etcd from a backup, while the controller keeps running.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use serde_json::json;
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;

use crate::support::{Process, World};

/// How long a server may take to end.
const LIMIT: Duration = Duration::from_secs(30);

/// A server of the control plane: its process, and how it was started.
struct Server {
    pid: u32,
    command: Vec<String>,
    running: Option<Process>,
}

impl Server {
    /// A child of that process whose program has this name.
    fn find(parent: u32, program: &str) -> Self {
        let children = std::fs::read_dir(format!("/proc/{parent}/task")).expect("its threads").flatten();
        let children = children.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
        let pids: Vec<u32> = children
            .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
            .collect();
        let command = |pid: u32| -> Vec<String> {
            let text = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            text.split(|byte| *byte == 0)
                .filter(|part| !part.is_empty())
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect()
        };
        let is_it = |command: &[String]| {
            command.first().and_then(|first| Path::new(first).file_name()?.to_str()).is_some_and(|name| name == program)
        };
        let found = pids.into_iter().map(|pid| (pid, command(pid))).find(|(_, command)| is_it(command));
        let (pid, command) = found.unwrap_or_else(|| panic!("{program} is no child of {parent}"));
        Self { pid, command, running: None }
    }

    /// Ends it, and waits until it has ended. One that another process started stays as a zombie until that one ends.
    async fn stop(&mut self, signal: &str) {
        if let Some(process) = &mut self.running {
            process.signal(signal);
            process.exit_code().await;
            self.running = None;
            return;
        }
        let killed = Command::new("kill").args(["-s", signal, &self.pid.to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
        let begun = Instant::now();
        let runs = |pid: u32| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
        };
        while runs(self.pid) {
            assert!(begun.elapsed() < LIMIT, "it does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn start(&mut self) {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.running = Some(Process::from(command.spawn().expect("it starts")));
    }
}

/// The control plane of a world's own.
struct Plane {
    etcd: Server,
    apiserver: Server,
    data: PathBuf,
}

impl Plane {
    fn of(world: &World) -> Self {
        let (parent, folder) = world.own_plane();
        Self {
            etcd: Server::find(parent, "etcd"),
            apiserver: Server::find(parent, "kube-apiserver"),
            data: folder.join("etcd"),
        }
    }

    /// Stops both servers, does something to etcd's data, and starts both again, as Kubernetes' manual for a restore
    /// has it.
    async fn while_stopped(&mut self, world: &World, change: impl FnOnce(&Path)) {
        // It holds nothing of its own, and asked to end it waits for the watches to end.
        self.apiserver.stop("KILL").await;
        self.etcd.stop("TERM").await;
        change(&self.data);
        self.etcd.start();
        self.apiserver.start();
        world
            .until("the API server is back", async || {
                world.client.apiserver_version().await.is_ok() && world.tenants().get_opt("any").await.is_ok()
            })
            .await;
    }
}

fn copy(from: &Path, to: &Path) {
    drop(std::fs::remove_dir_all(to));
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.is_ok_and(|status| status.success()));
}

async fn generation(world: &World, name: &str, generation: u32) {
    let wish = Patch::Merge(json!({"spec": {"apiKeyGeneration": generation}}));
    world.tenants().patch(name, &PatchParams::default(), &wish).await.expect("patched");
    world.wait(name, "given another key", |s| s.api_key_generation == Some(generation)).await;
}

/// The backup is a copy of etcd's data while etcd is stopped: revisions go back, as with `etcdutl snapshot restore`
/// without `--bump-revision`.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_of_etcd_under_a_running_controller_leaves_no_tenant_unseen() {
    let mut world = World::apart("etcd-restore").await;
    // The controller keeps its lease while the API server is away.
    world.controller_args(&["--lease-duration=120"]);
    world.start_controller();
    world.start_web(&[]);
    for name in ["changed", "kept"] {
        world.create(name, "enterprise", BillingMode::Manual).await;
    }
    for name in ["changed", "kept"] {
        world.wait_true(name, "WelcomeEmailSent").await;
    }
    let mut plane = Plane::of(&world);
    let backup = plane.data.with_file_name("etcd-backup");
    plane.while_stopped(&world, |data| copy(data, &backup)).await;

    // What happens after the backup: the controller sees later versions of all.
    generation(&world, "changed", 2).await;
    generation(&world, "changed", 3).await;
    world.create("later", "enterprise", BillingMode::Manual).await;
    world.wait_true("later", "WelcomeEmailSent").await;
    let version =
        |t: &tenant_operator::api::Tenant| t.metadata.resource_version.clone().and_then(|v| v.parse::<u64>().ok());
    let newest = version(&world.tenants().get("later").await.expect("there")).expect("a version");

    plane.while_stopped(&world, |data| copy(&backup, data)).await;
    assert!(world.tenants().get_opt("later").await.expect("read").is_none(), "it came after the backup");
    let restored = world.tenants().get("changed").await.expect("there");
    assert_eq!(restored.spec.api_key_generation, 1, "etcd is as it was");
    assert!(version(&restored).expect("a version") < newest);

    // Changes and new tenants are seen although their versions are lower than those before.
    generation(&world, "changed", 2).await;
    generation(&world, "kept", 2).await;
    let made = world.create("new", "enterprise", BillingMode::Manual).await;
    world.wait_phase("new", Phase::Active).await;
    world.wait_secret("new-api-key", |_| true).await;
    let key = world.api_key("new").await;
    let usage = || world.http.get(format!("{}/v1/usage", world.web)).bearer_auth(&key).send();
    world.until("web knows the new tenant", async || usage().await.is_ok_and(|answer| answer.status() == 200)).await;
    let made = version(&made).expect("a version");
    assert!(made < newest, "with {made} after {newest}, this shows nothing");
    assert!(world.controllers[0].runs() && world.first_web().runs(), "the same processes");
}
