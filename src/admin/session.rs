//! Who may look: by the admin token in a header, or by a session that the token opened. Sessions are in the memory of
//! this process alone, so they end with it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use minijinja::context;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Admin, pages};
use crate::access_tokens;
use crate::web::serving::cookies::cookies;
use crate::web::serving::problem::{Code, Problem};

/// For how long the API server may be silent before pages say so: a restart takes less.
const SHOWN_AFTER: Duration = Duration::from_secs(30);
/// How long a session lasts.
const LIFE: Duration = Duration::from_hours(12);
/// Sessions at the same time. The one that ends first makes room.
const MOST: usize = 1000;
/// The cookie's name without and with TLS. Under TLS, a browser takes it from a page with TLS alone.
const COOKIE: [&str; 2] = ["admin_session", "__Secure-admin_session"];

/// The open sessions, by the digest of the number that their cookies hold.
#[derive(Debug, Default)]
pub struct Sessions(Mutex<HashMap<[u8; 32], Instant>>);

impl Sessions {
    /// Opens a session; answers its number.
    fn open(&self) -> String {
        let number = hex::encode(rand::random::<[u8; 32]>());
        let now = Instant::now();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, end| *end > now);
        if open.len() >= MOST {
            let first = open.iter().min_by_key(|(_, end)| **end).map(|(digest, _)| *digest);
            first.and_then(|digest| open.remove(&digest));
        }
        open.insert(digest("session", &number), now + LIFE);
        number
    }

    fn is_open(&self, number: &str) -> bool {
        let open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.get(&digest("session", number)).is_some_and(|end| *end > Instant::now())
    }

    fn end(&self, number: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest("session", number));
    }
}

/// For a purpose: the digest of one says nothing of that of another.
fn digest(purpose: &str, number: &str) -> [u8; 32] {
    Sha256::new().chain_update(purpose).chain_update([0]).chain_update(number).finalize().into()
}

/// The token of a session's forms, which no other site knows.
fn csrf(number: &str) -> String {
    hex::encode(digest("form", number))
}

impl Admin {
    const fn cookie_name(&self) -> &'static str {
        if self.tls { COOKIE[1] } else { COOKIE[0] }
    }

    /// The number of the open session that a request carries.
    fn session<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        cookies(headers, self.cookie_name()).find(|number| self.sessions.is_open(number))
    }

    fn set_cookie(&self, value: &str, life: Duration, headers: &mut HeaderMap) {
        let secure = if self.tls { "; Secure" } else { "" };
        let (name, seconds) = (self.cookie_name(), life.as_secs());
        let text = format!("{name}={value}; Path=/admin; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(header::SET_COOKIE, value);
        }
    }

    /// Whether this is the admin token. A wrong one fails with the wait where too many came before it. The right one never
    /// waits: a token cannot be guessed, and strangers could keep the owner out otherwise.
    fn check(&self, token: &str, client: SocketAddr) -> Result<bool, Duration> {
        if self.tokens.knows(token) {
            return Ok(true);
        }
        self.attempts.check(client.ip())?;
        self.attempts.note(client.ip());
        tracing::warn!(target: "audit", event = "admin_token_refused", client = %client.ip());
        Ok(false)
    }
}

fn too_many(wait: Duration) -> Problem {
    Problem::too_many_of("Too many wrong admin tokens.", wait)
}

/// An admin with a session. A browser without one is sent to the log-in page.
pub struct Owner {
    csrf: String,
    /// For how long the API server has told nothing, if that is so.
    silent: Option<Duration>,
}

impl Owner {
    /// The token of the session's forms: a form sends it in the field `csrf`.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// What a page says of its age, if it may be old.
    pub fn notice(&self) -> Option<String> {
        let silent = self.silent.filter(|silent| *silent >= SHOWN_AFTER)?;
        let minutes = silent.as_secs() / 60;
        let time = if minutes == 0 { "a minute".into() } else { format!("{} minutes", minutes + 1) };
        Some(format!("The API server has not answered for {time}. This page shows what was known before."))
    }
}

impl FromRequestParts<Arc<Admin>> for Owner {
    type Rejection = Redirect;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Redirect> {
        let session = admin.session(&parts.headers);
        let owner = |number: &str| Self { csrf: csrf(number), silent: admin.tenants.silent_for() };
        session.map(owner).ok_or_else(|| Redirect::to("/admin/login"))
    }
}

/// A program with the admin token, or an admin with a session.
pub struct Reader;

impl FromRequestParts<Arc<Admin>> for Reader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, admin: &Arc<Admin>) -> Result<Self, Response> {
        // A proxy's own log-in, such as Basic, is nothing to this port.
        if access_tokens::shown(&parts.headers).is_none() && admin.session(&parts.headers).is_some() {
            return Ok(Self);
        }
        let ConnectInfo(client) = client(parts, admin).await?;
        let shown = access_tokens::shown(&parts.headers).map(|token| admin.check(token, client));
        match shown {
            Some(Ok(true)) => Ok(Self),
            Some(Err(wait)) => Err(too_many(wait).into_response()),
            Some(Ok(false)) | None => Err(unauthorized()),
        }
    }
}

async fn client(parts: &mut Parts, admin: &Arc<Admin>) -> Result<ConnectInfo<SocketAddr>, Response> {
    ConnectInfo::from_request_parts(parts, admin).await.map_err(IntoResponse::into_response)
}

fn unauthorized() -> Response {
    let detail = "Send the admin token as Authorization: Bearer, or log in at /admin/login and read the path below /admin. \
                  The token is missing, wrong, or was replaced.";
    let mut response = Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, detail).into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// `GET /admin/login`: the form to log in, or the one to log out.
pub async fn show(State(admin): State<Arc<Admin>>, headers: HeaderMap) -> Response {
    let csrf = admin.session(&headers).map(csrf).unwrap_or_default();
    page(StatusCode::OK, &csrf, "")
}

/// The page, with a sentence on what went wrong.
fn page(status: StatusCode, csrf: &str, error: &str) -> Response {
    match pages::render("admin/login.html", context! { csrf, error }) {
        Ok(page) => (status, page).into_response(),
        Err(error) => Problem::internal("the log-in page", &error).into_response(),
    }
}

/// The value of a field of a form. Empty without one.
fn field(body: &[u8], name: &str) -> String {
    let found = url::form_urlencoded::parse(body).find(|(key, _)| key == name);
    found.map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// `POST /admin/login`
pub async fn log_in(
    State(admin): State<Arc<Admin>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    match admin.check(field(&body, "token").trim(), client) {
        Ok(true) => {}
        Ok(false) => return page(StatusCode::UNAUTHORIZED, "", "This is not the admin token."),
        Err(wait) => {
            let problem = too_many(wait);
            let mut response = page(problem.status(), "", problem.detail());
            response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
            return response;
        }
    }
    // The session before this one, of the same browser.
    if let Some(number) = admin.session(&headers) {
        admin.sessions.end(number);
    }
    tracing::info!(target: "audit", event = "admin_logged_in", client = %client.ip());
    let mut response = Redirect::to("/admin").into_response();
    admin.set_cookie(&admin.sessions.open(), LIFE, response.headers_mut());
    response
}

/// `POST /admin/logout`
pub async fn log_out(State(admin): State<Arc<Admin>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(number) = admin.session(&headers) else { return Redirect::to("/admin/login").into_response() };
    if !bool::from(csrf(number).as_bytes().ct_eq(field(&body, "csrf").as_bytes())) {
        return page(StatusCode::FORBIDDEN, &csrf(number), "This form is not of this session. Press the button again.");
    }
    admin.sessions.end(number);
    tracing::info!(target: "audit", event = "admin_logged_out");
    let mut response = Redirect::to("/admin/login").into_response();
    admin.set_cookie("", Duration::ZERO, response.headers_mut());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_open_until_it_is_ended_and_its_number_is_not_kept() {
        let sessions = Sessions::default();
        let (one, other) = (sessions.open(), sessions.open());
        assert!(sessions.is_open(&one) && sessions.is_open(&other));
        assert!(!sessions.is_open("") && !sessions.is_open(&csrf(&one)));
        sessions.end(&one);
        assert!(!sessions.is_open(&one) && sessions.is_open(&other));
        assert!(!format!("{sessions:?}").contains(&other));
    }

    #[test]
    fn a_session_ends_after_its_life() {
        let sessions = Sessions::default();
        let number = sessions.open();
        let past = Instant::now().checked_sub(Duration::from_secs(1)).expect("a running machine");
        sessions.0.lock().expect("not poisoned").insert(digest("session", &number), past);
        assert!(!sessions.is_open(&number));
        sessions.open();
        assert_eq!(sessions.0.lock().expect("not poisoned").len(), 1, "it is forgotten");
    }

    #[test]
    fn many_sessions_do_not_fill_the_memory() {
        let sessions = Sessions::default();
        let first = sessions.open();
        for _ in 0..MOST {
            sessions.open();
        }
        assert_eq!(sessions.0.lock().expect("not poisoned").len(), MOST);
        assert!(!sessions.is_open(&first), "the oldest made room");
    }

    #[test]
    fn a_field_of_a_form_is_found() {
        assert_eq!(field(b"a=1&token=x%2By+z", "token"), "x+y z");
        assert_eq!(field(b"", "token"), "");
    }
}
