//! The arguments of `tenant-operator-sandbox`, and what it prints.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{Sandbox, SandboxConfig};

const EXAMPLES: &str = "\
Examples:
  Start the servers on free ports, and print their addresses as NAME=value:
      tenant-operator-sandbox
  Keep the ports and the state from one start to the next, and send Stripe's webhooks to your server:
      tenant-operator-sandbox --ports 9000,9001,9002,9003,9004 --data sandbox \\
          --webhook-url http://127.0.0.1:8080/webhooks/stripe

Set the base URL of each vendor's SDK to the printed URL. Any secret key works. Open SANDBOX_URL in a browser to read the
e-mails. SANDBOX_URL/_sandbox/requests lists every call, and POST SANDBOX_URL/_sandbox/faults makes calls fail.
docs/sandbox.md describes cards, faults, clocks and webhooks.";

/// Runs local servers that speak the wire protocols of Stripe, Pinecone, `OpenAI` and SMTP.
///
/// No money moves and no model answers: embeddings are hashed words, and an answer is the passage that shares most
/// words with the question.
#[derive(Parser)]
#[command(name = "tenant-operator-sandbox", version, max_term_width = 100, after_long_help = EXAMPLES)]
pub struct Cli {
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Host name in the URLs that the servers return. Default: the address to listen on.
    #[arg(long)]
    advertise: Option<String>,
    /// Where Stripe's webhooks go.
    #[arg(long)]
    webhook_url: Option<String>,
    /// Signs Stripe's webhooks.
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true, default_value = "whsec_sandbox")]
    webhook_secret: String,
    /// Added to every provider call, such as `20ms` or `1s`. A plain number is milliseconds.
    #[arg(long, value_name = "LATENCY", default_value = "0", value_parser = millis)]
    latency_ms: u64,
    /// Folder to keep the state in, at most a second behind. Default: in memory only.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Ports of control, Stripe, Pinecone, `OpenAI` and SMTP; 0 takes any.
    #[arg(long, value_parser = ports, default_value = "0,0,0,0,0")]
    ports: [u16; 5],
    /// Prices that the Stripe stand-in knows, as ID=CENTS, comma-separated.
    #[arg(long, value_delimiter = ',', value_parser = price, overrides_with = "prices")]
    prices: Vec<(String, i64)>,
}

fn ports(text: &str) -> Result<[u16; 5], String> {
    let ports: Result<Vec<u16>, _> = text.split(',').map(str::parse).collect();
    ports.ok().and_then(|p| p.try_into().ok()).ok_or_else(|| "five port numbers, separated by commas".into())
}

fn millis(text: &str) -> Result<u64, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let duration: Option<SignedDuration> = text.parse().ok();
    let millis = duration.and_then(|duration| u64::try_from(duration.as_millis()).ok());
    millis.ok_or_else(|| "a duration, such as 20ms or 1s, or a plain number of milliseconds".into())
}

fn price(text: &str) -> Result<(String, i64), String> {
    let (id, cents) = text.split_once('=').ok_or("ID=CENTS, such as price_starter_monthly=4900")?;
    Ok((id.into(), cents.parse().map_err(|e| format!("{cents}: {e}"))?))
}

/// Runs until Ctrl-C or SIGTERM. Exit code 0: ended in order; 1: failed; 2: called wrongly.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter).init();
    // Webhooks may go to an https URL. An error says only that it was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match run(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let config = SandboxConfig {
        listen: cli.listen,
        advertise: cli.advertise,
        ports: cli.ports,
        webhook_secret: cli.webhook_secret,
        webhook_url: cli.webhook_url,
        latency_ms: cli.latency_ms,
        data: cli.data,
    };
    let sandbox = Sandbox::start(config).await?;
    for (id, cents) in &cli.prices {
        sandbox.add_price(id, *cents, "usd");
    }
    println!("SANDBOX_URL={}", sandbox.url);
    println!("STRIPE_URL={}", sandbox.stripe_url);
    println!("PINECONE_URL={}", sandbox.pinecone_url);
    println!("OPENAI_BASE_URL={}", sandbox.openai_url);
    println!("SMTP_ADDR={}", sandbox.smtp_addr);
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminated.recv() => {}
    }
    Ok(sandbox.save()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_latency_is_a_duration_or_a_number_of_milliseconds() {
        for (text, wanted) in [("0", 0), ("20", 20), ("20ms", 20), ("1s", 1000), ("1s 500ms", 1500)] {
            assert_eq!(millis(text), Ok(wanted), "{text}");
        }
        for text in ["", "-1", "-20ms", "fast", "20 apples"] {
            assert!(millis(text).is_err(), "{text}");
        }
    }
}
