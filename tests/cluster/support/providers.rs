//! The providers' stand-ins: how the product finds them, what they were asked, what they fail at, and the e-mails they
//! took.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tenant_operator_sandbox::{Sandbox, SandboxConfig};

use super::plans::SIZES;
use super::{LIMIT, World};

pub const WEBHOOK_SECRET: &str = "whsec_test";

/// Stand-ins of one test's own, with every plan's price.
pub async fn start() -> Sandbox {
    let sandbox = Sandbox::start(SandboxConfig {
        advertise: None,
        listen: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ports: [0; 5],
        webhook_secret: WEBHOOK_SECRET.into(),
        webhook_url: None,
        latency_ms: 0,
        data: None,
    })
    .await
    .expect("a sandbox");
    for (price, amount) in [("price_starter_monthly", 4900), ("price_pro_monthly", 19_900), ("price_paid", 4900)] {
        sandbox.add_price(price, amount, "usd");
    }
    for (size, amount, ..) in SIZES {
        sandbox.add_price(&format!("price_{size}"), amount, "usd");
    }
    sandbox
}

/// The settings by which the product finds the providers' stand-ins.
pub fn providers(sandbox: &Sandbox) -> [(&'static str, String); 7] {
    [
        ("PINECONE_API_KEY", "pc-test".into()),
        ("PINECONE_URL", sandbox.pinecone_url.clone()),
        ("OPENAI_API_KEY", "sk-test".into()),
        ("OPENAI_BASE_URL", sandbox.openai_url.clone()),
        ("STRIPE_SECRET_KEY", "sk_test_test".into()),
        ("STRIPE_URL", sandbox.stripe_url.clone()),
        ("SMTP_URL", format!("smtp://{}", sandbox.smtp_addr)),
    ]
}

impl World {
    pub async fn sandbox_get(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.sandbox.url)).send().await.expect("the sandbox answers");
        answer.json().await.expect("JSON")
    }

    /// How many calls to the providers were like this.
    pub async fn calls(&self, like: impl Fn(&Value) -> bool) -> usize {
        self.sandbox_get("/_sandbox/requests").await.as_array().expect("a list").iter().filter(|r| like(r)).count()
    }

    pub async fn sandbox_post(&self, path: &str, body: Value) {
        let answer = self.http.post(format!("{}{path}", self.sandbox.url)).json(&body).send().await;
        assert!(answer.expect("the sandbox answers").status().is_success());
    }

    pub async fn fault(&self, fault: Value) {
        self.sandbox_post("/_sandbox/faults", fault).await;
    }

    pub async fn clear_faults(&self) {
        let cleared = self.http.delete(format!("{}/_sandbox/faults", self.sandbox.url)).send().await;
        assert!(cleared.expect("the sandbox answers").status().is_success());
    }

    /// How many alerts to the platform team hold this text.
    pub async fn alerts(&self, text: &str) -> usize {
        let all = self.sandbox_get("/_sandbox/alerts").await;
        all.as_array().into_iter().flatten().filter(|a| a["text"].as_str().is_some_and(|t| t.contains(text))).count()
    }

    /// How many mails whose Message-ID names this template were sent to the tenant: under one id, however often.
    pub async fn mails(&self, key: &str) -> usize {
        let mails = self.sandbox_get("/_sandbox/mails").await;
        let ids: BTreeSet<_> = mails
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|m| m["message_id"].as_str())
            .filter(|id| id.contains(&format!(".{key}")))
            .collect();
        ids.len()
    }

    /// The links in the last e-mail to this address whose subject begins with this text.
    pub async fn mail_links(&self, to: &str, subject: &str) -> Vec<String> {
        let start = Instant::now();
        loop {
            let mails = self.sandbox_get("/_sandbox/mails").await;
            let ours = |m: &&Value| m["to"] == to && m["subject"].as_str().is_some_and(|s| s.starts_with(subject));
            if let Some(mail) = mails.as_array().into_iter().flatten().rfind(ours) {
                let links = mail["links"].as_array().into_iter().flatten().filter_map(Value::as_str);
                return links.map(str::to_owned).collect();
            }
            assert!(start.elapsed() < LIMIT, "no e-mail {subject:?} to {to}: {mails:#}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
