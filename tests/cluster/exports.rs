//! Customers take everything along: complete, the same twice, for themselves alone, and back into another tenant.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kube::api::Patch;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tenant_operator::api::status::ExportState;
use tenant_operator::api::tenant::{BillingMode, Desired};
use tenant_operator::api::usage::{TakenOver, Usage};
use tenant_operator::api::{Phase, TenantStatus, Unit, conditions};
use tokio::process::Command as AsyncCommand;

use crate::support::{Process, ROOT, Visitor, World, files, folder, free_port, must, said};

const TEXTS: [(&str, &str); 3] = [
    ("Cats", "Cats sleep for sixteen hours a day, mostly in the sun."),
    ("Dogs", "Dogs bark at the postman every morning."),
    ("Fish", "Fish swim in the pond behind the office."),
];

/// A world that keeps exports in this storage.
async fn world(name: &str, url: &str, args: &[&str]) -> World {
    let mut world = World::without_controller(name).await;
    world.environment("EXPORTS_URL", url);
    world.controller_args(&["--usage-interval=1"]);
    world.controller_args(args);
    world.start_controller();
    world.start_web(&[]);
    world
}

/// A folder for exports, as a path and as a URL.
fn storage(name: &str) -> (PathBuf, String) {
    let path = folder(name);
    let url = format!("file://{}", path.display());
    (path, url)
}

/// An Active tenant on the middle plan with these documents.
async fn with_documents(world: &World, name: &str, texts: &[(&str, &str)]) {
    world.create_paying(name, "middle").await;
    for (title, text) in texts {
        upload(world, name, title, text).await;
    }
}

/// As many passages as make a large export.
fn long_report() -> String {
    let sentences: Vec<_> = (0..9000).map(|n| format!("Sentence number {n} of a long report on cats.")).collect();
    sentences.join(" ")
}

async fn upload(world: &World, name: &str, title: &str, text: &str) {
    let key = world.api_key(name).await;
    let url = format!("{}/v1/documents?title={title}", world.web);
    world
        .until("the document is taken", async || {
            let request = world.http.post(&url).bearer_auth(&key).header("content-type", "text/plain");
            request.body(text.to_owned()).send().await.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
}

fn run(command: &mut Command) -> Output {
    tokio::task::block_in_place(|| command.output()).expect("it runs")
}

/// Runs `kubectl tenant export`, and answers the folder that it names.
fn export(world: &World, name: &str, request: &str) -> String {
    let args = [name, "--request", request, "--namespace", &world.namespace];
    let output = run(world.command("export").args(args));
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn import(world: &World, name: &str, from: &str, apply: bool) -> Output {
    let args = [name, "--from", from, "--namespace", &world.namespace];
    run(world.command("import").args(args).args(apply.then_some("--apply")))
}

fn local(url: &str) -> PathBuf {
    url.strip_prefix("file://").expect("a folder").into()
}

/// Checks every file against the manifest, and answers the manifest.
fn verified(files: &BTreeMap<String, Vec<u8>>) -> Value {
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).expect("JSON");
    let listed = manifest["files"].as_array().expect("files");
    assert_eq!(listed.len() + 1, files.len(), "{:?}", files.keys());
    for file in listed {
        let bytes = &files[file["path"].as_str().expect("a path")];
        assert_eq!(file["bytes"], bytes.len());
        assert_eq!(file["sha256"], hex::encode(Sha256::digest(bytes)), "{file}");
    }
    manifest
}

fn lines(bytes: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn state(status: &TenantStatus) -> Option<ExportState> {
    status.export.as_ref().map(|export| export.state)
}

async fn ask(world: &World, name: &str, question: &str) -> Value {
    let key = world.api_key(name).await;
    let request = world.http.post(format!("{}/v1/query", world.web)).bearer_auth(key);
    request.json(&json!({"question": question})).send().await.expect("it answers").json().await.expect("JSON")
}

async fn used(world: &World, name: &str) -> (i64, i64) {
    let tenant = world.tenants().get(name).await.expect("there");
    // What the import noted, and web did not hand to the ledger yet.
    let (noted, handed) = (Usage::of(&tenant), TakenOver::of(&tenant).usage);
    let counted = world.counted(name).await.map(|usage| usage.used).unwrap_or_default();
    (counted[Unit::Documents] + noted.documents - handed.documents, counted[Unit::Bytes] + noted.bytes - handed.bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_holds_everything_and_the_second_is_equal_byte_for_byte() {
    let (path, url) = storage("export-whole");
    let world = world("export-whole", &url, &[]).await;
    with_documents(&world, "acme", &TEXTS).await;
    ask(&world, "acme", "How long do cats sleep?").await;
    // What the uploads and the question reached is noted a moment after their answers.
    let version = async || world.tenants().get("acme").await.expect("there").metadata.resource_version;
    world
        .until("the usage is noted", async || {
            let shown = Usage::shown(&world.tenants().get("acme").await.expect("there"));
            (shown.documents, shown.queries) == (3, 1)
        })
        .await;
    world
        .until("nothing changes any more", async || {
            let before = version().await;
            tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
            version().await == before
        })
        .await;
    let place = export(&world, "acme", "first");
    let id = world.tenants().get("acme").await.expect("there").spec.tenant_id.expect("an id");
    assert_eq!(place, format!("{url}/{id}/first"));
    let first = files(&local(&place));
    let manifest = verified(&first);
    assert_eq!((&manifest["documents"], &manifest["vectors"]), (&json!(3), &json!(4)), "one sample: {manifest}");
    assert_eq!((&manifest["tenant_id"], &manifest["format"]), (&json!(id), &json!(1)));
    let profile: Value = serde_json::from_slice(&first["profile.json"]).expect("JSON");
    assert_eq!((&profile["admin_email"], &profile["plan"]), (&json!("acme@example.com"), &json!("middle")));
    let documents = lines(&first["documents.jsonl"]);
    let mut titles: Vec<_> = documents.iter().filter_map(|d| d["title"].as_str()).collect();
    titles.sort_unstable();
    assert_eq!(titles, ["Cats", "Dogs", "Fish"]);
    for document in &documents {
        let passages = lines(&first[document["file"].as_str().expect("a file")]);
        let text = TEXTS.iter().find(|(title, _)| document["title"] == *title).expect("one of ours").1;
        assert_eq!(passages[0]["metadata"]["text"], text);
        assert_eq!(passages[0]["values"].as_array().map(Vec::len), Some(1536));
    }
    assert_eq!(lines(&first["other-vectors.jsonl"])[0]["id"], "sample_1");
    let invoices: Value = serde_json::from_slice(&first["invoices.json"]).expect("JSON");
    assert_eq!((&invoices[0]["amount_paid"], invoices.as_array().map(Vec::len)), (&json!(4900), Some(1)));
    let usage: Value = serde_json::from_slice(&first["usage.json"]).expect("JSON");
    assert_eq!(usage["documents"], 3);
    let transitions = lines(&first["transitions.jsonl"]);
    assert_eq!(transitions.last().map(|t| &t["to_state"]), Some(&json!("Active")), "{transitions:?}");
    let status = world.status("acme").await;
    let shown = status.export.expect("an export");
    assert_eq!((shown.files, shown.path.as_deref()), (first.len() as u64 - 1, Some(&*place)));
    assert!(conditions::is_true(&status.conditions, "ExportReady"));

    // Nothing has changed, and the one before is gone.
    let second = files(&local(&export(&world, "acme", "second")));
    assert!(second == first, "the second export differs");
    assert_eq!(std::fs::read_dir(path.join(&id)).expect("a folder").count(), 1);
    // Who writes manifests gets no mail.
    assert_eq!(world.mails("export-ready").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_customer_downloads_an_export() {
    let (_, url) = storage("export-customer");
    let world = world("export-customer", &url, &[]).await;
    let mut ada = Visitor::new(&world);
    let name = ada.sign_up("ada@example.com", "Acme").await;
    let (_, page) = ada.get("/account").await;
    assert!(!page.contains("Prepare an export"), "there is nothing to export yet");
    // Many short passages make an export that fits into no connection's buffers.
    let short = json!({"spec": {"settings": {"chunking": {"maxCharacters": 200, "overlapCharacters": 0}}}});
    world.tenants().patch(&name, &Default::default(), &Patch::Merge(short)).await.expect("patched");
    world.pay(&name).await;
    world.wait_true(&name, "WelcomeEmailSent").await;
    upload(&world, &name, "Cats", &long_report()).await;
    let csrf = ada.csrf("/account").await;
    let (status, place, page) = ada.post("/account/export", &[("csrf", &csrf)]).await;
    assert_eq!((status, &*place), (303, "/account#export"), "{page}");
    world.wait(&name, "exported", |s| state(s) == Some(ExportState::Ready)).await;
    world.until("the customer is told", async || world.mails("export-ready").await == 1).await;
    let (_, page) = ada.get("/account").await;
    assert!(page.contains("Download your data"), "{page}");
    // Asked for again at once: the one that is there.
    let before = world.tenants().get(&name).await.expect("there").spec.export_request;
    ada.post("/account/export", &[("csrf", &csrf)]).await;
    assert_eq!(world.tenants().get(&name).await.expect("there").spec.export_request, before);
    let (status, place, _) = ada.post("/account/export", &[("csrf", "forged")]).await;
    assert!(status != 303 || place != "/account#export", "a forged form");

    let response = ada.request(reqwest::Method::GET, "/account/export").send().await.expect("it answers");
    assert_eq!(
        (response.status().as_u16(), &response.headers()["content-type"]),
        (200, &"application/x-tar".parse().expect("a value"))
    );
    let length: usize = response.headers()["content-length"].to_str().expect("text").parse().expect("a number");
    let tar = response.bytes().await.expect("all of it");
    assert_eq!(tar.len(), length);
    assert!(length > 12 << 20, "{length} bytes may fit into the buffers");
    // Judged by tar and sha256sum.
    let there = folder("export-customer-tar");
    std::fs::create_dir_all(&there).expect("made");
    std::fs::write(there.join("export.tar"), &tar).expect("written");
    let unpacked = run(Command::new("tar").args(["-xf", "export.tar"]).current_dir(&there));
    assert!(unpacked.status.success(), "{}", said(&unpacked));
    let unpacked = files(&there.join("export"));
    let manifest = verified(&unpacked);
    let sum = |f: &Value| format!("{}  {}", f["sha256"].as_str().expect("a sum"), f["path"].as_str().expect("a path"));
    let sums: Vec<_> = manifest["files"].as_array().expect("files").iter().map(sum).collect();
    std::fs::write(there.join("sums"), sums.join("\n")).expect("written");
    let checked =
        run(Command::new("sha256sum").args(["--check", "--strict", "../sums"]).current_dir(there.join("export")));
    assert!(checked.status.success(), "{}", said(&checked));

    // Who reads slowly holds one place, and not a second one. The first one is free a moment after its end.
    let download = async || {
        let request = ada.request(reqwest::Method::GET, "/account/export");
        Some(request.send().await.expect("it answers")).filter(|answer| answer.status() == 200)
    };
    let slow = loop {
        if let Some(answer) = download().await {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert!(download().await.is_none(), "a second one at the same time");
    drop(slow);
    world.until("the place is free again", async || download().await.is_some()).await;

    // A stranger, a stranger's session, and a link that was changed.
    let mut eve = Visitor::new(&world);
    let (status, _) = eve.get("/account/export").await;
    assert_eq!(status, 303, "to the log-in");
    let other = eve.sign_up("eve@example.com", "Eve").await;
    assert_ne!(other, name);
    let (status, _) = eve.get("/account/export").await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_gives_a_link_that_ends_and_is_for_one_tenant() {
    let (path, url) = storage("export-api");
    let world = world("export-api", &url, &["--exports-kept=20"]).await;
    let sign_up = async |email: &str| -> Value {
        let form = json!({"email": email, "password": "correct horse battery", "company_name": "Acme", "plan": "middle", "accept_terms": true});
        let answer = world.http.post(format!("{}/signup", world.web)).json(&form).send().await.expect("it answers");
        answer.json().await.expect("JSON")
    };
    let (ada, eve) = (sign_up("ada@example.com").await, sign_up("eve@example.com").await);
    let token = |of: &Value| of["token"].as_str().unwrap_or_else(|| panic!("{of}")).to_owned();
    let id = ada["tenant_id"].as_str().unwrap_or_else(|| panic!("{ada}")).to_owned();
    let name = world
        .tenants()
        .list(&Default::default())
        .await
        .expect("listed")
        .into_iter()
        .find(|t| t.spec.admin_email == "ada@example.com")
        .and_then(|t| t.metadata.name)
        .expect("a name");
    let url = format!("{}/tenant/{id}/export", world.web);
    let call = async |method: reqwest::Method, token: &str| {
        let answer = world.http.request(method, &url).bearer_auth(token).send().await.expect("it answers");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    let (status, answer) = call(reqwest::Method::POST, &token(&ada)).await;
    assert_eq!((status, &answer["code"]), (409, &json!("nothing_to_export")), "{answer}");
    world.pay(&name).await;
    world.wait_phase(&name, Phase::Active).await;
    let (status, answer) = call(reqwest::Method::POST, &token(&eve)).await;
    assert_eq!(status, 404, "another tenant's token: {answer}");
    let (status, answer) = call(reqwest::Method::POST, &token(&ada)).await;
    assert_eq!((status, &answer["state"]), (202, &json!("waiting")), "{answer}");
    world.wait(&name, "exported", |s| state(s) == Some(ExportState::Ready)).await;
    let (status, answer) = call(reqwest::Method::POST, &token(&ada)).await;
    assert_eq!((status, &answer["state"]), (200, &json!("ready")), "there is one: {answer}");
    let (_, answer) = call(reqwest::Method::GET, &token(&ada)).await;
    let link = answer["download_url"].as_str().unwrap_or_else(|| panic!("{answer}"));
    let link = format!("{}/exports/{}", world.web, link.rsplit('/').next().expect("a link"));
    let download = async |link: &str| world.http.get(link).send().await.expect("it answers").status().as_u16();
    assert_eq!(download(&link).await, 200);
    let mut forged = link.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    assert_eq!(download(&forged).await, 404);
    assert_eq!(download(&format!("{}/exports/..%2F..%2Fetc%2Fpasswd", world.web)).await, 404);
    // After its time nothing is left of it.
    world.wait(&name, "expired", |s| state(s) == Some(ExportState::Expired)).await;
    assert_eq!(download(&link).await, 404);
    assert_eq!(files(&path), BTreeMap::new());
    let (_, answer) = call(reqwest::Method::GET, &token(&ada)).await;
    assert_eq!((&answer["state"], &answer["download_url"]), (&json!("expired"), &Value::Null));
}

fn vectors(lines: &[u8]) -> Vec<Value> {
    lines
        .split(|byte| *byte == b'\n')
        .filter(|l| !l.is_empty())
        .map(|l| serde_json::from_slice(l).expect("JSON"))
        .collect()
}

/// As an import stores them: the account that they come from counts their uploads.
fn without_upload(mut vectors: Vec<Value>) -> Vec<Value> {
    for vector in &mut vectors {
        if let Some(metadata) = vector.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("upload");
        }
    }
    vectors
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_restores_the_documents_and_takes_nothing_that_was_changed() {
    let (_, url) = storage("import");
    let world = world("import", &url, &[]).await;
    with_documents(&world, "acme", &TEXTS).await;
    let place = export(&world, "acme", "move");
    with_documents(&world, "fresh", &[]).await;
    // Only looked at.
    let output = import(&world, "fresh", &place, false);
    assert!(output.status.success() && said(&output).contains("3 of 3 documents are not"), "{}", said(&output));
    assert_eq!(used(&world, "fresh").await, (0, 0));
    // One byte of a vector was changed: nothing is stored.
    let there = local(&place);
    let victim = std::fs::read_dir(there.join("documents")).expect("a folder").flatten().next().expect("one").path();
    let good = std::fs::read(&victim).expect("a file");
    let mut bad = good.clone();
    let digit = bad.iter().rposition(u8::is_ascii_digit).expect("a number");
    bad[digit] = if bad[digit] == b'1' { b'2' } else { b'1' };
    std::fs::write(&victim, bad).expect("written");
    let output = import(&world, "fresh", &place, true);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("SHA-256"), "{}", said(&output));
    assert_eq!(used(&world, "fresh").await, (0, 0));
    std::fs::write(&victim, good).expect("written");
    // A plan that is too small, in numbers.
    world.create("little", "tiny", BillingMode::Stripe).await;
    world.pay("little").await;
    world.wait_phase("little", Phase::Active).await;
    let output = import(&world, "little", &place, true);
    assert!(!output.status.success() && said(&output).contains("would get 3 more"), "{}", said(&output));
    // As it should be, from the folder's path too.
    let output = import(&world, "fresh", &there.display().to_string(), true);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(used(&world, "fresh").await, used(&world, "acme").await);
    let answer = ask(&world, "fresh", "What do dogs do every morning?").await;
    assert!(answer["answer"].as_str().is_some_and(|a| a.contains("postman")), "{answer}");
    let key = world.api_key("fresh").await;
    let list = world.http.get(format!("{}/v1/documents", world.web)).bearer_auth(key).send().await.expect("it answers");
    let list: Value = list.json().await.expect("JSON");
    assert_eq!(list["documents"].as_array().map(Vec::len), Some(3), "{list}");
    // Again: nothing is missing, and nothing is counted twice.
    let output = import(&world, "fresh", &place, true);
    assert!(said(&output).contains("0 documents and"), "{}", said(&output));
    assert_eq!(used(&world, "fresh").await, used(&world, "acme").await);
    // What was exported from there is what was brought in, except for what counted it there.
    let again = files(&local(&export(&world, "fresh", "again")));
    for (name, bytes) in files(&there).iter().filter(|(name, _)| name.starts_with("documents")) {
        let (first, again) = (vectors(bytes), vectors(&again[name]));
        assert!(again.iter().all(|vector| vector["metadata"]["upload"].is_null()), "{name} would count again");
        assert_eq!(again, without_upload(first), "{name} differs");
    }
    // No export at all.
    let output = import(&world, "fresh", &world.namespace, true);
    assert!(said(&output).contains("cannot be opened"), "{}", said(&output));
    let empty = folder("import-empty");
    std::fs::create_dir_all(&empty).expect("made");
    let output = import(&world, "fresh", &empty.display().to_string(), true);
    assert!(said(&output).contains("no manifest.json"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_survives_the_controller_and_a_provider_that_is_away() {
    let (path, url) = storage("export-kill");
    let mut world = world("export-kill", &url, &[]).await;
    let texts: Vec<(String, String)> =
        (0..8).map(|n| (format!("T{n}"), format!("Text number {n} of eight."))).collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(title, text)| (title.as_str(), text.as_str())).collect();
    with_documents(&world, "acme", &texts).await;
    let id = world.tenants().get("acme").await.expect("there").spec.tenant_id.expect("an id");
    // Every read of vectors takes a while, and the fifth fails for good.
    let fetch = |more: Value| {
        let mut fault = json!({"provider": "pinecone", "method": "GET", "path": "/vectors/fetch"});
        fault.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        fault
    };
    world.fault(fetch(json!({"times": 4, "delay_ms": 50}))).await;
    world.fault(fetch(json!({"times": 1_000_000, "status": 503}))).await;
    let change = Patch::Merge(json!({"spec": {"exportRequest": "slow"}}));
    world.tenants().patch("acme", &Default::default(), &change).await.expect("patched");
    let retrying = |s: &TenantStatus| {
        conditions::get(&s.conditions, "ExportReady")
            .is_some_and(|c| c.reason == "Retrying" && c.message.contains("Pinecone"))
    };
    let status = world.wait("acme", "retrying", retrying).await;
    assert_eq!(status.phase, Some(Phase::Active), "served meanwhile");
    let folder = path.join(&id).join("slow");
    let written = |folder: &Path| -> BTreeMap<String, std::time::SystemTime> {
        let entries = std::fs::read_dir(folder.join("documents")).into_iter().flatten().flatten();
        let time = |e: &std::fs::DirEntry| e.metadata().and_then(|m| m.modified()).expect("a time");
        entries.map(|e| (e.file_name().to_string_lossy().into_owned(), time(&e))).collect()
    };
    let before = written(&folder);
    assert!((1..8).contains(&before.len()), "some are written: {before:?}");
    world.replace_controller();
    world.wait("acme", "retrying", retrying).await;
    world.clear_faults().await;
    world.wait("acme", "exported", |s| state(s) == Some(ExportState::Ready)).await;
    let manifest = verified(&files(&folder));
    assert_eq!(manifest["documents"], 8);
    let after = written(&folder);
    for (name, time) in &before {
        assert_eq!(after.get(name), Some(time), "{name} was written twice");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_tenant_leaves_no_export_behind_and_can_take_one_before() {
    let (path, url) = storage("export-erased");
    let world = world("export-erased", &url, &[]).await;
    with_documents(&world, "acme", &TEXTS[..1]).await;
    let desired = Patch::Merge(json!({"spec": {"desired": Desired::Deleted}}));
    world.tenants().patch("acme", &Default::default(), &desired).await.expect("patched");
    world.wait_phase("acme", Phase::Deleting).await;
    let place = export(&world, "acme", "farewell");
    assert_eq!(verified(&files(&local(&place)))["documents"], 1);
    let yesterday = tenant_operator::api::Timestamp::now().plus(-24 * 3600);
    let due = Patch::Merge(json!({"status": {"erasesAt": yesterday}}));
    world.tenants().patch_status("acme", &Default::default(), &due).await.expect("patched");
    let status = world.wait_phase("acme", Phase::Deleted).await;
    let lines = status.erasure.expect("a certificate").lines;
    let line = lines.iter().find(|line| line.provider == "Export storage").expect("a line");
    assert!(line.before >= 9 && line.after == Some(0), "{line:?}");
    assert_eq!(files(&path), BTreeMap::new());
    let output = run(world.command("export").args(["acme", "--namespace", &world.namespace]));
    assert!(said(&output).contains("nothing to export"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_storage_every_command_says_so() {
    let world = World::with_active("export-none").await;
    let output = run(world.command("export").args(["acme", "--namespace", &world.namespace]));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("EXPORTS_URL"), "{}", said(&output));
    let output = run(world.command("controller").env("EXPORTS_URL", "ftp://somewhere"));
    assert!(said(&output).contains("Use file:///a/folder or s3://bucket/folder"), "{}", said(&output));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_s3_bucket_is_as_good_as_a_folder() {
    let (port, programs) = (free_port(), must(&mut AsyncCommand::new(format!("{ROOT}/tests/s3/programs"))).await);
    let mut command = Command::new(Path::new(programs.trim()).join("moto_server"));
    command.args(["--host", "127.0.0.1", "--port", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let _server = Process::from(command.spawn().expect("moto starts"));
    let endpoint = format!("http://127.0.0.1:{port}");
    let mut world = World::without_controller("export-s3").await;
    let made =
        async || world.http.put(format!("{endpoint}/exports")).send().await.is_ok_and(|a| a.status().is_success());
    world.until("there is a bucket", made).await;
    for (name, value) in [
        ("EXPORTS_URL", "s3://exports/tenants"),
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_REGION", "us-east-1"),
    ] {
        world.environment(name, value);
    }
    world.start_controller();
    world.start_web(&[]);
    with_documents(&world, "acme", &TEXTS).await;
    // Larger than one request to S3 may hold here: written in parts.
    upload(&world, "acme", "Report", &long_report()).await;
    let place = export(&world, "acme", "first");
    assert!(place.starts_with("s3://exports/tenants/") && place.ends_with("/first"), "{place}");
    with_documents(&world, "fresh", &[]).await;
    let output = import(&world, "fresh", &place, true);
    assert!(output.status.success() && said(&output).contains("4 documents and 1 other"), "{}", said(&output));
    let answer = ask(&world, "fresh", "Where do fish swim?").await;
    assert!(answer["answer"].as_str().is_some_and(|a| a.contains("pond")), "{answer}");
    // Deleted with the tenant.
    world.erase("acme").await;
    world.wait_gone("acme").await;
    let left = world.http.get(format!("{endpoint}/exports?list-type=2")).send().await.expect("it answers");
    let left = left.text().await.expect("text");
    assert!(left.contains("<ListBucketResult") && !left.contains("<Contents>"), "{left}");
}
