//! `make demo`: the main job once, start to finish.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::{Urls, table};
use crate::api::conditions::{WELCOME_EMAIL_SENT, is_true};
use crate::api::{Phase, Tenant};

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

/// Signs up, pays, waits until Active, and asks the first question.
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

    println!("\n2. They pay with a test card.");
    if real_stripe {
        println!("   Open the link above and pay with 4242 4242 4242 4242; this waits for up to 10 minutes.");
    } else {
        let paid = http.post(&checkout).form(&[("card", "4242 4242 4242 4242")]).send().await?;
        if !paid.status().is_redirection() {
            bail!("the checkout page answered {}", paid.status());
        }
    }
    clock.lap("payment");

    println!("\n3. The controller provisions.");
    tokio::time::timeout(LIMIT, table::show(client, Some(&name)))
        .await
        .context("the tenant was not ready in time")??;
    let api: Api<Tenant> = Api::namespaced(client.clone(), "default");
    let status = api.get(&name).await?.status.unwrap_or_default();
    if status.phase != Some(Phase::Active) {
        bail!("the tenant is not Active: {}", status.message.unwrap_or_default());
    }
    clock.lap("payment to Active");

    println!("\n4. The first question: What is RAG?");
    let answer = ask(&http, urls, &id, &token).await?;
    println!("   {}", answer["answer"].as_str().unwrap_or_default());
    for (n, source) in answer["sources"].as_array().into_iter().flatten().enumerate() {
        println!(
            "   [{}] {}: {}",
            n + 1,
            source["id"].as_str().unwrap_or_default(),
            source["text"].as_str().unwrap_or_default()
        );
    }
    clock.lap("first answer");

    welcomed(&api, &name).await?;
    clock.lap("welcome e-mail");
    println!("\n5. The welcome e-mail is out.\n\nWhere the seconds went:");
    for (what, time) in &clock.laps {
        println!("   {:>7.3} s  {what}", time.as_secs_f64());
    }
    let after_payment: Duration = clock.laps.iter().skip(2).map(|(_, t)| *t).sum();
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

async fn ask(http: &reqwest::Client, urls: &Urls, id: &str, token: &str) -> anyhow::Result<Value> {
    let url = format!("{}/tenant/{id}/setup/sample-query", urls.web);
    let answer = http.post(url).bearer_auth(token).json(&json!({"question": "What is RAG?"})).send().await?;
    let answer: Value = answer.error_for_status()?.json().await?;
    if answer["sources"].as_array().is_none_or(Vec::is_empty) {
        bail!("the answer has no sources: {answer}");
    }
    Ok(answer)
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
