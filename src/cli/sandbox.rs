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
    #[arg(long, value_delimiter = ',', num_args = 5, default_value = "0,0,0,0,0")]
    ports: Vec<u16>,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut ports = [0; 5];
    ports.copy_from_slice(args.ports.get(..5).unwrap_or(&[0; 5]));
    let config = SandboxConfig {
        listen: args.listen,
        advertise: args.advertise,
        ports,
        webhook_secret: args.webhook_secret,
        webhook_url: args.webhook_url,
        latency_ms: args.latency_ms,
        data: args.data,
    };
    let sandbox = Sandbox::start(config).await?;
    println!("SANDBOX_URL={}", sandbox.url);
    println!("STRIPE_URL={}", sandbox.stripe_url);
    println!("PINECONE_URL={}", sandbox.pinecone_url);
    println!("OPENAI_BASE_URL={}", sandbox.openai_url);
    println!("SMTP_ADDR={}", sandbox.smtp_addr);
    stop_signal().await;
    Ok(sandbox.save()?)
}
