//! Metrics for Prometheus.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

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
    /// Writes to the Kubernetes API, except Events, by kind.
    pub api_writes: Family<Label, Counter>,
    /// API-key Secrets read one by one.
    pub secret_reads: Counter<u64, AtomicU64>,
    /// Events written.
    pub events: Counter<u64, AtomicU64>,
    /// Signups accepted.
    pub signups: Counter<u64, AtomicU64>,
    /// Activation events, by event, outcome and source.
    pub activation: Family<ActivationLabels, Counter>,
    /// Events that clients reported and the server has not seen, by event.
    pub activation_unconfirmed: Family<Label, Counter>,
    /// Bulk resyncs, by kind and outcome.
    pub resyncs: Family<Label, Counter>,
    /// Steps that failed, by reason.
    pub step_failures: Family<Label, Counter>,
    /// Tenants whose provisioning failed for good, by step.
    pub provisioning_failures: Family<Label, Counter>,
    /// Seconds from payment to Active.
    pub provisioning_duration: Histogram,
    /// Stripe events accepted, by what was done with them.
    pub webhooks: Family<Label, Counter>,
    /// Seconds from an event at Stripe until web accepted it.
    pub webhook_latency: Histogram,
    /// Questions to the tenant API, by outcome.
    pub queries: Family<Label, Counter>,
    /// Documents stored through the tenant API.
    pub documents: Counter<u64, AtomicU64>,
    /// Seconds of a reconcile.
    pub reconcile_duration: Histogram,
    /// 1 while this controller leads.
    pub leader: Gauge,
    /// 1 while web takes all its clients for one.
    pub clients_hidden: Gauge,
    /// Seconds since Kubernetes last sent web what it serves with.
    pub watch_age: Family<Label, Gauge>,
    /// Seconds by which this machine's clock is ahead of the API server's.
    pub clock_skew: Gauge,
    /// Tenants that wait for a reconcile, by priority.
    pub queue_depth: Family<Label, Gauge>,
    /// Calls to providers, by provider and outcome.
    pub provider_calls: Family<ProviderLabels, Counter>,
    /// 1 while a provider is down and is not called.
    pub breaker_open: Family<ProviderLabel, Gauge>,
    /// 1 while calls to a provider are refused because it is not the account or index that the tenants are in.
    pub pin_mismatch: Family<ProviderLabel, Gauge>,
    /// Tenants whose suspension, failure, closing or erasure is held because too many would meet it at once, by what is
    /// held.
    pub held_tenants: Family<Label, Gauge>,
    /// Customers whose e-mail about their usage is held.
    pub held_usage_mails: Gauge,
    /// Paid subscriptions at Stripe that belong to no Tenant.
    pub orphaned_subscriptions: Gauge,
    /// Active tenants for which Stripe bills another price than their plan's.
    pub other_prices: Gauge,
    /// Usage events that were sent to Stripe, by whether Stripe had them before.
    pub usage_events: Family<OutcomeLabel, Counter>,
    /// Tenants whose usage is not sent to Stripe, by reason.
    pub usage_not_billed: Family<Label, Gauge>,
    /// Usage events that Stripe took and found wrong later, by its code.
    pub usage_errors: Family<Label, Counter>,
    /// Tenants for which Stripe bills more than one subscription.
    pub surplus_subscriptions: Gauge,
    /// Namespaces of tenants at the vector store that belong to no Tenant.
    pub unowned_namespaces: Gauge,
    /// Payments that customers dispute and that can still be answered.
    pub open_disputes: Gauge,
    /// Commands to the ledger, by action and outcome.
    pub ledger_commands: Family<CommandLabels, Counter>,
    /// Operations that are reserved, and neither settled nor voided.
    pub ledger_pending: Gauge,
    /// When the ledger began again that has lost what it counted before, in Unix seconds; 0 if it lost nothing.
    pub ledger_lost: Gauge,
    /// 1 while what was counted before the ledger began is not counted again.
    pub ledger_recounting: Gauge,
    /// When the last snapshot of the ledger was taken, in Unix seconds; 0 before the first.
    pub ledger_snapshot: Gauge,
    /// How often a snapshot is taken, in seconds; 0 if none is.
    pub ledger_snapshot_interval: Gauge,
    /// 1 while the ledger's database answers.
    pub ledger_ready: Gauge,
    /// Entries of web's journal that the ledger does not have yet.
    pub ledger_journal_entries: Gauge,
    /// Entries of web's journal that the ledger refuses for good.
    pub ledger_journal_refused: Gauge,
    /// What is free on the volume of the ledger's folder, in bytes.
    pub ledger_volume_free: Gauge,
    /// The size of that volume, in bytes.
    pub ledger_volume_size: Gauge,
    /// Lines of the ledger that the events store lacks, counted up to 100,000.
    pub ledger_events_lag_lines: Gauge,
    /// For how long the events store lacks lines or cannot be fed, in seconds.
    pub ledger_events_lag_seconds: Gauge,
    /// Attempts to feed the events store that failed.
    pub ledger_events_failures: Counter,
    /// Sums of the events store that differ from the ledger's.
    pub ledger_events_differences: Gauge,
    /// Requests and endings that found the ledger away, by what became of them.
    pub ledger_unavailable: Family<OutcomeLabel, Counter>,
}

/// A command to the ledger and how it ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CommandLabels {
    /// reserve, checkpoint, settle, recount, void or release.
    pub action: &'static str,
    /// done, refused or failed.
    pub outcome: &'static str,
}

/// What became of something.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// Of what found the ledger away: served, refused, kept or unkept. Of usage events: new or before.
    pub outcome: &'static str,
}

/// An event on a customer's way.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ActivationLabels {
    /// The event, such as `sample_query`.
    pub event: String,
    /// attempt, success or failure.
    pub outcome: &'static str,
    /// signup, invitation or manifest.
    pub origin: &'static str,
    /// server or client.
    pub source: &'static str,
}

/// A provider.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ProviderLabel {
    /// The provider.
    pub provider: &'static str,
}

/// A provider and how its calls ended.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ProviderLabels {
    /// The provider.
    pub provider: &'static str,
    /// ok or failed.
    pub outcome: &'static str,
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
            activation: Family::default(),
            activation_unconfirmed: Family::default(),
            resyncs: Family::default(),
            step_failures: Family::default(),
            provisioning_failures: Family::default(),
            provisioning_duration: Histogram::new([0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0]),
            webhooks: Family::default(),
            queries: Family::default(),
            documents: Counter::default(),
            webhook_latency: Histogram::new([0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0]),
            reconcile_duration: Histogram::new([0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0]),
            leader: Gauge::default(),
            clients_hidden: Gauge::default(),
            watch_age: Family::default(),
            clock_skew: Gauge::default(),
            queue_depth: Family::default(),
            provider_calls: Family::default(),
            breaker_open: Family::default(),
            pin_mismatch: Family::default(),
            held_tenants: Family::default(),
            held_usage_mails: Gauge::default(),
            orphaned_subscriptions: Gauge::default(),
            other_prices: Gauge::default(),
            usage_events: Family::default(),
            usage_not_billed: Family::default(),
            usage_errors: Family::default(),
            surplus_subscriptions: Gauge::default(),
            unowned_namespaces: Gauge::default(),
            open_disputes: Gauge::default(),
            ledger_commands: Family::default(),
            ledger_pending: Gauge::default(),
            ledger_lost: Gauge::default(),
            ledger_recounting: Gauge::default(),
            ledger_snapshot: Gauge::default(),
            ledger_snapshot_interval: Gauge::default(),
            ledger_ready: Gauge::default(),
            ledger_journal_entries: Gauge::default(),
            ledger_journal_refused: Gauge::default(),
            ledger_volume_free: Gauge::default(),
            ledger_volume_size: Gauge::default(),
            ledger_events_lag_lines: Gauge::default(),
            ledger_events_lag_seconds: Gauge::default(),
            ledger_events_failures: Counter::default(),
            ledger_events_differences: Gauge::default(),
            ledger_unavailable: Family::default(),
            registry: Registry::default(),
        };
        registry.register("reconciles", "Reconciles", metrics.reconciles.clone());
        registry.register(
            "kubernetes_writes",
            "Writes to the Kubernetes API, except Events",
            metrics.api_writes.clone(),
        );
        registry.register("kubernetes_secret_reads", "API-key Secrets read one by one", metrics.secret_reads.clone());
        registry.register("kubernetes_events", "Events written", metrics.events.clone());
        registry.register(
            "activation_events",
            "Activation events, by event, outcome and source",
            metrics.activation.clone(),
        );
        registry.register(
            "activation_unconfirmed",
            "Events that a client reported and the server had not seen",
            metrics.activation_unconfirmed.clone(),
        );
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
            "Stripe events accepted, by what was done with them",
            metrics.webhooks.clone(),
        );
        metrics.register_health(&mut registry);
        Self { registry, ..metrics }
    }
}

impl Metrics {
    /// What tells how the operator itself is.
    fn register_health(&self, registry: &mut Registry) {
        let latency = "Seconds from an event at Stripe until web accepted it";
        registry.register("stripe_webhook_latency_seconds", latency, self.webhook_latency.clone());
        registry.register("rag_queries", "Questions to the tenant API, by outcome", self.queries.clone());
        registry.register("rag_documents", "Documents stored through the tenant API", self.documents.clone());
        registry.register("reconcile_duration_seconds", "Seconds of a reconcile", self.reconcile_duration.clone());
        registry.register("controller_leader", "1 while this controller leads", self.leader.clone());
        let hidden = "1 while every request to web comes from one private address with a forwarding header: CLIENT_IP_SOURCE is wrong";
        registry.register("web_clients_hidden", hidden, self.clients_hidden.clone());
        let age = "Seconds since Kubernetes last sent web Tenants (the oldest watch) or the public key of API keys";
        registry.register("web_watch_age_seconds", age, self.watch_age.clone());
        let skew = "Seconds by which this machine's clock is ahead of the API server's";
        registry.register("clock_skew_seconds", skew, self.clock_skew.clone());
        let depth = "Tenants that wait for a reconcile, by priority";
        registry.register("workqueue_depth", depth, self.queue_depth.clone());
        registry.register("provider_calls", "Calls to providers, by outcome", self.provider_calls.clone());
        let open = "1 while a provider is down and is not called";
        registry.register("provider_breaker_open", open, self.breaker_open.clone());
        let pins = "1 while calls are refused because the account or index is not the pinned one";
        registry.register("provider_pin_mismatch", pins, self.pin_mismatch.clone());
        let held = "Tenants whose suspension, failure, closing or erasure waits for a confirmation";
        registry.register("controller_held_tenants", held, self.held_tenants.clone());
        let mails = "Customers whose e-mail about their usage is held, because too many would get one";
        registry.register("controller_held_usage_mails", mails, self.held_usage_mails.clone());
        let orphans = "Paid subscriptions at Stripe that belong to no Tenant";
        registry.register("stripe_orphaned_subscriptions", orphans, self.orphaned_subscriptions.clone());
        let prices = "Active tenants for which Stripe bills another price than their plan's";
        registry.register("stripe_other_prices", prices, self.other_prices.clone());
        let usage = "Usage events that Stripe took, by whether it had them before";
        registry.register("stripe_usage_events", usage, self.usage_events.clone());
        let unbilled = "Tenants whose usage is not sent to Stripe, by reason";
        registry.register("stripe_usage_not_billed_tenants", unbilled, self.usage_not_billed.clone());
        let wrong = "Usage events that Stripe took and found wrong later, by its code";
        registry.register("stripe_usage_errors", wrong, self.usage_errors.clone());
        let surplus = "Tenants for which Stripe bills more than one subscription";
        registry.register("stripe_surplus_subscriptions", surplus, self.surplus_subscriptions.clone());
        let unowned = "Namespaces of tenants at Pinecone that belong to no Tenant";
        registry.register("pinecone_unowned_namespaces", unowned, self.unowned_namespaces.clone());
        let disputes = "Payments that customers dispute and that can still be answered";
        registry.register("stripe_open_disputes", disputes, self.open_disputes.clone());
        self.register_ledger(registry);
    }

    /// What tells how the events store is.
    fn register_events_store(&self, registry: &mut Registry) {
        let lines = "Lines of the ledger that the events store lacks, counted up to 100000";
        registry.register("ledger_events_lag_lines", lines, self.ledger_events_lag_lines.clone());
        let seconds = "For how long the events store lacks lines or cannot be fed, in seconds";
        registry.register("ledger_events_lag_seconds", seconds, self.ledger_events_lag_seconds.clone());
        let failures = "Attempts of the ledger to feed the events store that failed";
        registry.register("ledger_events_failures", failures, self.ledger_events_failures.clone());
        let differences =
            "Sums of a tenant, a closed hour and a unit that differ between the ledger and the events store";
        registry.register("ledger_events_differences", differences, self.ledger_events_differences.clone());
    }

    /// What tells how the ledger is. The controller and web, which have none, say 0.
    fn register_ledger(&self, registry: &mut Registry) {
        let commands = "Commands to the ledger, by action and outcome";
        registry.register("ledger_commands", commands, self.ledger_commands.clone());
        let pending = "Operations in the ledger that are reserved, and neither settled nor voided";
        registry.register("ledger_pending_operations", pending, self.ledger_pending.clone());
        let lost =
            "When the ledger began again that lost what it had counted, as the controller found; 0 if it lost nothing";
        registry.register("ledger_lost_timestamp_seconds", lost, self.ledger_lost.clone());
        let recounting = "1 from the moment when a ledger began until what was counted before is counted again";
        registry.register("ledger_recounting", recounting, self.ledger_recounting.clone());
        let snapshot = "When the last snapshot of the ledger was taken, in Unix seconds; 0 before the first";
        registry.register("ledger_snapshot_timestamp_seconds", snapshot, self.ledger_snapshot.clone());
        let interval = "How often a snapshot of the ledger is taken, in seconds; 0 if none is";
        registry.register("ledger_snapshot_interval_seconds", interval, self.ledger_snapshot_interval.clone());
        let ready = "1 while the ledger's database answers; 0 in the controller and in web";
        registry.register("ledger_ready", ready, self.ledger_ready.clone());
        let entries = "Counts in web's journal that wait for the ledger";
        registry.register("ledger_journal_entries", entries, self.ledger_journal_entries.clone());
        let refused = "Counts in web's journal that the ledger refuses for good: a person decides about them";
        registry.register("ledger_journal_refused_entries", refused, self.ledger_journal_refused.clone());
        let free = "Bytes that are free on the volume of the ledger's folder; 0 with Postgres";
        registry.register("ledger_volume_free_bytes", free, self.ledger_volume_free.clone());
        let size = "Size of that volume in bytes; 0 with Postgres";
        registry.register("ledger_volume_size_bytes", size, self.ledger_volume_size.clone());
        self.register_events_store(registry);
        let unavailable = "Requests and endings that found the ledger away, by what became of them";
        registry.register("ledger_unavailable", unavailable, self.ledger_unavailable.clone());
    }

    /// Name, type, labels and meaning of each metric there is.
    pub fn described() -> Vec<[String; 4]> {
        let metrics = Self::default();
        // A metric with labels shows once it has a sample.
        let kinds = [&metrics.api_writes, &metrics.resyncs, &metrics.step_failures, &metrics.provisioning_failures];
        for family in kinds.into_iter().chain([&metrics.webhooks, &metrics.queries, &metrics.usage_errors]) {
            family.get_or_create_owned(&"".into());
        }
        for family in [&metrics.queue_depth, &metrics.held_tenants, &metrics.usage_not_billed, &metrics.watch_age] {
            family.get_or_create_owned(&"".into());
        }
        for family in [&metrics.breaker_open, &metrics.pin_mismatch] {
            family.get_or_create_owned(&ProviderLabel { provider: "" });
        }
        metrics.activation_unconfirmed.get_or_create_owned(&"".into());
        let event = ActivationLabels { event: String::new(), outcome: "", origin: "", source: "" };
        metrics.activation.get_or_create_owned(&event);
        metrics.provider_calls.get_or_create_owned(&ProviderLabels { provider: "", outcome: "" });
        metrics.ledger_commands.get_or_create_owned(&CommandLabels { action: "", outcome: "" });
        metrics.ledger_unavailable.get_or_create_owned(&OutcomeLabel { outcome: "" });
        metrics.usage_events.get_or_create_owned(&OutcomeLabel { outcome: "" });
        let text = metrics.encode();
        let of = |word: &str| -> Vec<(&str, &str)> {
            text.lines().filter_map(|line| line.strip_prefix(word)?.split_once(' ')).collect()
        };
        let types: BTreeMap<_, _> = of("# TYPE ").into_iter().collect();
        let labels = |name: &str| {
            let sample = text.lines().find(|line| line.starts_with(name) && !line.contains("le="));
            let inside =
                sample.and_then(|line| line.split_once('{')?.1.split_once('}')).map_or("", |(inside, _)| inside);
            inside.split(',').filter_map(|pair| pair.split_once('=')).map(|(key, _)| key).collect::<Vec<_>>().join(", ")
        };
        let row = |(name, help): (&str, &str)| {
            let kind = types.get(name).copied().unwrap_or_default();
            [name.into(), kind.into(), labels(name), help.trim_end_matches('.').into()]
        };
        of("# HELP ").into_iter().map(row).collect()
    }

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
