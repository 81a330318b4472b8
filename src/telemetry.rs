//! Logs and metrics.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

/// One label.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Label {
    /// Its value; the key is `kind`.
    pub kind: String,
}

impl From<&str> for Label {
    fn from(kind: &str) -> Self {
        Self { kind: kind.into() }
    }
}

/// All metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Reconciles.
    pub reconciles: Counter<u64, AtomicU64>,
    /// Writes to the Kubernetes API, Events apart, by kind.
    pub api_writes: Family<Label, Counter>,
    /// API-key Secrets read one by one.
    pub secret_reads: Counter<u64, AtomicU64>,
    /// Events written.
    pub events: Counter<u64, AtomicU64>,
    /// Signups accepted.
    pub signups: Counter<u64, AtomicU64>,
    /// Bulk resyncs, by kind and outcome.
    pub resyncs: Family<Label, Counter>,
    /// Steps that failed, by reason.
    pub step_failures: Family<Label, Counter>,
    /// Tenants whose provisioning failed for good, by step.
    pub provisioning_failures: Family<Label, Counter>,
    /// Seconds from payment to Active.
    pub provisioning_duration: Histogram,
    /// Stripe events taken, by what was done with them.
    pub webhooks: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            reconciles: Counter::default(),
            api_writes: Family::default(),
            secret_reads: Counter::default(),
            events: Counter::default(),
            signups: Counter::default(),
            resyncs: Family::default(),
            step_failures: Family::default(),
            provisioning_failures: Family::default(),
            provisioning_duration: Histogram::new([0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0]),
            webhooks: Family::default(),
            registry: Registry::default(),
        };
        registry.register("reconciles", "Reconciles", metrics.reconciles.clone());
        registry.register(
            "kubernetes_writes",
            "Writes to the Kubernetes API, Events apart",
            metrics.api_writes.clone(),
        );
        registry.register("kubernetes_secret_reads", "API-key Secrets read one by one", metrics.secret_reads.clone());
        registry.register("kubernetes_events", "Events written", metrics.events.clone());
        registry.register("onboarding_signups", "Signups accepted", metrics.signups.clone());
        registry.register("resyncs", "Bulk resyncs, by kind and outcome", metrics.resyncs.clone());
        registry.register("step_failures", "Steps that failed, by reason", metrics.step_failures.clone());
        registry.register(
            "onboarding_provisioning_failures",
            "Tenants whose provisioning failed for good, by step",
            metrics.provisioning_failures.clone(),
        );
        registry.register(
            "onboarding_provisioning_duration_seconds",
            "From payment to Active",
            metrics.provisioning_duration.clone(),
        );
        registry.register(
            "stripe_webhooks",
            "Stripe events taken, by what was done with them",
            metrics.webhooks.clone(),
        );
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// The `OpenMetrics` text.
    pub fn encode(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}

/// The content type of [`Metrics::encode`].
pub const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Logs to standard error or to a file, filtered by `RUST_LOG`; as JSON where `LOG_FORMAT=json`.
pub fn init_logs(file: Option<std::fs::File>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,tenant_operator=info"));
    let plain = file.is_some();
    let writer = match file {
        Some(file) => BoxMakeWriter::new(std::sync::Mutex::new(file)),
        None => BoxMakeWriter::new(std::io::stderr),
    };
    let colour = !plain && std::io::IsTerminal::is_terminal(&std::io::stderr());
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colour);
    let json = std::env::var("LOG_FORMAT").is_ok_and(|f| f == "json");
    // An error says only that it was done before.
    let _ = if json { logs.json().try_init() } else { logs.try_init() };
}
