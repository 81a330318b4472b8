//! What happens to a release, in the order in which it happens to its users.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tenant_operator::providers::stripe::EVENTS;
use tenant_operator_sandbox::Sandbox;

use crate::ledger::{self, Customer};
use crate::load::Load;
use crate::node::Node;
use crate::release::{
    CHART, NAME, NAMESPACE, TENANTS, documented, environment, image, providers, sandbox_image, settings,
};
use crate::{chart, rights, step};

const LIMIT: Duration = Duration::from_mins(2);

pub struct Story<'a> {
    pub node: &'a Node,
    pub providers: Sandbox,
    values: String,
    web: String,
    http: reqwest::Client,
}

pub async fn run(node: &Node) {
    let providers = providers().await;
    image(node);
    sandbox_image(node);
    let values = settings(node, &providers);
    node.shell(&documented("sh trial"), &[]);
    step("the documented trial works, from its installation to its end");
    let mut story = Story::new(node, providers, values);
    ledger::volume(node);
    node.shell(&documented("sh install"), &environment(&story.providers));
    story.find_web();
    step("installed by the documented commands");
    let restricted = "pod-security.kubernetes.io/enforce=restricted";
    node.kubectl(&["label", "namespace", NAMESPACE, restricted]);
    chart::every_variety_is_valid(node, &story.values);
    chart::kube_score_has_nothing_to_add(node, &story.values);
    chart::wrong_input_is_refused(node, &story.values);
    chart::a_second_release_and_an_older_chart_are_refused(node, &story.values);
    story.tested().await;
    let first = story.first_customer().await;
    rights::only_the_operator_writes_what_is_its_own(node);
    story.mishaps().await;
    story.every_pod_is_killed().await;
    story.handed_over();
    ledger::is_deleted_under_questions(node, &story.caller(&first)).await;
    story.upgraded_under_load().await;
    story.drained(&story.caller(&first)).await;
    rights::nothing_is_granted_that_is_not_used(node);
    story.uninstalled_and_back().await;
}

impl<'a> Story<'a> {
    /// Stripe has the prices of the example plans.
    pub fn new(node: &'a Node, providers: Sandbox, values: String) -> Self {
        for (id, amount) in [("price_starter_monthly", 4900), ("price_pro_monthly", 19900)] {
            providers.add_price(id, amount, "usd");
        }
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client");
        Self { node, providers, values, web: String::new(), http }
    }

    pub fn helm(&self, args: &[&str]) -> String {
        let more = ["-n", NAMESPACE, "--wait", "--timeout", "1m"];
        self.node.helm(&args.iter().chain(&more).copied().collect::<Vec<_>>())
    }

    fn install(&mut self, more: &[&str]) {
        let start = Instant::now();
        let values = self.values.clone();
        self.helm(&[&["install", NAME, CHART, "-f", &values], more].concat());
        step(&format!("installed, with all pods ready, in {:.1} s", start.elapsed().as_secs_f64()));
        self.find_web();
    }

    pub fn find_web(&mut self) {
        let service = self.node.get(&["service", "rag-web", "-n", NAMESPACE]);
        let address = service["spec"]["clusterIP"].as_str().expect("an address");
        self.web = format!("http://{address}");
        self.providers.send_webhooks_to(&format!("{}/webhooks/stripe", self.web));
    }

    /// Waits until the Service leads to web: where it had no pod for a moment, that is a moment after the pods are
    /// ready.
    pub async fn served(&self) {
        let start = Instant::now();
        while !self.http.get(format!("{}/readyz", self.web)).send().await.is_ok_and(|a| a.status().is_success()) {
            assert!(start.elapsed() < LIMIT, "the Service leads nowhere");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// `helm test` fails with the reason and the fix while something is missing, and passes once it is there.
    async fn tested(&self) {
        let test = || self.node.try_helm(&["test", NAME, "-n", NAMESPACE, "--logs", "--timeout", "2m"]);
        let missing = test();
        let said = String::from_utf8_lossy(&missing.stdout).into_owned();
        assert!(!missing.status.success() && said.contains("no endpoint ends with /webhooks/stripe"), "{said}");
        let mut endpoint = vec![("url".to_owned(), "http://app.example.com/webhooks/stripe".to_owned())];
        endpoint.extend(EVENTS.iter().enumerate().map(|(i, event)| (format!("enabled_events[{i}]"), (*event).into())));
        let url = format!("{}/v1/webhook_endpoints", self.providers.stripe_url);
        let made = self.http.post(url).bearer_auth("sk_test_pods").form(&endpoint).send().await.expect("it answers");
        assert!(made.status().is_success());
        let passed = test();
        let said = String::from_utf8_lossy(&passed.stdout).into_owned();
        assert!(passed.status.success() && said.contains("0 failed"), "{said}");
        step("helm test fails while the webhook endpoint is missing, and passes when it is there");
    }

    /// Signs up through the Service, and answers the Tenant's name and where to pay.
    async fn sign_up(&self, who: &str) -> (String, String) {
        let form = json!({
            "email": format!("{who}@example.com"), "company_name": who, "password": "correct horse battery",
            "accept_terms": true,
        });
        let start = Instant::now();
        loop {
            let answer = self.http.post(format!("{}/signup", self.web)).json(&form).send().await.expect("web answers");
            let status = answer.status();
            let body: Value = answer.json().await.expect("JSON");
            assert!(status.is_success(), "{status} {body}");
            if let Some(url) = body["checkout_url"].as_str() {
                let name = body["token"].as_str().and_then(|t| t.split('.').next()).expect("a token");
                self.confirm(&format!("{who}@example.com")).await;
                return (name.to_owned(), url.to_owned());
            }
            assert!(start.elapsed() < LIMIT, "{who} gets no payment link");
        }
    }

    /// Opens the link in the confirmation e-mail.
    async fn confirm(&self, email: &str) {
        let start = Instant::now();
        loop {
            let mails =
                self.http.get(format!("{}/_sandbox/mails", self.providers.url)).send().await.expect("it answers");
            let mails: Value = mails.json().await.expect("JSON");
            let ours = mails.as_array().into_iter().flatten().filter(|mail| mail["to"] == email);
            let mut links =
                ours.flat_map(|mail| mail["links"].as_array().into_iter().flatten()).filter_map(Value::as_str);
            if let Some((_, token)) = links.find_map(|link| link.split_once("/verify-email?token=")) {
                let url = format!("{}/verify-email", self.web);
                let answer = self.http.post(url).json(&json!({"token": token})).send().await.expect("web answers");
                assert!(answer.status().is_success(), "{}", answer.status());
                return;
            }
            assert!(start.elapsed() < LIMIT, "no confirmation e-mail to {email}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn pay(&self, url: &str) {
        let answer = self.http.post(url).form(&[("card", "4242424242424242")]).send().await.expect("the page answers");
        assert_eq!(answer.status(), 303);
    }

    fn tenant(&self, name: &str) -> Value {
        self.node.get(&["tenant", name, "-n", TENANTS])
    }

    fn wait_active(&self, name: &str) {
        self.node.wait(&format!("{name} is Active"), LIMIT, |_| self.tenant(name)["status"]["phase"] == "Active");
    }

    pub async fn customer(&self, who: &str) -> String {
        let (name, url) = self.sign_up(who).await;
        self.pay(&url).await;
        self.wait_active(&name);
        name
    }

    async fn first_customer(&self) -> String {
        let start = Instant::now();
        let name = self.customer("first").await;
        let logs = std::process::Command::new(env!("CARGO_BIN_EXE_kubectl-tenant"))
            .args(["logs", &name, "-n", TENANTS, "--kubeconfig"])
            .arg(&self.node.kubeconfig)
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&logs.stdout).into_owned();
        assert!(said.contains("phase changed") && said.starts_with("rag-"), "{said}");
        step(&format!("a signup through the Service is Active after {:.1} s", start.elapsed().as_secs_f64()));
        self.node.wait("the welcome e-mail is out", LIMIT, |_| {
            let conditions = self.tenant(&name)["status"]["conditions"].clone();
            conditions
                .as_array()
                .is_some_and(|all| all.iter().any(|c| c["type"] == "WelcomeEmailSent" && c["status"] == "True"))
        });
        self.prices().await;
        self.lead().await;
        self.documents(&name).await;
        name
    }

    /// The customer's program, with its API key.
    pub fn caller(&self, name: &str) -> Customer {
        let secret = self.node.get(&["secret", &format!("{name}-api-key"), "-n", TENANTS]);
        let key = secret["data"]["api-key"].as_str().and_then(|key| BASE64.decode(key).ok()).expect("a key");
        let key = String::from_utf8(key).expect("text");
        // Each request has a connection of its own: an idle one may be closed by a pod that ends, as it is used again.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(30));
        Customer { http: http.build().expect("a client"), web: self.web.clone(), key }
    }

    /// The prices are those of the Plans.
    async fn prices(&self) {
        let page = self.http.get(format!("{}/pricing", self.web)).send().await.expect("web answers");
        let page = page.text().await.expect("text");
        assert!(page.contains("Starter") && page.contains("$49"), "{page}");
    }

    /// A visitor writes to the sales team, from the form that the page shows.
    async fn lead(&self) {
        let url = format!("{}/sales", self.web);
        let page = self.http.get(&url).send().await.expect("web answers");
        let cookies = page.headers().get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
        let cookies: Vec<_> = cookies.filter_map(|cookie| cookie.split(';').next().map(str::to_owned)).collect();
        let page = page.text().await.expect("text");
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a form");
        let fields =
            [("csrf", csrf), ("email", "lead@example.com"), ("company_name", "Acme"), ("text", "Offer?"), ("plan", "")];
        let request = self.http.post(&url).header("cookie", cookies.join("; ")).form(&fields);
        let answer = request.send().await.expect("web answers");
        let (status, said) = (answer.status(), answer.text().await.expect("text"));
        assert!(status.is_success(), "{status} {said}");
        let kept = self.node.get(&["secrets", "-n", TENANTS, "-l", "app.kubernetes.io/component=lead"]);
        assert_eq!(kept["items"].as_array().map(Vec::len), Some(1), "{kept}");
        step("a message to the sales team is kept");
    }

    /// A PDF goes in through the Service with the tenant's API key, and an answer comes out.
    async fn documents(&self, name: &str) {
        let key = self.caller(name).key;
        let ask = |path: &str| self.http.post(format!("{}{path}", self.web)).bearer_auth(&key);
        let file = include_bytes!("../fixtures/travel.pdf").to_vec();
        let stored = ask("/v1/documents?title=Travel").body(file).send().await.expect("web answers");
        let status = stored.status();
        let said = stored.text().await.expect("text");
        assert_eq!(status, 201, "{said}");
        let question = json!({"question": "How much may a hotel cost a night?"});
        let answer = ask("/v1/query").json(&question).send().await.expect("web answers");
        let answer: Value = answer.json().await.expect("JSON");
        assert!(answer["answer"].as_str().is_some_and(|a| a.contains("140 euros")), "{answer}");
        step("a PDF went in through the Service, and an answer came out");
    }

    /// A purchase that cannot be served, a Secret that a user broke, a forgotten password, a customer who leaves and
    /// one who never pays.
    async fn mishaps(&self) {
        let (unpaid, _) = self.sign_up("unpaid").await;
        // It lasts until the failure is written down: a write of web at the same moment has the controller begin again.
        let fault =
            json!({"provider": "pinecone", "method": "POST", "path": "/namespaces", "status": 400, "times": 100});
        let faults = format!("{}/_sandbox/faults", self.providers.url);
        self.http.post(&faults).json(&fault).send().await.expect("the sandbox answers");
        let (failed, url) = self.sign_up("failed").await;
        self.pay(&url).await;
        self.node.wait("the purchase has failed", LIMIT, |_| self.tenant(&failed)["status"]["phase"] == "Failed");
        self.http.delete(&faults).send().await.expect("the sandbox answers");
        let secret = |name: &str| self.node.get(&["secret", name, "-n", TENANTS]);
        let key = secret("honest-api-key")["data"]["api-key"].clone();
        let broken = r#"{"stringData": {"api-key": "broken"}}"#;
        self.node.kubectl(&["-n", TENANTS, "patch", "secret", "honest-api-key", "--type=merge", "-p", broken]);
        self.node.wait("the Secret is repaired", LIMIT, |_| secret("honest-api-key")["data"]["api-key"] == key);
        let form = json!({"email": "unpaid@example.com", "company_name": "unpaid", "password": "not the one", "accept_terms": true});
        let answer = self.http.post(format!("{}/signup", self.web)).json(&form).send().await.expect("web answers");
        let refusal: Value = answer.json().await.expect("JSON");
        assert_eq!(refusal["code"], "email_taken", "another password is refused: {refusal}");
        let meant =
            format!("tenant-operator.dev/erase={}", self.tenant("honest")["spec"]["tenantId"].as_str().expect("an id"));
        self.node.kubectl(&["-n", TENANTS, "annotate", "tenant", "honest", &meant]);
        self.node.kubectl(&["-n", TENANTS, "delete", "tenant", "honest"]);
        assert!(secret("honest-api-key").is_null(), "the tenant's Secret went with it");
        self.node.wait("the unpaid signup is gone", LIMIT, |_| self.tenant(&unpaid).is_null());
        self.node.kubectl(&["-n", TENANTS, "annotate", "tenant", &failed, "tenant-operator.dev/retry=1"]);
        self.wait_active(&failed);
        step("failures, repairs and departures work with the rights that are granted");
    }

    fn pods(&self) -> Vec<Value> {
        let pods =
            self.node.get(&["pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component in (controller,web,ledger)"]);
        pods["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn wait_ready(&self, count: usize) {
        let ready = |pod: &Value| {
            let conditions = pod["status"]["conditions"].as_array();
            pod["metadata"]["deletionTimestamp"].is_null()
                && conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"))
        };
        self.node.wait(&format!("{count} pods are ready"), LIMIT, |_| {
            self.pods().iter().filter(|p| ready(p)).count() == count
        });
    }

    /// Each container's first process is killed, as by a lack of memory.
    async fn every_pod_is_killed(&self) {
        for pod in self.pods() {
            let name = pod["metadata"]["name"].as_str().expect("a name");
            self.kill(&pod);
            self.node.wait(&format!("{name} is restarted"), LIMIT, |_| {
                let pods = self.pods();
                let pod = pods.iter().find(|p| p["metadata"]["name"] == name).expect("still the same pod");
                pod["status"]["containerStatuses"][0]["restartCount"] == 1
            });
        }
        self.wait_ready(5);
        self.served().await;
        self.customer("after-kills").await;
        step("every pod was killed with -9 and came back");
    }

    /// The holder of the lease: the pod's name, and a part that differs for each run.
    fn leader(&self) -> String {
        let lease = self.node.get(&["lease", "tenant-operator-controller", "-n", NAMESPACE]);
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// The other replica takes over: at once when the leader ends in order, after the lease when it is killed.
    fn handed_over(&self) {
        for how in ["ends in order", "is killed with -9"] {
            self.wait_ready(5);
            let leader = self.leader();
            let (pod, _) = leader.rsplit_once('-').expect("a pod's name and more");
            let start = Instant::now();
            if how == "ends in order" {
                self.node.kubectl(&["delete", "pod", pod, "-n", NAMESPACE, "--wait=false"]);
            } else {
                let pods = self.pods();
                let pod = pods.iter().find(|p| p["metadata"]["name"] == pod).expect("the leader's pod");
                self.kill(pod);
            }
            self.node.wait("another leads", LIMIT, |_| ![leader.as_str(), ""].contains(&self.leader().as_str()));
            step(&format!("the leader {how}: another leads after {:.1} s", start.elapsed().as_secs_f64()));
        }
        self.wait_ready(5);
    }

    /// Kills a pod's first process.
    fn kill(&self, pod: &Value) {
        let container = pod["status"]["containerStatuses"][0]["containerID"].as_str().expect("a container");
        self.node.kill_container(container.trim_start_matches("containerd://"));
    }

    /// Requests and purchases go on while every pod is replaced, and while the release is rolled back.
    async fn upgraded_under_load(&self) {
        for (what, args) in [
            (
                "an upgrade",
                &[
                    "upgrade",
                    NAME,
                    CHART,
                    "-f",
                    &self.values,
                    "--set",
                    "web.podLabels.round=two,controller.podLabels.round=two,ledger.podLabels.round=two",
                ][..],
            ),
            ("a rollback", &["rollback", NAME, "1"][..]),
        ] {
            let load = Load::start(&format!("{}/openapi.json", self.web));
            let mut bought = Vec::new();
            let helm = async {
                tokio::task::block_in_place(|| self.helm(args));
            };
            let customers = async {
                for i in 0..6 {
                    let who = format!("{}-{i}", what.replace(' ', "-"));
                    let (name, url) = self.sign_up(&who).await;
                    self.pay(&url).await;
                    bought.push(name);
                }
            };
            futures::join!(customers, helm);
            let sent = load.stop(what).await;
            for name in &bought {
                self.wait_active(name);
            }
            step(&format!("{what} under load: {sent} requests, none failed; {} purchases, none lost", bought.len()));
        }
        self.wait_ready(5);
    }

    /// A drain that would take web away is held up by its budget.
    async fn drained(&self, customer: &Customer) {
        let load = Load::start(&format!("{}/openapi.json", self.web));
        ledger::counts_while(customer, || {
            let drain = self.node.try_kubectl(&["drain", "node", "--delete-emptydir-data", "--timeout=15s"]);
            let said = String::from_utf8_lossy(&[drain.stdout, drain.stderr].concat()).into_owned();
            assert!(!drain.status.success() && said.contains("disruption budget"), "{said}");
            assert!(said.contains("rag-ledger-0"), "{said}");
            self.node.kubectl(&["uncordon", "node"]);
            self.wait_ready(5);
        })
        .await;
        load.stop("a drain").await;
        step("a drain took one pod of each, the ledger too, and left web serving; every question was counted once");
    }

    /// Nothing of a customer's is lost with the release.
    async fn uninstalled_and_back(&mut self) {
        let all = |story: &Self| story.node.get(&["tenants.tenant-operator.dev", "-A"])["items"].clone();
        let keys = |story: &Self| {
            let list = story.node.get(&["secrets", "-n", TENANTS, "-l", "tenant-operator.dev/tenant"]);
            let secrets = list["items"].as_array().cloned().unwrap_or_default();
            let mut data: Vec<_> =
                secrets.iter().map(|s| (s["metadata"]["name"].to_string(), s["data"].clone())).collect();
            data.sort_by(|a, b| a.0.cmp(&b.0));
            data
        };
        let (before, keys_before) = (all(self), keys(self));
        self.helm(&["uninstall", NAME]);
        assert_eq!(
            all(self).as_array().map(Vec::len),
            before.as_array().map(Vec::len),
            "no Tenant went with the release"
        );
        assert_eq!(keys(self), keys_before, "no Secret went with the release");
        self.node.wait("the pods are gone", LIMIT, |_| self.pods().is_empty());
        // This time for one namespace, with Roles instead of ClusterRoles.
        let since = rights::mark(self.node);
        self.install(&["--set", "watchNamespaces={rag-tenants}"]);
        self.wait_ready(5);
        let statuses = |tenants: &Value| -> Vec<Value> {
            tenants.as_array().into_iter().flatten().map(|t| t["status"]["transitions"].clone()).collect()
        };
        self.served().await;
        self.customer("after-return").await;
        let after = all(self);
        let after: Vec<_> = statuses(&after);
        for transitions in statuses(&before) {
            assert!(after.contains(&transitions), "every tenant is as it was: {transitions}");
        }
        assert!(keys_before.iter().all(|key| keys(self).contains(key)), "every key is as it was");
        rights::nothing_was_refused(self.node, since);
        step("uninstalled and installed again: every tenant found again, and signups go on");
    }
}
