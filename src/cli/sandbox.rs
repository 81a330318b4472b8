//! `tenant-operator sandbox`

use std::net::{IpAddr, Ipv4Addr};

use super::stop_signal;
use crate::sandbox::{Sandbox, SandboxConfig};

#[derive(clap::Args)]
pub struct Args {
    /// The address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    listen: IpAddr,
    /// Host name by which others reach it. Default: the address it listens on.
    #[arg(long)]
    advertise: Option<String>,
    /// Where Stripe's webhooks go.
    #[arg(long)]
    webhook_url: Option<String>,
    /// Signs Stripe's webhooks.
    #[arg(long, env = "STRIPE_WEBHOOK_SECRET", hide_env_values = true, default_value = "whsec_sandbox")]
    webhook_secret: String,
    /// Added to every provider call, in milliseconds.
    #[arg(long, default_value = "0")]
    latency_ms: u64,
    /// Keep the state in this folder, at most a second behind; in memory alone when absent.
    #[arg(long)]
    data: Option<std::path::PathBuf>,
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

fn price(text: &str) -> Result<(String, i64), String> {
    let (id, cents) = text.split_once('=').ok_or("ID=CENTS, such as price_starter_monthly=4900")?;
    Ok((id.into(), cents.parse().map_err(|e| format!("{cents}: {e}"))?))
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let config = SandboxConfig {
        listen: args.listen,
        advertise: args.advertise,
        ports: args.ports,
        webhook_secret: args.webhook_secret,
        webhook_url: args.webhook_url,
        latency_ms: args.latency_ms,
        data: args.data,
    };
    let sandbox = Sandbox::start(config).await?;
    for (id, cents) in &args.prices {
        sandbox.add_price(id, *cents, "usd");
    }
    println!("SANDBOX_URL={}", sandbox.url);
    println!("STRIPE_URL={}", sandbox.stripe_url);
    println!("PINECONE_URL={}", sandbox.pinecone_url);
    println!("OPENAI_BASE_URL={}", sandbox.openai_url);
    println!("SMTP_ADDR={}", sandbox.smtp_addr);
    stop_signal().await;
    Ok(sandbox.save()?)
}
