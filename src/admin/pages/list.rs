//! `GET /admin/tenants`: the tenants that a search and filters match, a page at a time, or all of them as CSV.

pub(super) mod filter;

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde::Serialize;
use strum::IntoEnumIterator;

use super::words::{Moment, Named, Stage};
use super::{PageResult, Seen, page};
use crate::admin::attention::{Kind, items};
use crate::admin::{Admin, Owner};
use crate::api::{Tenant, Timestamp, Usage};
use crate::plain::{CsvError, CsvLines};
use filter::{Filter, Form, Sort};

/// Tenants on a page.
const PER_PAGE: usize = 50;

/// The page.
#[derive(Debug, Serialize)]
pub struct List {
    total: usize,
    matching: usize,
    /// The number of this page and of the last one.
    number: usize,
    last: usize,
    rows: Vec<Row>,
    previous: Option<String>,
    next: Option<String>,
    csv: String,
    search: String,
    phases: Vec<Choice>,
    plans: Vec<Choice>,
    kinds: Vec<Choice>,
    sorts: Vec<Choice>,
}

/// What a field of the form can be.
#[derive(Debug, Serialize)]
struct Choice {
    value: String,
    label: String,
    chosen: bool,
}

/// A tenant.
#[derive(Debug, Serialize)]
struct Row {
    tenant: Named,
    phase: String,
    plan: String,
    created: Option<Moment>,
    used: i64,
    limit: Option<i64>,
    needs: Vec<&'static str>,
}

impl List {
    pub(super) fn of(seen: &Seen, plans: &BTreeSet<String>, filter: &Filter) -> Self {
        let found = filter.matching(seen.all(), seen.now);
        let last = found.len().div_ceil(PER_PAGE).max(1);
        let here = found.iter().skip((filter.page - 1).saturating_mul(PER_PAGE)).take(PER_PAGE);
        let chosen = |value: String, label: &str, chosen| Choice { value, label: label.to_owned(), chosen };
        let mut plans = plans.clone();
        plans.extend(filter.plan.clone());
        Self {
            total: seen.tenants.len(),
            matching: found.len(),
            number: filter.page,
            last,
            rows: here.map(|tenant| Row::of(tenant, seen.now)).collect(),
            previous: (filter.page > 1).then(|| filter.href(filter.page.min(last + 1) - 1, Form::Page)),
            next: (filter.page < last).then(|| filter.href(filter.page + 1, Form::Page)),
            csv: filter.href(1, Form::Csv),
            search: filter.search.clone(),
            phases: Stage::all()
                .map(|stage| chosen(stage.to_string(), &stage.to_string(), filter.phase == Some(stage)))
                .collect(),
            plans: plans.iter().map(|plan| chosen(plan.clone(), plan, filter.plan.as_ref() == Some(plan))).collect(),
            kinds: Kind::iter()
                .map(|kind| chosen(kind.name().into(), kind.title(), filter.attention == Some(kind)))
                .collect(),
            sorts: Sort::iter().map(|sort| chosen(sort.name().into(), sort.label(), filter.sort == sort)).collect(),
        }
    }
}

impl Row {
    fn of(tenant: &Tenant, now: Timestamp) -> Self {
        Self {
            tenant: Named::of(tenant),
            phase: Stage::of(tenant).to_string(),
            plan: tenant.plan_in_force().to_owned(),
            created: filter::created(tenant).map(|at| Moment::of(at, now)),
            used: Usage::shown(tenant).queries,
            limit: limit(tenant),
            needs: items(tenant, now).iter().map(|item| item.kind.title()).collect(),
        }
    }
}

fn limit(tenant: &Tenant) -> Option<i64> {
    tenant.status.as_ref()?.usage.as_ref()?.queries.limit
}

/// Everything that the filter matches.
fn csv(seen: &Seen, filter: &Filter) -> Result<String, CsvError> {
    let mut lines = CsvLines::new(&[
        "namespace",
        "name",
        "tenant_id",
        "company",
        "email",
        "phase",
        "plan",
        "created",
        "queries_used",
        "queries_limit",
        "needs",
    ])?;
    for tenant in filter.matching(seen.all(), seen.now) {
        let place = tenant.place();
        let needs: Vec<_> = items(tenant, seen.now).iter().map(|item| item.kind.name()).collect();
        lines.push([
            place.namespace.to_owned(),
            place.name.to_owned(),
            tenant.tenant_id().to_owned(),
            tenant.spec.company_name.clone(),
            tenant.spec.admin_email.clone(),
            Stage::of(tenant).to_string(),
            tenant.plan_in_force().to_owned(),
            filter::created(tenant).map_or_else(String::new, |at| at.to_string()),
            Usage::shown(tenant).queries.to_string(),
            limit(tenant).map_or_else(String::new, |limit| limit.to_string()),
            needs.join(" "),
        ])?;
    }
    lines.text()
}

/// `GET /admin/tenants`
pub async fn show(State(admin): State<Arc<Admin>>, owner: Owner, RawQuery(query): RawQuery) -> PageResult {
    let filter = Filter::of(query.as_deref())?;
    if filter.form == Form::Csv {
        let text = admin.view(move |seen| csv(seen, &filter)).await??;
        let headers = [
            (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
            (header::CONTENT_DISPOSITION, "attachment; filename=\"tenants.csv\""),
        ];
        return Ok((headers, text).into_response());
    }
    let plans = admin.tenants.plans().iter().filter_map(|plan| plan.metadata.name.clone()).collect();
    let view = admin.view(move |seen| List::of(seen, &plans, &filter)).await?;
    page(&owner, "/admin/tenants", "admin/tenants.html", &view)
}

#[cfg(test)]
mod tests;
