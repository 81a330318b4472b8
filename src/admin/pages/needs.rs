//! `GET /admin`: what needs an owner today.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use serde::Serialize;

use super::parameters::Parameters;
use super::words::{Moment, Named, Stage, list_href};
use super::{PageResult, Seen, page};
use crate::admin::attention::{Item, groups};
use crate::admin::{Admin, Owner};
use crate::plain::plain;

/// Tenants shown of a kind. A link leads to all of them.
const SHOWN: usize = 50;

/// The page.
#[derive(Debug, Serialize)]
pub struct Needs {
    total: usize,
    phases: Vec<PhaseCount>,
    groups: Vec<Group>,
    at: String,
}

/// Tenants in a phase.
#[derive(Debug, Serialize)]
struct PhaseCount {
    name: String,
    count: usize,
    href: String,
}

/// What needs an owner for one reason.
#[derive(Debug, Serialize)]
struct Group {
    kind: &'static str,
    title: &'static str,
    meaning: &'static str,
    count: usize,
    items: Vec<Shown>,
    /// Where all of them are, if they are not shown here.
    all: Option<String>,
}

/// One tenant that needs an owner.
#[derive(Debug, Serialize)]
pub struct Shown {
    pub tenant: Named,
    pub title: &'static str,
    pub meaning: &'static str,
    pub since: Option<Moment>,
    pub message: String,
    pub command: String,
}

impl Shown {
    pub fn of(item: &Item, now: crate::api::Timestamp) -> Self {
        Self {
            tenant: Named::of(item.tenant),
            title: item.kind.title(),
            meaning: item.kind.meaning(),
            since: item.since.map(|since| Moment::of(since, now)),
            message: plain(&item.message),
            command: item.command(),
        }
    }
}

impl Needs {
    pub(super) fn of(seen: &Seen) -> Self {
        let mut phases = BTreeMap::<_, usize>::new();
        for tenant in seen.all() {
            *phases.entry(Stage::of(tenant)).or_default() += 1;
        }
        let phases = phases.into_iter().map(|(phase, count)| {
            let name = phase.to_string();
            PhaseCount { href: list_href(&[("phase", &name)]), name, count }
        });
        let groups = groups(seen.all(), seen.now).into_iter().map(|(kind, items)| Group {
            kind: kind.name(),
            title: kind.title(),
            meaning: kind.meaning(),
            count: items.len(),
            all: (items.len() > SHOWN).then(|| list_href(&[("attention", kind.name())])),
            items: items.iter().take(SHOWN).map(|item| Shown::of(item, seen.now)).collect(),
        });
        Self { total: seen.tenants.len(), phases: phases.collect(), groups: groups.collect(), at: seen.now.to_string() }
    }
}

/// `GET /admin`
pub async fn show(State(admin): State<Arc<Admin>>, owner: Owner, RawQuery(query): RawQuery) -> PageResult {
    Parameters::of(query.as_deref(), &[])?;
    let view = admin.view(Needs::of).await?;
    page(&owner, "/admin", "admin/needs.html", &view)
}
