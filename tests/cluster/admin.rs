//! The admin pages: the figures on the ledger's admin port, who gets them, and sessions.

mod pages;

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use kube::api::{DeleteParams, Patch};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tenant_operator::api::tenant::BillingMode;
use tenant_operator::api::{Phase, Timestamp};

use crate::release::kubeconfig;
use crate::support::{BINARY, Process, World, control_plane, folder, name, said, signed_up};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const PATHS: [&str; 3] = ["/analytics/activation-funnel", "/analytics/stuck-customers", "/activation/metrics"];

/// A ledger that serves `/admin`, and ends with the test.
pub struct Door {
    pub url: String,
    http: reqwest::Client,
    _process: Process,
}

impl Door {
    /// For the Tenants of a world.
    pub fn open(world: &World, more: &[&str]) -> Self {
        let namespace = format!("--namespace={}", world.namespace);
        Self::with(world, &[&[&*namespace], more].concat())
    }

    fn with(world: &World, args: &[&str]) -> Self {
        let mut child =
            ledger(world, args).env("ADMIN_TOKEN", TOKEN).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.nth(2).expect("it says where /admin is").expect("text");
        let url = line.strip_prefix("admin on ").and_then(|url| url.strip_suffix("/admin"));
        let url = url.unwrap_or_else(|| panic!("{line}")).to_owned();
        Self { url, http: world.http.clone(), _process: Process::of(child) }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.url))
    }

    /// Answers once the Tenants are known.
    pub async fn filled(self, world: &World) -> Self {
        world
            .until("the Tenants are known", async || {
                self.get("/readyz").send().await.is_ok_and(|answer| answer.status() == 200)
            })
            .await;
        self
    }

    async fn figures(&self, path: &str) -> Value {
        let answer = self.get(path).bearer_auth(TOKEN).send().await.expect("it answers");
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.expect("JSON")
    }

    /// The text of an answer that must be refused so.
    async fn refused(&self, request: RequestBuilder, status: u16) -> String {
        let answer = request.send().await.expect("it answers");
        assert_eq!(answer.status(), status);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(answer.headers()["cache-control"], "no-store");
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        answer.text().await.expect("text")
    }

    async fn log_in(&self, token: &str) -> Response {
        let form = [("token", token)];
        self.http.post(format!("{}/admin/login", self.url)).form(&form).send().await.expect("it answers")
    }

    /// The cookie of a new session.
    async fn session(&self) -> String {
        let answer = self.log_in(TOKEN).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (303, &"/admin".parse().expect("a value"))
        );
        let cookie = answer.headers()["set-cookie"].to_str().expect("text");
        cookie.split(';').next().expect("a pair").to_owned()
    }

    /// Where a page leads with this cookie; empty if it is shown.
    async fn place(&self, cookie: &str) -> String {
        let answer = self.get("/admin").header("cookie", cookie).send().await.expect("it answers");
        let place = answer.headers().get("location").map(|place| place.to_str().expect("text").to_owned());
        place.unwrap_or_default()
    }
}

/// A ledger of its own, with the cluster of the world.
fn ledger(world: &World, args: &[&str]) -> Command {
    let there = folder(&format!("{}-admin", world.namespace));
    std::fs::create_dir_all(&there).expect("a folder");
    let key = there.join("key");
    std::fs::write(&key, "ab".repeat(32)).expect("written");
    let mut command = world.command("ledger");
    command.args(["--listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"]);
    command.arg("--key-file").arg(key).arg("--data").arg(there.join(format!("data-{}", rand::random::<u32>())));
    command.args(args);
    command
}

/// What `kubectl tenant` prints about the Tenants of a world.
async fn printed(world: &World, args: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(BINARY);
    command.args(args).args(["-n", &world.namespace]).arg("--kubeconfig").arg(&control_plane().kubeconfig);
    command.output().await.expect("it runs")
}

/// Figures without the moments that they are of.
fn timeless(mut figures: Value) -> Value {
    let all = figures.as_object_mut().expect("an object");
    all.remove("from");
    all.remove("until");
    figures
}

async fn merge(world: &World, name: &str, patch: Value) {
    world.tenants().patch(name, &Default::default(), &Patch::Merge(patch)).await.expect("patched");
}

/// A customer who signed up on the pages and pays, another one who has been silent for years and whose name is hostile,
/// and a Tenant by manifest.
async fn three_customers(world: &World) -> String {
    world.create("by-manifest", "enterprise", BillingMode::Manual).await;
    world.create("silent", "enterprise", BillingMode::Manual).await;
    let ada = name(&signed_up(world, "ada@example.com").await);
    world.pay(&ada).await;
    for name in ["by-manifest", "silent", &ada] {
        world.wait(name, "Active", |status| status.phase == Some(Phase::Active)).await;
    }
    let signup = json!({"metadata": {"annotations": {"tenant-operator.dev/signup": "{}"}}});
    merge(world, "silent", signup).await;
    merge(world, "silent", json!({"spec": {"companyName": "=cmd|'/C calc'!A0 <script>alert(1)</script>"}})).await;
    ada
}

#[tokio::test(flavor = "multi_thread")]
async fn the_figures_are_those_that_the_command_line_prints_and_follow_the_tenants() {
    let mut world = World::start("admin").await;
    world.start_web(&[]);
    let ada = three_customers(&world).await;
    // No controller corrects the record any more.
    world.controllers.clear();
    let mut object = world.tenants().get("silent").await.expect("there");
    object.status.as_mut().expect("a status").provisioned_at = Some(Timestamp::from_second(1_600_000_000));
    world.tenants().replace_status("silent", &Default::default(), &object).await.expect("written");
    let door = Door::open(&world, &[]).filled(&world).await;
    the_figures_are_printed_alike(&world, &door).await;

    let metrics = door.figures("/activation/metrics?days=90").await;
    assert_eq!((&metrics["total_signups"], &metrics["by_manifest"]), (&json!(1), &json!(1)), "{metrics}");
    assert_eq!((&metrics["provisioned"], &metrics["provisioning_success_rate"]), (&json!(1), &json!(100.0)));
    let activation = json!({"target": 70.0, "actual": 0.0, "met": false});
    assert_eq!(metrics["targets"]["activation_rate"], activation, "{metrics}");
    let csv = door.get("/activation/metrics?format=csv").bearer_auth(TOKEN).send().await.expect("it answers");
    let csv = csv.text().await.expect("text");
    assert!(csv.lines().any(|line| line == "activation_rate,0.0,70.0,false"), "{csv}");

    // The cache follows: another customer, and one who goes.
    let funnel = async || door.figures("/analytics/activation-funnel").await["total_signups"].clone();
    assert_eq!(funnel().await, 1);
    let eve = name(&signed_up(&world, "eve@example.com").await);
    world.until("eve is counted", async || funnel().await == 2).await;
    for gone in [&eve, &ada] {
        world.annotate(gone, "tenant-operator.dev/keep-data", "true").await;
        merge(&world, gone, json!({"metadata": {"finalizers": null}})).await;
        drop(world.tenants().delete(gone, &DeleteParams::default()).await);
    }
    world.until("they are gone", async || funnel().await == 0).await;
    let other = Door::with(&world, &["--namespace=no-such-namespace"]).filled(&world).await;
    assert_eq!(other.figures("/analytics/activation-funnel").await["by_manifest"], 0, "of another namespace");
}

async fn the_figures_are_printed_alike(world: &World, door: &Door) {
    let funnel = printed(world, &["funnel", "-o", "json"]).await;
    let funnel: Value = serde_json::from_slice(&funnel.stdout).expect("JSON");
    let served = door.figures("/analytics/activation-funnel?days=30").await;
    assert_eq!(timeless(served), timeless(funnel.clone()));
    assert_eq!(timeless(door.figures("/analytics/activation-funnel").await), timeless(funnel), "30 days by default");
    let stuck: Value = serde_json::from_slice(&printed(world, &["stuck", "-o", "json"]).await.stdout).expect("JSON");
    assert_eq!(stuck["stuck_after_payment"][0]["name"], "silent");
    assert_eq!(door.figures("/analytics/stuck-customers").await, stuck);
    for (path, command) in [(PATHS[0], "funnel"), (PATHS[1], "stuck")] {
        let csv = String::from_utf8(printed(world, &[command, "-o", "csv"]).await.stdout).expect("text");
        let asked = door.get(path).bearer_auth(TOKEN).header("accept", "text/csv").send().await.expect("it answers");
        assert_eq!(asked.headers()["content-type"], "text/csv; charset=utf-8");
        assert_eq!(asked.text().await.expect("text"), csv);
        let named = door.get(&format!("{path}?format=csv")).bearer_auth(TOKEN).send().await.expect("it answers");
        let disposition = named.headers()["content-disposition"].to_str().expect("text").to_owned();
        assert!(disposition.starts_with("attachment; filename=\"") && disposition.ends_with(".csv\""));
        let served = named.text().await.expect("text");
        assert_eq!(served, csv);
        assert!(command == "funnel" || served.contains(",'=cmd|'/C calc'!A0 <script>"), "{served}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_and_wrong_requests_are_refused_with_what_to_do() {
    let world = World::without_controller("admin-refusals").await;
    let door = Door::open(&world, &[]).filled(&world).await;
    for path in PATHS {
        for (what, request) in [
            ("no token", door.get(path)),
            ("a wrong one", door.get(path).bearer_auth("0123456789abcdef0123456789abcdeX")),
            ("a cookie of no session", door.get(path).header("cookie", format!("admin_session={}", "0".repeat(64)))),
            ("another scheme", door.get(path).basic_auth("admin", Some(TOKEN))),
        ] {
            let answer = request.try_clone().expect("it has no body").send().await.expect("it answers");
            assert_eq!(answer.headers()["www-authenticate"], "Bearer", "{what}");
            assert!(door.refused(request, 401).await.contains("Authorization: Bearer"), "{what}");
        }
    }
    let ours = |path: &str| door.get(path).bearer_auth(TOKEN);
    for path in [PATHS[0], PATHS[2]] {
        for days in ["0", "-1", "9999999", "abc", "", "3651", "1e3"] {
            let said = door.refused(ours(&format!("{path}?days={days}")), 400).await;
            assert!(said.contains("days must be a whole number from 1 to 3650"), "{said}");
            assert!(said.contains("\"fields\":{\"days\":"), "{said}");
        }
    }
    for (query, wanted) in [
        ("/activation/metrics?day=3", "There is no parameter"),
        ("/activation/metrics?days=3&days=4", "days appears more than once"),
        ("/analytics/stuck-customers?days=3", "This path takes: format."),
        ("/analytics/stuck-customers?format=xml", "format must be json or csv"),
    ] {
        let said = door.refused(ours(query), 400).await;
        assert!(said.contains(wanted), "{query}: {said}");
    }
    assert!(door.refused(ours("/nothing"), 404).await.contains("begin at /admin"));
    let post = door.http.post(format!("{}{}", door.url, PATHS[0])).bearer_auth(TOKEN);
    door.refused(post, 405).await;
    let large = door.http.post(format!("{}/admin/login", door.url)).body(vec![b'a'; 20 << 10]);
    door.refused(large, 413).await;
    let answer = ours(PATHS[0]).header("x-request-id", "chosen").send().await.expect("it answers");
    assert_eq!(answer.headers()["cache-control"], "no-store");
    assert_eq!(answer.headers()["content-security-policy"], "default-src 'none'; frame-ancestors 'none'");
    assert_ne!(answer.headers()["x-request-id"], "chosen");
}

#[tokio::test(flavor = "multi_thread")]
async fn until_the_tenants_are_known_the_answer_says_when_to_ask_again() {
    let mut world = World::without_controller("admin-blind").await;
    // May list nothing.
    let blind = kubeconfig(&world, "blind", &json!("user-without-rights"));
    world.use_kubeconfig(blind);
    let door = Door::open(&world, &[]);
    for path in PATHS {
        let answer = door.get(path).bearer_auth(TOKEN).send().await.expect("it answers");
        assert_eq!((answer.status().as_u16(), answer.headers()["retry-after"].as_bytes()), (503, &b"5"[..]));
        assert!(answer.text().await.expect("text").contains("the log of the ledger says why"));
    }
    assert_eq!(door.get("/healthz").send().await.expect("it answers").status(), 200);
    assert_eq!(door.get("/readyz").send().await.expect("it answers").status(), 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_opens_the_pages_and_ends_with_a_logout_or_a_restart() {
    let world = World::without_controller("admin-session").await;
    let door = Door::open(&world, &[]).filled(&world).await;
    assert_eq!(door.place("").await, "/admin/login");
    let page = door.get("/admin/login").send().await.expect("it answers");
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.contains("form-action 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(page.text().await.expect("text").contains("name=\"token\" type=\"password\""));
    let wrong = door.log_in("<script>").await;
    assert_eq!((wrong.status().as_u16(), wrong.headers().get("set-cookie")), (401, None));
    let text = wrong.text().await.expect("text");
    assert!(text.contains("not the admin token") && !text.contains("<script>"), "{text}");

    let answer = door.log_in(&format!(" {TOKEN}\n")).await;
    let cookie = answer.headers()["set-cookie"].to_str().expect("text").to_owned();
    for part in ["; Path=/admin;", "; Max-Age=43200;", "; HttpOnly;", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Secure") && !cookie.contains(TOKEN), "{cookie}");
    let (mine, another) = (cookie.split(';').next().expect("a pair").to_owned(), door.session().await);
    assert_eq!(door.place(&mine).await, "");
    for path in PATHS.map(|path| format!("/admin{path}")) {
        let answer = door.get(&path).header("cookie", &mine).send().await.expect("it answers");
        assert_eq!(answer.status(), 200, "{path}");
    }
    // A request with a token is judged by the token alone.
    let both = door.get(PATHS[0]).header("cookie", &mine).bearer_auth("wrong").send().await.expect("it answers");
    assert_eq!(both.status(), 401);
    the_session_ends(&world, &door, &mine, &another).await;
}

async fn the_session_ends(world: &World, door: &Door, mine: &str, another: &str) {
    let log_out = async |cookie: &str, csrf: &str| {
        let request = door.http.post(format!("{}/admin/logout", door.url)).header("cookie", cookie);
        request.form(&[("csrf", csrf)]).send().await.expect("it answers")
    };
    let token_of = async |cookie: &str| {
        let page = door.get("/admin/login").header("cookie", cookie).send().await.expect("it answers");
        let page = page.text().await.expect("text");
        let rest = page.split("name=\"csrf\" value=\"").nth(1).expect("a form").to_owned();
        rest.split('"').next().expect("a token").to_owned()
    };
    for csrf in ["", "x", &token_of(another).await] {
        assert_eq!(log_out(mine, csrf).await.status(), 403);
    }
    assert_eq!(door.place(mine).await, "", "a form of another site ended nothing");
    let left = log_out(mine, &token_of(mine).await).await;
    assert_eq!(left.headers()["location"], "/admin/login");
    assert!(left.headers()["set-cookie"].to_str().expect("text").contains("Max-Age=0"));
    assert_eq!((door.place(mine).await, door.place(another).await), ("/admin/login".to_owned(), String::new()));
    let other = Door::open(world, &["--admin-url=https://admin.example.com"]).filled(world).await;
    assert_eq!(other.place(another).await, "/admin/login", "a session of another process");
    let answer = other.log_in(TOKEN).await;
    let cookie = answer.headers()["set-cookie"].to_str().expect("text");
    assert!(cookie.starts_with("__Secure-admin_session=") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(answer.headers().contains_key("strict-transport-security"));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_tokens_are_slowed_down_and_sessions_go_on() {
    let world = World::without_controller("admin-guess").await;
    let door = Door::open(&world, &[]).filled(&world).await;
    let session = door.session().await;
    let mut refused = 0;
    for guess in 0..20 {
        let token = format!("{guess:032}");
        let answer = door.get(PATHS[0]).bearer_auth(&token).send().await.expect("it answers");
        match answer.status().as_u16() {
            401 => assert_eq!(refused, 0, "slow from then on"),
            429 => {
                assert!(answer.headers().contains_key("retry-after"));
                refused += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert!(refused >= 8, "{refused}");
    let page = door.log_in(&"x".repeat(32)).await;
    assert_eq!(page.status(), 429);
    assert!(page.headers().contains_key("retry-after"));
    assert!(page.text().await.expect("text").contains("Too many wrong admin tokens."));
    assert_eq!(door.place(&session).await, "");
    assert_eq!(door.log_in(TOKEN).await.status(), 303, "strangers keep no owner out");
    // A proxy's own log-in is no token of this port.
    let path = format!("/admin{}", PATHS[0]);
    let answer = door.get(&path).header("cookie", &session).basic_auth("ada", Some("x")).send().await;
    assert_eq!(answer.expect("it answers").status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_the_pages_from_being_served_is_named_with_its_fix_and_the_ledger_counts_without_them() {
    let world = World::without_controller("admin-start").await;
    let there = folder("admin-tokens");
    std::fs::create_dir_all(&there).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = there.join(name);
        std::fs::write(&path, text).expect("written");
        format!("--admin-token-file={}", path.display())
    };
    let (short, empty, good) = (file("short", "abc\n"), file("empty", "\n"), file("good", &format!("{TOKEN}\n")));
    // What it says until it listens: without the pages.
    let starts = |command: &mut Command| {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = lines.nth(1).expect("it says where its metrics are").expect("text");
        assert!(line.starts_with("metrics on "), "{line}");
        child.kill().expect("it runs");
        assert_eq!(lines.count(), 0, "nothing is said of /admin");
        let output = child.wait_with_output().expect("it ends");
        let said = said(&output);
        assert!(said.contains("/admin is not served, and the ledger counts without it"), "{said}");
        said
    };
    let refused = |set: &[(&str, &str)], args: &[&str]| starts(ledger(&world, args).envs(set.iter().copied()));
    for (set, args, wanted) in [
        (&[][..], &[][..], "--admin-listen needs a token that admins log in with: set ADMIN_TOKEN"),
        (&[("ADMIN_TOKEN", "")], &[], "--admin-listen needs a token"),
        (&[("ADMIN_TOKEN", "hunter2")], &[], "number 1 of ADMIN_TOKEN is shorter than 32 characters"),
        (&[], &[&*short], "number 1 of --admin-token-file is shorter than 32 characters"),
        (&[], &[&*empty], "is empty: write the output of"),
        (&[], &["--admin-token-file=/no/such/file"], "--admin-token-file /no/such/file cannot be read"),
        (&[("ADMIN_TOKEN", TOKEN)], &[&*good], "ADMIN_TOKEN and --admin-token-file are both set"),
    ] {
        let said = refused(set, args);
        assert!(said.contains(wanted) && !said.contains("hunter2"), "{wanted:?} is missing: {said}");
    }
    // With a clock of its own it needs no cluster, and /admin does.
    let mut alone = Command::new(BINARY);
    alone.args(["ledger", "--own-clock", "--admin-listen=127.0.0.1:0", "--listen=127.0.0.1:0"]);
    alone.arg("--data").arg(there.join("data")).arg("--key-file").arg(there.join("key"));
    std::fs::write(there.join("key"), "ab".repeat(32)).expect("written");
    alone.env("ADMIN_TOKEN", TOKEN).env_remove("KUBECONFIG").env("HOME", &there);
    let text = starts(alone.arg("--metrics-listen=127.0.0.1:0"));
    assert!(text.contains("--admin-listen needs a cluster, even with --own-clock"), "{text}");
}
