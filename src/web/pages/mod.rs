//! The pages that customers see: rendered here, readable and usable without JavaScript, with nothing from another host.

pub mod account;
pub mod api;
pub mod assets;
mod captcha;
pub mod documents;
mod error;
pub mod export;
mod extract;
pub mod leads;
pub mod leaving;
pub mod links;
pub mod login;
pub mod password;
pub mod plan;
mod plot;
pub mod pricing;
mod session;
pub mod settings;
pub mod signup;

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use minijinja::{Environment, Value, context};

use super::App;
use super::serving::headers;
use super::serving::problem::Problem;
use crate::pages::environment;
use crate::plots;

pub use error::{PageError, PageResult, Sorry, show_sorry};

/// How the pages look.
#[derive(Clone, Debug)]
pub struct Brand {
    /// The product's name.
    pub product: String,
    /// When the sales team answers, as part of a sentence.
    pub sales_reply: String,
    /// The colour of buttons and links, as `#rrggbb`.
    pub color: String,
    /// Where the terms are.
    pub terms_url: String,
    /// Where the privacy policy is.
    pub privacy_url: String,
}

/// The pages' templates, and what they load.
pub struct Pages {
    templates: Environment<'static>,
    assets: assets::Assets,
}

const TEMPLATES: [(&str, &str); 16] = [
    ("api.html", include_str!("templates/api.html")),
    ("layout.html", include_str!("templates/layout.html")),
    ("pricing.html", include_str!("templates/pricing.html")),
    ("signup.html", include_str!("templates/signup.html")),
    ("login.html", include_str!("templates/login.html")),
    ("account.html", include_str!("templates/account.html")),
    ("close.html", include_str!("templates/close.html")),
    ("plot.html", plots::TEMPLATE),
    ("plan.html", include_str!("templates/plan.html")),
    ("billing.html", include_str!("templates/billing.html")),
    ("lead.html", include_str!("templates/lead.html")),
    ("settings.html", include_str!("templates/settings.html")),
    ("ask.html", include_str!("templates/ask.html")),
    ("confirm.html", include_str!("templates/confirm.html")),
    ("password.html", include_str!("templates/password.html")),
    ("message.html", include_str!("templates/message.html")),
];

impl Pages {
    /// Reads the templates.
    pub fn new(brand: &Brand) -> Result<Self, minijinja::Error> {
        let mut env = environment(&TEMPLATES)?;
        let Brand { product, sales_reply, terms_url, privacy_url, .. } = brand;
        env.add_global("brand", context! { product, sales_reply, terms_url, privacy_url });
        let assets = assets::Assets::new(brand);
        env.add_global("style", assets.style_path());
        env.add_global("script", assets.script_path());
        Ok(Self { templates: env, assets })
    }
}

impl App {
    /// A page. A visitor's first page sets the cookie from which the token of all their forms is made.
    fn page(&self, status: StatusCode, name: &str, request: &HeaderMap, values: Value) -> PageResult {
        let visitor = self.visitor(request);
        let signed_in = self.session(request).is_some();
        let values = context! { csrf => self.csrf(request, &visitor), signed_in, ..values };
        let template = self.pages.templates.get_template(name).map_err(|e| Problem::internal(name, &e))?;
        let page = template.render(values).map_err(|e| Problem::internal(name, &e))?;
        let mut response = (status, Html(page)).into_response();
        headers::page(response.headers_mut());
        self.keep_visitor(request, &visitor, response.headers_mut());
        Ok(response)
    }

    /// A page that says one thing.
    fn message(&self, status: StatusCode, headers: &HeaderMap, title: &str, text: &str) -> PageResult {
        self.page(status, "message.html", headers, context! { title, text })
    }

    /// A page with one button, which sends a link's token.
    fn confirm_page(
        &self,
        headers: &HeaderMap,
        title: &str,
        text: &str,
        button: &str,
        action: &str,
        token: &str,
    ) -> PageResult {
        self.page(StatusCode::OK, "confirm.html", headers, context! { title, text, button, action, token })
    }
}

/// Whether a browser asks for a page.
pub fn wants_page(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// Sends the browser to another page.
fn go(to: &str) -> Response {
    Redirect::to(to).into_response()
}
