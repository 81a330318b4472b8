//! The e-mails' texts: those that come with the product, each of which a folder of files may replace.

use std::path::Path;

use minijinja::value::Serde;
use minijinja::{Environment, UndefinedBehavior, context};
use serde::Serialize;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};

use super::MailConfigError;
use crate::lifecycle::Provider;

/// The e-mails there are, in the order of a tenant's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Template {
    /// It is the turn of a person on the waitlist.
    Admitted,
    /// Confirm the e-mail address.
    VerifyEmail,
    /// Log in without a password.
    LoginLink,
    /// Set a new password.
    PasswordReset,
    /// Set the first password.
    Invitation,
    /// The account is ready.
    Welcome,
    /// Provisioning failed.
    ProvisioningFailed,
    /// Paid, and the address was never confirmed.
    Unverified,
    /// A payment failed.
    PaymentFailed,
    /// The account is suspended.
    Suspended,
    /// How to ask the first question.
    FirstQuestion,
    /// The setup is complete.
    Congratulation,
    /// The agreement on the processing of data.
    DataProcessingAgreement,
    /// Another plan is in force.
    PlanChanged,
    /// Another plan will be in force.
    PlanScheduled,
    /// Another plan was declined.
    PlanDeclined,
    /// The payment of another plan must be confirmed.
    PlanUnconfirmed,
    /// 80 percent of a limit are used.
    UsageNear,
    /// A limit is reached.
    UsageReached,
    /// The account is closed, and erased later.
    DeletionRequested,
    /// An offer to come back.
    WinBack,
    /// Everything is erased.
    Erased,
    /// To the address before.
    AddressChanged,
    /// The export is complete.
    ExportReady,
}

/// Subject, text and HTML of a template, as they come with the product.
macro_rules! files {
    ($name:literal) => {
        [
            (concat!($name, ".subject"), include_str!(concat!("templates/", $name, ".subject"))),
            (concat!($name, ".txt"), include_str!(concat!("templates/", $name, ".txt"))),
            (concat!($name, ".html"), include_str!(concat!("templates/", $name, ".html"))),
        ]
    };
}

const LAYOUTS: [(&str, &str); 2] =
    [("layout.html", include_str!("templates/layout.html")), ("layout.txt", include_str!("templates/layout.txt"))];

const FILES: [[(&str, &str); 3]; 24] = [
    files!("admitted"),
    files!("verify-email"),
    files!("login-link"),
    files!("password-reset"),
    files!("invitation"),
    files!("welcome"),
    files!("provisioning-failed"),
    files!("unverified"),
    files!("payment-failed"),
    files!("suspended"),
    files!("first-question"),
    files!("congratulation"),
    files!("data-processing-agreement"),
    files!("plan-changed"),
    files!("plan-scheduled"),
    files!("plan-declined"),
    files!("plan-unconfirmed"),
    files!("usage-near"),
    files!("usage-reached"),
    files!("deletion-requested"),
    files!("win-back"),
    files!("erased"),
    files!("address-changed"),
    files!("export-ready"),
];

impl Template {
    /// The name of its files.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// What a template may say. Every name is always there; those that do not apply are empty.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Values {
    /// The product's name.
    pub product: String,
    /// Where the pages are.
    pub frontend_url: String,
    /// The documentation.
    pub docs_url: String,
    /// The data-processing agreement.
    pub dpa_url: String,
    /// The customer.
    pub company: String,
    /// The tenant's id.
    pub tenant_id: String,
    /// The plan.
    pub plan: String,
    /// The plan that is asked for.
    pub new_plan: String,
    /// When it will be in force.
    pub effective: String,
    /// What is offered to customers who come back; empty for no offer.
    pub offer: String,
    /// When an export is deleted.
    pub expires: String,
    /// When the data will be erased.
    pub erases: String,
    /// What was erased, a line each.
    pub certificate: String,
    /// What to ask the sample documents.
    pub sample_question: String,
    /// The path of the page that the e-mail leads to.
    pub path: String,
    /// How long the link is valid, in words.
    pub valid_for: String,
    /// The path by which a customer who has no password yet sets one; empty for others.
    pub invitation: String,
    /// Whether the account is used by its API alone, without pages.
    pub api_only: bool,
    /// The path that ends e-mails such as this one.
    pub unsubscribe: String,
    /// The limits that are reached.
    pub usage: Vec<UsageLine>,
    /// When the trial ends, in words.
    pub trial_ends: String,
    /// What was given back, in words.
    pub refund: String,
    /// Why the account is suspended and what helps, as a sentence or two.
    pub suspended_because: String,
    /// How long the setup took, in words.
    pub time_to_activate: String,
    /// The version of the terms that were accepted.
    pub terms_version: String,
    /// When they were.
    pub terms_accepted: String,
}

/// A limit that is reached.
#[derive(Clone, Debug, Default, Serialize)]
pub struct UsageLine {
    /// What is limited, such as `questions`.
    pub unit: String,
    /// How much of it is used.
    pub used: String,
    /// The limit.
    pub limit: String,
    /// What happens at the limit, as a sentence or two.
    pub then: String,
}

/// An e-mail's parts.
#[derive(Clone, Debug, Serialize)]
pub struct Rendered {
    /// The template's name.
    pub name: &'static str,
    /// The subject.
    pub subject: String,
    /// The plain text.
    pub text: String,
    /// The HTML.
    pub html: String,
}

/// The texts, read once.
#[derive(Debug)]
pub struct Templates(Environment<'static>);

impl Templates {
    /// The product's own texts, and in their place those of the folder, named as ours are, such as `welcome.html`. What
    /// cannot be used is an error at the start, not at the first customer.
    pub fn read(folder: Option<&Path>) -> Result<Self, MailConfigError> {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        for (name, text) in LAYOUTS.iter().chain(FILES.iter().flatten()) {
            env.add_template(name, text).map_err(|e| MailConfigError(format!("template {name}: {e}")))?;
        }
        if let Some(folder) = folder {
            replace(&mut env, folder)?;
        }
        let templates = Self(env);
        for template in Template::iter() {
            for values in [Values::default(), sample()] {
                templates.render(template, &values).map_err(|e| MailConfigError(e.to_string()))?;
            }
        }
        Ok(templates)
    }

    /// An e-mail.
    pub fn render(&self, template: Template, values: &Values) -> Result<Rendered, minijinja::Error> {
        let part = |ending: &str, subject: &str| {
            let template = self.0.get_template(&format!("{}.{ending}", template.name()))?;
            template.render(context! { subject, ..Serde(values) })
        };
        // A header is one line.
        let subject = part("subject", "")?.split_whitespace().collect::<Vec<_>>().join(" ");
        let (text, html) = (part("txt", &subject)?, part("html", &subject)?);
        Ok(Rendered { name: template.name(), subject, text, html })
    }
}

/// The files of a mounted `ConfigMap`. Its own bookkeeping begins with two dots.
fn replace(env: &mut Environment<'static>, folder: &Path) -> Result<(), MailConfigError> {
    let bad = |what: String| MailConfigError(format!("MAIL_TEMPLATES: {what}"));
    let unreadable = |e: std::io::Error| bad(format!("{} cannot be read: {e}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with("..") {
            continue;
        }
        let known = LAYOUTS.iter().chain(FILES.iter().flatten()).any(|(known, _)| *known == name);
        if !known {
            let all: Vec<_> = Template::iter().map(Template::name).collect();
            return Err(bad(format!(
                "{name:?} is not the name of a template. Use layout or one of {}, with the ending .subject, .txt or .html",
                all.join(", ")
            )));
        }
        let text = std::fs::read_to_string(&path).map_err(|e| bad(format!("{name} cannot be read: {e}")))?;
        env.add_template_owned(name.clone(), text).map_err(|e| bad(format!("{name}: {e}")))?;
    }
    Ok(())
}

/// Values to look at a template with.
pub fn sample() -> Values {
    Values {
        product: "RAG Service".into(),
        frontend_url: "https://app.example.com".into(),
        docs_url: "https://docs.example.com".into(),
        dpa_url: "https://example.com/dpa.pdf".into(),
        company: "Analytical Engines Ltd".into(),
        tenant_id: "7c1f3c1e-5d0a-4a52-9c39-0d4f7b6a2e11".into(),
        plan: "Starter".into(),
        new_plan: "Pro".into(),
        effective: "25 December 2026".into(),
        offer: "Come back within this month and pay half for three months".into(),
        expires: "2 December 2026".into(),
        erases: "25 December 2026".into(),
        certificate: format!("{}: namespace with 12 vectors erased, 0 left", Provider::VectorStore),
        sample_question: "What is RAG?".into(),
        path: "/account".into(),
        valid_for: "24 hours".into(),
        invitation: String::new(),
        api_only: false,
        unsubscribe: "/unsubscribe?token=example".into(),
        usage: vec![UsageLine {
            unit: "questions".into(),
            used: "10,000".into(),
            limit: "10,000".into(),
            then: "Questions are refused until 2026-12-25 09:30 UTC, when counting starts again, or until you change to a \
                   larger plan."
                .into(),
        }],
        trial_ends: "9 December 2026".into(),
        refund: "Your payment of 49.00 USD has been refunded. You will not be charged until the account works.".into(),
        suspended_because:
            "A payment is missing. Pay on your account page, and the account works again within a minute.".into(),
        time_to_activate: "4 minutes".into(),
        terms_version: "2026-01".into(),
        terms_accepted: "25 November 2026".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_says_something_in_all_its_parts() {
        let templates = Templates::read(None).expect("our own");
        for template in Template::iter() {
            let mail = templates.render(template, &sample()).expect("rendered");
            assert!(!mail.subject.is_empty() && mail.subject.len() < 78, "{}: {}", mail.name, mail.subject);
            assert!(mail.text.contains("Hello Analytical Engines Ltd") && mail.text.contains("Reply"), "{}", mail.text);
            let (_, first) = mail.text.split_once(",\n\n").expect("a greeting");
            assert!(first.starts_with(|c: char| c.is_ascii_uppercase()), "{}: {first}", mail.name);
            assert!(mail.html.contains(&format!("<title>{}</title>", mail.subject)), "{}", mail.html);
            assert!(!mail.html.contains("<script") && !mail.html.contains("src="), "nothing is loaded: {}", mail.html);
        }
    }

    #[test]
    fn markup_in_a_name_is_text() {
        let values = Values { company: "<img src=x>".into(), ..sample() };
        let mail = Templates::read(None).expect("ours").render(Template::Welcome, &values).expect("rendered");
        assert!(mail.html.contains("&lt;img src=x&gt;") && !mail.html.contains("<img"));
        assert!(mail.text.contains("<img src=x>"));
    }

    #[test]
    fn files_replace_templates_and_errors_name_the_file() {
        let folder = std::env::temp_dir().join(format!("mail-templates-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("..data")).expect("a folder");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("written");
        write("welcome.subject", "Welcome to\n{{ product }}");
        let mail =
            Templates::read(Some(&folder)).expect("used").render(Template::Welcome, &sample()).expect("rendered");
        assert_eq!(mail.subject, "Welcome to RAG Service");
        let refused = |name: &str, text: &str| {
            write(name, text);
            let error = Templates::read(Some(&folder)).expect_err("refused").to_string();
            std::fs::remove_file(folder.join(name)).expect("there");
            assert!(error.contains(name), "{error}");
        };
        refused("welcom.html", "x");
        refused("welcome.html", "{% if %}");
        refused("welcome.txt", "{{ unknown.field }}");
        std::fs::remove_dir_all(&folder).expect("there");
    }
}
