//! The command line. A subcommand has a file of its own, or shares one with those that change the same thing:
//! `desired.rs` has `suspend`, `resume`, `delete` and `reactivate`.

mod admin_args;
mod adopt;
mod audit;
mod billed_numbers;
mod confirm;
mod controller;
mod crds;
mod data;
mod describe;
mod desired;
mod erase;
mod export;
mod fitted;
mod funnel;
mod groups;
mod history;
mod import;
mod invite;
mod leads;
mod ledger;
mod ledger_rebuild;
mod lifecycle;
mod list;
mod log_level;
mod login;
mod logs;
mod manual;
mod open;
mod past_usage;
mod pin;
mod preflight;
mod provider_args;
mod recover;
mod reference;
mod relocate;
mod retry;
mod settle_usage;
mod span;
mod stuck;
mod subscriptions;
mod usage;
mod usage_billed;
mod usage_lines;
mod web;
mod why;

pub use confirm::HeldDecision;
pub use fitted::fitted_table;
pub use groups::Program;
pub use manual::reference;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use futures::Future;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use tokio::signal::unix::SignalKind;

use crate::api::Tenant;
use crate::api::tenant::Chunking;

/// Manages the customers of a multi-tenant RAG service as Tenant resources in Kubernetes.
#[derive(Parser)]
#[command(name = "tenant-operator", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    kube: KubeArgs,
}

#[derive(clap::Args, Clone)]
pub(crate) struct KubeArgs {
    /// Path of the kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the pod's service account.
    #[arg(long, global = true)]
    kubeconfig: Option<std::path::PathBuf>,
    /// Context in the kubeconfig file.
    #[arg(long, global = true)]
    context: Option<String>,
}

/// One Tenant.
#[derive(clap::Args)]
pub(crate) struct TenantArgs {
    /// The Tenant's name.
    name: String,
    /// Its namespace; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
}

impl TenantArgs {
    /// The Tenants of its namespace.
    fn api(&self, client: Client) -> Api<Tenant> {
        in_namespace(client, self.namespace.as_deref())
    }
}

/// The objects of a namespace; of the kubeconfig's when absent.
fn in_namespace<K>(client: Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::default_namespaced(client),
    }
}

/// Tenants of one namespace, or of all.
#[derive(clap::Args)]
pub(crate) struct ScopeArgs {
    /// Namespace of the Tenants; otherwise the kubeconfig's.
    #[arg(long, short)]
    namespace: Option<String>,
    /// Tenants of all namespaces.
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
}

/// Objects a page.
const PAGE: u32 = 500;

impl ScopeArgs {
    /// Looks at each Tenant, page by page.
    async fn each(&self, client: Client, mut look: impl FnMut(&Tenant)) -> Result<(), kube::Error> {
        let namespace = self.namespace.as_deref();
        let api: Api<Tenant> = if self.all_namespaces { Api::all(client) } else { in_namespace(client, namespace) };
        let mut params = ListParams::default().limit(PAGE);
        loop {
            let page = api.list(&params).await?;
            page.items.iter().for_each(&mut look);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Run the controller, which provisions tenants and keeps them as declared.
    Controller(Box<controller::Args>),
    /// Serve signups, Stripe's webhooks, the customers' pages and the tenant API.
    Web(Box<web::Args>),
    Ledger(Box<ledger::Args>),
    /// Print the custom resource definitions as YAML, or write them to a folder.
    Crds(crds::Args),
    Preflight(Box<preflight::Args>),
    /// Count tenants by phase, and find stuck tenants and inconsistent records.
    Audit(audit::Args),
    /// Print every transition between phases.
    Lifecycle(lifecycle::Args),
    /// List tenants and what each one waits for.
    List(list::Args),
    /// List the messages to the sales team and the people on the waitlist.
    Leads(leads::Args),
    Invite(invite::Args),
    /// Let a person on the waitlist sign up.
    ///
    /// The controller tells the person by e-mail.
    Admit(leads::AdmitArgs),
    /// Show a tenant's state, billing, conditions, transitions and Events.
    Describe(describe::Args),
    /// Print the transitions of a tenant.
    History(history::Args),
    Usage(usage::Args),
    Funnel(funnel::Args),
    Stuck(stuck::Args),
    Why(why::Args),
    /// Print what the operator's pods log about a tenant.
    Logs(logs::Args),
    LogLevel(log_level::Args),
    /// Print a tenant's payment link, or where the customer logs in.
    Open(open::Args),
    /// Print shell completions, such as for `source <(kubectl tenant completions bash)`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Read a document from the standard input, and print its text and where it is cut, with little memory and time.
    /// Web runs it for each upload.
    #[command(hide = true)]
    ReadFile {
        /// The longest passage, in characters.
        max_characters: u32,
        /// How many characters two neighbours share.
        overlap_characters: u32,
    },
    /// Print every e-mail with example values, as JSON.
    #[command(hide = true)]
    MailPreviews(Box<provider_args::ProviderArgs>),
    /// Print a page of the documentation.
    #[command(hide = true)]
    Manual(manual::Args),
    /// Retry provisioning, a change of plan or a move of documents that failed.
    ///
    /// Retries a Failed tenant, recreates a missing Pinecone namespace, and repeats a declined or unconfirmed change of
    /// plan and a failed move of documents.
    Retry(retry::Args),
    SettleUsage(settle_usage::Args),
    /// Close a tenant. Its data is erased after the retention of its plan.
    Delete(TenantArgs),
    /// Reopen a closed tenant whose data is not erased yet.
    Reactivate(TenantArgs),
    /// Erase a tenant at once, with its Pinecone namespace, Secrets and subscription.
    Erase(erase::Args),
    /// Choose a tenant's Pinecone namespace, and find Pinecone namespaces without a Tenant.
    Data(Box<data::Args>),
    Export(export::Args),
    Import(Box<import::Args>),
    /// Stop serving and charging a tenant until you resume it. Its data is kept.
    Suspend(desired::SuspendArgs),
    /// Confirm a suspension, failure, closing or erasure that the brake holds.
    Confirm(confirm::Args),
    Pin(pin::Args),
    /// End an admin's suspension of a tenant.
    Resume(TenantArgs),
    Subscriptions(Box<subscriptions::Args>),
    Recover(Box<recover::Args>),
    Move(relocate::Args),
    Adopt(adopt::Args),
}

impl KubeArgs {
    /// A client, by the usual rules of kubectl.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &self.kubeconfig {
            Some(path) => kube::Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if self.context.is_some() => kube::Config::from_kubeconfig(&options).await?,
            None => kube::Config::infer().await.context(
                "no cluster is configured: set --kubeconfig or KUBECONFIG (with `make dev`, run `source .dev/env`)",
            )?,
        };
        config.connect_timeout = Some(std::time::Duration::from_secs(5));
        Ok(Client::try_from(config)?)
    }
}

/// Chooses the one TLS implementation; every client needs it.
pub fn install_crypto() {
    // An error says only that it was done before.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Ends on Ctrl-C, on SIGTERM, and when the terminal is closed.
pub fn stop_signal() -> impl Future<Output = ()> + Send + Sync + 'static {
    let (sender, receiver) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let comes = async |kind| match tokio::signal::unix::signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        };
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            () = comes(SignalKind::terminate()) => {}
            () = comes(SignalKind::hangup()) => {}
        }
        sender.send_replace(true);
    });
    async move {
        let mut receiver = receiver;
        drop(receiver.wait_for(|stop| *stop).await);
    }
}

/// Runs the command. Exit code 0: done; 1: failed; 2: called wrongly, or warnings of `preflight`.
pub fn main(program: Program) -> ExitCode {
    let cli = Cli::from_arg_matches(&program.command().get_matches()).unwrap_or_else(|error| error.exit());
    if let Command::ReadFile { max_characters, overlap_characters } = cli.command {
        return ExitCode::from(crate::rag::print_passages(Chunking { max_characters, overlap_characters }));
    }
    install_crypto();
    crate::telemetry::init_logs(None);
    let runtime = match runtime(&cli.command).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(run(cli));
    crate::telemetry::flush_traces();
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {}", describe(&error));
            ExitCode::FAILURE
        }
    }
}

/// A controller has one thread: at the pace of a busy API server it takes a fifth of a core, and waking another thread
/// for each answer would cost more than the answer.
fn runtime(command: &Command) -> tokio::runtime::Builder {
    match command {
        Command::Controller(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    }
}

/// An error and its causes in one line. Causes that their error names already are left out, and of what the API server
/// refused only its sentence is shown.
pub fn describe(error: &anyhow::Error) -> String {
    if let Some(kube::Error::Api(status)) = error.chain().find_map(|cause| cause.downcast_ref::<kube::Error>()) {
        return match &status.details {
            Some(details) if status.code == 404 && details.kind == "tenants" && !details.name.is_empty() => {
                format!("there is no Tenant {} here: `kubectl tenant list -A` lists all", details.name)
            }
            _ => format!("Kubernetes: {}", status.message),
        };
    }
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let done = match cli.command {
        Command::Preflight(args) => return preflight::run(&cli.kube, *args).await,
        Command::Controller(args) => controller::run(&cli.kube, *args).await,
        Command::Web(args) => web::run(&cli.kube, *args).await,
        Command::Ledger(args) => ledger::run(&cli.kube, *args).await,
        Command::Crds(args) => crds::run(&args),
        Command::Lifecycle(args) => lifecycle::run(&args),
        Command::List(args) => list::run(&cli.kube, args).await,
        Command::Leads(args) => leads::run(&cli.kube, args).await,
        Command::Invite(args) => invite::run(&cli.kube, args).await,
        Command::Admit(args) => leads::admit(&cli.kube, args).await,
        Command::Describe(args) => describe::run(&cli.kube, args).await,
        Command::Audit(args) => return audit::run(&cli.kube, args).await,
        Command::Funnel(args) => funnel::run(&cli.kube, args).await,
        Command::Stuck(args) => return stuck::run(&cli.kube, args).await.map(|any| ExitCode::from(u8::from(any))),
        Command::History(args) => history::run(&cli.kube, args).await,
        Command::Delete(args) => desired::delete(&cli.kube, args).await,
        Command::Reactivate(args) => desired::reactivate(&cli.kube, args).await,
        Command::Usage(args) => return usage::run(&cli.kube, args).await,
        Command::Why(args) => return why::run(&cli.kube, args).await,
        Command::Logs(args) => logs::run(&cli.kube, args).await,
        Command::LogLevel(args) => log_level::run(args).await,
        Command::Open(args) => open::run(&cli.kube, args).await,
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "tenant-operator", &mut std::io::stdout());
            Ok(())
        }
        // Done before there was a runtime: it must have no threads.
        Command::ReadFile { .. } => Ok(()),
        Command::MailPreviews(args) => {
            println!("{}", serde_json::json!(args.build()?.mail.previews()));
            Ok(())
        }
        Command::Manual(args) => manual::run(&args),
        Command::Retry(args) => retry::run(&cli.kube, args).await,
        Command::SettleUsage(args) => settle_usage::run(&cli.kube, args).await,
        Command::Erase(args) => erase::run(&cli.kube, args).await,
        Command::Confirm(args) => confirm::run(&cli.kube, args).await,
        Command::Pin(args) => pin::run(&cli.kube, args).await,
        Command::Suspend(args) => desired::suspend(&cli.kube, args).await,
        Command::Resume(args) => desired::resume(&cli.kube, args).await,
        Command::Data(args) => data::run(&cli.kube, *args).await,
        Command::Subscriptions(args) => subscriptions::run(&cli.kube, *args).await,
        Command::Export(args) => export::run(&cli.kube, args).await,
        Command::Import(args) => import::run(&cli.kube, *args).await,
        Command::Recover(args) => recover::run(&cli.kube, *args).await,
        Command::Move(args) => relocate::run(&cli.kube, args).await,
        Command::Adopt(args) => adopt::run(&cli.kube, args).await,
    };
    done.map(|()| ExitCode::SUCCESS)
}

/// A Tenant whose names would move the cursor.
#[cfg(test)]
pub(crate) fn hostile() -> Tenant {
    serde_json::from_value(serde_json::json!({
        "metadata": {"name": "acme"},
        "spec": {
            "companyName": "Acme\u{1b}[2J", "adminEmail": "ada\r@example.com", "plan": "starter",
            "billing": {"mode": "Manual"},
        },
    }))
    .expect("a Tenant")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_with_a_list_replaces_what_was_said_before() {
        let common = ["tenant-operator", "controller", "--pinecone-api-key=x", "--stripe-secret-key=x", "--smtp-url=x"];
        let waits = |more: &[&str]| {
            let cli = Cli::try_parse_from(common.iter().chain(more)).expect("it parses");
            match cli.command {
                Command::Controller(args) => args.work.retry_waits,
                _ => panic!("another command"),
            }
        };
        assert_eq!(waits(&[]), [60, 120, 240]);
        assert_eq!(waits(&["--retry-waits=1,2", "--retry-waits=3"]), [3]);
    }

    #[test]
    fn an_error_is_one_line_that_says_nothing_twice() {
        let inner = anyhow::anyhow!("no such file").context("reading plans.yaml").context("applying the plans");
        assert_eq!(describe(&inner), "applying the plans: reading plans.yaml: no such file");
        let listen = std::io::Error::other("address in use");
        let error = crate::controller::ControllerError::Listen(listen);
        assert_eq!(describe(&error.into()), "cannot listen: address in use");
        let status = kube::core::Status { code: 403, message: "secrets is forbidden".into(), ..Default::default() };
        let refused = crate::controller::ControllerError::Kube(kube::Error::Api(Box::new(status)));
        assert_eq!(describe(&anyhow::Error::from(refused).context("starting")), "Kubernetes: secrets is forbidden");
    }
}
