//! What lets its bearer see one tenant: tokens, tickets, sessions and links to downloads.
//!
//! A pass names the object's uid and the hash of the customer's address, and has an end. It ends before that with a new
//! password, the first proof of the address, another address, and the account.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum_client_ip::ClientIp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::App;
use super::problem::{Problem, ProblemBody};
use crate::api::tenant::Desired;
use crate::api::{Phase, SESSIONS_ANNOTATION, Tenant, Timestamp};
use crate::links::parts;

/// How long a ticket for the event stream is good, in seconds.
pub const TICKET_LIFE: i64 = 60;
/// How long a token is good, in seconds.
pub const TOKEN_LIFE: i64 = 24 * 3600;

/// What a pass opens.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The Tenant's name.
    pub name: String,
    /// Its uid: a namesake is another tenant.
    pub uid: String,
    /// The hash of the customer's address when it was issued.
    address: String,
    /// When it was issued.
    issued: Timestamp,
}

/// The moment from which on passes are valid: the last new password or first proof of the address, and the last time that the
/// account was closed.
fn valid_since(tenant: &Tenant) -> Option<Timestamp> {
    let noted = tenant.metadata.annotations.as_ref().and_then(|a| a.get(SESSIONS_ANNOTATION)?.parse().ok());
    let transitions = tenant.status.iter().flat_map(|status| &status.transitions);
    let closed = transitions.filter(|t| t.to_state == Phase::Deleting).map(|t| t.timestamp.plus(1)).next_back();
    let wished = tenant.spec.wisher().filter(|wish| wish.desired == Desired::Deleted).map(|wish| wish.at.plus(1));
    noted.map(Timestamp::from_second).max(closed).max(wished)
}

impl App {
    /// A token.
    pub fn token(&self, tenant: &Tenant) -> String {
        self.pass("status", tenant, TOKEN_LIFE)
    }

    /// A ticket for the event stream, which a browser's `EventSource` can only send in the URL; so it is short-lived.
    pub fn ticket(&self, tenant: &Tenant) -> String {
        self.pass("ticket", tenant, TICKET_LIFE)
    }

    /// What opens a tenant for a purpose, for so many seconds.
    pub fn pass(&self, purpose: &str, tenant: &Tenant, life: i64) -> String {
        let (name, uid) = (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default());
        let address = self.identity.email_hash(&tenant.spec.admin_email);
        let issued = valid_since(tenant).map_or_else(|| self.now(), |since| since.max(self.now()));
        let (issued, until) = (issued.as_second().to_string(), issued.plus(life).as_second().to_string());
        let seal = self.identity.seal(purpose, &[name, uid, &address, &issued, &until]);
        format!("{name}.{uid}.{address}.{issued}.{until}.{seal}")
    }

    /// What a pass opens, if it is one of ours for this purpose and its time is not over. Whether it ended before its time
    /// is asked with the tenant: [`Self::opens`].
    pub fn open_pass(&self, purpose: &str, text: &str) -> Option<Pass> {
        let [name, uid, address, issued, until, seal] = parts(text)?;
        let [from, to] = [issued, until].map(|time| time.parse().ok().map(Timestamp::from_second));
        to.filter(|to| self.now() < *to)?;
        let sealed = self.identity.is_sealed(purpose, &[name, uid, address, issued, until], seal);
        let [name, uid, address] = [name, uid, address].map(str::to_owned);
        from.filter(|_| sealed).map(|issued| Pass { name, uid, address, issued })
    }

    /// Whether a pass opens this object: it was issued for it, and nothing has ended it since.
    pub fn opens(&self, pass: &Pass, tenant: &Tenant) -> bool {
        tenant.metadata.uid.as_ref() == Some(&pass.uid)
            && self.identity.email_hash(&tenant.spec.admin_email) == pass.address
            && valid_since(tenant).is_none_or(|since| since <= pass.issued)
    }

    /// The tenant that the bearer's token opens, if it is the one that was asked for.
    pub async fn by_token(&self, headers: &HeaderMap, id: &str) -> Result<Tenant, Problem> {
        let pass = self.bearer(headers).ok_or_else(Problem::not_found)?;
        self.opened(&pass, id).await
    }

    /// What the bearer's token opens.
    pub fn bearer(&self, headers: &HeaderMap) -> Option<Pass> {
        let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        self.open_pass("status", header.and_then(|v| v.strip_prefix("Bearer "))?)
    }

    /// The tenant that a ticket opens.
    pub async fn by_ticket(&self, ticket: &str, id: &str) -> Result<Tenant, Problem> {
        let pass = self.open_pass("ticket", ticket).ok_or_else(Problem::not_found)?;
        self.opened(&pass, id).await
    }

    async fn opened(&self, pass: &Pass, id: &str) -> Result<Tenant, Problem> {
        // Before the API server is asked: the tenant of the token is known.
        self.visits.take(&pass.uid).map_err(Problem::too_many)?;
        let tenant = self.tenants().get_opt(&pass.name).await?.ok_or_else(Problem::not_found)?;
        if self.opens(pass, &tenant) && tenant.tenant_id() == id { Ok(tenant) } else { Err(Problem::not_found()) }
    }
}

/// A log-in.
#[derive(Deserialize, ToSchema)]
pub struct Credentials {
    /// The e-mail address.
    email: String,
    /// The password.
    password: String,
}

/// A token.
#[derive(Serialize, ToSchema)]
pub struct TokenAnswer {
    /// The tenant's id.
    tenant_id: String,
    /// Opens `/tenant/{id}` and what is below it. It ends with a new password, another address, and the account.
    token: String,
    /// Seconds until it ends.
    expires_in: i64,
}

/// Logs in with e-mail address and password, and answers a new token.
#[utoipa::path(
    post, path = "/tenant/token", tag = "account", request_body = Credentials,
    responses((status = 200, body = TokenAnswer), (status = 401, body = ProblemBody), (status = 429, body = ProblemBody))
)]
pub async fn log_in(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    Json(Credentials { email, password }): Json<Credentials>,
) -> Result<Json<TokenAnswer>, Problem> {
    let tenant = app.by_password(client, &email, password).await?.ok_or_else(|| {
        Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "The e-mail address or the password is wrong.")
    })?;
    tracing::info!(target: "audit", event = "token_issued", tenant = tenant.place().name);
    let token = app.token(&tenant);
    Ok(Json(TokenAnswer { tenant_id: tenant.tenant_id().into(), token, expires_in: TOKEN_LIFE }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::tenant::Wish;

    fn tenant() -> Tenant {
        let spec = serde_json::json!({"companyName": "A", "adminEmail": "a@b.example"});
        Tenant::new("a", serde_json::from_value(spec).expect("a spec"))
    }

    #[test]
    fn passes_from_before_a_new_password_or_a_closed_account_are_over() {
        let at = Timestamp::from_second;
        let mut tenant = tenant();
        assert_eq!(valid_since(&tenant), None);
        tenant.metadata.annotations = Some([(SESSIONS_ANNOTATION.to_owned(), "100".to_owned())].into());
        assert_eq!(valid_since(&tenant), Some(at(100)));
        tenant.spec.desired = Desired::Deleted;
        tenant.spec.wish = Some(Wish::of_admin(Desired::Deleted, None, None, at(200)));
        assert_eq!(valid_since(&tenant), Some(at(201)));
        tenant.spec.desired = Desired::Active;
        assert_eq!(valid_since(&tenant), Some(at(100)), "a wish that is not in force");
        let closed = serde_json::json!({"transitions": [{"tenant_id": "a", "event_type": "delete", "from_state": "Active",
            "to_state": "Deleting", "timestamp": at(300), "triggered_by": "user", "reason": "", "seq": 1}]});
        tenant.status = Some(serde_json::from_value(closed).expect("a status"));
        assert_eq!(valid_since(&tenant), Some(at(301)), "taken back since, and over all the same");
    }
}
