//! Whether a person fills in a form: Turnstile, hCaptcha or reCAPTCHA. All three verify with the same request.
//!
//! <https://developers.cloudflare.com/turnstile/get-started/server-side-validation/>,
//! <https://docs.hcaptcha.com/#verify-the-user-response-server-side>,
//! <https://developers.google.com/recaptcha/docs/verify>

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{CallLimits, Caller, ProviderError};

/// Whose widget it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// An answer is far shorter.
const LONGEST: usize = 8 << 10;

impl Captcha {
    /// A client; nothing is called yet.
    pub fn new(config: CaptchaConfig) -> Self {
        let per_second = NonZeroU32::MIN.saturating_add(49);
        let calls = CallLimits { per_second, timeout: Duration::from_secs(5), retries: 1 };
        Self { config, caller: Caller::new("CAPTCHA", calls) }
    }

    /// Whose it is.
    pub fn kind(&self) -> CaptchaKind {
        self.config.kind
    }

    /// The key that the page shows.
    pub fn site_key(&self) -> &str {
        &self.config.site_key
    }

    /// Whether a person answered.
    pub async fn passed(&self, answer: &str, client: IpAddr) -> Result<bool, ProviderError> {
        if answer.is_empty() || answer.len() > LONGEST {
            return Ok(false);
        }
        let url = self.config.url.as_deref().unwrap_or(self.config.kind.url());
        let client = client.to_string();
        let form = [("secret", self.config.secret.expose_secret()), ("response", answer), ("remoteip", &client)];
        let verdict: Verdict = self.caller.json(|c| c.post(url).form(&form)).await?;
        if let Some(ours) = verdict.errors.iter().find(|code| code.contains("secret") || *code == "bad-request") {
            return Err(ProviderError::garbage("CAPTCHA", format!("{ours}: check CAPTCHA_SECRET_KEY")));
        }
        Ok(verdict.success)
    }
}
