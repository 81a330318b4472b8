//! What lets its bearer see one tenant. A token is bound to the object's uid, and so ends with it.

use axum::http::{HeaderMap, header};

use super::App;
use super::problem::Problem;
use crate::api::{Tenant, Timestamp};
use crate::links::parts;

/// How long a ticket for the event stream is good, in seconds.
pub const TICKET_LIFE: i64 = 60;

/// What a ticket or a session opens.
pub struct Pass {
    /// The Tenant's name.
    pub name: String,
    /// Its uid: a namesake is somebody else.
    pub uid: String,
    /// Until when.
    pub until: Timestamp,
}

impl App {
    /// The token of a signup.
    pub fn status_token(&self, tenant: &Tenant) -> String {
        let (name, uid) = (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default());
        format!("{name}.{uid}.{}", self.identity.seal("status", &[name, uid]))
    }

    /// A ticket for the event stream, which a browser's `EventSource` can only send in the URL; so it is short-lived.
    pub fn ticket(&self, tenant: &Tenant) -> String {
        self.pass("ticket", tenant, self.now().plus(TICKET_LIFE))
    }

    /// What opens a tenant for a purpose until a moment.
    pub fn pass(&self, purpose: &str, tenant: &Tenant, until: Timestamp) -> String {
        let (name, uid) = (tenant.place().name, tenant.metadata.uid.as_deref().unwrap_or_default());
        let until = until.as_second().to_string();
        format!("{name}.{uid}.{until}.{}", self.identity.seal(purpose, &[name, uid, &until]))
    }

    /// What a pass opens, if it is one of ours for this purpose and its time is not over.
    pub fn open_pass(&self, purpose: &str, text: &str) -> Option<Pass> {
        let [name, uid, until, seal] = parts(text)?;
        let valid = until.parse().ok().map(Timestamp::from_second).filter(|until| self.now() < *until)?;
        let sealed = self.identity.is_sealed(purpose, &[name, uid, until], seal);
        sealed.then(|| Pass { name: name.into(), uid: uid.into(), until: valid })
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
        let pass = self.open_pass("ticket", ticket).ok_or_else(Problem::not_found)?;
        self.opened(true, &pass.name, &pass.uid, id).await
    }

    async fn opened(&self, proven: bool, name: &str, uid: &str, id: &str) -> Result<Tenant, Problem> {
        if !proven {
            return Err(Problem::not_found());
        }
        // Before the API server is asked: whose token it is, is known.
        self.visits.take(&uid.to_owned()).map_err(Problem::too_many)?;
        let tenant = self.tenants().get_opt(name).await?.ok_or_else(Problem::not_found)?;
        let same = tenant.metadata.uid.as_deref() == Some(uid) && tenant.tenant_id() == id;
        if same { Ok(tenant) } else { Err(Problem::not_found()) }
    }
}
