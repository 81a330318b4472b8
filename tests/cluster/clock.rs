//! The clock of the controller's machine jumps, by libfaketime: the real process, and only its clock.

use std::path::{Path, PathBuf};

use serde_json::json;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::{Phase, TenantStatus, Timestamp, conditions};

use crate::support::{World, closed, day_comes, desire, folder, forward, free_port, status_of_question};

const DAY: i64 = 24 * 3600;

/// Debian's libfaketime.
fn library() -> Option<&'static str> {
    let places = [
        "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
        "/usr/lib/faketime/libfaketime.so.1",
    ];
    let there = places.into_iter().find(|path| Path::new(path).is_file());
    if there.is_none() {
        assert!(std::env::var("CI").is_err(), "libfaketime is needed for the tests of the clock");
        eprintln!("Clocks that jump not tested: libfaketime is missing (apt-get install libfaketime).");
    }
    there
}

/// A controller whose clock is what a file says.
struct Jumping {
    world: World,
    file: PathBuf,
    port: u16,
}

impl Jumping {
    async fn start(name: &str, library: &str) -> Self {
        let mut world = World::without_controller(name).await;
        let (file, port) = (folder(&format!("{name}.clock")), free_port());
        std::fs::write(&file, "+0").expect("written");
        world.controller_args(&[&format!("--listen=127.0.0.1:{port}")]);
        for (variable, value) in [
            ("LD_PRELOAD", library),
            ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("text")),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ] {
            world.environment(variable, value);
        }
        world.start_controller();
        world.start_web(&[]);
        Self { world, file, port }
    }

    /// By how many seconds its clock is ahead, as it says itself.
    async fn ahead(&self) -> Option<i64> {
        let metrics = self.world.http.get(format!("http://127.0.0.1:{}/metrics", self.port)).send().await.ok()?;
        let text = metrics.text().await.ok()?;
        text.lines().find_map(|line| line.strip_prefix("clock_skew_seconds ")).and_then(|value| value.parse().ok())
    }

    async fn jumps(&self, days: i64) {
        std::fs::write(&self.file, format!("{days:+}d")).expect("written");
        let there = |ahead: i64| (ahead - days * DAY).abs() < 60;
        self.world.until("the controller sees its clock", async || self.ahead().await.is_some_and(there)).await;
    }

    /// A new customer is served at once, at the right time, and all others were looked at meanwhile.
    async fn serves(&self, name: &str) {
        for other in self.world.tenants().list(&Default::default()).await.expect("listed") {
            let name = other.metadata.name.expect("a name");
            self.world.annotate(&name, "example.com/look", &Timestamp::now().to_string()).await;
        }
        self.world.create(name, "paid", BillingMode::Stripe).await;
        self.world.pay(name).await;
        let status = self.world.wait_true(name, "WelcomeEmailSent").await;
        let late = Timestamp::now().since(status.provisioned_at.expect("a time"));
        assert!((-5..300).contains(&late), "{name} was provisioned {late} s ago");
        let key = self.world.api_key(name).await;
        assert_eq!(status_of_question(&self.world, &key).await, 200, "{name}");
        let metrics = self.world.http.get(self.world.web_metrics.clone()).send().await;
        let text = metrics.expect("web answers").text().await.expect("text");
        let webhooks = |kind: &str| text.contains(&format!("stripe_webhooks_total{{kind=\"{kind}\"}}"));
        assert!(webhooks("taken") && !webhooks("refused"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_erases_and_suspends_no_tenant_and_delays_none() {
    let Some(library) = library() else { return };
    let there = Jumping::start("jumps", library).await;
    let world = &there.world;
    for name in ["leaver", "late"] {
        world.create_paying(name, "paid").await;
    }
    // One has 30 days to come back, the other 7 to pay.
    desire(world, "leaver", Desired::Deleted).await.expect("patched");
    let before = world.wait("leaver", "closed", closed).await;
    let methods = world.sandbox_get("/_sandbox/state").await["payment_method"].clone();
    for method in methods.as_array().expect("a list") {
        world.sandbox_post("/_sandbox/decline", json!({"payment_method": method["id"]})).await;
    }
    forward(world, 31).await;
    let is_late = |s: &TenantStatus| {
        conditions::get(&s.conditions, "PaymentReceived").is_some_and(|c| &*c.reason == "PaymentPastDue")
    };
    world.wait("late", "late", is_late).await;
    for (days, name) in [(400, "ahead"), (-400, "behind"), (0, "right")] {
        there.jumps(days).await;
        there.serves(name).await;
        // Longer than any wait of this controller.
        tokio::time::sleep(std::time::Duration::from_secs(4)).await;
        let leaver = world.status("leaver").await;
        assert!(closed(&leaver) && leaver.erasure.is_none(), "{days} days: {leaver:#?}");
        assert_eq!(leaver.erases_at, before.erases_at, "{days} days");
        assert_eq!(world.status("late").await.phase, Some(Phase::Active), "{days} days");
    }
    // The day comes by both clocks, or not at all.
    there.jumps(-400).await;
    day_comes(world, "leaver").await;
    there.serves("meanwhile").await;
    assert_eq!(world.status("leaver").await.phase, Some(Phase::Deleting));
    there.jumps(0).await;
    world.annotate("leaver", "example.com/look", "again").await;
    world.wait_phase("leaver", Phase::Deleted).await;
}
