//! The pages, as a browser with a session gets them.

use kube::Api;
use tenant_operator::api::status::TenantStatus;
use tenant_operator::api::{Phase, Tenant};

use super::*;

impl Door {
    /// A page, its status, and what its headers say of its kind.
    async fn page(&self, session: &str, path: &str) -> (u16, String, String) {
        let answer = self.get(path).header("cookie", session).send().await.expect("it answers");
        let headers = answer.headers();
        let kind = headers["content-type"].to_str().expect("text").to_owned();
        assert_eq!(headers["x-content-type-options"], "nosniff", "{path}");
        assert_eq!(headers["cache-control"], "no-store", "{path}");
        if kind.starts_with("text/html") {
            let policy = headers["content-security-policy"].to_str().expect("text");
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{path}: {policy}");
        }
        // Slashes are escaped, which is hard to read.
        (answer.status().as_u16(), kind, answer.text().await.expect("text").replace("&#x2f;", "/"))
    }

    async fn shown(&self, session: &str, path: &str) -> String {
        let (status, kind, page) = self.page(session, path).await;
        assert_eq!((status, kind.as_str()), (200, "text/html; charset=utf-8"), "{path}: {page}");
        page
    }
}

/// A tenant that failed, and one that no controller has seen. The name of the first one is hostile.
async fn two_tenants(world: &World) {
    for name in ["broken", "new"] {
        world.create(name, "enterprise", BillingMode::Manual).await;
    }
    merge(world, "broken", json!({"spec": {"companyName": "=1+1 <script>alert(1)</script>"}})).await;
    let api: Api<Tenant> = world.tenants();
    let mut broken = api.get("broken").await.expect("there");
    broken.status = Some(TenantStatus { phase: Some(Phase::Failed), ..TenantStatus::default() });
    api.replace_status("broken", &Default::default(), &broken).await.expect("written");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_page_is_shown_with_a_session_and_a_wrong_address_says_what_is_allowed() {
    let world = World::without_controller("admin-pages").await;
    two_tenants(&world).await;
    let door = Door::open(&world, &[]).filled(&world).await;
    let session = door.session().await;
    let place = format!("{}/broken", world.namespace);
    for path in ["/admin", "/admin/tenants", "/admin/funnel", "/admin/activation", &format!("/admin/tenants/{place}")] {
        let answer = door.get(path).send().await.expect("it answers");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (303, &"/admin/login".parse().expect("a value"))
        );
        let page = door.shown(&session, path).await;
        assert!(page.contains("aria-current=\"page\"") && !page.contains("<script"), "{path}: {page}");
    }

    let needs = door.shown(&session, "/admin").await;
    for part in [
        "<strong>2</strong> tenants",
        "href=\"/admin/tenants?phase=Failed\"><strong>1</strong> Failed",
        "href=\"/admin/tenants?phase=New\"><strong>1</strong> New",
        &format!("kubectl tenant retry broken -n {}", world.namespace),
        "=1+1 &lt;script&gt;",
    ] {
        assert!(needs.contains(part), "{part}: {needs}");
    }
    let found = door.shown(&session, "/admin/tenants?search=ALERT(1)&phase=Failed&attention=failed").await;
    assert!(found.contains("1 of 2 tenants") && found.contains(&format!("href=\"/admin/tenants/{place}\"")), "{found}");
    let (status, kind, csv) = door.page(&session, "/admin/tenants?format=csv").await;
    assert_eq!((status, kind.as_str(), csv.lines().count()), (200, "text/csv; charset=utf-8", 3), "{csv}");
    assert!(csv.contains(",'=1+1 <script>alert(1)</script>,"), "{csv}");
    the_style_is_loaded(&door, &needs).await;
    wrong_addresses_say_why(&world, &door, &session).await;
}

/// Also without a session: the page to log in has it.
async fn the_style_is_loaded(door: &Door, page: &str) {
    let style = page.split("<link rel=\"stylesheet\" href=\"").nth(1).and_then(|rest| rest.split('"').next());
    let answer = door.get(style.expect("a style")).send().await.expect("it answers");
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["content-type"]),
        (200, &"text/css; charset=utf-8".parse().expect("a value"))
    );
    assert!(answer.headers()["cache-control"].to_str().expect("text").contains("immutable"));
    let style = answer.text().await.expect("text");
    assert!(style.contains("prefers-color-scheme: dark") && style.contains(".needs"), "{style}");
    assert!(!style.contains("url(") && !style.contains("@import"), "nothing of another host: {style}");
}

async fn wrong_addresses_say_why(world: &World, door: &Door, session: &str) {
    for (path, status, said) in [
        ("/admin/funnel?days=0", 400, "days: must be a whole number from 1 to 3650."),
        ("/admin/activation?days=9999999", 400, "days: must be a whole number from 1 to 3650."),
        ("/admin/tenants?phase=gone", 400, "phase: must be one of: New, PendingPayment,"),
        ("/admin/tenants?sort=%3Cscript%3E", 400, "sort: must be one of: created, company, phase, used."),
        ("/admin?x=1", 400, "x: there is no such parameter."),
        (&format!("/admin/tenants/{}/missing", world.namespace), 404, "There is no Tenant missing in namespace"),
        ("/admin/tenants/%3Cb%3E/%E2%80%AEx", 404, "There is no Tenant  x in namespace &lt;b&gt;."),
        ("/admin/assets/none.css", 404, "There is no such file."),
    ] {
        let (answered, kind, page) = door.page(session, path).await;
        assert_eq!((answered, kind.as_str()), (status, "text/html; charset=utf-8"), "{path}: {page}");
        assert!(page.contains(said) && !page.contains("<script"), "{path}: {page}");
    }
}
