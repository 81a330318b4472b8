//! The captcha in forms: the only thing that a page loads from another host, where the platform team asks for it.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, header};
use axum::response::Response;
use minijinja::{Value, context};

use crate::providers::captcha::Widget;
use crate::web::public::admission::Admission;
use crate::web::serving::headers::POLICY;

impl Admission {
    /// What a page needs to show the captcha. None if signups need none.
    pub fn captcha_values(&self) -> Value {
        let Some(captcha) = &self.captcha else { return Value::from(()) };
        let Widget { script, class, .. } = captcha.kind().widget();
        context! { script, class, site_key => captcha.site_key() }
    }

    /// Lets a page load the captcha from its provider, and nothing else from anywhere.
    pub fn allow_captcha(&self, mut page: Response) -> Response {
        if let Some(captcha) = &self.captcha {
            let sources = captcha.kind().widget().sources;
            let allow = |directive: &str| format!("{directive} 'self' {sources}");
            let policy = ["script-src", "style-src", "connect-src"]
                .iter()
                .fold(POLICY.to_owned(), |policy, name| policy.replace(&format!("{name} 'self'"), &allow(name)));
            if let Ok(policy) = HeaderValue::from_str(&format!("{policy}; frame-src {sources}")) {
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            }
        }
        page
    }

    /// What it added to a form.
    pub fn captcha_answer(&self, values: &BTreeMap<String, String>) -> String {
        let field = self.captcha.as_ref().map(|captcha| captcha.kind().widget().field);
        field.and_then(|field| values.get(field)).cloned().unwrap_or_default()
    }
}
