//! Answers for idempotency keys, by HTTP and by the client of the operator's other parts.

use std::time::Duration;

use serde_json::json;
use tenant_operator::ledger::LedgerKey;
use tenant_operator::ledger::client::LedgerClient;
use tenant_operator::ledger::wire::{AnswerState, BeginAnswer, FinishAnswer, KeptAnswer};

use crate::support::{Folder, Program};

fn kept(body: String) -> KeptAnswer {
    KeptAnswer { status: 200, headers: vec![("content-type".into(), "text/plain".into())], body }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_kept_and_told_again_unless_it_is_too_long() {
    let folder = Folder::new("answers");
    let program = Program::start(folder.path(), 0);
    drop(program.client());
    let key = LedgerKey::read(&folder.path().join("key")).expect("the key");
    let ledger =
        LedgerClient::new(program.url.parse().expect("a URL"), &key, Duration::from_secs(5)).expect("a client");
    let begin = BeginAnswer { request_hash: "r".into(), attempt: "1".into(), expires_after: 60 };
    let finish = |answer| FinishAnswer { request_hash: "r".into(), attempt: "1".into(), answer };
    // 256 KiB of zeros, and a byte more, in Base64.
    let longest = format!("{}AA==", "A".repeat(349_524));
    let too_long = format!("{}AAA=", "A".repeat(349_524));
    for (name, body, fits) in
        [("a/b c", "aGVsbG8=".into(), true), ("longest", longest, true), ("long", too_long, false)]
    {
        let name = name.replace(' ', "+");
        let state = ledger.begin_answer("acme", &name, &begin).await.expect("begun");
        assert_eq!(state, AnswerState::New);
        assert_eq!(ledger.begin_answer("acme", &name, &begin).await.expect("begun"), AnswerState::New, "a lost answer");
        let other = BeginAnswer { attempt: "2".into(), ..begin.clone() };
        assert_eq!(ledger.begin_answer("acme", &name, &other).await.expect("begun"), AnswerState::InProgress);
        let finished = ledger.finish_answer("acme", &name, &finish(Some(kept(body.clone())))).await.expect("finished");
        assert_eq!(finished.kept, fits, "{name}");
        let again = ledger.begin_answer("acme", &name, &begin).await.expect("begun");
        assert_eq!(again, if fits { AnswerState::Done(kept(body)) } else { AnswerState::New }, "{name}");
    }
    assert_eq!(ledger.erase_answers("acme").await.expect("erased").erased, 3);
    assert_eq!(ledger.erase_answers("acme").await.expect("erased").erased, 0);
    assert_eq!(ledger.begin_answer("acme", "longest", &begin).await.expect("begun"), AnswerState::New);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_answers_that_make_no_sense_are_refused() {
    let folder = Folder::new("odd-answers");
    let program = Program::start(folder.path(), 0);
    let api = program.client();
    let begin = json!({"request_hash": "r", "attempt": "1", "expires_after": 60});
    let (longest, long) = ("x".repeat(128), "x".repeat(129));
    for (method, path, body) in [
        ("PUT", format!("/v1/answers/acme/{long}"), begin.clone()),
        ("PUT", format!("/v1/answers/{long}/k"), begin.clone()),
        ("PUT", "/v1/answers/acme/a%20b".into(), begin.clone()),
        ("PUT", "/v1/answers/acme/%FF".into(), begin.clone()),
        ("PUT", "/v1/answers/acme/k".into(), json!({"request_hash": "", "attempt": "1", "expires_after": 60})),
        ("PUT", "/v1/answers/acme/k".into(), json!({"request_hash": "r", "attempt": "1", "expires_after": 0})),
        ("PUT", "/v1/answers/acme/k".into(), json!({"request_hash": "r", "attempt": "1", "expires_after": 86_401})),
        ("PUT", "/v1/answers/acme/k".into(), json!({"request_hash": "r", "attempt": "1"})),
        ("POST", "/v1/answers/acme/k/finish".into(), json!({"attempt": "1", "answer": null})),
        (
            "POST",
            "/v1/answers/acme/k/finish".into(),
            json!({"request_hash": "r", "attempt": "1", "answer": {"status": 200, "headers": [], "body": "%"}}),
        ),
        ("DELETE", format!("/v1/answers/{long}"), serde_json::Value::Null),
    ] {
        let (status, answer) = api.ask(method, &path, body.clone()).await.expect("an answer");
        assert_eq!((status, &answer["code"]), (400, &json!("malformed")), "{method} {path} {body}: {answer}");
    }
    let path = format!("/v1/answers/acme/{longest}");
    assert_eq!(api.ask("PUT", &path, begin).await.expect("an answer"), (200, json!({"state": "new"})));
    let finish = json!({"request_hash": "s", "attempt": "1"});
    let finished = api.ask("POST", &format!("{path}/finish"), finish).await.expect("an answer");
    assert_eq!(finished, (200, json!({"kept": false})));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_snapshot_holds_answers_and_a_damaged_file_of_them_is_made_anew() {
    let folder = Folder::new("answers-file");
    let mut program = Program::start(folder.path(), 0);
    let begin = json!({"request_hash": "r", "attempt": "1", "expires_after": 60});
    let ask = async |program: &Program| {
        program.client().ask("PUT", "/v1/answers/acme/secret-key", begin.clone()).await.expect("an answer").1
    };
    assert_eq!(ask(&program).await, json!({"state": "new"}));
    assert_eq!(program.stop().await.0, Some(0));
    let data = folder.path().join("data");
    let read = |name: &str| std::fs::read(data.join(name)).unwrap_or_default();
    let holds = |bytes: &[u8]| bytes.windows(10).any(|window| window == b"secret-key");
    assert!(holds(&read("answers.db")) && !holds(&read("ledger.db")) && !holds(&read("ledger.db-wal")));
    std::fs::write(data.join("answers.db"), "no database at all".repeat(1000)).expect("written");
    let program = Program::start(folder.path(), 0);
    assert_eq!(ask(&program).await, json!({"state": "new"}));
    assert!(program.logs().contains("kept answers is damaged"), "{}", program.logs());
}
