//! What the list matches, how it is ordered, and what it refuses.

use std::sync::Arc;

use serde_json::json;

use super::filter::Filter;
use super::*;
use crate::admin::attention::examples::{now, sound, tenant};

fn seen(tenants: Vec<Tenant>) -> Seen {
    Seen { tenants: tenants.into_iter().map(Arc::new).collect(), now: now() }
}

/// The names of the rows.
fn rows(seen: &Seen, query: &str) -> Vec<String> {
    let filter = Filter::of(Some(query)).unwrap_or_else(|error| panic!("{query}: {error}"));
    let list = List::of(seen, &BTreeSet::new(), &filter);
    list.rows.into_iter().map(|row| row.tenant.name).collect()
}

fn three() -> Seen {
    let mut old = sound("old");
    old.spec.company_name = "Zürich Söhne".into();
    old.metadata.creation_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).expect("a time");
    let mut busy = tenant(
        "busy",
        "Active",
        json!({"subscription": "active", "usage": {
            "observedAt": "2026-11-30T11:59:00Z", "periodStart": "2026-11-01T00:00:00Z", "periodEnd": "2026-12-01T00:00:00Z",
            "queries": {"used": 500, "limit": 1000},
        }}),
    );
    busy.spec.company_name = "abacus".into();
    busy.spec.plan = "enterprise".into();
    let failed = tenant("broken", "Failed", json!({"refund": {"amount": 0, "at": "2026-11-30T11:01:00Z"}}));
    let mut new = sound("new");
    new.status = None;
    new.metadata.creation_timestamp = serde_json::from_value(json!("2026-11-30T11:59:59Z")).expect("a time");
    seen(vec![old, busy, failed, new])
}

#[test]
fn a_search_finds_names_of_any_letters_addresses_and_ids() {
    let all = three();
    for (query, found) in [
        ("search=ABACUS", "busy"),
        ("search=z%C3%9CRICH", "old"),
        ("search=broken%40example", "broken"),
        ("search=id-BUSY", "busy"),
        ("search=%20%20new%20", "new"),
        ("phase=Failed", "broken"),
        ("phase=New", "new"),
        ("plan=enterprise", "busy"),
        ("attention=failed", "broken"),
        ("search=ltd&phase=Failed&plan=starter&attention=failed", "broken"),
    ] {
        assert_eq!(rows(&all, query), [found], "{query}");
    }
    assert!(rows(&all, "search=nothing%20of%20this").is_empty());
    assert_eq!(rows(&all, "search=&phase=&plan=&sort=&page=&attention=&format=").len(), 4);
}

#[test]
fn the_order_is_what_was_asked_for() {
    let all = three();
    assert_eq!(rows(&all, ""), ["new", "busy", "broken", "old"], "the newest first");
    assert_eq!(rows(&all, "sort=company"), ["busy", "broken", "new", "old"]);
    assert_eq!(rows(&all, "sort=phase"), ["new", "busy", "old", "broken"]);
    assert_eq!(rows(&all, "sort=used")[0], "busy");
}

#[test]
fn a_wrong_parameter_is_named_with_what_is_allowed() {
    for (query, said) in [
        ("phase=active", "phase: must be one of: New, PendingPayment, Provisioning, Active"),
        ("sort=name", "sort: must be one of: created, company, phase, used."),
        ("page=0", "page: must be a whole number from 1 to"),
        ("page=-1", "page: must be a whole number"),
        ("page=x", "page: must be a whole number"),
        ("format=xlsx", "format: must be one of: html, csv."),
        ("attention=none", "attention: must be one of: failed, refund-owed, held"),
        ("order=x", "order: there is no such parameter. This page takes search, phase,"),
        ("page=1&page=2", "page: appears more than once"),
    ] {
        let error = Filter::of(Some(query)).expect_err(query).to_string();
        assert!(error.starts_with(said), "{query}: {error}");
    }
    let long = format!("search={}", "a".repeat(201));
    assert_eq!(Filter::of(Some(&long)).expect_err("long").to_string(), "search: must have at most 200 characters.");
    assert!(Filter::of(Some(&format!("search={}", "%C3%A4".repeat(200)))).is_ok());
}

#[test]
fn pages_lead_to_each_other_and_keep_what_was_asked_for() {
    let all = seen((0..120).map(|n| sound(&format!("t-{n:03}"))).collect());
    let shown = |query| List::of(&all, &BTreeSet::new(), &Filter::of(Some(query)).expect(query));
    let first = shown("search=%26+t&sort=company");
    assert_eq!((first.matching, first.next), (0, None));
    let first = shown("search=t-&sort=company");
    assert_eq!((first.rows.len(), first.last, first.previous), (50, 3, None));
    assert_eq!(first.next.as_deref(), Some("/admin/tenants?search=t-&sort=company&page=2"));
    assert_eq!(first.csv, "/admin/tenants?search=t-&sort=company&format=csv");
    let last = shown("search=t-&sort=company&page=3");
    assert_eq!((last.rows.len(), last.next), (20, None));
    assert_eq!(last.previous.as_deref(), Some("/admin/tenants?search=t-&sort=company&page=2"));
    let beyond = shown("page=1000000");
    assert_eq!((beyond.rows.len(), beyond.previous.as_deref()), (0, Some("/admin/tenants?page=3")));
}

#[test]
fn the_csv_has_all_that_matches_and_no_formula() {
    let mut evil = sound("evil");
    evil.spec.company_name = "=cmd|' /C calc'!A0".into();
    evil.spec.admin_email = "+1@evil.example".into();
    let mut tenants: Vec<_> = (0..60).map(|n| sound(&format!("t-{n:03}"))).collect();
    tenants.push(evil);
    tenants.push(tenant("broken", "Failed", json!({})));
    let text = csv(&seen(tenants), &Filter::of(Some("format=csv")).expect("a filter")).expect("a CSV");
    assert_eq!(text.lines().count(), 63, "the header and all, not one page");
    assert!(text.contains("rag-tenants,evil,id-evil,'=cmd|' /C calc'!A0,'+1@evil.example,Active,starter,"), "{text}");
    assert!(text.contains(",Failed,starter,2026-11-30T10:00:00Z,0,,failed refund-owed\n"), "{text}");
}
