//! What each route costs, who may call it, and how often. `docs/http.md` prints this table; a route that is not in it
//! fails a test, and has the limit of a client until then.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_client_ip::{ClientIp, ClientIpSource};

use super::problem::Problem;
use crate::serve::client::network;
use crate::web::App;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// The internet.
    Anyone,
    /// Holders of a link that web has sealed.
    Link,
    /// Holders of a signup's token.
    Token,
    /// Customers who are logged in.
    Session,
    /// Holders of an API key.
    Key,
    /// A gateway in the cluster, with the API key of its client: no Ingress leads here.
    Gateway,
    /// The owner's own services, by a token of theirs: no Ingress leads here.
    Service,
    /// Stripe, by its signature.
    Stripe,
    /// The cluster: no Ingress leads here.
    Cluster,
}

impl Caller {
    /// In words.
    const fn name(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Link => "holders of a link",
            Self::Token => "holders of the signup's token",
            Self::Session => "customers who are logged in",
            Self::Key => "holders of an API key",
            Self::Gateway => "gateways in the cluster, with their clients' API keys",
            Self::Service => "your own services in the cluster, with their token",
            Self::Stripe => "Stripe",
            Self::Cluster => "the cluster",
        }
    }

    /// How often.
    const fn limit(self) -> &'static str {
        match self {
            Self::Anyone | Self::Link => "`--client-requests-per-second` of a client",
            Self::Token | Self::Session => {
                "`--client-requests-per-second` of a client, `--requests-per-second` of a tenant's people"
            }
            Self::Key => "`--requests-per-second` of a tenant",
            Self::Gateway => {
                "`--requests-per-second` of a tenant, and as many refusals of its keys; of wrong keys, `--client-requests-per-second` of a client"
            }
            Self::Service => {
                "10,000 events and 8 MiB a call, 10 s to arrive, 2 calls at a time and 32 that wait; of wrong tokens, `--client-requests-per-second` of a client"
            }
            Self::Stripe => {
                "512 kB a request, 10 s to arrive; beyond 64 kB, 32 at a time, 8 of a client, and 2 s for the rest"
            }
            Self::Cluster => "",
        }
    }

    /// Whether a client may call only so often.
    const fn counts_clients(self) -> bool {
        matches!(self, Self::Anyone | Self::Link | Self::Token | Self::Session)
    }
}

/// What a request costs, and what protects that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    /// It is answered from memory.
    Memory,
    /// What the API server said is kept for a while.
    Kept,
    /// A page with a form that needs no one else.
    Page,
    /// It reads the Tenant.
    Read,
    /// It reads the ledger: at most three times, at once.
    Usage,
    /// It may write the Tenant.
    Change,
    /// It may write the Tenant, by a link.
    Once,
    /// It hashes a password, makes a Tenant, or sends an e-mail.
    Signup,
    /// It has one e-mail sent.
    Mail,
    /// It opens a stream that web's one watch feeds.
    Stream,
    /// It asks the providers a question.
    Question,
    /// It is answered from what the ledger said a moment ago, or has the ledger count.
    Count,
    /// It has the ledger count what other services tell of.
    Events,
    /// It reads, embeds and stores a file.
    Upload,
    /// It reads documents.
    Documents,
    /// It deletes a document.
    Removal,
    /// It asks Stripe for a link.
    Portal,
    /// It sends an archive.
    Download,
    /// It writes a hint for the controller.
    Note,
    /// It writes an event that a customer's page or app sends.
    Claim,
}

impl Cost {
    /// What protects it, and its own limit.
    const fn protection(self) -> (&'static str, &'static str) {
        match self {
            Self::Memory => ("answered from memory", ""),
            Self::Kept => ("answers of Kubernetes are kept for some seconds", ""),
            Self::Page => ("a page of web's own", ""),
            Self::Read => ("one read of Kubernetes", ""),
            Self::Usage => ("at most three reads of the ledger, all at once", ""),
            Self::Change => ("writes only what differs", "30 changes of a tenant in a minute"),
            Self::Once => ("writes only what differs", "a link changes an account once"),
            Self::Signup => ("passwords are hashed a few at a time", "`--signups-per-minute` of a client"),
            Self::Mail => ("writes only what differs", "one e-mail of each kind in two minutes"),
            Self::Stream => ("fed from web's one watch of Tenants", "8 streams of a tenant, 15 minutes each"),
            Self::Question => (
                "tenants take turns at the providers",
                "60 questions of a tenant that came to nothing, and 20 more a minute; the plan's queries",
            ),
            Self::Count => {
                ("answers of the ledger are kept for some seconds; no body is waited for", "the plan's queries")
            }
            Self::Events => ("the token is checked before the body; each event counts once", ""),
            Self::Upload => (
                "a process of its own reads the file; tenants take turns at the providers",
                "2 uploads of a tenant at a time and 64 that wait; 16 kB a second in any 30 s; 20 files of a tenant that are read and refused, and 20 more a minute; the plan's documents, bytes and embedded bytes",
            ),
            Self::Documents => ("tenants take turns at the providers", ""),
            Self::Removal => (
                "tenants take turns at the providers",
                "200 deletions of a tenant within a day of the upload, and 20 more a minute",
            ),
            Self::Portal => ("one call to Stripe, whose rate is limited", ""),
            Self::Download => ("8 at a time, one of a tenant", "an hour"),
            Self::Note => ("small, and nothing waits for it", ""),
            Self::Claim => ("small, and nothing waits for it", "60 events of a tenant in a minute"),
        }
    }
}

/// Method, path, who may call it, and what it costs. A route of any method has its limits in its handler.
type Guard = (&'static str, &'static str, Caller, Cost);

const GUARDS: &[Guard] = {
    use Caller::{Anyone, Cluster, Gateway, Key, Link, Service, Session, Stripe, Token};
    use Cost::{
        Change, Claim, Count, Documents, Download, Events, Kept, Mail, Memory, Note, Once, Page, Portal, Question,
        Read, Removal, Signup, Stream, Upload, Usage,
    };
    &[
        ("GET", "/", Anyone, Memory),
        ("GET", "/pricing", Anyone, Kept),
        ("GET", "/docs", Anyone, Memory),
        ("GET", "/openapi.json", Anyone, Memory),
        ("GET", "/.well-known/jwks.json", Anyone, Kept),
        ("GET", "/assets/{name}", Anyone, Memory),
        ("GET", "/signup", Anyone, Kept),
        ("POST", "/signup", Anyone, Signup),
        ("GET", "/sales", Anyone, Page),
        ("POST", "/sales", Anyone, Signup),
        ("GET", "/waitlist", Anyone, Page),
        ("POST", "/waitlist", Anyone, Signup),
        ("GET", "/onboarding/success", Anyone, Memory),
        ("GET", "/login", Anyone, Page),
        ("POST", "/login", Anyone, Signup),
        ("POST", "/logout", Anyone, Memory),
        ("GET", "/login/mail", Anyone, Page),
        ("POST", "/login/mail", Anyone, Signup),
        ("GET", "/password/forgot", Anyone, Page),
        ("POST", "/password/forgot", Anyone, Signup),
        ("GET", "/login/link", Link, Page),
        ("POST", "/login/link", Link, Once),
        ("GET", "/password/new", Link, Read),
        ("POST", "/password/new", Link, Once),
        ("GET", "/invitation", Link, Read),
        ("POST", "/invitation", Link, Once),
        ("GET", "/verify-email", Link, Once),
        ("POST", "/verify-email", Link, Once),
        ("GET", "/unsubscribe", Link, Page),
        ("POST", "/unsubscribe", Link, Once),
        ("GET", "/exports/{link}", Link, Download),
        ("POST", "/activation/track", Token, Claim),
        ("POST", "/tenant/token", Anyone, Signup),
        ("GET", "/tenant/{id}", Token, Read),
        ("POST", "/tenant/{id}/delete", Token, Change),
        ("POST", "/tenant/{id}/reactivate", Token, Change),
        ("GET", "/tenant/{id}/events", Token, Stream),
        ("POST", "/tenant/{id}/events/ticket", Token, Read),
        ("GET", "/tenant/{id}/export", Token, Read),
        ("POST", "/tenant/{id}/export", Token, Change),
        ("POST", "/tenant/{id}/payment-link", Token, Change),
        ("POST", "/tenant/{id}/plan", Token, Change),
        ("GET", "/tenant/{id}/setup", Token, Read),
        ("POST", "/tenant/{id}/setup/complete", Token, Change),
        ("POST", "/tenant/{id}/setup/sample-query", Token, Question),
        ("POST", "/tenant/{id}/setup/skip", Token, Change),
        ("POST", "/tenant/{id}/setup/upload-document", Token, Upload),
        ("POST", "/tenant/{id}/verification-email", Token, Mail),
        ("GET", "/account", Session, Documents),
        ("POST", "/account/verify-email", Session, Mail),
        ("POST", "/account/billing", Session, Portal),
        ("POST", "/account/pay", Session, Change),
        ("GET", "/account/plan", Session, Read),
        ("POST", "/account/plan", Session, Change),
        ("GET", "/account/close", Session, Read),
        ("POST", "/account/close", Session, Change),
        ("GET", "/account/export", Session, Download),
        ("POST", "/account/export", Session, Change),
        ("POST", "/account/reactivate", Session, Change),
        ("POST", "/account/retry", Session, Change),
        ("GET", "/account/events", Session, Stream),
        ("POST", "/account/ask", Session, Question),
        ("POST", "/account/key", Session, Read),
        ("POST", "/account/key/replace", Session, Change),
        ("POST", "/account/setup", Session, Change),
        ("GET", "/settings/advanced", Session, Read),
        ("POST", "/settings/advanced", Session, Change),
        ("POST", "/account/documents", Session, Upload),
        ("POST", "/account/documents/policy", Session, Upload),
        ("POST", "/account/documents/{id}/delete", Session, Removal),
        ("GET", "/v1/documents", Key, Documents),
        ("POST", "/v1/documents", Key, Upload),
        ("GET", "/v1/documents/{id}", Key, Documents),
        ("DELETE", "/v1/documents/{id}", Key, Removal),
        ("POST", "/v1/query", Key, Question),
        ("GET", "/v1/usage", Key, Usage),
        ("POST", "/v1/usage/events", Service, Events),
        ("ANY", "/authz", Gateway, Count),
        ("ANY", "/authz/", Gateway, Count),
        ("ANY", "/authz/{*rest}", Gateway, Count),
        ("POST", "/webhooks/stripe", Stripe, Note),
        ("GET", "/health", Cluster, Memory),
        ("GET", "/healthz", Cluster, Memory),
        ("GET", "/readyz", Cluster, Kept),
    ]
};

/// Route, who may call it, what protects it, and its limit, of each route.
pub fn table() -> Vec<[String; 4]> {
    let row = |(method, path, caller, cost): &Guard| {
        let (protection, own) = cost.protection();
        let limits: Vec<_> = [caller.limit(), own].into_iter().filter(|limit| !limit.is_empty()).collect();
        [format!("{method} {path}"), caller.name().into(), protection.into(), limits.join("; ")]
    };
    GUARDS.iter().map(row).collect()
}

/// What the table says of a request. A path that does not exist, or that the table does not have yet, is open to
/// anyone.
#[derive(Clone, Copy, Debug)]
struct Found {
    caller: Caller,
    cost: Option<Cost>,
}

impl Found {
    const OPEN: Self = Self { caller: Caller::Anyone, cost: None };

    fn of(method: &Method, path: Option<&MatchedPath>) -> Self {
        let method = if method == Method::HEAD { "GET" } else { method.as_str() };
        let guard = GUARDS.iter().find(|guard| guard.0 == method && path.is_some_and(|path| path.as_str() == guard.1));
        guard.map_or(Self::OPEN, |guard| Self { caller: guard.2, cost: Some(guard.3) })
    }

    /// What [`find`] has put into the request's extensions.
    fn in_request(extensions: &Extensions) -> Self {
        extensions.get().copied().unwrap_or(Self::OPEN)
    }
}

/// Looks a request up in the table, once for all that ask: the outermost layer of those that do.
pub async fn find(mut request: Request, next: Next) -> Response {
    let found = Found::of(request.method(), request.extensions().get());
    request.extensions_mut().insert(found);
    next.run(request).await
}

/// Whether the request comes with an API key, or should.
pub fn takes_key(request: &Parts) -> bool {
    Found::in_request(&request.extensions).caller == Caller::Key
}

/// Whether the request changes an account, for a caller whose changes are limited.
pub fn changes_account(request: &Request) -> bool {
    matches!(Found::in_request(request.extensions()).cost, Some(Cost::Change | Cost::Once))
}

/// Whether the request brings a long body, such as a file.
pub fn is_upload(request: &Request) -> bool {
    matches!(Found::in_request(request.extensions()).cost, Some(Cost::Upload | Cost::Events))
}

/// Headers that proxies set.
fn is_forwarded(headers: &HeaderMap) -> bool {
    ["x-forwarded-for", "forwarded", "x-real-ip"].iter().any(|name| headers.contains_key(*name))
}

/// The address of a request's client; its peer's, where the header is missing that names the client.
pub async fn client(parts: &mut Parts) -> Option<IpAddr> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    ClientIp::from_request_parts(parts, &()).await.map(|ClientIp(client)| client).ok().or(peer)
}

/// Lets a client through, unless it calls too often.
pub async fn limit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let caller = Found::in_request(request.extensions()).caller;
    if caller == Caller::Cluster {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    if let Some(peer) = peer.filter(|_| app.config.client_ip == ClientIpSource::ConnectInfo) {
        let hidden = app.sight.request(peer, is_forwarded(request.headers()));
        app.metrics.clients_hidden.set(i64::from(hidden));
    }
    if !caller.counts_clients() {
        return next.run(request).await;
    }
    let (mut parts, body) = request.into_parts();
    if let Some(Err(wait)) = client(&mut parts).await.map(|client| app.clients.take(&network(client))) {
        return Problem::too_many(wait).into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}
