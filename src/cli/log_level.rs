//! `tenant-operator log-level`: what a running process logs.

use anyhow::{Context, bail};

use super::span;

/// Print or change the log level of a running controller or web pod.
///
/// Run it in the pod: `kubectl exec deploy/RELEASE-controller -- /tenant-operator log-level debug`
#[derive(clap::Args)]
pub struct Args {
    /// error, warn, info, debug or trace. Without it, the command prints the current filter.
    level: Option<tracing::Level>,
    /// How long it holds; then the previous level returns. A day at most.
    #[arg(long = "for", value_name = "DURATION", alias = "seconds", default_value = "10m", value_parser = within_a_day)]
    seconds: i64,
    /// Where the process serves its metrics: port 8081 for the controller, 8082 for web.
    #[arg(long, default_value = "http://127.0.0.1:8081")]
    url: url::Url,
}

fn within_a_day(text: &str) -> Result<i64, String> {
    let seconds = span::some_seconds(text).map_err(|why| why.to_string())?;
    if seconds <= 24 * 3600 { Ok(seconds) } else { Err("must be at most 1d".into()) }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let url = args.url.join("/log-level")?;
    let http = reqwest::Client::builder().timeout(std::time::Duration::from_secs(5)).build()?;
    let request = match args.level {
        None => http.get(url.clone()),
        Some(level) => http.put(url.clone()).query(&[("seconds", args.seconds)]).body(level.to_string()),
    };
    let answer =
        request.send().await.with_context(|| format!("{url} cannot be reached: name the right one with --url"))?;
    let status = answer.status();
    let text = answer.text().await?;
    if !status.is_success() {
        bail!("{}", text.trim());
    }
    print!("{text}");
    Ok(())
}
