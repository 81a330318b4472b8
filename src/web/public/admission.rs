//! Who may sign up: people rather than programs, with a lasting e-mail address, and only those admitted from the
//! waitlist where there is one.

use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;

use axum::http::StatusCode;

use super::leads::{LeadKind, is_admitted};
use crate::providers::captcha::Captcha;
use crate::web::App;
use crate::web::serving::problem::{Code, Problem};

/// The settings.
#[derive(Debug, Default)]
pub struct Admission {
    /// Checks that a person fills in the form. Absent where no captcha is used.
    pub captcha: Option<Captcha>,
    /// Domains of throw-away addresses.
    pub disposable: Domains,
    /// Only people admitted from the waitlist may sign up.
    pub waitlist: bool,
}

/// A list of domains.
#[derive(Debug, Default)]
pub struct Domains(HashSet<String>);

impl Domains {
    /// Reads a file with one domain a line; what follows a `#` is a comment.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("DISPOSABLE_DOMAINS: {} cannot be read: {e}", file.display()))?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let lines =
            text.lines().enumerate().map(|(n, line)| (n + 1, line.split('#').next().unwrap_or_default().trim()));
        let domains = lines.filter(|(_, line)| !line.is_empty()).map(|(n, line)| {
            let ascii = idna::domain_to_ascii_strict(line);
            let whole = ascii.ok().filter(|domain| domain.contains('.'));
            whole.ok_or_else(|| format!("DISPOSABLE_DOMAINS: line {n} is not a domain: {line:?}"))
        });
        domains.collect::<Result<_, _>>().map(Self)
    }

    /// Whether an address, as [`crate::email::parse`] gives it, is of one of these domains or of a part of one.
    pub fn hold(&self, email: &str) -> bool {
        let domain = email.rsplit('@').next().unwrap_or_default().to_lowercase();
        let mut parts = domain.as_str();
        loop {
            if self.0.contains(parts) {
                return true;
            }
            match parts.split_once('.') {
                Some((_, rest)) => parts = rest,
                None => return false,
            }
        }
    }
}

/// Refuses a form whose captcha was not solved.
pub async fn admit_person(app: &App, answer: &str, client: IpAddr) -> Result<(), Problem> {
    let Some(captcha) = &app.admission.captcha else { return Ok(()) };
    match captcha.passed(answer, client).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let detail = "Please solve the captcha, and send the form again.";
            Err(Problem::new(StatusCode::BAD_REQUEST, Code::Captcha, detail))
        }
        Err(error) => {
            tracing::error!(%error, "the captcha cannot be verified");
            Err(Problem::unavailable())
        }
    }
}

/// Refuses an address that was not admitted, where there is a waitlist.
pub async fn admit_address(app: &App, email: &str) -> Result<(), Problem> {
    if !app.admission.waitlist || is_admitted(app, LeadKind::Waitlist, email).await? {
        return Ok(());
    }
    let detail =
        "We let new customers in step by step. Please join the waitlist; we write to you when it is your turn.";
    Err(Problem::new(StatusCode::FORBIDDEN, Code::Waitlist, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_and_its_parts_are_held_and_others_are_not() {
        let domains =
            Domains::parse("# a list\nmailinator.com\n\n Trash.Example # why\nbücher.example\n").expect("a list");
        for bad in ["a@mailinator.com", "a@x.mailinator.com", "a@TRASH.example", "a@xn--bcher-kva.example"] {
            assert!(domains.hold(bad), "{bad}");
        }
        for good in ["a@example.com", "mailinator.com@example.com", "a@notmailinator.com", "a@com"] {
            assert!(!domains.hold(good), "{good}");
        }
        assert!(!Domains::default().hold("a@mailinator.com"));
        for odd in ["com", "a@b.example", "exa mple.com"] {
            assert!(Domains::parse(odd).expect_err("refused").contains("line 1"), "{odd}");
        }
    }
}
