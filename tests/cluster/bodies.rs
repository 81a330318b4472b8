//! Bodies that arrive slowly or in small pieces: what they cost web, and others.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;
use tenant_operator::api::tenant::Desired;
use tenant_operator_sandbox::stripe::webhooks::sign;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use crate::support::{Lab, WEBHOOK_SECRET, World, begin, folder, name, signed_up, text};

/// Web behind a proxy that says who the client is.
const PROXIED: [&str; 2] = ["--client-ip", "RightmostXForwardedFor"];

/// The memory of a process that is resident, in kB.
fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("its memory");
    line.trim().trim_end_matches("kB").trim().parse().expect("a number")
}

/// What the memory of web may grow by.
const GROWTH: u64 = 40 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_byte_by_byte_takes_no_more_memory_than_its_bytes() {
    let mut world = World::without_controller("bytewise").await;
    world.start_web(&[]);
    let process = world.first_web().id();
    let head = "POST /login HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 65000";
    // The first requests of a process cost it more than others.
    drop(begin(&world.web, head, b"email=").await);
    let before = resident(process);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let web = world.web.clone();
            tokio::spawn(async move {
                let mut stream = begin(&web, head, b"email=").await;
                for _ in 0..4000 {
                    stream.write_all(b"x").await.expect("sent");
                    // Web reads each byte by itself.
                    sleep(Duration::from_micros(10)).await;
                }
                stream
            })
        })
        .collect();
    let streams = futures::future::join_all(senders).await;
    sleep(Duration::from_millis(200)).await;
    let grown = resident(process).saturating_sub(before);
    drop(streams);
    assert!(grown < GROWTH, "16 kB in four bodies took {grown} kB");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_in_chunks_of_one_byte_takes_no_more_memory_than_its_bytes() {
    let mut lab = Lab::start("chunkwise", &[("acme", "enterprise")]).await;
    let process = lab.world.first_web().id();
    let key = lab.client("acme").await.key;
    let head = format!("POST /v1/documents HTTP/1.1\r\nAuthorization: Bearer {key}\r\nTransfer-Encoding: chunked");
    let before = resident(process);
    let mut stream = begin(&lab.world.web, &head, b"").await;
    for _ in 0..150 {
        stream.write_all(&b"1\r\nx\r\n".repeat(10_000)).await.expect("sent");
    }
    sleep(Duration::from_millis(500)).await;
    let grown = resident(process).saturating_sub(before);
    drop(stream);
    assert!(grown < GROWTH / 2, "1.5 MB in one body took {grown} kB");
}

/// A well-formed signature with a current time and the wrong MAC: web must read the body before it can refuse the
/// webhook.
fn unsigned() -> String {
    format!("Stripe-Signature: t={},v1={}", Timestamp::now().as_second(), "0".repeat(64))
}

/// Strangers whose webhooks do not arrive keep no event of Stripe out, from however many addresses they come.
#[tokio::test(flavor = "multi_thread")]
async fn slow_webhooks_of_strangers_keep_no_event_of_stripe_out() {
    let mut world = World::without_controller("slowhooks").await;
    world.start_web(&PROXIED);
    let slow = async |address: u32, sent: usize| {
        let head = format!(
            "POST /webhooks/stripe HTTP/1.1\r\nContent-Length: 500000\r\nX-Forwarded-For: 198.51.100.{address}\r\n{}",
            unsigned()
        );
        begin(&world.web, &head, &vec![b'{'; sent]).await
    };
    let signed = async |size: usize| {
        let body = json!({"id": "evt_1", "type": "some.future.type", "data": {"object": {"text": "x".repeat(size)}}});
        let body = body.to_string();
        let request = world.http.post(format!("{}/webhooks/stripe", world.web)).header("x-forwarded-for", "192.0.2.1");
        let signature = sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &body);
        request.header("stripe-signature", signature).body(body).send().await.expect("web answers").status().as_u16()
    };
    let mut open = Vec::new();
    for address in (0..16).flat_map(|address| [address; 8]) {
        open.push(slow(address, 1).await);
    }
    for address in (0..4).flat_map(|address| [address; 8]) {
        open.push(slow(address, 100_000).await);
    }
    sleep(Duration::from_millis(300)).await;
    for size in [10, 2_000, 40_000, 60_000] {
        assert_eq!(signed(size).await, 200, "an event of {size} bytes");
    }
    for stream in &mut open {
        let mut answer = [0; 12];
        timeout(Duration::from_secs(20), stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 408");
    }
    assert_eq!(signed(300_000).await, 200, "a longer one takes a place");
}

/// A client has some bodies on their way. Newer ones take the place of older ones, so that neither strangers nor
/// clients behind the same address are kept out by bodies that never arrive.
#[tokio::test(flavor = "multi_thread")]
async fn one_client_without_a_key_keeps_no_other_out_not_even_behind_its_own_address() {
    let mut world = World::without_controller("keyless").await;
    world.start_web(&[&PROXIED[..], &["--max-connections", "512", "--client-requests-per-second", "1000"]].concat());
    for path in ["/login", "/webhooks/stripe"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\
             X-Forwarded-For: 192.0.2.1\r\n{}",
            unsigned()
        );
        let mut open = Vec::new();
        for _ in 0..400 {
            open.push(begin(&world.web, &head, b"{").await);
        }
        sleep(Duration::from_millis(500)).await;
        for client in ["192.0.2.1", "192.0.2.2"] {
            let of = |request: reqwest::RequestBuilder| {
                request.header("x-forwarded-for", client).timeout(Duration::from_secs(4))
            };
            let pricing = of(world.http.get(format!("{}/pricing", world.web))).send();
            assert_eq!(pricing.await.expect("web answers").status(), 200, "{path} {client}");
            let tokens = of(world.http.post(format!("{}/tenant/token", world.web)));
            let login = tokens.json(&json!({"email": "a@example.com", "password": "wrong"})).send();
            assert_eq!(login.await.expect("web answers").status(), 401, "{path} {client}");
            let event = json!({"id": "evt_1", "type": "some.future.type", "data": {"object": {}}}).to_string();
            let signature = sign(WEBHOOK_SECRET, Timestamp::now().as_second(), &event);
            let hook =
                of(world.http.post(format!("{}/webhooks/stripe", world.web))).header("stripe-signature", signature);
            assert_eq!(hook.body(event).send().await.expect("web answers").status(), 200, "{path} {client}");
        }
        let answers = futures::future::join_all(open.iter_mut().map(async |stream| {
            let mut answer = Vec::new();
            drop(timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.expect("it ends"));
            String::from_utf8_lossy(&answer).into_owned()
        }));
        let answers = answers.await;
        let refused = if path == "/login" { "HTTP/1.1 429" } else { "HTTP/1.1 503" };
        let refused = answers.iter().filter(|answer| answer.starts_with(refused) && answer.contains("retry-after"));
        let slow = answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 408"));
        let (refused, slow) = (refused.count(), slow.count());
        assert_eq!(refused + slow, 400, "{path}: {refused} were given up and {slow} were slow");
        assert!((125..=128).contains(&slow), "{path}: {refused} were given up and {slow} were slow");
    }
}

/// What web can refuse by its headers alone, it refuses before the body arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_key_and_a_missing_signature_are_refused_before_the_body() {
    let mut world = World::without_controller("headers").await;
    world.start_web(&[]);
    let old = format!("Stripe-Signature: t=1700000000,v1={}", "0".repeat(64));
    for (path, header, wanted) in [
        ("/v1/query", "X-None: 1", "HTTP/1.1 401"),
        ("/v1/query", "Authorization: Bearer sk_live_wrong", "HTTP/1.1 401"),
        ("/webhooks/stripe", "X-None: 1", "HTTP/1.1 400"),
        ("/webhooks/stripe", &old, "HTTP/1.1 400"),
    ] {
        let head =
            format!("POST {path} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 60000\r\n{header}");
        let mut stream = begin(&world.web, &head, b"{").await;
        let mut answer = [0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await.expect("at once").expect("an answer");
        assert_eq!(String::from_utf8_lossy(&answer), wanted, "{path} {header}");
    }
}

/// A client that reads no answer before it has sent its whole file gets the answer all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_upload_that_is_refused_by_its_headers_gets_its_answer() {
    let mut world = World::without_controller("largerefused").await;
    world.start_web(&["--client-requests-per-second", "1"]);
    let file = vec![b'x'; 8 << 20];
    for (path, header, wanted) in [
        ("/v1/documents", "Authorization: Bearer sk_live_wrong", "HTTP/1.1 401"),
        ("/account/documents", "X-None: 1", "HTTP/1.1"),
        ("/account/documents", "X-None: 1", "HTTP/1.1"),
        ("/account/documents", "X-None: 1", "HTTP/1.1 429"),
    ] {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n{header}", file.len());
        // It fails where the connection is reset.
        let mut stream = begin(&world.web, &head, &file).await;
        let mut answer = [0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.starts_with(wanted), "{path} {header}: {answer}");
    }
}

/// Where a client hangs up at some moment of its request, the account is as it was, or the change is done and audited.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_whose_client_hangs_up_is_audited_if_it_is_done() {
    const CUSTOMERS: u64 = 30;
    let mut world = World::without_controller("hungup").await;
    let file = folder("hungup.log");
    let log = std::fs::File::create(&file).expect("a file");
    world.start_web_logging(&["--checkout-wait-ms", "50", "--signups-per-minute", "100"], log.into());
    let mut names = Vec::new();
    for i in 0..CUSTOMERS {
        let customer = signed_up(&world, &format!("customer-{i}@example.com")).await;
        let (id, token) = (text(&customer, "tenant_id"), text(&customer, "token"));
        let head = format!(
            "POST /tenant/{id}/delete HTTP/1.1\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n\
             Content-Length: 2"
        );
        let stream = begin(&world.web, &head, b"{}").await;
        sleep(Duration::from_millis(i)).await;
        drop(stream);
        names.push(name(&customer));
    }
    sleep(Duration::from_secs(2)).await;
    let tenants = world.tenants().list(&ListParams::default()).await.expect("the tenants").items;
    let closed: Vec<_> =
        tenants.iter().filter(|t| t.spec.desired == Desired::Deleted).map(ResourceExt::name_any).collect();
    let log = std::fs::read_to_string(&file).expect("a log");
    let audited =
        |name: &&String| log.lines().any(|line| line.contains("account_closed") && line.contains(name.as_str()));
    let not_audited: Vec<_> = closed.iter().filter(|name| !audited(name)).collect();
    assert!(closed.len() > 5, "{} of {} are closed", closed.len(), names.len());
    assert!(not_audited.is_empty(), "closed, and not audited: {not_audited:?} of {closed:?}");
}
