//! Local servers that speak the wire protocols of Stripe, Pinecone, `OpenAI` and SMTP, for `make dev`, `make demo`, the
//! tests and everything else that is tried against these providers. The vendors' official SDKs drive them in the
//! conformance tests, `tests/conformance`. Nothing here is a model or a payment.

mod captcha;
pub mod cli;
mod faults;
mod openai;
mod persist;
mod pinecone;
mod smtp;
pub mod stripe;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use minijinja::value::Serde;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub use faults::{Faults, LoggedRequest};

/// Where the sandbox's servers listen and how they behave.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// The address to listen on; loopback unless the user asks otherwise.
    pub listen: std::net::IpAddr,
    /// The host name in the URLs that it gives; the address it listens on when absent.
    pub advertise: Option<String>,
    /// Ports of control, Stripe, Pinecone, `OpenAI` and SMTP, in this order; 0 takes any.
    pub ports: [u16; 5],
    /// Signs the webhooks.
    pub webhook_secret: String,
    /// Where Stripe's webhooks go; can be set later.
    pub webhook_url: Option<String>,
    /// Added to every provider call, in milliseconds.
    pub latency_ms: u64,
    /// Keep the state in this folder; in memory alone when absent.
    pub data: Option<std::path::PathBuf>,
}

/// A running sandbox.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// Control, mailbox page.
    pub url: String,
    /// The Stripe stand-in.
    pub stripe_url: String,
    /// The Pinecone stand-in: control plane and data plane.
    pub pinecone_url: String,
    /// The `OpenAI` stand-in, with `/v1`.
    pub openai_url: String,
    /// The SMTP sink.
    pub smtp_addr: SocketAddr,
    state: Arc<Shared>,
    data: Option<std::path::PathBuf>,
}

/// What the servers share.
#[derive(Debug)]
pub struct Shared {
    pub(crate) faults: Faults,
    pub(crate) stripe: stripe::Account,
    pub(crate) pinecone: [Arc<pinecone::Index>; 2],
    pub(crate) mailbox: smtp::Mailbox,
    pub(crate) captchas: captcha::Verified,
    pub(crate) alerts: std::sync::Mutex<Vec<Value>>,
    /// Every e-mail's template with values to look at.
    pub(crate) previews: std::sync::Mutex<Value>,
    /// Counts what may have changed the state.
    pub(crate) changes: std::sync::atomic::AtomicU64,
}

impl Shared {
    pub(crate) fn changed(&self) {
        self.changes.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
}

impl Sandbox {
    /// Starts all servers.
    pub async fn start(config: SandboxConfig) -> std::io::Result<Self> {
        let bind = |port| TcpListener::bind((config.listen, port));
        let control = bind(config.ports[0]).await?;
        let stripe = bind(config.ports[1]).await?;
        let pinecone = bind(config.ports[2]).await?;
        let second = bind(0).await?;
        let openai = bind(config.ports[3]).await?;
        let smtp = bind(config.ports[4]).await?;
        let http = |l: &TcpListener| {
            l.local_addr().map(|address| match &config.advertise {
                Some(host) => format!("http://{host}:{}", address.port()),
                None => format!("http://{address}"),
            })
        };
        let stripe_url = http(&stripe)?;
        let pinecone_url = http(&pinecone)?;
        let state = Arc::new(Shared {
            faults: Faults::new(config.latency_ms),
            stripe: stripe::Account::new(stripe_url.clone(), config.webhook_secret, config.webhook_url),
            pinecone: {
                let [first, other] = pinecone::INDEXES;
                [
                    Arc::new(pinecone::Index::new(first, pinecone_url.clone())),
                    Arc::new(pinecone::Index::new(other, http(&second)?)),
                ]
            },
            mailbox: smtp::Mailbox::default(),
            captchas: captcha::Verified::default(),
            alerts: std::sync::Mutex::default(),
            previews: std::sync::Mutex::default(),
            changes: std::sync::atomic::AtomicU64::new(0),
        });
        if let Some(folder) = &config.data {
            persist::load(folder, &state)?;
            persist::keep(folder.clone(), state.clone());
        }
        let sandbox = Self {
            url: http(&control)?,
            openai_url: format!("{}/v1", http(&openai)?),
            smtp_addr: smtp.local_addr()?,
            stripe_url,
            pinecone_url,
            state: state.clone(),
            data: config.data,
        };
        serve(control, control_routes(state.clone()));
        serve(stripe, provider("stripe", stripe::routes(state.clone()), &state));
        let [first, other] = state.pinecone.clone();
        let planes = pinecone::control(state.pinecone.clone()).merge(pinecone::data(first));
        serve(pinecone, provider("pinecone", planes, &state));
        serve(second, provider("pinecone", pinecone::data(other), &state));
        serve(openai, provider("openai", openai::routes(), &state));
        tokio::spawn(smtp::serve(smtp, state));
        Ok(sandbox)
    }

    /// Writes the state to disk before the end, if it is kept there.
    pub fn save(&self) -> std::io::Result<()> {
        self.data.as_deref().map_or(Ok(()), |folder| persist::save(folder, &self.state))
    }

    /// Sends webhooks to this URL from now on.
    pub fn send_webhooks_to(&self, url: &str) {
        self.state.stripe.set_webhook_url(url);
    }

    /// Shows these e-mails, each with `name`, `subject`, `text` and `html`, on the page of templates.
    pub fn show_templates(&self, previews: Value) {
        *lock(&self.state.previews) = previews;
    }

    /// Makes a price known to the Stripe stand-in.
    pub fn add_price(&self, id: &str, amount: i64, currency: &str) {
        self.state.stripe.add_price(id, amount, currency);
    }
}

fn serve(listener: TcpListener, router: Router) {
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "a sandbox server stopped");
        }
    });
}

/// One more host for the data plane of an index, on loopback.
async fn another_host(state: &Arc<Shared>, index: Arc<pinecone::Index>) -> std::io::Result<String> {
    let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    serve(listener, provider("pinecone", pinecone::data(index), state));
    Ok(url)
}

fn provider(name: &'static str, routes: Router, state: &Arc<Shared>) -> Router {
    let layer = middleware::from_fn_with_state((name, state.clone()), faults::inject);
    routes.layer(layer).layer(axum::extract::DefaultBodyLimit::max(64 << 20))
}

fn control_routes(state: Arc<Shared>) -> Router {
    Router::new()
        .route("/", get(mailbox_page))
        .route("/mailbox", get(mailbox_page))
        .route("/mail-templates", get(templates_page))
        .route(
            "/captcha/siteverify",
            post(captcha::verify).layer(middleware::from_fn_with_state(("captcha", state.clone()), faults::inject)),
        )
        .route("/_sandbox/mails", get(async |State(s): State<Arc<Shared>>| Json(s.mailbox.shown())))
        .route("/_sandbox/alerts", get(list_alerts).post(add_alert))
        .route("/_sandbox/faults", post(faults::add).delete(faults::clear))
        .route("/_sandbox/requests", get(faults::log))
        .route("/_sandbox/calls", get(faults::calls))
        .route("/_sandbox/prices", post(stripe::add_prices))
        .route("/_sandbox/keys", post(stripe::add_key))
        .route("/_sandbox/clock", post(stripe::forward))
        .route("/_sandbox/decline", post(stripe::decline))
        .route("/_sandbox/drafts", post(stripe::drafts))
        .route("/_sandbox/meters", post(stripe::metering::configure))
        .route("/_sandbox/disputes", post(stripe::disputes::add))
        .route("/_sandbox/restricted-keys", post(stripe::keys::add))
        .route("/_sandbox/webhooks", post(stripe::webhooks::configure))
        .route("/_sandbox/state", get(stripe::state))
        .route("/_sandbox/indexes", post(pinecone::recreate))
        .route("/_sandbox/pinecone", get(pinecone::state).post(pinecone::configure))
        .route("/_sandbox/smtp", post(smtp::configure))
        .layer(middleware::from_fn_with_state(state.clone(), faults::note_change))
        .with_state(state)
}

async fn list_alerts(State(s): State<Arc<Shared>>) -> Json<Value> {
    Json(json!(*lock(&s.alerts)))
}

async fn add_alert(State(s): State<Arc<Shared>>, Json(alert): Json<Value>) -> StatusCode {
    lock(&s.alerts).push(alert);
    StatusCode::OK
}

async fn mailbox_page(State(s): State<Arc<Shared>>) -> Html<String> {
    let template = include_str!("mailbox.html");
    let env = minijinja::Environment::new();
    let page = env.render_named_str(
        "mailbox.html",
        template,
        minijinja::context! { mails => Serde(s.mailbox.shown()), templates => false },
    );
    Html(page.unwrap_or_else(|e| e.to_string()))
}

/// The templates of our e-mails, with values to look at.
async fn templates_page(State(s): State<Arc<Shared>>) -> Html<String> {
    let template = include_str!("mailbox.html");
    let mails = lock(&s.previews).clone();
    let env = minijinja::Environment::new();
    let page = env.render_named_str(
        "mailbox.html",
        template,
        minijinja::context! { mails => Serde(mails), templates => true },
    );
    Html(page.unwrap_or_else(|e| e.to_string()))
}

/// A lock that a panicked holder does not poison.
pub(crate) fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
