//! The web pods.

use std::time::Duration;

use futures::FutureExt;

use super::{Check, CheckOutcome, Target};

const LIMIT: Duration = Duration::from_secs(5);

pub const CHECKS: &[Check] = &[Check {
    name: "web/ready",
    blocks_start: false,
    title: "web answers and is ready",
    about: "Runs with --web-url only, which `helm test` sets. Web is ready when it reaches the API server and is not \
        shutting down.",
    needs: None,
    writes: false,
    run: |target| ready(target).boxed(),
}];

async fn ready(target: &Target) -> CheckOutcome {
    let Some(url) = &target.web_url else { return CheckOutcome::Skipped("asked for with --web-url URL".into()) };
    let url = format!("{}/readyz", url.trim_end_matches('/'));
    let fix = "Look at the web pods: kubectl logs, kubectl describe";
    let client = match reqwest::Client::builder().timeout(LIMIT).build() {
        Ok(client) => client,
        Err(error) => return CheckOutcome::failed(error.to_string(), fix),
    };
    match client.get(&url).send().await {
        Ok(answer) if answer.status().is_success() => CheckOutcome::Ok(String::new()),
        Ok(answer) => CheckOutcome::failed(format!("{url} answers {}", answer.status()), fix),
        Err(error) => CheckOutcome::failed(format!("{url} does not answer: {error}"), fix),
    }
}
