//! The tenant API: tenants with keys, their clients, and connections on which a request only begins.

use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator_dev::apply_yaml;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::{World, plan_with};

/// Tenants with keys, and web.
pub struct Lab {
    pub world: World,
}

pub struct Client<'a> {
    lab: &'a Lab,
    pub key: String,
}

impl Lab {
    pub async fn start(name: &str, tenants: &[(&str, &str)]) -> Self {
        let mut world = World::start(name).await;
        let namespace = world.namespace.clone();
        world.environment("WATCH_NAMESPACE", &namespace);
        world.start_web(&["--requests-per-second", "1000"]);
        for (tenant, plan) in tenants {
            if *plan == "few" {
                let small = plan_with("few", "documents: 3, queriesPerMonth: 7, bytes: 100000");
                apply_yaml(&world.client, &small).await.expect("the plan applies");
            }
            world.create(tenant, plan, BillingMode::Manual).await;
        }
        for (tenant, _) in tenants {
            world.wait_phase(tenant, Phase::Active).await;
        }
        Self { world }
    }

    /// A client with this key, whatever it is.
    pub fn client_with(&self, key: &str) -> Client<'_> {
        Client { lab: self, key: key.into() }
    }

    /// A client whose key web knows.
    pub async fn client(&self, tenant: &str) -> Client<'_> {
        let client = self.client_with(&self.world.api_key(tenant).await);
        self.world.until("web knows the tenant", async || client.get("/v1/usage").await.status() == 200).await;
        client
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.world.web)
    }
}

impl Client<'_> {
    pub async fn get(&self, path: &str) -> Response {
        self.lab.world.http.get(self.lab.url(path)).bearer_auth(&self.key).send().await.expect("it answers")
    }

    pub async fn ask(&self, question: &str) -> Response {
        let body = json!({"question": question});
        let request = self.lab.world.http.post(self.lab.url("/v1/query")).bearer_auth(&self.key);
        request.json(&body).send().await.expect("it answers")
    }

    pub async fn answer(&self, question: &str) -> Value {
        let answer = self.ask(question).await;
        let status = answer.status();
        let answer: Value = answer.json().await.expect("JSON");
        assert_eq!(status, 200, "{answer}");
        answer
    }

    pub async fn upload(&self, path: &str, name: &str, bytes: impl Into<Vec<u8>>) -> (StatusCode, Value) {
        let boundary = "0123456789abcdef";
        let mut body =
            format!("--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n")
                .into_bytes();
        body.extend(bytes.into());
        body.extend(format!("\r\n--{boundary}--\r\n").into_bytes());
        let request = self.lab.world.http.post(self.lab.url(path)).bearer_auth(&self.key);
        let request = request.header("content-type", format!("multipart/form-data; boundary={boundary}"));
        let answer = request.body(body).send().await.expect("it answers");
        let status = answer.status();
        (status, answer.json().await.expect("JSON"))
    }

    /// A connection on which the headers of an upload were sent, and none of its 100,000 bytes.
    pub async fn begin_upload(&self, path: &str) -> TcpStream {
        let head = format!(
            "POST {path} HTTP/1.1\r\nAuthorization: Bearer {}\r\nContent-Type: text/plain\r\nContent-Length: 100000",
            self.key
        );
        begin(&self.lab.world.web, &head, b"").await
    }

    pub async fn store(&self, name: &str, text: &str) -> Value {
        let (status, document) = self.upload("/v1/documents", name, text).await;
        assert_eq!(status, 201, "{document}");
        document
    }

    pub async fn delete(&self, id: &str) -> StatusCode {
        let request = self.lab.world.http.delete(self.lab.url(&format!("/v1/documents/{id}")));
        request.bearer_auth(&self.key).send().await.expect("it answers").status()
    }

    pub async fn usage(&self) -> Value {
        self.get("/v1/usage").await.json().await.expect("JSON")
    }
}

/// A connection on which a request begins.
pub async fn begin(web: &str, head: &str, body: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(web.trim_start_matches("http://")).await.expect("connected");
    stream.set_nodelay(true).expect("a socket");
    let head = format!("{head}\r\nHost: x\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("sent");
    stream
}
