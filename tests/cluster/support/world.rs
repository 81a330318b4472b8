//! A test's own world: a namespace, stand-ins, and the processes that run in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tenant_operator::operator_keys::{IdentityKey, ledger_key};
use tenant_operator_sandbox::Sandbox;

use super::control_plane::{ControlPlane, client, control_plane, define};
use super::ledger::LedgerOfWorld;
use super::{Process, folder, install_crypto, providers};

/// A test's own world.
pub struct World {
    pub client: Client,
    pub namespace: String,
    pub sandbox: Sandbox,
    pub http: reqwest::Client,
    pub web: String,
    pub web_metrics: String,
    pub controllers: Vec<Process>,
    pub(super) web_processes: Vec<Process>,
    pub(super) ledger: LedgerOfWorld,
    pub(super) args: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    pub(super) kubeconfig: PathBuf,
    /// A control plane of its own, where what happens to it would hurt others.
    pub(super) plane: Option<ControlPlane>,
}

impl World {
    /// A namespace, a sandbox and a controller with short waits.
    pub async fn start(name: &str) -> Self {
        let mut world = Self::without_controller(name).await;
        world.start_controller();
        world
    }

    /// With an Active tenant "acme" that pays by Stripe.
    pub async fn with_active(name: &str) -> Self {
        let world = Self::start(name).await;
        world.create_paying("acme", "paid").await;
        world
    }

    pub async fn without_controller(name: &str) -> Self {
        let client = client().await;
        Self::in_cluster(name, client, control_plane().kubeconfig.clone(), None).await
    }

    /// With a controller that got these arguments, web, and a portal to pay in.
    pub async fn with_portal(name: &str, args: &[&str]) -> Self {
        let mut world = Self::without_controller(name).await;
        world.controller_args(args);
        world.start_controller();
        world.environment("STRIPE_PORTAL_KEY", "rk_test_portal");
        world.start_web(&[]);
        world.web_is_ready().await;
        world
    }

    /// Waits until web would get requests through its Service.
    pub async fn web_is_ready(&self) {
        let ready = async || {
            let answer = self.http.get(format!("{}/readyz", self.web)).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        };
        self.until("web is ready", ready).await;
    }

    /// With a portal, and an Active tenant "acme" on the plan "middle".
    pub async fn on_middle_plan(name: &str, args: &[&str]) -> Self {
        let world = Self::with_portal(name, args).await;
        world.create_paying("acme", "middle").await;
        world
    }

    /// With a control plane of its own.
    pub async fn apart(name: &str) -> Self {
        install_crypto();
        let there = folder(name);
        let plane =
            tokio::task::spawn_blocking(move || ControlPlane::start(&there)).await.expect("the control plane starts");
        let client = plane.client().await;
        define(&client).await;
        let kubeconfig = plane.kubeconfig.clone();
        Self::in_cluster(name, client, kubeconfig, Some(plane)).await
    }

    /// The process that started the control plane of this world's own, and the folder of its data.
    pub fn own_plane(&self) -> (u32, PathBuf) {
        let plane = self.plane.as_ref().expect("a control plane of its own");
        (plane.id(), plane.kubeconfig.parent().expect("a folder").to_owned())
    }

    /// The kubeconfig of the processes that start from now on.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Lets the processes that start from now on use this kubeconfig; answers the one before.
    pub fn use_kubeconfig(&mut self, path: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.kubeconfig, path)
    }

    /// Runs kubectl.
    pub fn kubectl(&self, args: &[&str]) -> Output {
        let plane = self.plane.as_ref().unwrap_or_else(|| control_plane());
        let mut command = Command::new(&plane.kubectl);
        tokio::task::block_in_place(|| command.arg("--kubeconfig").arg(&self.kubeconfig).args(args).output())
            .expect("kubectl runs")
    }

    async fn in_cluster(name: &str, client: Client, kubeconfig: PathBuf, plane: Option<ControlPlane>) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let object = Namespace {
            metadata: ObjectMeta { name: Some(namespace.clone()), ..ObjectMeta::default() },
            ..Namespace::default()
        };
        match Api::all(client.clone()).create(&PostParams::default(), &object).await {
            // The client sends a create again whose answer was lost; the name is this test's alone.
            Err(kube::Error::Api(e)) if e.code == 409 => {}
            made => drop(made.expect("a namespace")),
        }
        // Made by the first controller; tests of web alone have none.
        IdentityKey::load(&client, &namespace).await.expect("an identity key");
        let ledger = LedgerOfWorld::of(&namespace, ledger_key(&client, &namespace).await.expect("a ledger's key"));
        let sandbox = providers::start().await;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .expect("a client");
        let args = [
            "--retry-waits=1,1,1",
            "--notice-retry=1",
            "--resync=1",
            "--full-resync=3",
            "--lease-duration=5",
            "--attempt-limit=20",
            "--upload-limit=0",
            // Tests of other things need not read mail; those of this turn it on.
            "--email-verification=off",
        ];
        Self {
            client,
            namespace,
            sandbox,
            http,
            web: String::new(),
            web_metrics: String::new(),
            controllers: Vec::new(),
            web_processes: Vec::new(),
            ledger,
            args: args.map(String::from).to_vec(),
            environment: Vec::new(),
            kubeconfig,
            plane,
        }
    }
}
