//! Settings of the providers: the vendors' own variables where they exist.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::span;
use crate::controller::Providers;
use crate::export::Stores;
use crate::providers::CallLimits;
use crate::providers::alerts::Alerts;
use crate::providers::captcha::{Captcha, CaptchaConfig, CaptchaKind};
use crate::providers::indexes::Indexes;
use crate::providers::mail::{Mail, MailConfig};
use crate::providers::openai::{OpenAi, OpenAiConfig};
use crate::providers::pinecone::{Pinecone, PineconeConfig};
use crate::providers::stripe::{Stripe, StripeConfig};
use crate::providers::vector_store::VectorStore;
use crate::web::{Admission, Domains};

/// How long a customer waits for the portal at most.
const PORTAL_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Pinecone is, and which index is whose.
// The fields are named like their flags.
#[allow(clippy::struct_field_names)]
#[derive(clap::Args, Clone, Debug)]
pub struct IndexArgs {
    /// URL of the Pinecone control plane.
    #[arg(long, env = "PINECONE_URL", default_value = "https://api.pinecone.io")]
    pub pinecone_url: String,
    /// Pinecone index that holds the namespaces of all tenants.
    #[arg(long, env = "PINECONE_INDEX", default_value = "multi-tenant-rag")]
    pub pinecone_index: String,
    /// Pinecone index of each region, such as us-east-1=rag,eu-central-1=rag-eu. A Plan's region chooses one; Plans of
    /// other regions are refused. Default: the one index, for all regions.
    #[arg(
        long,
        env = "PINECONE_REGIONS",
        default_value = "",
        value_parser = region_indexes,
        overrides_with = "pinecone_regions"
    )]
    pub pinecone_regions: ByRegion,
}

impl IndexArgs {
    pub fn open(&self, api_key: SecretString, calls: CallLimits) -> Indexes {
        let url = self.pinecone_url.trim_end_matches('/').into();
        let config = PineconeConfig { url, api_key, index: self.pinecone_index.clone(), calls };
        let index = |name: &str| -> Box<dyn VectorStore> {
            Box::new(Pinecone::new(PineconeConfig { index: name.to_owned(), ..config.clone() }))
        };
        match &self.pinecone_regions[..] {
            [] => Indexes::One(index(&self.pinecone_index)),
            regions => Indexes::Each(regions.iter().map(|(region, name)| (region.clone(), index(name))).collect()),
        }
    }
}

/// Pinecone and `OpenAI`: what controller and web both call.
#[derive(clap::Args, Clone, Debug)]
pub struct RagArgs {
    /// Pinecone API key.
    #[arg(long, env = "PINECONE_API_KEY", hide_env_values = true)]
    pub pinecone_api_key: SecretString,
    #[command(flatten)]
    pub index: IndexArgs,
    /// API key of the OpenAI-compatible API.
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, default_value = "")]
    pub openai_api_key: SecretString,
    /// Base URL of the OpenAI-compatible API, with the version.
    #[arg(long, env = "OPENAI_BASE_URL", default_value = "https://api.openai.com/v1")]
    pub openai_base_url: String,
    /// Maximum calls per second to Pinecone.
    #[arg(long, env = "PINECONE_RATE", default_value = "100")]
    pub pinecone_rate: NonZeroU32,
    /// Maximum calls per second to `OpenAI`.
    #[arg(long, env = "OPENAI_RATE", default_value = "50")]
    pub openai_rate: NonZeroU32,
    /// Timeout of one call to a provider. A plain number is milliseconds.
    #[arg(long, env = "PROVIDER_TIMEOUT_MS", default_value = "20s", value_parser = span::duration_or_millis)]
    pub provider_timeout_ms: Duration,
    /// Quick retries of one call to a provider, a fraction of a second apart.
    #[arg(long, env = "PROVIDER_RETRIES", default_value = "2")]
    pub provider_retries: usize,
}

/// Regions, each with what is its own.
type ByRegion = Vec<(String, String)>;

fn region_indexes(text: &str) -> Result<ByRegion, String> {
    by_region(text, "REGION=INDEX, such as eu-central-1=rag-eu")
}

fn region_storages(text: &str) -> Result<ByRegion, String> {
    by_region(text, "REGION=URL, such as eu-central-1=s3://exports-eu/tenants")
}

/// Reads a list with commas. An empty one, as of a variable that is set to nothing, is none.
fn by_region(text: &str, wanted: &str) -> Result<ByRegion, String> {
    let mut all = ByRegion::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let pair = part.split_once('=').filter(|(region, its)| !region.is_empty() && !its.is_empty());
        let (region, its) = pair.ok_or_else(|| format!("{part:?} is not of the form {wanted}"))?;
        if all.iter().any(|(there, _)| there == region) {
            return Err(format!("region {region} is listed twice"));
        }
        all.push((region.into(), its.into()));
    }
    Ok(all)
}

impl RagArgs {
    fn calls(&self, per_second: NonZeroU32) -> CallLimits {
        CallLimits { per_second, timeout: self.provider_timeout_ms, retries: self.provider_retries }
    }

    pub fn indexes(&self) -> Indexes {
        self.index.open(self.pinecone_api_key.clone(), self.calls(self.pinecone_rate))
    }

    pub fn models(&self) -> Arc<OpenAi> {
        Arc::new(OpenAi::new(OpenAiConfig {
            url: self.openai_base_url.trim_end_matches('/').into(),
            api_key: self.openai_api_key.clone(),
            calls: self.calls(self.openai_rate),
        }))
    }
}

/// Stripe's customer portal, which web opens for customers.
#[derive(clap::Args, Clone, Debug)]
pub struct PortalArgs {
    /// Restricted Stripe key for the customer portal: it may read customers and write customer portal sessions. Without
    /// it, the account page has no billing button.
    #[arg(long, env = "STRIPE_PORTAL_KEY", hide_env_values = true, default_value = "")]
    pub stripe_portal_key: SecretString,
    /// Base URL of Stripe.
    #[arg(long, env = "STRIPE_URL", default_value = "https://api.stripe.com")]
    pub stripe_url: String,
}

impl PortalArgs {
    pub fn stripe(&self, frontend_url: &str) -> Option<Stripe> {
        let calls = CallLimits { per_second: NonZeroU32::MIN.saturating_add(9), timeout: PORTAL_TIMEOUT, retries: 1 };
        (!self.stripe_portal_key.expose_secret().is_empty()).then(|| {
            Stripe::new(StripeConfig {
                url: self.stripe_url.trim_end_matches('/').into(),
                api_key: self.stripe_portal_key.clone(),
                calls,
                frontend_url: frontend_url.trim_end_matches('/').into(),
                promotion_codes: false,
            })
        })
    }
}

/// Where exports are: the controller writes them, web sends them.
#[derive(clap::Args, Clone, Debug)]
pub struct ExportArgs {
    /// Storage for exports of tenants: <file:///a/folder>, or <s3://bucket/folder> with the variables of the AWS tools,
    /// such as `AWS_ACCESS_KEY_ID` and `AWS_ENDPOINT_URL`. Controller and web need the same one. Default: no exports.
    #[arg(long, env = "EXPORTS_URL", default_value = "")]
    pub exports_url: String,
    /// Storage for exports of tenants of a region, such as eu-central-1=<s3://exports-eu/tenants>. Other regions use
    /// `EXPORTS_URL`.
    #[arg(
        long,
        env = "EXPORTS_REGIONS",
        default_value = "",
        value_parser = region_storages,
        overrides_with = "exports_regions"
    )]
    pub exports_regions: ByRegion,
}

impl ExportArgs {
    pub fn open(&self) -> anyhow::Result<Stores> {
        let others = Some(self.exports_url.as_str()).filter(|url| !url.is_empty());
        Ok(Stores::open(others, &self.exports_regions)?)
    }
}

/// Who may sign up.
#[derive(clap::Args, Clone, Debug)]
pub struct AdmissionArgs {
    /// Ask for a captcha at signup: turnstile, hcaptcha or recaptcha (version 2). Nothing is loaded from another host
    /// without it.
    #[arg(long, env = "CAPTCHA_PROVIDER", default_value = "", value_parser = parse_captcha)]
    captcha: CaptchaChoice,
    /// Site key of the captcha.
    #[arg(long, env = "CAPTCHA_SITE_KEY", default_value = "")]
    captcha_site_key: String,
    /// Secret key of the captcha.
    #[arg(long, env = "CAPTCHA_SECRET_KEY", hide_env_values = true, default_value = "")]
    captcha_secret_key: SecretString,
    /// URL at which the captcha is verified. Default: the provider's.
    #[arg(long, env = "CAPTCHA_URL", default_value = "")]
    captcha_url: String,
    /// File of e-mail domains that may not sign up, one a line.
    #[arg(long, env = "DISPOSABLE_DOMAINS", default_value = "")]
    disposable_domains: String,
    /// Only allow signups from people you admitted from the waitlist with `kubectl tenant admit`.
    #[arg(long, env = "WAITLIST", value_parser = clap::builder::FalseyValueParser::new())]
    waitlist: bool,
}

/// Whose captcha, if any.
#[derive(Clone, Copy, Debug)]
struct CaptchaChoice(Option<CaptchaKind>);

fn parse_captcha(name: &str) -> Result<CaptchaChoice, String> {
    let kind = (!name.is_empty()).then(|| name.parse()).transpose();
    Ok(CaptchaChoice(kind.map_err(|_| "use turnstile, hcaptcha or recaptcha")?))
}

impl AdmissionArgs {
    pub fn build(&self) -> anyhow::Result<Admission> {
        let keys = !self.captcha_site_key.is_empty() && !self.captcha_secret_key.expose_secret().is_empty();
        anyhow::ensure!(
            self.captcha.0.is_none() || keys,
            "CAPTCHA_PROVIDER is set: set CAPTCHA_SITE_KEY and CAPTCHA_SECRET_KEY as well"
        );
        let captcha = self.captcha.0.map(|kind| {
            Captcha::new(CaptchaConfig {
                kind,
                site_key: self.captcha_site_key.clone(),
                secret: self.captcha_secret_key.clone(),
                url: Some(self.captcha_url.clone()).filter(|url| !url.is_empty()),
            })
        });
        let file = &self.disposable_domains;
        let disposable = if file.is_empty() { Ok(Domains::default()) } else { Domains::read(Path::new(file)) };
        let disposable = disposable.map_err(anyhow::Error::msg)?;
        Ok(Admission { captcha, disposable, waitlist: self.waitlist })
    }
}

/// All providers: what the controller alone calls.
#[derive(clap::Args, Clone, Debug)]
pub struct ProviderArgs {
    #[command(flatten)]
    pub rag: RagArgs,
    /// Stripe secret key.
    #[arg(long, env = "STRIPE_SECRET_KEY", hide_env_values = true)]
    pub stripe_secret_key: SecretString,
    /// Base URL of Stripe.
    #[arg(long, env = "STRIPE_URL", default_value = "https://api.stripe.com")]
    pub stripe_url: String,
    /// Maximum calls per second to Stripe, which allows 100 in live mode and 25 in test mode.
    #[arg(long, env = "STRIPE_RATE", default_value = "20")]
    pub stripe_rate: NonZeroU32,
    /// Let customers enter a promotion code of Stripe's at Checkout, such as one that the win-back offer names.
    #[arg(long, env = "STRIPE_PROMOTION_CODES", value_parser = clap::builder::BoolishValueParser::new(), action = clap::ArgAction::Set, num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    pub promotion_codes: bool,
    /// Mail server: smtp://host:port or <smtps://user:password@host>.
    #[arg(long, env = "SMTP_URL", hide_env_values = true)]
    pub smtp_url: SecretString,
    /// Sender of e-mails. Use a mailbox that your team reads: customers reply to it.
    #[arg(long, env = "FROM_EMAIL", default_value = "hello@example.com")]
    pub from_email: String,
    /// Product name in e-mails.
    #[arg(long, env = "PRODUCT_NAME", default_value = "RAG Service")]
    pub product_name: String,
    /// URL where customers log in, and to which Stripe Checkout returns them.
    #[arg(long, env = "FRONTEND_URL", default_value = "http://localhost:8080")]
    pub frontend_url: String,
    /// URL of the documentation for customers.
    #[arg(long, env = "DOCS_URL", default_value = "http://localhost:8080/docs")]
    pub docs_url: String,
    /// URL of your data-processing agreement. If it is set, every customer who signs up gets it by e-mail.
    #[arg(long, env = "DPA_URL", default_value = "")]
    pub dpa_url: String,
    /// What you offer customers who have left, as one sentence without its full stop. The e-mail `win-back` shows it to
    /// those who agreed to offers.
    #[arg(long, env = "WIN_BACK_OFFER", default_value = "")]
    pub win_back_offer: String,
    /// Folder of e-mail templates that replace the built-in ones, such as welcome.html or verify-email.subject.
    #[arg(long, env = "MAIL_TEMPLATES", default_value = "")]
    pub mail_templates: String,
    /// The namespace of signups, whose tenants have pages: their customers are invited to set a password. Empty if web
    /// serves pages to the tenants of all namespaces.
    #[arg(long, env = "TENANT_NAMESPACE", default_value = "")]
    pub pages_namespace: String,
    /// Slack-compatible webhook for alerts. Without it, alerts are only logged.
    #[arg(long, env = "ALERT_WEBHOOK_URL", hide_env_values = true)]
    pub alert_webhook_url: Option<SecretString>,
}

impl ProviderArgs {
    pub fn build(&self) -> anyhow::Result<Providers> {
        let frontend_url = self.frontend_url.trim_end_matches('/').to_owned();
        Ok(Providers {
            stripe: Stripe::new(StripeConfig {
                url: self.stripe_url.trim_end_matches('/').into(),
                api_key: self.stripe_secret_key.clone(),
                calls: self.rag.calls(self.stripe_rate),
                frontend_url: frontend_url.clone(),
                promotion_codes: self.promotion_codes,
            }),
            indexes: self.rag.indexes(),
            embedder: self.rag.models(),
            mail: Mail::new(MailConfig {
                smtp_url: self.smtp_url.clone(),
                from: self.from_email.clone(),
                product: self.product_name.clone(),
                frontend_url,
                docs_url: self.docs_url.clone(),
                dpa_url: self.dpa_url.clone(),
                win_back_offer: self.win_back_offer.clone(),
                templates: (!self.mail_templates.is_empty()).then(|| PathBuf::from(&self.mail_templates)),
                pages_namespace: self.pages_namespace.clone(),
            })?,
            alerts: Alerts::new(self.alert_webhook_url.clone()).into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All that holds a key, as it is parsed and as it is used.
    #[derive(clap::Parser)]
    #[command(no_binary_name = true)]
    struct Everything {
        #[command(flatten)]
        providers: ProviderArgs,
        #[command(flatten)]
        portal: PortalOnly,
        #[command(flatten)]
        admission: AdmissionArgs,
    }

    #[derive(clap::Args)]
    struct PortalOnly {
        #[arg(long)]
        portal_key: SecretString,
    }

    #[tokio::test]
    async fn no_setting_prints_the_secret_that_it_holds() {
        use clap::Parser;
        crate::cli::install_crypto();
        let args = Everything::parse_from([
            "--pinecone-api-key=hunter2-pinecone",
            "--openai-api-key=hunter2-openai",
            "--stripe-secret-key=hunter2-stripe",
            "--smtp-url=smtp://user:hunter2-mail@127.0.0.1:1",
            "--alert-webhook-url=https://hooks.example.com/hunter2-alerts",
            "--portal-key=hunter2-portal",
            "--captcha=turnstile",
            "--captcha-site-key=1x",
            "--captcha-secret-key=hunter2-captcha",
        ]);
        let portal = PortalArgs {
            stripe_portal_key: args.portal.portal_key.clone(),
            stripe_url: "https://api.stripe.com".into(),
        };
        let built = args.providers.build().expect("settings that can be used");
        let printed = format!(
            "{:?} {:?} {:?} {built:?} {:?} {:?}",
            args.providers,
            args.admission,
            portal,
            portal.stripe("https://app.example.com"),
            args.admission.build().expect("a captcha"),
        );
        assert!(printed.contains("REDACTED"), "{printed}");
        let at = printed.find("hunter2").map(|at| &printed[at.saturating_sub(60)..at]);
        assert_eq!(at, None, "a secret is printed after this");
    }

    #[test]
    fn a_list_by_region_is_read_as_a_whole_and_an_empty_one_is_none() {
        let owned = |region: &str, index: &str| (region.to_owned(), index.to_owned());
        assert_eq!(region_indexes(""), Ok(vec![]), "a variable that is set to nothing");
        let both = vec![owned("us-east-1", "rag"), owned("eu-central-1", "rag-eu")];
        assert_eq!(region_indexes("us-east-1=rag, eu-central-1=rag-eu,"), Ok(both));
        assert_eq!(region_storages("eu=s3://b/a=1"), Ok(vec![owned("eu", "s3://b/a=1")]));
        for (text, says) in
            [("rag", "REGION=INDEX"), ("=rag", "REGION=INDEX"), ("eu=", "REGION=INDEX"), ("eu=a,eu=b", "twice")]
        {
            assert!(region_indexes(text).expect_err("refused").contains(says), "{text}");
        }
    }
}
