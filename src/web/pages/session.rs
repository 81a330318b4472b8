//! Who is logged in, and whose form it is: cookies that only this service reads.
//!
//! A session says which Tenant it opens and until when, sealed with the operator's identity key, so that all replicas
//! know it. The visitor's cookie is a random number; the token in each form follows from it, and no other site knows
//! it.

use axum::http::{HeaderMap, HeaderValue, header};

use super::PageError;
use crate::api::Tenant;
use crate::web::App;
use crate::web::serving::cookies::cookies;
use crate::web::serving::problem::Problem;
use crate::web::serving::tokens::{Generation, Pass};

/// How long a session lasts, in seconds.
const SESSION: i64 = 12 * 3600;
/// A cookie's name without and with TLS.
const SESSION_COOKIE: [&str; 2] = ["session", "__Host-session"];
const VISITOR_COOKIE: [&str; 2] = ["visitor", "__Host-visitor"];

fn is_visitor(value: &str) -> bool {
    value.len() == 32 && value.bytes().all(|b| b.is_ascii_hexdigit())
}

impl App {
    /// Whether customers come by TLS, as all but a developer's do.
    pub fn secure(&self) -> bool {
        self.config.frontend_url.starts_with("https://")
    }

    /// A cookie's name. Under TLS it begins with `__Host-`: a browser then takes it from this very host alone, so no
    /// other application of the domain can put its own in place:
    /// <https://developer.mozilla.org/docs/Web/HTTP/Headers/Set-Cookie>
    fn cookie_name(&self, [plain, host]: [&'static str; 2]) -> &'static str {
        if self.secure() { host } else { plain }
    }

    fn set_cookie(&self, name: [&'static str; 2], value: &str, seconds: i64, site: &str, headers: &mut HeaderMap) {
        let secure = if self.secure() { "; Secure" } else { "" };
        let name = self.cookie_name(name);
        let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(header::SET_COOKIE, value);
        }
    }

    /// Opens a session for the tenant. Lax: the way back from Stripe is a link on another site.
    pub fn log_in(&self, tenant: &Tenant, headers: &mut HeaderMap) {
        self.log_in_of(tenant, self.generation(tenant), headers);
    }

    /// The same, of an earlier generation: the one that was read before the password was checked.
    pub fn log_in_of(&self, tenant: &Tenant, generation: Generation, headers: &mut HeaderMap) {
        let session = self.pass_of("session", tenant, SESSION, generation);
        self.set_cookie(SESSION_COOKIE, &session, SESSION, "Lax", headers);
    }

    /// Ends it.
    pub fn log_out(&self, headers: &mut HeaderMap) {
        self.set_cookie(SESSION_COOKIE, "", 0, "Lax", headers);
    }

    /// The session that the request carries.
    pub fn session(&self, headers: &HeaderMap) -> Option<Pass> {
        cookies(headers, self.cookie_name(SESSION_COOKIE)).find_map(|value| self.open_pass("session", value))
    }

    /// The tenant of the session; None where there is no session, the tenant is gone, or the session was ended since.
    pub async fn by_session(&self, headers: &HeaderMap) -> Result<Option<Tenant>, Problem> {
        let Some(session) = self.session(headers) else { return Ok(None) };
        self.visited(&session).await
    }

    /// The visitor's number: that of the cookie, or a new one.
    pub fn visitor(&self, headers: &HeaderMap) -> String {
        let known = cookies(headers, self.cookie_name(VISITOR_COOKIE)).find(|value| is_visitor(value));
        known.map_or_else(|| hex::encode(rand::random::<[u8; 16]>()), str::to_owned)
    }

    /// Gives the number to a visitor who has none.
    pub fn keep_visitor(&self, request: &HeaderMap, visitor: &str, headers: &mut HeaderMap) {
        if !cookies(request, self.cookie_name(VISITOR_COOKIE)).any(|value| value == visitor) {
            self.set_cookie(VISITOR_COOKIE, visitor, 30 * 24 * 3600, "Strict", headers);
        }
    }

    /// The token of a visitor's forms. It is bound to the customer who is logged in as well: a visitor's number that
    /// another site has planted opens no form of a customer.
    pub fn csrf(&self, headers: &HeaderMap, visitor: &str) -> String {
        self.identity.seal("form", &[visitor, &self.form_owner(headers)])
    }

    /// The uid of the customer whose forms are shown; empty for a visitor who is not logged in.
    fn form_owner(&self, headers: &HeaderMap) -> String {
        self.session(headers).map(|session| session.uid).unwrap_or_default()
    }

    /// Refuses a form that does not come from a page of ours.
    pub fn check_form(&self, headers: &HeaderMap, token: &str) -> Result<(), PageError> {
        let owner = self.form_owner(headers);
        let own = |visitor: &str| is_visitor(visitor) && self.identity.is_sealed("form", &[visitor, &owner], token);
        let is_own = cookies(headers, self.cookie_name(VISITOR_COOKIE)).any(own);
        if is_own { Ok(()) } else { Err(PageError::Stale) }
    }
}
