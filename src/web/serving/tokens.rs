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

use super::problem::{Code, Problem, ProblemBody, WRONG_PASSWORD};
use crate::api::tenant::Desired;
use crate::api::{Phase, SESSIONS_ANNOTATION, Tenant, Timestamp};
use crate::links::parts;
use crate::web::App;

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
    /// Its seal, which no other pass has.
    seal: String,
}

impl Pass {
    /// What tells this pass from all others.
    pub fn seal(&self) -> &str {
        &self.seal
    }
}

/// When a Tenant was read, not before the end of the passes that the Tenant names as over. A pass that is issued after
/// a check of the password carries the generation from before the check, so that a password that changes meanwhile ends
/// the pass.
#[derive(Clone, Copy, Debug)]
pub struct Generation(Timestamp);

/// The moment from which on passes are valid: the last new password or first proof of the address, and the last time
/// that the account was closed.
fn valid_since(tenant: &Tenant) -> Option<Timestamp> {
    let noted = tenant.metadata.annotations.as_ref().and_then(|a| a.get(SESSIONS_ANNOTATION)?.parse().ok());
    let transitions = tenant.status.iter().flat_map(|status| &status.transitions);
    let closed = transitions.filter(|t| t.to_state == Phase::Deleting).map(|t| t.timestamp.plus(1)).next_back();
    let wished = tenant.spec.wisher().filter(|wish| wish.desired == Desired::Deleted).map(|wish| wish.at.plus(1));
    noted.map(Timestamp::from_second).max(closed).max(wished)
}

/// The value of [`SESSIONS_ANNOTATION`] that ends every pass of a Tenant that was issued until now. It is later than
/// each earlier end: a pass that was issued right after one, in the same second, ends as well.
pub fn ending(tenant: &Tenant, now: Timestamp) -> String {
    let newest = valid_since(tenant).map_or(now, |since| since.max(now));
    newest.plus(1).as_second().to_string()
}

/// What a request shows as `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok())?.strip_prefix("Bearer ")
}

impl App {
    /// A token.
    pub fn token(&self, tenant: &Tenant) -> String {
        self.token_of(tenant, self.generation(tenant))
    }

    /// A token of an earlier generation: the one that was read before the password was checked.
    pub fn token_of(&self, tenant: &Tenant, generation: Generation) -> String {
        self.pass_of("status", tenant, TOKEN_LIFE, generation)
    }

    /// The generation of passes that a Tenant, read just now, accepts.
    pub fn generation(&self, tenant: &Tenant) -> Generation {
        Generation(valid_since(tenant).map_or_else(|| self.now(), |since| since.max(self.now())))
    }

    /// The generation of passes that a Tenant accepts which may have been read a while ago: a new password that it does
    /// not show yet ends them.
    pub fn generation_of(tenant: &Tenant) -> Option<Generation> {
        valid_since(tenant).map(Generation)
    }

    /// The generation of passes before a Tenant is made.
    pub fn first_generation(&self) -> Generation {
        Generation(self.now())
    }

    /// A ticket for the event stream, which a browser's `EventSource` can only send in the URL; so it is short-lived.
    pub fn ticket(&self, tenant: &Tenant) -> String {
        self.pass("ticket", tenant, TICKET_LIFE)
    }

    /// What opens a tenant for a purpose, for so many seconds.
    pub fn pass(&self, purpose: &str, tenant: &Tenant, life: i64) -> String {
        self.pass_of(purpose, tenant, life, self.generation(tenant))
    }

    /// The same, of an earlier generation.
    pub fn pass_of(&self, purpose: &str, tenant: &Tenant, life: i64, Generation(issued): Generation) -> String {
        let (name, uid) = (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default());
        let address = self.identity.email_hash(&tenant.spec.admin_email);
        let (issued, until) = (issued.as_second().to_string(), issued.plus(life).as_second().to_string());
        let seal = self.identity.seal(purpose, &[name, uid, &address, &issued, &until]);
        format!("{name}.{uid}.{address}.{issued}.{until}.{seal}")
    }

    /// What a pass opens, if it is one of ours for this purpose and its time is not over. Whether it ended before its
    /// time is asked with the tenant: [`Self::opens`].
    pub fn open_pass(&self, purpose: &str, text: &str) -> Option<Pass> {
        let [name, uid, address, issued, until, seal] = parts(text)?;
        let [from, to] = [issued, until].map(|time| time.parse().ok().map(Timestamp::from_second));
        to.filter(|to| self.now() < *to)?;
        let sealed = self.identity.is_sealed(purpose, &[name, uid, address, issued, until], seal);
        let [name, uid, address, seal] = [name, uid, address, seal].map(str::to_owned);
        from.filter(|_| sealed).map(|issued| Pass { name, uid, address, issued, seal })
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
        self.open_pass("status", bearer(headers)?)
    }

    /// The tenant that a pass opens, if it is the one that was asked for.
    pub async fn opened(&self, pass: &Pass, id: &str) -> Result<Tenant, Problem> {
        let tenant = self.visited(pass).await?.ok_or_else(Problem::not_found)?;
        if tenant.tenant_id() == id { Ok(tenant) } else { Err(Problem::not_found()) }
    }

    /// The tenant that a pass opens, with one of the requests of its people taken. None where the pass is over. Only a
    /// pass that opens the tenant takes from the tenant's requests; one that has ended takes from its own, before the
    /// API server is asked.
    pub async fn visited(&self, pass: &Pass) -> Result<Option<Tenant>, Problem> {
        self.passes.take(&pass.seal).map_err(Problem::too_many)?;
        let tenant = self.tenants().get_opt(&pass.name).await?;
        let Some(tenant) = tenant.filter(|tenant| self.opens(pass, tenant)) else { return Ok(None) };
        self.visits.take(&pass.uid).map_err(Problem::too_many)?;
        Ok(Some(tenant))
    }
}

/// A log-in.
#[derive(Deserialize, ToSchema)]
pub struct Credentials {
    /// The e-mail address.
    #[schema(example = "ada@example.com")]
    email: String,
    /// The password.
    #[schema(example = "correct horse battery staple")]
    password: String,
}

/// A token.
#[derive(Serialize, ToSchema)]
pub struct TokenAnswer {
    /// The tenant's id.
    #[schema(example = "0b8f6f0e-6d1f-4d6e-9d55-8a1c7a2f4e10")]
    tenant_id: String,
    /// Opens `/tenant/{id}` and what is below it. It ends with a new password, another address, and the account.
    #[schema(example = "analytical-engines.0b8f6f0e.1764403200.c2VhbA")]
    token: String,
    /// Seconds until it ends.
    #[schema(example = 86400)]
    expires_in: i64,
}

fn wrong_password() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, WRONG_PASSWORD)
}

/// Logs in with e-mail address and password, and answers a new token.
#[utoipa::path(
    post, path = "/tenant/token", tag = "account", operation_id = "log_in", request_body = Credentials,
    responses((status = 200, body = TokenAnswer), (status = 401, body = ProblemBody, description = "The e-mail address or the password is wrong", example = json!(wrong_password().body())))
)]
pub async fn log_in(
    State(app): State<Arc<App>>,
    ClientIp(client): ClientIp,
    Json(Credentials { email, password }): Json<Credentials>,
) -> Result<Json<TokenAnswer>, Problem> {
    let (tenant, generation) = app.by_password(client, &email, password).await?.ok_or_else(wrong_password)?;
    tracing::info!(target: "audit", event = "token_issued", tenant = tenant.place().name);
    let token = app.token_of(&tenant, generation);
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
    fn each_end_of_passes_is_later_than_the_last_one() {
        let mut tenant = tenant();
        let now = Timestamp::from_second(100);
        for end in ["101", "102", "103"] {
            assert_eq!(ending(&tenant, now), end, "within the same second");
            tenant.metadata.annotations = Some([(SESSIONS_ANNOTATION.to_owned(), end.to_owned())].into());
        }
        assert_eq!(ending(&tenant, Timestamp::from_second(500)), "501");
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
        let issued = App::generation_of(&tenant).map(|Generation(issued)| issued);
        assert_eq!(issued, Some(at(201)), "not now: a later end that is not known yet ends the pass");
        tenant.spec.desired = Desired::Active;
        assert_eq!(valid_since(&tenant), Some(at(100)), "a wish that is not in force");
        let closed = serde_json::json!({"transitions": [{"tenant_id": "a", "event_type": "delete", "from_state": "Active",
            "to_state": "Deleting", "timestamp": at(300), "triggered_by": "user", "reason": "", "seq": 1}]});
        tenant.status = Some(serde_json::from_value(closed).expect("a status"));
        assert_eq!(valid_since(&tenant), Some(at(301)), "taken back since, and over all the same");
    }
}
