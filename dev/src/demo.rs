//! `make demo`: the main job once, start to finish.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::{Value, json};
use tenant_operator::api::conditions::{WELCOME_EMAIL_SENT, is_true};
use tenant_operator::api::{Phase, Tenant, api_key_secret};

use crate::{Urls, table};

const EMAIL: &str = "ada@analytical-engines.example";
/// A person pays at real Stripe; the sandbox's page takes a moment.
const LIMIT: Duration = Duration::from_mins(10);

/// Where the seconds went.
struct Clock {
    laps: Vec<(&'static str, Duration)>,
    last: Instant,
}

impl Clock {
    fn lap(&mut self, what: &'static str) {
        self.laps.push((what, self.last.elapsed()));
        self.last = Instant::now();
    }
}

/// Signs up, pays, waits until Active, asks the first question, and one about a document of their own.
pub async fn run(client: &Client, urls: &Urls, real_stripe: bool) -> anyhow::Result<()> {
    let http = reqwest::Client::builder()
        .timeout(Duration::from_secs(30))
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let mut clock = Clock { laps: Vec::new(), last: Instant::now() };

    println!("\n1. Analytical Engines Ltd signs up for the starter plan.");
    let signup = sign_up(&http, urls).await?;
    let text = |key: &str| signup[key].as_str().unwrap_or_default().to_owned();
    let (id, token, checkout) = (text("tenant_id"), text("token"), text("checkout_url"));
    let name = token.split('.').next().unwrap_or_default().to_owned();
    println!("   tenant {id}\n   pay at {checkout}");
    clock.lap("signup, until the payment link");

    println!("\n2. They confirm their e-mail address.");
    let token = confirm(&http, urls, &id, &token).await?;
    clock.lap("e-mail and confirmation");

    println!("\n3. They pay with a test card.");
    if real_stripe {
        println!("   Open the link above and pay with 4242 4242 4242 4242; this waits for up to 10 minutes.");
    } else {
        let declined = http.post(&checkout).form(&[("card", "4000 0000 0000 0002")]).send().await?;
        println!("   The first card is declined ({}), the next one pays.", declined.status().as_u16());
        let paid = http.post(&checkout).form(&[("card", "4242 4242 4242 4242")]).send().await?;
        if !paid.status().is_redirection() {
            bail!("the checkout page answered {}", paid.status());
        }
    }
    clock.lap("payment");

    println!("\n4. The controller provisions.");
    tokio::time::timeout(LIMIT, table::show(client, Some(&name)))
        .await
        .context("the tenant was not ready in time")??;
    let api: Api<Tenant> = Api::namespaced(client.clone(), "default");
    let status = api.get(&name).await?.status.unwrap_or_default();
    if status.phase != Some(Phase::Active) {
        bail!("the tenant is not Active: {}", status.message.unwrap_or_default());
    }
    clock.lap("payment to Active");

    println!("\n5. The first question: What is RAG?");
    show(&ask(&http, urls, &id, &token).await?);
    clock.lap("first answer");

    println!("\n6. Their own document, and a question about it, with their API key.");
    let key = api_key(client, &name).await?;
    show(&own_document(&http, urls, &key).await?);
    clock.lap("own document and its answer");

    welcomed(&api, &name).await?;
    clock.lap("welcome e-mail");
    println!("\n7. The welcome e-mail is out, and the setup is complete:");
    println!("   {}", complete(&http, urls, &id, &token).await?);
    clock.lap("setup complete");
    println!("\n8. What they have used of their plan:");
    used(&http, urls, &key).await?;
    clock.lap("usage");
    println!("\nWhere the seconds went:");
    for (what, time) in &clock.laps {
        println!("   {:>7.3} s  {what}", time.as_secs_f64());
    }
    let promised = |what: &str| matches!(what, "payment to Active" | "first answer" | "welcome e-mail");
    let after_payment: Duration = clock.laps.iter().filter(|(what, _)| promised(what)).map(|(_, t)| *t).sum();
    println!("   {:>7.3} s  from payment to the welcome e-mail (promised: under 60 s)", after_payment.as_secs_f64());
    Ok(())
}

async fn sign_up(http: &reqwest::Client, urls: &Urls) -> anyhow::Result<Value> {
    let form = json!({
        "email": EMAIL, "company_name": "Analytical Engines Ltd", "password": "difference-engine-2",
        "plan": "starter", "accept_terms": true,
    });
    let answer = http.post(format!("{}/signup", urls.web)).json(&form).send().await?;
    let status = answer.status();
    let body: Value = answer.json().await?;
    if !status.is_success() || !body["checkout_url"].is_string() {
        bail!("the signup answered {status}: {body}");
    }
    Ok(body)
}

/// Opens the link in the e-mail that the sandbox's mail server took; with a real one, waits until a person does.
/// Answers the token to go on with: the first proof of the address ends those from before it.
async fn confirm(http: &reqwest::Client, urls: &Urls, id: &str, token: &str) -> anyhow::Result<String> {
    let start = Instant::now();
    let mut told = false;
    loop {
        let mails: Value = http.get(format!("{}/_sandbox/mails", urls.sandbox)).send().await?.json().await?;
        let links = mails.as_array().into_iter().flatten().filter(|mail| mail["to"] == EMAIL);
        let mut links = links.flat_map(|mail| mail["links"].as_array().into_iter().flatten()).filter_map(Value::as_str);
        if let Some(link) = links.find(|link| link.contains("/verify-email?token=")) {
            println!("   {link}");
            let proof = link.split("token=").nth(1).unwrap_or_default();
            let confirm =
                http.post(format!("{}/verify-email", urls.web)).bearer_auth(token).json(&json!({"token": proof}));
            let confirmed: Value = confirm.send().await?.error_for_status()?.json().await?;
            return Ok(confirmed["token"].as_str().unwrap_or(token).to_owned());
        }
        let progress = http.get(format!("{}/tenant/{id}", urls.web)).bearer_auth(token).send().await?;
        let progress: Value = progress.error_for_status()?.json().await?;
        if start.elapsed() > Duration::from_secs(5) {
            if progress["address_to_confirm"].is_null() {
                return Ok(token.to_owned());
            }
            if !told {
                println!("   Open the link in the e-mail to {EMAIL}; this waits for up to 10 minutes.");
                told = true;
            }
        }
        if start.elapsed() > LIMIT {
            bail!("the e-mail address was not confirmed");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn ask(http: &reqwest::Client, urls: &Urls, id: &str, token: &str) -> anyhow::Result<Value> {
    let url = format!("{}/tenant/{id}/setup/sample-query", urls.web);
    let answer = http.post(url).bearer_auth(token).json(&json!({"question": "What is RAG?"})).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    if answer["sources"].as_array().is_none_or(Vec::is_empty) {
        bail!("the answer has no sources: {answer}");
    }
    Ok(answer)
}

fn show(answer: &Value) {
    println!("   {}", answer["answer"].as_str().unwrap_or_default());
    for source in answer["sources"].as_array().into_iter().flatten() {
        let text = |key: &str| source[key].as_str().unwrap_or_default();
        let name = if source["document_id"].is_string() { text("title") } else { text("id") };
        println!("   [{}] {name}: {}", source["number"], text("text"));
    }
}

async fn api_key(client: &Client, name: &str) -> anyhow::Result<String> {
    let secret = Api::<Secret>::namespaced(client.clone(), "default").get(&api_key_secret(name)).await?;
    let key = secret.data.and_then(|mut data| data.remove("api-key")).context("the Secret has no API key")?;
    Ok(String::from_utf8(key.0)?)
}

const POLICY: &str = "Vacation policy. Every employee has thirty days of vacation a year. Unused days expire in March.";

async fn own_document(http: &reqwest::Client, urls: &Urls, key: &str) -> anyhow::Result<Value> {
    let url = format!("{}/v1/documents?title=Vacation+policy", urls.web);
    http.post(url).bearer_auth(key).body(POLICY).send().await?.error_for_status()?;
    let question = json!({"question": "How many days of vacation does an employee have?"});
    let start = Instant::now();
    loop {
        let asked = http.post(format!("{}/v1/query", urls.web)).bearer_auth(key).json(&question).send().await?;
        let answer: Value = asked.error_for_status()?.json().await?;
        // The real Pinecone takes a few seconds until a query finds what was written.
        let found = answer["sources"].as_array().is_some_and(|all| all.iter().any(|s| s["document_id"].is_string()));
        if found {
            return Ok(answer);
        }
        if start.elapsed() > Duration::from_mins(1) {
            bail!("no question finds the document: {answer}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Completes the setup, and says how long it took.
async fn complete(http: &reqwest::Client, urls: &Urls, id: &str, token: &str) -> anyhow::Result<String> {
    let start = Instant::now();
    loop {
        // What was done by API key is noted a moment after its answer.
        let completed = http.post(format!("{}/tenant/{id}/setup/complete", urls.web)).bearer_auth(token).send().await?;
        if completed.status().is_success() {
            let setup: Value = completed.json().await?;
            return Ok(format!(
                "{} % of the steps, {} s after the account was ready",
                setup["completion_percentage"], setup["time_to_activate"]
            ));
        }
        if start.elapsed() > Duration::from_mins(1) {
            bail!("the setup is not complete: {}", completed.text().await?);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Shows what the tenant has used, with the limits that the plan has.
async fn used(http: &reqwest::Client, urls: &Urls, key: &str) -> anyhow::Result<()> {
    let asked = http.get(format!("{}/v1/usage", urls.web)).bearer_auth(key).send().await?;
    let usage: Value = asked.error_for_status()?.json().await?;
    for (unit, amount) in usage.as_object().into_iter().flatten() {
        let Some(used) = amount["used"].as_i64() else { continue };
        let limit = amount["limit"].as_i64().map_or_else(String::new, |limit| format!(" of {limit}"));
        println!("   {:<18} {used}{limit}", unit.replace('_', " "));
    }
    if usage["queries"]["used"].as_i64().unwrap_or_default() < 2 {
        bail!("two questions were answered, and not counted: {usage}");
    }
    Ok(())
}

async fn welcomed(api: &Api<Tenant>, name: &str) -> anyhow::Result<()> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_mins(1) {
        let status = api.get(name).await?.status.unwrap_or_default();
        if is_true(&status.conditions, WELCOME_EMAIL_SENT) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bail!("the welcome e-mail was not sent within 60 s")
}
