//! Gateways that ask web, as docs/gateways.md says, and a service behind them.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Process, World, folder, free_port, python};

const PAGE: &str = include_str!("../../../docs/gateways.md");
const WEB: &str = "tenant-operator-web.tenant-operator.svc.cluster.local";

/// A service that has no idea of keys and plans, and answers what it was sent.
pub struct Service {
    pub addr: SocketAddr,
    seen: Arc<Mutex<usize>>,
}

impl Service {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let (addr, seen) = (listener.local_addr().expect("an address"), Arc::<Mutex<usize>>::default());
        let counter = seen.clone();
        let answer = move |request: Request| {
            *counter.lock().expect("not poisoned") += 1;
            async move {
                let (parts, body) = request.into_parts();
                let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
                let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
                let headers: Vec<_> = parts.headers.iter().map(|(name, value)| (name.as_str(), text(value))).collect();
                let (method, uri) = (parts.method.as_str(), parts.uri.to_string());
                Json(json!({"method": method, "uri": uri, "headers": headers, "body": body.len()}))
            }
        };
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
        Self { addr, seen }
    }

    /// Requests that came through so far.
    pub fn seen(&self) -> usize {
        *self.seen.lock().expect("not poisoned")
    }
}

/// The values of a header that the service got.
pub fn got(answer: &Value, name: &str) -> Vec<String> {
    let headers = answer["headers"].as_array().into_iter().flatten();
    let values =
        headers.filter(|header| header[0] == name).map(|header| header[1].as_str().unwrap_or_default().to_owned());
    values.collect()
}

/// A gateway, and where it listens.
pub struct Gateway {
    pub url: String,
    _process: Process,
}

/// An example of the page.
fn example(fence: &str) -> &'static str {
    let example = PAGE.split(&format!("```{fence}\n")).nth(1).and_then(|rest| rest.split("```").next());
    example.unwrap_or_else(|| panic!("docs/gateways.md has no example {fence:?}"))
}

impl Gateway {
    /// Debian's nginx with the recipe. None if it is not installed.
    pub async fn nginx(world: &World, service: &Service) -> Option<Self> {
        let program =
            ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|path| std::path::Path::new(path).is_file());
        let Some(program) = program else {
            assert!(std::env::var("CI").is_err(), "nginx is needed for the tests of gateways");
            eprintln!("nginx not tested: it is missing (apt-get install nginx).");
            return None;
        };
        let (files, port) = (folder(&format!("{}-nginx", world.namespace)), free_port());
        std::fs::create_dir_all(&files).expect("a folder");
        let recipe = example("nginx recipe")
            .replace(&format!("{WEB}:80"), world.web.trim_start_matches("http://"))
            .replace("your-service.default.svc.cluster.local:8000", &service.addr.to_string())
            .replace("listen 8080;", &format!("listen 127.0.0.1:{port};"));
        let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map(|kind| format!("{kind}_temp_path {kind};"));
        let config = format!(
            "daemon off; master_process off; pid nginx.pid; error_log stderr warn; events {{}}\n\
             http {{ access_log off; {}\n{recipe}}}\n",
            temp.join(" ")
        );
        std::fs::write(files.join("nginx.conf"), config).expect("written");
        let mut command = Command::new(program);
        command.arg("-p").arg(&files).args(["-e", "stderr", "-c", "nginx.conf"]).stdin(Stdio::null());
        Some(Self::run(command, port).await)
    }

    /// Envoy with the filters of the page.
    pub async fn envoy(world: &World, service: &Service) -> Self {
        let (file, port) = (folder(&format!("{}-envoy.yaml", world.namespace)), free_port());
        let mut manager: Value =
            serde_yaml::from_str(&example("yaml envoy").replace(&format!("http://{WEB}"), &world.web)).expect("YAML");
        let web: SocketAddr = world.web.trim_start_matches("http://").parse().expect("an address");
        manager["@type"] = json!(
            "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
        );
        manager["stat_prefix"] = json!("test");
        manager["route_config"] = json!({"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}]}]});
        let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
        let listen = address(SocketAddr::from(([127, 0, 0, 1], port)));
        let config = json!({"static_resources": {
            "listeners": [{"address": listen, "filter_chains": [{"filters": [filter]}]}],
            "clusters": [cluster("tenant_operator", web), cluster("service", service.addr)],
        }});
        std::fs::write(&file, config.to_string()).expect("written");
        let mut command = Command::new(python("gateways").await.join("envoy"));
        command.arg("-c").arg(&file).args(["--log-level", "warning", "--concurrency", "1", "--use-dynamic-base-id"]);
        command.stdin(Stdio::null());
        Self::run(command, port).await
    }

    /// Traefik with the middleware of the page, which it reads from a file.
    pub async fn traefik(world: &World, service: &Service) -> Self {
        let (file, port) = (folder(&format!("{}-traefik.yaml", world.namespace)), free_port());
        let middleware: Value =
            serde_yaml::from_str(&example("yaml traefik").replace(&format!("http://{WEB}"), &world.web)).expect("YAML");
        let name = middleware["metadata"]["name"].as_str().expect("a name");
        let config = json!({"http": {
            "middlewares": {name: middleware["spec"]},
            "routers": {"all": {"rule": "PathPrefix(`/`)", "service": "yours", "middlewares": [name]}},
            "services": {"yours": {"loadBalancer": {"servers": [{"url": format!("http://{}", service.addr)}]}}},
        }});
        std::fs::write(&file, config.to_string()).expect("written");
        let mut command = Command::new(python("gateways").await.join("traefik"));
        command.arg(format!("--entrypoints.web.address=127.0.0.1:{port}"));
        command.arg(format!("--providers.file.filename={}", file.display()));
        // As other gateways do by default.
        command.arg("--entrypoints.web.http.maxheaderbytes=32768");
        // It asks nobody for a newer version.
        command.args(["--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=WARN"]);
        command.stdin(Stdio::null());
        let traefik = Self::run(command, port).await;
        // It listens before it has read the file.
        let ready = async || world.http.get(&traefik.url).send().await.is_ok_and(|answer| answer.status() == 401);
        world.until("Traefik has its routes", ready).await;
        traefik
    }

    async fn run(mut command: Command, port: u16) -> Self {
        let process = Process::of(command.spawn().expect("the gateway starts"));
        let start = std::time::Instant::now();
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(start.elapsed() < super::LIMIT, "the gateway does not listen");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        Self { url: format!("http://127.0.0.1:{port}"), _process: process }
    }
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn cluster(name: &str, at: SocketAddr) -> Value {
    json!({"name": name, "type": "STATIC", "connect_timeout": "2s", "load_assignment": {"cluster_name": name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(at)}}]}]}})
}
