//! How pages write what is known of tenants.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use strum::IntoEnumIterator;

use crate::analytics::minutes;
use crate::api::{Phase, Place, Tenant, Timestamp};
use crate::plain::plain;

/// A tenant as lists name it. What a customer chose is without characters that turn or hide others.
#[derive(Debug, Serialize)]
pub struct Named {
    pub company: String,
    pub email: String,
    pub namespace: String,
    pub name: String,
    pub href: String,
}

impl Named {
    pub fn of(tenant: &Tenant) -> Self {
        let Place { namespace, name } = tenant.place();
        let company = plain(&tenant.spec.company_name);
        Self {
            // A link needs a name.
            company: if company.trim().is_empty() { name.to_owned() } else { company },
            email: plain(&tenant.spec.admin_email),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            href: format!("/admin/tenants/{namespace}/{name}"),
        }
    }
}

/// A moment, and how long ago it was.
#[derive(Debug, Serialize)]
pub struct Moment {
    pub at: String,
    /// Such as `3.5 h`.
    pub ago: String,
    /// Whether it is still to come.
    pub ahead: bool,
}

impl Moment {
    pub fn of(at: Timestamp, now: Timestamp) -> Self {
        let ago = now.since(at);
        Self { at: at.to_string(), ago: duration(ago.saturating_abs()), ahead: ago < 0 }
    }
}

/// Seconds in the unit that a person would use.
#[allow(clippy::cast_precision_loss, reason = "the seconds of a century are far below 2^52")]
pub fn duration(seconds: i64) -> String {
    minutes(seconds as f64 / 60.0)
}

/// Where a tenant is in its life: its phase, or nothing where the controller has not seen it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stage(Option<Phase>);

/// What a tenant is before its first phase.
const NEW: &str = "New";

impl Stage {
    pub fn of(tenant: &Tenant) -> Self {
        Self(tenant.status.as_ref().and_then(|status| status.phase))
    }

    /// All of them, in the order of a tenant's life.
    pub fn all() -> impl Iterator<Item = Self> {
        std::iter::once(Self(None)).chain(Phase::iter().map(|phase| Self(Some(phase))))
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(phase) => phase.fmt(f),
            None => f.write_str(NEW),
        }
    }
}

impl FromStr for Stage {
    type Err = strum::ParseError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Ok(Self(if name == NEW { None } else { Some(name.parse()?) }))
    }
}

/// The address of the list with these parameters.
pub fn list_href(parameters: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    if query.is_empty() { "/admin/tenants".into() } else { format!("/admin/tenants?{query}") }
}
