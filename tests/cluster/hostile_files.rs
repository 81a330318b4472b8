//! Files that are made to cost much. They are read in a process of their own; web answers everything else meanwhile.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};

use serde_json::{Value, json};
use tenant_operator::api::Phase;
use tenant_operator::api::tenant::BillingMode;
use tenant_operator_dev::apply_yaml;

use crate::support::{Lab, plan_with};

/// A plan that embeds next to nothing: each file is read, and refused once its text is known.
const UNREAD: (&str, &str) = ("unread", "documents: 100, queriesPerMonth: 100, embeddedBytesPerMonth: 10");
/// A plan without room for a document.
const FULL: (&str, &str) = ("full", "documents: 0, queriesPerMonth: 100");

/// Half of what a file may have: this build is not optimised. A splitter that looks through the whole rest for each
/// passage takes minutes for it all the same.
const SIZE: usize = 5 << 20;

/// Sends `files` as one tenant, four at a time, and meanwhile asks for `/healthz`, and questions of another tenant.
/// Answers the statuses and codes of the uploads, and the times of the others in milliseconds.
async fn besieged(lab: &Lab, files: Vec<Vec<u8>>) -> (Vec<(u16, String)>, Vec<u128>, Vec<u128>) {
    let (acme, other) = (lab.client("acme").await, lab.client("other").await);
    let uploads = stream::iter(files).map(async |file| {
        let (status, body) = acme.upload("/v1/documents", "hostile.txt", file).await;
        assert!(matches!(status.as_u16(), 415 | 422 | 429), "{status}: {body}");
        (status.as_u16(), body["code"].as_str().expect("a code").to_owned())
    });
    let mut uploads = std::pin::pin!(uploads.buffer_unordered(4).collect::<Vec<_>>());
    let (mut health, mut questions) = (Vec::new(), Vec::new());
    let statuses = loop {
        let others = async {
            let start = Instant::now();
            let answer = lab.world.http.get(lab.url("/healthz")).timeout(Duration::from_secs(10)).send().await;
            assert_eq!(answer.expect("/healthz answers").status(), 200);
            health.push(start.elapsed().as_millis());
            let start = Instant::now();
            assert_eq!(other.ask("What is RAG?").await.status(), 200);
            questions.push(start.elapsed().as_millis());
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        tokio::pin!(others);
        tokio::select! {
            statuses = &mut uploads => break statuses,
            () = &mut others => {}
        }
    };
    health.sort_unstable();
    questions.sort_unstable();
    (statuses, health, questions)
}

/// With an Active tenant "acme" of this plan, whose name and limits are given. All tests share the cluster's Plans.
async fn with_plan(name: &str, (named, limits): (&str, &str)) -> Lab {
    let lab = Lab::start(name, &[("other", "enterprise")]).await;
    apply_yaml(&lab.world.client, &plan_with(named, limits)).await.expect("the plan applies");
    lab.world.create("acme", named, BillingMode::Manual).await;
    lab.world.wait_phase("acme", Phase::Active).await;
    lab
}

async fn start(name: &str) -> Lab {
    // The plan refuses the files of "acme" before they are embedded, so the test measures the reading alone.
    let mut lab = with_plan(name, UNREAD).await;
    // Files of one tenant are read one after the other.
    lab.world.http = reqwest::Client::builder().timeout(Duration::from_mins(5)).build().expect("a client");
    lab
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_without_sentences_or_with_millions_of_lines_stops_no_other_tenant() {
    let lab = start("endless").await;
    let words = || b"word ".repeat(SIZE / 5);
    let lines = || b"a\n".repeat(SIZE / 2);
    // Different ends: the same content is one document.
    let files = [words(), lines(), words(), lines()].into_iter().enumerate();
    let files = files.map(|(i, file)| [&file[..file.len() - 64], i.to_string().as_bytes()].concat()).collect();
    let (statuses, health, questions) = besieged(&lab, files).await;
    // Each is read, and too large for the plan; or it takes so long on a machine that does much else that it is ended,
    // and those that wait for a place of the tenant are refused.
    assert!(statuses.iter().all(|(status, _)| matches!(status, 422 | 429)), "{statuses:?}");
    assert!(statuses.iter().any(|(_, code)| code != "too_many_requests"), "{statuses:?}");
    assert!(health.len() >= 5, "{health:?}");
    // Web answers while files are read. The limits leave room for a machine that is busy with other tests.
    assert!(health[health.len() / 2] < 500 && health[health.len() - 1] < 3000, "/healthz took {health:?} ms");
    assert!(questions[questions.len() - 1] < 6000, "questions took {questions:?} ms");
}

#[tokio::test(flavor = "multi_thread")]
async fn web_goes_on_after_every_hostile_file() {
    let lab = start("hostile").await;
    let n = 1 << 20;
    let utf16 = |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_be_bytes).collect() };
    let files = vec![
        vec![b'x'; n],
        vec![b'\n'; n],
        vec![b' '; n],
        vec![0; n],
        "\u{301}".repeat(n / 2).into_bytes(),
        format!("a{}", "\u{301}".repeat(n / 2)).into_bytes(),
        "👩\u{200d}".repeat(n / 7).into_bytes(),
        "\u{10ffff}".repeat(n / 4).into_bytes(),
        "\u{feff}x".repeat(n / 4).into_bytes(),
        b"\xff\xfe".repeat(n / 2),
        utf16(&"規定 ".repeat(n / 6)),
        utf16(&format!("\u{feff}{}", "a\n".repeat(n / 4))),
        b"a\0b\0".repeat(n / 4),
        b"3. 1 ".repeat(n / 5),
        b"| a | b | c |\n".repeat(n / 14),
        format!("|{}|\n", " cell |".repeat(n / 7)).into_bytes(),
        b"\xc3\x28\xe2\x82".repeat(n / 4),
        [b"%PDF-1.7\n".to_vec(), b"<<".repeat(n / 2)].concat(),
    ];
    let (statuses, health, _) = besieged(&lab, files).await;
    assert_eq!(statuses.len(), 18);
    assert!(health[health.len() / 2] < 500 && health[health.len() - 1] < 3000, "/healthz took {health:?} ms");
    let usage = lab.client("acme").await.usage().await;
    assert_eq!((&usage["documents"]["used"], &usage["bytes"]["used"]), (&0.into(), &0.into()), "{usage}");
}

/// Reading a file costs processor time even if it is refused, so a tenant whose files are refused waits, and others do
/// not.
#[tokio::test]
async fn files_that_cannot_be_read_count_against_the_tenant_that_sends_them() {
    let lab = Lab::start("refused", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    let (acme, other) = (lab.client("acme").await, lab.client("other").await);
    let mut statuses = Vec::new();
    for i in 0..40 {
        statuses.push(acme.upload("/v1/documents", "x.pdf", format!("%PDF-1.7\nnot one: {i}")).await.0.as_u16());
    }
    let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
    assert!(count(422) >= 20 && count(429) >= 10, "{statuses:?}");
    other.store("policy.txt", "Every employee has thirty days of vacation.").await;
    assert_eq!(acme.ask("What is RAG?").await.status(), 200, "questions are answered meanwhile");
}

/// The same for files that fit no more into the plan, which web knows once it has read them.
#[tokio::test]
async fn files_that_are_read_and_that_the_plan_does_not_hold_count_against_the_tenant_that_sends_them() {
    let lab = with_plan("unread", UNREAD).await;
    let (acme, other) = (lab.client("acme").await, lab.client("other").await);
    let mut codes = Vec::new();
    for i in 0..40 {
        let (status, body) = acme.upload("/v1/documents", "x.txt", format!("A file whose text is too long: {i}")).await;
        assert_eq!(status, 429, "{body}");
        codes.push(body["code"].as_str().expect("a code").to_owned());
    }
    let count = |wanted: &str| codes.iter().filter(|code| *code == wanted).count();
    assert!(count("quota_exceeded") >= 20 && count("too_many_requests") >= 10, "{codes:?}");
    other.store("policy.txt", "Every employee has thirty days of vacation.").await;
    assert_eq!(acme.ask("What is RAG?").await.status(), 200, "questions are answered meanwhile");
}

#[tokio::test]
async fn a_file_that_finds_no_room_in_the_plan_is_not_read() {
    let lab = with_plan("full", FULL).await;
    let acme = lab.client("acme").await;
    for i in 0..30 {
        // Web would answer 422 if it had read this.
        let (status, body) = acme.upload("/v1/documents", "x.pdf", format!("%PDF-1.7\nnot one: {i}")).await;
        let refused: (u16, &Value) = (status.as_u16(), &body["code"]);
        assert_eq!(refused, (403, &json!("quota_exceeded")), "{body}");
    }
}

/// What is uploaded and deleted gives its place in the plan back, and its lines in the ledger stay.
#[tokio::test]
async fn uploads_that_are_deleted_again_and_again_are_limited() {
    let lab = Lab::start("churn", &[("acme", "enterprise"), ("other", "enterprise")]).await;
    let (acme, other) = (lab.client("acme").await, lab.client("other").await);
    let note = |i: u32| format!("Note {i}.");
    let mut id = acme.store("note.txt", &note(0)).await["id"].as_str().expect("an id").to_owned();
    let mut refused = None;
    // Some more than the 200, because a minute allows 20 again.
    for i in 1..400 {
        let (status, body) = acme.upload(&format!("/v1/documents?replace={id}"), "note.txt", note(i)).await;
        if status != 201 {
            refused = Some((i, status.as_u16(), body));
            break;
        }
        body["id"].as_str().expect("an id").clone_into(&mut id);
    }
    let (count, status, body) = refused.expect("a refusal");
    assert!(count > 200 && status == 429 && body["code"] == "too_many_requests", "{count}: {status} {body}");
    assert!(body["detail"].as_str().is_some_and(|why| why.contains("within a day of their upload")), "{body}");
    let new = acme.store("new.txt", "An upload that replaces nothing is stored.").await;
    // Of two, one at most is the next that a minute allows.
    let deleted = [acme.delete(&id).await, acme.delete(new["id"].as_str().expect("an id")).await];
    assert!(deleted.iter().any(|status| *status == 429), "{deleted:?}");
    let early = other.store("note.txt", "A note of another tenant.").await;
    assert_eq!(other.delete(early["id"].as_str().expect("an id")).await, 204, "another tenant deletes");
}

/// A document that is replaced and deleted at the same moment is counted out once.
#[tokio::test]
async fn a_document_that_is_replaced_and_deleted_at_once_is_counted_once() {
    let lab = Lab::start("countedonce", &[("acme", "enterprise")]).await;
    let acme = lab.client("acme").await;
    acme.store("kept.txt", "This document stays, and counts.").await;
    let before = acme.usage().await["documents"]["used"].as_i64().expect("a number");
    for i in 0..4 {
        let old = acme.store("old.txt", &format!("The old policy, number {i}.")).await;
        let id = old["id"].as_str().expect("an id").to_owned();
        let path = format!("/v1/documents?replace={id}");
        let new = acme.upload(&path, "new.txt", format!("The new policy, number {i}."));
        // The provider takes its time, so that some deletions are under way at the moment in which the upload deletes.
        let slow = json!({"provider": "pinecone", "method": "POST", "path": "/vectors/delete", "delay_ms": 300, "times": 1000});
        lab.world.fault(slow).await;
        let deletions = futures::future::join_all((0..10).map(async |n| {
            tokio::time::sleep(std::time::Duration::from_millis(40 * n)).await;
            acme.delete(&id).await
        }));
        let ((status, document), _) = tokio::join!(new, deletions);
        assert_eq!(status, 201, "{document}");
        let used = acme.usage().await["documents"]["used"].as_i64().expect("a number");
        assert_eq!(used, before + i + 1, "round {i}");
    }
}
