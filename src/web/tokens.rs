//! What lets its bearer see one tenant. A token is bound to the object's uid, and so ends with it.

use axum::http::{HeaderMap, header};

use super::App;
use super::problem::Problem;
use crate::api::{Tenant, Timestamp};

/// How long a ticket for the event stream is good, in seconds.
pub const TICKET_LIFE: i64 = 60;

impl App {
    /// The token of a signup.
    pub fn status_token(&self, tenant: &Tenant) -> String {
        let (name, uid) = (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default());
        format!("{name}.{uid}.{}", self.identity.seal("status", &[name, uid]))
    }

    /// A ticket for the event stream, which a browser's `EventSource` can only send in the URL; so it is short-lived.
    pub fn ticket(&self, tenant: &Tenant) -> String {
        let (name, uid) = (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default());
        let until = (Timestamp::now().as_second() + TICKET_LIFE).to_string();
        format!("{name}.{uid}.{until}.{}", self.identity.seal("ticket", &[name, uid, &until]))
    }

    /// The tenant that the bearer's token opens, if it is the one that was asked for.
    pub async fn by_token(&self, headers: &HeaderMap, id: &str) -> Result<Tenant, Problem> {
        let header = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = header.and_then(|v| v.strip_prefix("Bearer ")).ok_or_else(Problem::not_found)?;
        let [name, uid, seal] = parts(token).ok_or_else(Problem::not_found)?;
        self.opened(self.identity.is_sealed("status", &[name, uid], seal), name, uid, id).await
    }

    /// The tenant that a ticket opens.
    pub async fn by_ticket(&self, ticket: &str, id: &str) -> Result<Tenant, Problem> {
        let [name, uid, until, seal] = parts(ticket).ok_or_else(Problem::not_found)?;
        let valid = until.parse().is_ok_and(|until: i64| Timestamp::now().as_second() <= until);
        let sealed = self.identity.is_sealed("ticket", &[name, uid, until], seal);
        self.opened(sealed && valid, name, uid, id).await
    }

    async fn opened(&self, proven: bool, name: &str, uid: &str, id: &str) -> Result<Tenant, Problem> {
        if !proven {
            return Err(Problem::not_found());
        }
        let tenant = self.tenants().get_opt(name).await?.ok_or_else(Problem::not_found)?;
        let same = tenant.metadata.uid.as_deref() == Some(uid) && tenant.tenant_id() == id;
        if same { Ok(tenant) } else { Err(Problem::not_found()) }
    }
}

/// The parts of a token. Only the first, an object's name, may hold dots.
pub fn parts<const N: usize>(token: &str) -> Option<[&str; N]> {
    let mut parts: Vec<&str> = token.rsplitn(N, '.').collect();
    parts.reverse();
    parts.try_into().ok()
}
