//! Arguments of the admin pages, `/admin`.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};

use super::KubeArgs;
use crate::access_tokens::AccessTokens;
use crate::admin::AdminConfig;

/// Where `/admin` is, and who may open it.
#[derive(clap::Args)]
pub struct AdminArgs {
    /// Address for `/admin`, the pages and figures for the people who run the service. It reads the Tenants, so it needs
    /// a cluster. Default: it is not served.
    #[arg(long, env = "ADMIN_LISTEN", value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// URL at which browsers reach `/admin`. With https://, its cookies are sent by TLS alone.
    #[arg(long, env = "ADMIN_URL", value_name = "URL", value_parser = web_url)]
    admin_url: Option<Url>,
    /// Tokens that open `/admin` and its figures, comma-separated while one is rotated; at least 32 characters each, such
    /// as the output of `openssl rand -hex 32`.
    #[arg(
        long,
        env = "ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        value_delimiter = ',',
        overrides_with = "admin_token"
    )]
    admin_token: Vec<SecretString>,
    /// File with the tokens, instead of --admin-token.
    #[arg(long, env = "ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Namespaces whose Tenants `/admin` shows, comma-separated. Default: all namespaces.
    #[arg(long = "namespace", env = "WATCH_NAMESPACE", value_delimiter = ',', overrides_with = "namespaces")]
    namespaces: Vec<String>,
}

/// Where browsers can go.
fn web_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}"))?;
    if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err("must start with http:// or https://".into()) }
}

impl AdminArgs {
    /// What the ledger serves at `/admin`. None without `--admin-listen`: the other arguments are then ignored.
    pub async fn config(self, kube: &KubeArgs) -> anyhow::Result<Option<AdminConfig>> {
        let Some(listen) = self.admin_listen else { return Ok(None) };
        let tokens = self.tokens()?;
        let namespaces = self.namespaces.into_iter().filter(|namespace| !namespace.is_empty());
        let namespaces: BTreeSet<_> = namespaces.collect();
        let client = kube.client().await.context(
            "--admin-listen needs a cluster, even with --own-clock: set --kubeconfig or --context, or remove --admin-listen",
        )?;
        Ok(Some(AdminConfig {
            listen,
            tls: self.admin_url.is_some_and(|url| url.scheme() == "https"),
            tokens,
            namespaces: namespaces.into_iter().collect(),
            client,
        }))
    }

    /// The tokens, of the file or of the environment.
    fn tokens(&self) -> anyhow::Result<AccessTokens> {
        let given = self.admin_token.iter().any(|token| !token.expose_secret().is_empty());
        let Some(file) = self.admin_token_file.as_ref().filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(AccessTokens::new("ADMIN_TOKEN", self.admin_token.clone())?);
        };
        anyhow::ensure!(!given, "ADMIN_TOKEN and --admin-token-file are both set: set one of them");
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("--admin-token-file {} cannot be read", file.display()))?;
        let text = SecretString::from(text);
        let tokens = text.expose_secret().split(',').map(SecretString::from).collect();
        let tokens = AccessTokens::new("--admin-token-file", tokens)?;
        anyhow::ensure!(
            !tokens.is_empty(),
            "--admin-token-file {} is empty: write the output of `openssl rand -hex 32` to it, for example",
            file.display()
        );
        Ok(tokens)
    }
}
