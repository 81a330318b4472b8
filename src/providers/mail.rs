//! E-mail by SMTP.

use std::time::Duration;

use lettre::message::{Mailbox, MultiPart, header};
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use minijinja::{Environment, context};

use super::ProviderError;
use crate::lifecycle::Blame;

const PROVIDER: &str = "Mail";

/// How mail is sent, and what it says of the product.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `smtp://host:port` or `smtps://user:password@host`.
    pub smtp_url: String,
    /// The sender, a mailbox that is read.
    pub from: String,
    /// The product's name.
    pub product: String,
    /// Where customers log in.
    pub frontend_url: String,
    /// The documentation.
    pub docs_url: String,
}

/// Sends e-mails from templates.
#[derive(Debug)]
pub struct Mail {
    config: MailConfig,
    from: Mailbox,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    templates: Environment<'static>,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MailConfigError(String);

/// The e-mails there are.
#[derive(Clone, Copy, Debug)]
pub enum Template {
    /// The account is ready.
    Welcome,
    /// Provisioning failed.
    ProvisioningFailed,
}

impl Template {
    const fn name(self) -> &'static str {
        match self {
            Self::Welcome => "welcome",
            Self::ProvisioningFailed => "provisioning-failed",
        }
    }

    const fn subject(self) -> &'static str {
        match self {
            Self::Welcome => "Your {{ product }} account is ready, {{ company }}",
            Self::ProvisioningFailed => "We could not set up your {{ product }} account yet",
        }
    }
}

/// What an e-mail is about.
#[derive(Clone, Debug)]
pub struct Letter<'a> {
    /// Which e-mail.
    pub template: Template,
    /// To whom.
    pub to: &'a str,
    /// The customer.
    pub company: &'a str,
    /// The tenant's id.
    pub tenant_id: &'a str,
    /// The plan.
    pub plan: &'a str,
    /// Names this e-mail among those of the tenant: the same name is the same Message-ID.
    pub key: &'a str,
    /// When the trial ends, in words.
    pub trial_ends: Option<String>,
    /// What was given back, in words.
    pub refund: Option<String>,
}

impl Mail {
    /// A sender; nothing is connected yet.
    pub fn new(config: MailConfig) -> Result<Self, MailConfigError> {
        let from = config.from.parse().map_err(|e| MailConfigError(format!("FROM_EMAIL {:?}: {e}", config.from)))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(&config.smtp_url)
            .map_err(|e| MailConfigError(format!("SMTP_URL: {e}")))?
            .timeout(Some(Duration::from_secs(10)))
            .build();
        let mut templates = Environment::new();
        for (name, text) in [
            ("welcome.html", include_str!("templates/welcome.html")),
            ("welcome.txt", include_str!("templates/welcome.txt")),
            ("provisioning-failed.html", include_str!("templates/provisioning-failed.html")),
            ("provisioning-failed.txt", include_str!("templates/provisioning-failed.txt")),
        ] {
            templates.add_template(name, text).map_err(|e| MailConfigError(format!("template {name}: {e}")))?;
        }
        Ok(Self { config, from, transport, templates })
    }

    /// Sends one e-mail. The Message-ID is the same for the same tenant and key.
    pub async fn send(&self, letter: &Letter<'_>) -> Result<(), ProviderError> {
        let message = self.compose(letter)?;
        self.transport.send(message).await.map_err(|e| ProviderError {
            provider: PROVIDER,
            status: e.status().map(u16::from),
            reason: if e.is_permanent() { "Refused" } else { "Unreachable" },
            message: format!("the mail server did not take the {} e-mail", letter.template.name()),
            blame: Blame::Call,
            retryable: !e.is_permanent(),
            retry_after: None,
        })?;
        Ok(())
    }

    /// Connects and logs in.
    pub async fn check(&self) -> Result<(), ProviderError> {
        let failure = |reason, retryable, message: String| ProviderError {
            provider: PROVIDER,
            status: None,
            reason,
            message,
            blame: Blame::Call,
            retryable,
            retry_after: None,
        };
        match self.transport.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(failure("Unreachable", true, "the mail server closed the connection".into())),
            Err(e) if e.is_permanent() => {
                Err(failure("Refused", false, format!("the mail server refused the login: {e}")))
            }
            Err(e) => Err(failure("Unreachable", true, format!("the mail server cannot be reached: {e}"))),
        }
    }

    /// Sends a test e-mail.
    pub async fn send_test(&self, to: &str) -> Result<(), ProviderError> {
        let bad = |message: String| ProviderError {
            provider: PROVIDER,
            status: None,
            reason: "Refused",
            message,
            blame: Blame::Call,
            retryable: false,
            retry_after: None,
        };
        let to: Mailbox = to.parse().map_err(|e| bad(format!("{to} is not an e-mail address: {e}")))?;
        let message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(format!("{}: test e-mail", self.config.product))
            .body("This is the test e-mail of `tenant-operator preflight`. Nothing needs to be done.".to_owned())
            .map_err(|e| bad(e.to_string()))?;
        self.transport.send(message).await.map_err(|e| bad(format!("the mail server did not take it: {e}")))?;
        Ok(())
    }

    fn compose(&self, letter: &Letter) -> Result<Message, ProviderError> {
        let values = context! {
            product => self.config.product, frontend_url => self.config.frontend_url, docs_url => self.config.docs_url,
            company => letter.company, tenant_id => letter.tenant_id, plan => letter.plan,
            trial_ends => letter.trial_ends, refund => letter.refund,
        };
        let bad = |what: &str, e: &dyn std::fmt::Display| ProviderError {
            provider: PROVIDER,
            status: None,
            reason: "BadMessage",
            message: format!("{what}: {e}"),
            blame: Blame::Call,
            retryable: false,
            retry_after: None,
        };
        let render = |name: String| {
            let template = self.templates.get_template(&name).map_err(|e| bad(&name, &e))?;
            template.render(&values).map_err(|e| bad(&name, &e))
        };
        let name = letter.template.name();
        let subject = self.templates.render_str(letter.template.subject(), &values).map_err(|e| bad(name, &e))?;
        let to: Mailbox = letter.to.parse().map_err(|e| bad("adminEmail", &e))?;
        let domain = self.from.email.domain();
        Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(subject)
            .message_id(Some(format!("<{}.{}@{domain}>", letter.tenant_id, letter.key)))
            .header(header::MIME_VERSION_1_0)
            .multipart(MultiPart::alternative_plain_html(
                render(format!("{name}.txt"))?,
                render(format!("{name}.html"))?,
            ))
            .map_err(|e| bad(name, &e))
    }
}
