//! Checks with Turnstile, hCaptcha or reCAPTCHA that a person fills in a form. All three verify with the same request.
//!
//! <https://developers.cloudflare.com/turnstile/get-started/server-side-validation/>,
//! <https://docs.hcaptcha.com/#verify-the-user-response-server-side>,
//! <https://developers.google.com/recaptcha/docs/verify>

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use strum::EnumString;

use super::{CallLimits, Caller, ProviderError};
use crate::lifecycle::Provider;

/// Whose widget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString)]
#[strum(serialize_all = "lowercase")]
pub enum CaptchaKind {
    /// Cloudflare's.
    Turnstile,
    /// `hCaptcha`.
    HCaptcha,
    /// Google's, version 2.
    ReCaptcha,
}

/// What a page needs to show the widget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widget {
    /// The script that makes it.
    pub script: &'static str,
    /// The class of the element that becomes the widget.
    pub class: &'static str,
    /// The field that it adds to the form.
    pub field: &'static str,
    /// The sources that the page's policy must allow, for scripts, frames, styles and connections.
    pub sources: &'static str,
}

impl CaptchaKind {
    /// The widget.
    pub const fn widget(self) -> Widget {
        match self {
            Self::Turnstile => Widget {
                script: "https://challenges.cloudflare.com/turnstile/v0/api.js",
                class: "cf-turnstile",
                field: "cf-turnstile-response",
                sources: "https://challenges.cloudflare.com",
            },
            Self::HCaptcha => Widget {
                script: "https://js.hcaptcha.com/1/api.js",
                class: "h-captcha",
                field: "h-captcha-response",
                sources: "https://hcaptcha.com https://*.hcaptcha.com",
            },
            Self::ReCaptcha => Widget {
                script: "https://www.google.com/recaptcha/api.js",
                class: "g-recaptcha",
                field: "g-recaptcha-response",
                sources: "https://www.google.com/recaptcha/ https://www.gstatic.com/recaptcha/ https://recaptcha.google.com/recaptcha/",
            },
        }
    }

    /// Where answers are verified.
    pub const fn url(self) -> &'static str {
        match self {
            Self::Turnstile => "https://challenges.cloudflare.com/turnstile/v0/siteverify",
            Self::HCaptcha => "https://api.hcaptcha.com/siteverify",
            Self::ReCaptcha => "https://www.google.com/recaptcha/api/siteverify",
        }
    }
}

/// The settings of a widget.
#[derive(Clone, Debug)]
pub struct CaptchaConfig {
    /// Whose it is.
    pub kind: CaptchaKind,
    /// The key that the page shows.
    pub site_key: String,
    /// The key that verifies.
    pub secret: SecretString,
    /// Where answers are verified, if not at the usual place.
    pub url: Option<String>,
}

/// Verifies what a widget answered.
#[derive(Debug)]
pub struct Captcha {
    config: CaptchaConfig,
    caller: Caller,
}

#[derive(Deserialize)]
struct Verdict {
    success: bool,
    #[serde(default, rename = "error-codes")]
    errors: Vec<String>,
}

/// The waits before a verdict of `internal-error` is asked for again.
const INTERNAL_ERROR_WAITS: [Duration; 2] = [Duration::from_millis(200), Duration::from_millis(800)];

/// A random UUID, version 4.
fn idempotency_key() -> String {
    let bits = (rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// An answer is far shorter.
const LONGEST: usize = 8 << 10;

impl Captcha {
    /// A client; nothing is called yet.
    pub fn new(config: CaptchaConfig) -> Self {
        let per_second = NonZeroU32::MIN.saturating_add(49);
        // Providers verify an answer once. Without Turnstile's idempotency key, a second request for the same answer is
        // refused as already used.
        let retries = if config.kind == CaptchaKind::Turnstile { 2 } else { 0 };
        let calls = CallLimits { per_second, timeout: Duration::from_secs(5), retries };
        Self { config, caller: Caller::new(Provider::Captcha, calls) }
    }

    /// Whose it is.
    pub fn kind(&self) -> CaptchaKind {
        self.config.kind
    }

    /// The key that the page shows.
    pub fn site_key(&self) -> &str {
        &self.config.site_key
    }

    /// One validation. It is sent again only under Turnstile's key:
    /// <https://developers.cloudflare.com/turnstile/get-started/server-side-validation/#idempotency>
    async fn validate(&self, url: &str, form: &[(&str, &str)]) -> Result<Verdict, ProviderError> {
        match self.config.kind {
            CaptchaKind::Turnstile => self.caller.repeatable_json(|c| c.post(url).form(form)).await,
            CaptchaKind::HCaptcha | CaptchaKind::ReCaptcha => self.caller.json(|c| c.post(url).form(form)).await,
        }
    }

    /// Whether a person answered.
    pub async fn passed(&self, answer: &str, client: IpAddr) -> Result<bool, ProviderError> {
        if answer.is_empty() || answer.len() > LONGEST {
            return Ok(false);
        }
        let url = self.config.url.as_deref().unwrap_or(self.config.kind.url());
        let client = client.to_string();
        // The same key for each attempt: a verdict whose answer was lost is given again.
        let key = idempotency_key();
        let mut form =
            vec![("secret", self.config.secret.expose_secret()), ("response", answer), ("remoteip", &client)];
        if self.config.kind == CaptchaKind::Turnstile {
            form.push(("idempotency_key", &key));
        }
        let mut verdict: Verdict = self.validate(url, &form).await?;
        // Turnstile's own trouble, which it says to try again.
        for wait in INTERNAL_ERROR_WAITS {
            if self.config.kind != CaptchaKind::Turnstile || !verdict.errors.iter().any(|code| code == "internal-error")
            {
                break;
            }
            tokio::time::sleep(wait).await;
            verdict = self.validate(url, &form).await?;
        }
        if verdict.errors.iter().any(|code| code == "internal-error") {
            return Err(ProviderError::garbage(Provider::Captcha, "internal-error"));
        }
        if let Some(ours) = verdict.errors.iter().find(|code| code.contains("secret") || *code == "bad-request") {
            return Err(ProviderError::garbage(Provider::Captcha, format!("{ours}: check CAPTCHA_SECRET_KEY")));
        }
        Ok(verdict.success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idempotency_key_is_a_uuid_of_version_4() {
        let (one, other) = (idempotency_key(), idempotency_key());
        assert_ne!(one, other);
        let parts: Vec<_> = one.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{one}");
        assert!(one.as_bytes()[14] == b'4' && b"89ab".contains(&one.as_bytes()[19]), "{one}");
    }
}
