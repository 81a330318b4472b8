//! Who is logged in, and whose form it is: cookies that only this service reads.
//!
//! A session says which Tenant it opens and until when, sealed with the operator's identity key, so that all replicas know
//! it. The visitor's cookie is a random number; the token in each form follows from it, and no other site knows it.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::api::{SESSIONS_ANNOTATION, Tenant, Timestamp};
use crate::web::App;
use crate::web::problem::Problem;
use crate::web::tokens::Pass;

/// How long a session lasts, in seconds.
const SESSION: i64 = 12 * 3600;
const SESSION_COOKIE: &str = "session";
const VISITOR_COOKIE: &str = "visitor";

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|v| v.to_str().ok());
    let pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next()
}

/// From when on sessions are valid, where the password was changed.
fn sessions_since(tenant: &Tenant) -> Option<Timestamp> {
    let seconds = tenant.metadata.annotations.as_ref()?.get(SESSIONS_ANNOTATION)?.parse().ok()?;
    Some(Timestamp::from_second(seconds))
}

impl App {
    /// Whether customers come by TLS, as all but a developer's do.
    pub fn secure(&self) -> bool {
        self.config.frontend_url.starts_with("https://")
    }

    fn set_cookie(&self, name: &str, value: &str, seconds: i64, site: &str, headers: &mut HeaderMap) {
        let secure = if self.secure() { "; Secure" } else { "" };
        let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite={site}{secure}");
        if let Ok(value) = HeaderValue::from_str(&text) {
            headers.append(header::SET_COOKIE, value);
        }
    }

    /// Opens a session for the tenant. Lax: the way back from Stripe is a link on another site.
    pub fn log_in(&self, tenant: &Tenant, headers: &mut HeaderMap) {
        let from = sessions_since(tenant).map_or_else(|| self.now(), |since| since.max(self.now()));
        self.set_cookie(SESSION_COOKIE, &self.pass("session", tenant, from.plus(SESSION)), SESSION, "Lax", headers);
    }

    /// Ends it.
    pub fn log_out(&self, headers: &mut HeaderMap) {
        self.set_cookie(SESSION_COOKIE, "", 0, "Lax", headers);
    }

    /// The session that the request carries.
    pub fn session(&self, headers: &HeaderMap) -> Option<Pass> {
        self.open_pass("session", cookie(headers, SESSION_COOKIE)?)
    }

    /// The tenant of the session; None when nobody is logged in, the tenant is gone, or its password was changed since.
    pub async fn by_session(&self, headers: &HeaderMap) -> Result<Option<Tenant>, Problem> {
        let Some(session) = self.session(headers) else { return Ok(None) };
        // Before the API server is asked: whose session it is, is known.
        self.visits.take(&session.uid).map_err(Problem::too_many)?;
        let tenant = self.tenants().get_opt(&session.name).await?;
        let same = tenant.filter(|t| t.metadata.uid.as_ref() == Some(&session.uid));
        Ok(same.filter(|t| sessions_since(t).is_none_or(|since| session.until.plus(-SESSION) >= since)))
    }

    /// The visitor's number: that of the cookie, or a new one.
    pub fn visitor(&self, headers: &HeaderMap) -> String {
        let known =
            cookie(headers, VISITOR_COOKIE).filter(|v| v.len() == 32 && v.bytes().all(|b| b.is_ascii_hexdigit()));
        known.map_or_else(|| hex::encode(rand::random::<[u8; 16]>()), str::to_owned)
    }

    /// Gives the number to a visitor who has none.
    pub fn keep_visitor(&self, request: &HeaderMap, visitor: &str, headers: &mut HeaderMap) {
        if cookie(request, VISITOR_COOKIE) != Some(visitor) {
            self.set_cookie(VISITOR_COOKIE, visitor, 30 * 24 * 3600, "Strict", headers);
        }
    }

    /// The token of a visitor's forms.
    pub fn csrf(&self, visitor: &str) -> String {
        self.identity.seal("form", &[visitor])
    }

    /// Whether a form comes from a page of ours.
    pub fn is_own_form(&self, headers: &HeaderMap, token: &str) -> bool {
        cookie(headers, VISITOR_COOKIE).is_some_and(|visitor| self.identity.is_sealed("form", &[visitor], token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; session=x.y; visitor=2"));
        headers.append(header::COOKIE, HeaderValue::from_static("b=3"));
        assert_eq!(cookie(&headers, "session"), Some("x.y"));
        assert_eq!(cookie(&headers, "b"), Some("3"));
        assert_eq!(cookie(&headers, "sess"), None);
    }
}
