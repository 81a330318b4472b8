//! E-mail by SMTP.

mod templates;

use std::path::PathBuf;
use std::time::Duration;

use lettre::message::header::{self, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::Error as SmtpError;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};
use strum::IntoEnumIterator;

use super::ProviderError;
use crate::lifecycle::{Blame, Fault, Provider};
use templates::{Templates, sample};

pub use templates::{Rendered, Template, UsageLine, Values};

const PROVIDER: Provider = Provider::Mail;
const UNSUBSCRIBE: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe");
const UNSUBSCRIBE_POST: HeaderName = HeaderName::new_from_ascii_str("List-Unsubscribe-Post");

/// How mail is sent, and what it says of the product.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `smtp://host:port` or `smtps://user:password@host`.
    pub smtp_url: SecretString,
    /// The sender, a mailbox that is read.
    pub from: String,
    /// The product's name.
    pub product: String,
    /// Where customers log in.
    pub frontend_url: String,
    /// The documentation.
    pub docs_url: String,
    /// The data-processing agreement; empty if there is none.
    pub dpa_url: String,
    /// What is offered to customers who come back; empty for no offer.
    pub win_back_offer: String,
    /// A folder of texts in place of ours.
    pub templates: Option<PathBuf>,
    /// The namespace whose tenants have pages; empty if all have.
    pub pages_namespace: String,
}

/// Sends e-mails from templates.
#[derive(Debug)]
pub struct Mail {
    config: MailConfig,
    from: Mailbox,
    transport: AsyncSmtpTransport<Tokio1Executor>,
    templates: Templates,
}

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct MailConfigError(String);

/// An e-mail to a customer.
#[derive(Clone, Debug)]
pub struct Letter<'a> {
    /// Which e-mail.
    pub template: Template,
    /// To whom.
    pub to: &'a str,
    /// Names this e-mail among those of the tenant: the same name is the same Message-ID.
    pub key: &'a str,
    /// What it says. The product's name and addresses are filled in here.
    pub values: Values,
}

impl Mail {
    /// A sender; nothing is connected yet.
    pub fn new(config: MailConfig) -> Result<Self, MailConfigError> {
        let from = config.from.parse().map_err(|e| MailConfigError(format!("FROM_EMAIL {:?}: {e}", config.from)))?;
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(config.smtp_url.expose_secret())
            .map_err(|e| MailConfigError(format!("SMTP_URL: {e}")))?
            .timeout(Some(Duration::from_secs(10)))
            .build();
        let templates = Templates::read(config.templates.as_deref())?;
        Ok(Self { config, from, transport, templates })
    }

    /// Whether web serves pages to the customers of a namespace.
    pub fn has_pages(&self, namespace: &str) -> bool {
        self.config.pages_namespace.is_empty() || self.config.pages_namespace == namespace
    }

    /// The namespace of signups, if it is known.
    pub fn pages_namespace(&self) -> Option<&str> {
        Some(self.config.pages_namespace.as_str()).filter(|namespace| !namespace.is_empty())
    }

    /// Sends one e-mail. The Message-ID is the same for the same tenant and key.
    pub async fn send(&self, letter: &Letter<'_>) -> Result<(), ProviderError> {
        let message = self.compose(letter)?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.refusal(&error, letter).await),
        }
    }

    /// Whether a refusal is about this e-mail or about the sender. Only a refusal of this e-mail is final.
    async fn refusal(&self, error: &SmtpError, letter: &Letter<'_>) -> ProviderError {
        let what = letter.template.name();
        let refused = |reason, blame, retryable, message| ProviderError {
            provider: PROVIDER,
            status: error.status().map(u16::from),
            reason,
            message,
            blame,
            retryable,
            retry_after: None,
            tokens: None,
        };
        let unreachable = || {
            refused(Fault::Unreachable, Blame::Call, true, format!("the mail server did not take the {what} e-mail"))
        };
        // RFC 6531: an address with other letters needs a server that has SMTPUTF8. lettre does not even ask one
        // without.
        if error.is_client() && !letter.to.is_ascii() {
            let message = format!(
                "the mail server did not take the {what} e-mail: it takes only addresses of ASCII letters (it has no SMTPUTF8)"
            );
            return refused(Fault::Refused, Blame::Call, false, message);
        }
        if !error.is_permanent() && !error.is_client() {
            return unreachable();
        }
        let server = if refuses_sender(error) {
            true
        } else {
            match self.transport.test_connection().await {
                Ok(true) => false,
                Err(there) if there.is_permanent() => true,
                Ok(false) | Err(_) => return unreachable(),
            }
        };
        if server {
            let message = format!("the mail server refuses every e-mail: {error}. Correct SMTP_URL or FROM_EMAIL");
            return refused(Fault::ServerRefused, Blame::Admin, true, message);
        }
        let message = format!("the mail server refused the {what} e-mail for good");
        refused(Fault::Refused, Blame::Call, false, message)
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
            tokens: None,
        };
        match self.transport.test_connection().await {
            Ok(true) => Ok(()),
            Ok(false) => Err(failure(Fault::Unreachable, true, "the mail server closed the connection".into())),
            Err(e) if e.is_permanent() => {
                Err(failure(Fault::Refused, false, format!("the mail server refused the login: {e}")))
            }
            Err(e) => Err(failure(Fault::Unreachable, true, format!("the mail server cannot be reached: {e}"))),
        }
    }

    /// Sends a test e-mail.
    pub async fn send_test(&self, to: &str) -> Result<(), ProviderError> {
        let bad = |message: String| ProviderError {
            provider: PROVIDER,
            status: None,
            reason: Fault::Refused,
            message,
            blame: Blame::Call,
            retryable: false,
            retry_after: None,
            tokens: None,
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

    /// Every e-mail, with values to look at.
    pub fn previews(&self) -> Vec<Rendered> {
        let values = self.product(sample());
        Template::iter().filter_map(|template| self.templates.render(template, &values).ok()).collect()
    }

    fn product(&self, values: Values) -> Values {
        let MailConfig { product, frontend_url, docs_url, dpa_url, win_back_offer: offer, .. } = self.config.clone();
        Values { product, frontend_url, docs_url, dpa_url, offer, ..values }
    }

    fn compose(&self, letter: &Letter) -> Result<Message, ProviderError> {
        let values = self.product(letter.values.clone());
        let bad = |what: &str, e: &dyn std::fmt::Display| ProviderError {
            provider: PROVIDER,
            status: None,
            reason: Fault::BadMessage,
            message: format!("{what}: {e}"),
            blame: Blame::Call,
            retryable: false,
            retry_after: None,
            tokens: None,
        };
        let name = letter.template.name();
        let mail = self.templates.render(letter.template, &values).map_err(|e| bad(name, &e))?;
        let to: Mailbox = letter.to.parse().map_err(|e| bad("adminEmail", &e))?;
        let domain = self.from.email.domain();
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(mail.subject)
            .message_id(Some(format!("<{}.{}@{domain}>", values.tenant_id, letter.key)))
            .header(header::MIME_VERSION_1_0);
        if !values.unsubscribe.is_empty() {
            // One click, without a page: RFC 8058.
            let url = format!("<{}{}>", values.frontend_url, values.unsubscribe);
            message = message
                .raw_header(HeaderValue::new(UNSUBSCRIBE, url))
                .raw_header(HeaderValue::new(UNSUBSCRIBE_POST, "List-Unsubscribe=One-Click".into()));
        }
        message.multipart(MultiPart::alternative_plain_html(mail.text, mail.html)).map_err(|e| bad(name, &e))
    }
}

/// Whether the mail server refuses the sender, so that no recipient would be served: RFC 4954 (a login is missing, too
/// weak, or wrong) and the sender's address in RFC 3463.
fn refuses_sender(error: &SmtpError) -> bool {
    let code = error.status().map(u16::from);
    let text = error.to_string();
    matches!(code, Some(530 | 534 | 535 | 538)) || text.contains("5.1.7") || text.contains("5.1.8")
}
