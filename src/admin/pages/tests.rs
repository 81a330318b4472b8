//! Every page is rendered: for no tenants, for hostile ones, and for ten thousand.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::json;

use super::list::List;
use super::list::filter::Filter;
use super::{Seen, activation, funnel, needs, render, tenant};
use crate::admin::attention::examples::{condition, now, reached, tenant as example};
use crate::api::Tenant;
use minijinja::context;
use minijinja::value::Serde;
use serde::Serialize;
use std::sync::Arc;

fn seen(tenants: Vec<Tenant>) -> Seen {
    Seen { tenants: tenants.into_iter().map(Arc::new).collect(), now: now() }
}

fn shown(here: &str, name: &str, view: &impl Serialize) -> String {
    let page = render(name, context! { csrf => "token", here, view => Serde(view) });
    // Slashes are escaped too, which is hard to read.
    page.unwrap_or_else(|error| panic!("{name}: {error:#}")).0.replace("&#x2f;", "/")
}

fn list(seen: &Seen, query: &str) -> List {
    List::of(seen, &BTreeSet::from(["starter".to_owned()]), &Filter::of(Some(query)).expect(query))
}

/// Every page, by its name.
fn pages(seen: &Seen) -> Vec<(&'static str, String)> {
    let mut pages = vec![
        ("needs", shown("/admin", "admin/needs.html", &needs::Needs::of(seen))),
        ("tenants", shown("/admin/tenants", "admin/tenants.html", &list(seen, ""))),
        ("funnel", shown("/admin/funnel", "admin/funnel.html", &funnel::FunnelPage::of(seen, 30))),
        ("activation", shown("/admin/activation", "admin/activation.html", &activation::Activation::of(seen, 30))),
    ];
    if let Some(first) = seen.all().next() {
        let one = tenant::OneTenant::of(first, seen.now);
        pages.push(("tenant", shown("/admin/tenants", "admin/tenant.html", &one)));
    }
    pages
}

/// What opens is closed, in order; ids and labels are unique; nothing is inline, and nothing is of another host.
fn check(name: &str, page: &str) {
    const VOID: [&str; 4] = ["meta", "link", "input", "br"];
    let mut open = Vec::new();
    for part in page.split('<').skip(1) {
        let tag: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || "/!".contains(*c)).collect();
        match tag.strip_prefix('/') {
            Some(end) => assert_eq!(open.pop().as_deref(), Some(end), "{name}: {part}"),
            None if tag.starts_with('!') || VOID.contains(&&*tag) => {}
            None if part.split('>').next().is_some_and(|tag| tag.ends_with('/')) => {}
            None => open.push(tag),
        }
    }
    assert!(open.is_empty(), "{name}: {open:?}");
    for attribute in [" id=\"", " aria-label=\""] {
        let mut names = BTreeSet::new();
        for part in page.split(attribute).skip(1) {
            let value = part.split('"').next().unwrap_or_default();
            assert!(names.insert(value), "{name}: {attribute}{value}");
        }
    }
    for inline in [" style=", "<script", "<style", " onclick", "javascript:", "http://"] {
        assert!(!page.contains(inline), "{name}: {inline}");
    }
    for part in page.split("https://").skip(1) {
        assert!(part.starts_with("dashboard.stripe.com/"), "{name}: {part}");
    }
    assert_eq!(page.matches("<h1>").count(), 1, "{name}");
}

/// A tenant with everything that a page can show.
fn full(name: &str) -> Tenant {
    let usage = json!({
        "observedAt": "2026-11-30T11:59:00Z", "periodStart": "2026-11-01T00:00:00Z", "periodEnd": "2026-12-01T00:00:00Z",
        "queries": {"used": 12000, "limit": 10000}, "documents": {"used": 12, "limit": 1000},
        "bytes": {"used": 48213, "limit": 0}, "promptTokens": {"used": 812_000},
    });
    let billing = json!({
        "subscription": "sub_1",
        "meters": [{
            "unit": "queries", "price": "price_2", "meter": "mtr_1", "since": "2026-11-01T00:00:00Z",
            "through": "2026-11-30T11:00:00Z", "sent": 1200,
        }],
        "differences": [{"unit": "queries", "sent": 1200, "unsent": 3, "atStripe": 1100}],
    });
    let mut tenant = example(
        name,
        "Failed",
        json!({
            "subscription": "past_due", "usage": usage, "usageBilling": billing, "dispute": "Open",
            "paidAt": "2026-11-30T10:01:00Z", "provisionedAt": "2026-11-30T10:02:00Z", "refundOwedSince": "2026-11-30T11:00:00Z",
            "checkout": {"sessionId": "cs_test_1", "url": "https://checkout.stripe.com/x", "expiresAt": "2026-12-01T00:00:00Z"},
            "provisioning": {
                "attempts": 4, "startedAt": "2026-11-30T10:01:00Z", "failedStep": "namespace", "reason": "PineconeRefused",
                "lastError": "Pinecone refused the call",
            },
            "conditions": [
                condition("Ready", "False", "PineconeRefused", "Pinecone refused the call"),
                condition("UsageBilled", "False", "NumbersDiffer", "Stripe's meter has 1100"),
            ],
        }),
    );
    reached(&mut tenant, "first-login", "2026-11-30T10:03:00Z");
    reached(&mut tenant, "sample-query", "2026-11-30T10:04:00Z");
    reached(&mut tenant, "completed", "2026-11-30T10:40:00Z");
    tenant
}

#[test]
fn pages_of_no_tenants_say_so() {
    let seen = seen(Vec::new());
    for (name, page) in pages(&seen) {
        check(name, &page);
        let said = ["There are no tenants yet", "There is no signup to compare", "No customer of these days"];
        assert!(said.iter().any(|said| page.contains(said)), "{name}: {page}");
    }
}

#[test]
fn everything_that_is_known_of_a_tenant_is_on_its_page() {
    let seen = seen(vec![full("acme")]);
    for (name, page) in pages(&seen) {
        check(name, &page);
        assert!(page.contains("aria-current=\"page\""), "{name}");
    }
    let page = shown("/admin/tenants", "admin/tenant.html", &tenant::OneTenant::of(&seen.tenants[0], seen.now));
    for part in [
        "<h1>acme Ltd</h1>",
        "<code>kubectl tenant retry acme -n rag-tenants</code>",
        "href=\"https://dashboard.stripe.com/test/customers/cus_1\" rel=\"noopener noreferrer\">cus_1</a>",
        "<progress max=\"100\" value=\"100\" aria-label=\"Questions: 120 % of the limit\"></progress> 120 %",
        "1,200 queries were sent, and Stripe has 1,100",
        "<th scope=\"row\">Completed</th><td><time datetime=\"2026-11-30T10:40:00Z\">",
        "<td>40 min</td>",
        "<dt>Attempts that failed</dt><dd>4</dd>",
        "<td>not reached</td>",
        "<dt>Refund owed since</dt>",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
}

#[test]
fn what_a_stranger_wrote_stays_text() {
    let mut hostile = full("acme");
    hostile.spec.company_name = "<script>alert(1)</script>\u{202e}moc \" onmouseover=\"x".into();
    hostile.spec.admin_email = "\"><img src=x>@evil.example".into();
    hostile.spec.plan = "</select><script>".into();
    if let Some(status) = &mut hostile.status {
        status.message = Some("<b>\u{1b}[2J".into());
        for condition in &mut status.conditions {
            condition.message = "<i>\u{202e}".into();
        }
    }
    if let Some(stripe) = &mut hostile.spec.billing.stripe {
        stripe.customer_id = Some("javascript://x".into());
    }
    let seen = seen(vec![hostile]);
    for (name, page) in pages(&seen) {
        // The id is shown, and leads nowhere.
        check(name, &page.replace("<dd>javascript://x</dd>", "<dd></dd>"));
        for part in ["<img", "<b>", "<i>", "onmouseover=\"", "\u{202e}", "\u{1b}"] {
            assert!(!page.contains(part), "{name}: {part:?} in {page}");
        }
    }
    let found =
        shown("/admin/tenants", "admin/tenants.html", &list(&seen, "search=%22%3E%3Cscript%3E&plan=%3C%2Fselect%3E"));
    check("tenants", &found);
    assert!(found.contains("value=\"&quot;&gt;&lt;script&gt;\""), "{found}");
}

/// Customers over the last weeks, of whom some stop at each step.
fn many(count: usize) -> Seen {
    let tenants = (0..count).map(|number| {
        let name = format!("tenant-{number:05}");
        let status = json!({
            "subscription": "active", "provisionedAt": "2026-11-30T10:02:00Z", "paidAt": "2026-11-30T10:01:00Z",
            "suspendedFor": if number % 4 == 0 { json!("Payment") } else { json!(null) },
        });
        let mut tenant = example(&name, if number % 4 == 0 { "Suspended" } else { "Active" }, status);
        for (step, every, at) in [
            ("first-login", 2, "2026-11-30T10:10:00Z"),
            ("sample-query", 5, "2026-11-30T10:20:00Z"),
            ("completed", 10, "2026-11-30T11:00:00Z"),
        ] {
            if number % every == 0 {
                reached(&mut tenant, step, at);
            }
        }
        tenant
    });
    seen(tenants.collect())
}

#[test]
fn ten_thousand_tenants_are_a_page_of_fifty_and_soon_there() {
    let seen = many(10_000);
    let begun = Instant::now();
    let pages = pages(&seen);
    // Some hundred times what an optimised program takes on two cores.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    for (name, page) in &pages {
        check(name, page);
        assert!(page.len() < 100_000, "{name}: {}", page.len());
    }
    let by_name = |wanted: &str| &pages.iter().find(|(name, _)| *name == wanted).expect("a page").1;
    let needs = by_name("needs");
    assert!(needs.contains("<strong>10,000</strong> tenants") && needs.contains("<strong>2,500</strong> Suspended"));
    assert_eq!(needs.matches("kubectl tenant open").count(), 50);
    assert!(needs.contains("href=\"/admin/tenants?attention=suspended-for-payment\">All 2,500"), "{needs}");
    let tenants = by_name("tenants");
    assert!(tenants.contains("10,000 of 10,000 tenants") && tenants.contains("Page 1 of 200"));
    assert_eq!(tenants.matches("<tr>").count(), 51);
    let funnel = by_name("funnel");
    for part in [
        "<td>Logged in</td><td>5,000</td><td>Set up</td><td>50.0 %</td><td>50.0 % (over 40 %)</td>",
        "<td>Completed</td><td>1,000</td>",
        "<td>7,000</td>",
        "First answer: 80.0 % of those who reached",
        "5,000 (\u{2212}50.0 %)",
        "70 %: missed",
    ] {
        assert!(funnel.contains(part), "{part}: {funnel}");
    }
    let activation = by_name("activation");
    assert!(activation.contains("<td>30 min to 2 h</td><td>1,000</td><td>100.0 %</td>"), "{activation}");
}

#[test]
fn a_wrong_address_is_told_what_is_allowed() {
    let page = render(
        "admin/message.html",
        context! { title => "Not found", text => "There is no Tenant <b>.", menu => true },
    );
    let page = page.expect("a page").0;
    check("message", &page);
    assert!(page.contains("There is no Tenant &lt;b&gt;.") && page.contains("<nav"), "{page}");
    assert!(!page.contains("<form"), "a token of the session is not known here: {page}");
}

#[test]
fn the_page_to_log_in_has_the_style_and_no_menu() {
    let page = render("admin/login.html", context! { error => "That is not the admin token." }).expect("a page").0;
    check("login", &page);
    let style = &super::Pages::get().expect("pages").style;
    assert!(page.contains(style.name()) && !page.contains("<nav"), "{page}");
}
