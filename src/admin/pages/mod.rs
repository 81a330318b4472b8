//! The admin pages: rendered here, with no script and nothing from another host. A page's file has a view,
//! which follows from the Tenants, the parameters and the time alone, and the handler that shows it.

mod activation;
mod error;
mod funnel;
mod list;
mod needs;
mod parameters;
mod tenant;
mod words;

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::Path;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;

use super::{Admin, Owner};
use crate::api::{Tenant, Timestamp};
use crate::pages::{Asset, environment, style};
use crate::plots;
use error::PageError;

/// A page, or why there is none.
type PageResult = Result<Response, PageError>;

/// What the pages' style has beyond that of customers' pages.
const STYLE: &str = include_str!("style.css");
/// Where the style is.
const ASSETS: &str = "/admin/assets/";

const TEMPLATES: [(&str, &str); 11] = [
    ("admin/layout.html", include_str!("templates/layout.html")),
    ("admin/login.html", include_str!("templates/login.html")),
    ("admin/message.html", include_str!("templates/message.html")),
    ("admin/needs.html", include_str!("templates/needs.html")),
    ("admin/tenants.html", include_str!("templates/tenants.html")),
    ("admin/tenant.html", include_str!("templates/tenant.html")),
    ("admin/funnel.html", include_str!("templates/funnel.html")),
    ("admin/activation.html", include_str!("templates/activation.html")),
    ("admin/days.html", include_str!("templates/days.html")),
    ("admin/times.html", include_str!("templates/times.html")),
    ("plot.html", plots::TEMPLATE),
];

/// The templates, and the style that they load.
struct Pages {
    templates: Environment<'static>,
    style: Asset,
}

impl Pages {
    fn new() -> Result<Self, minijinja::Error> {
        let mut templates = environment(&TEMPLATES)?;
        let style = Asset::new("css", [&*style(None), STYLE].concat().into_bytes());
        templates.add_global("style", [ASSETS, style.name()].concat());
        Ok(Self { templates, style })
    }

    /// The only ones. They are part of the program, so either every page can be shown or none.
    fn get() -> Result<&'static Self, minijinja::Error> {
        static PAGES: LazyLock<Result<Pages, String>> = LazyLock::new(|| Pages::new().map_err(|e| e.to_string()));
        PAGES.as_ref().map_err(|why| minijinja::Error::new(minijinja::ErrorKind::SyntaxError, why.clone()))
    }
}

/// A page.
pub fn render(name: &str, context: Value) -> Result<Html<String>, minijinja::Error> {
    Pages::get()?.templates.get_template(name)?.render(context).map(Html)
}

/// Their paths.
pub fn routes() -> Router<Arc<Admin>> {
    Router::new()
        .route("/admin", get(needs::show))
        .route("/admin/tenants", get(list::show))
        .route("/admin/tenants/{namespace}/{name}", get(tenant::show))
        .route("/admin/funnel", get(funnel::show))
        .route("/admin/activation", get(activation::show))
        .route("/admin/assets/{name}", get(asset))
}

/// `GET /admin/assets/{name}`: the style needs no session, because the page to log in has it.
async fn asset(Path(wanted): Path<String>) -> PageResult {
    let style = &Pages::get()?.style;
    if style.name() == wanted { Ok(style.into_response()) } else { Err(PageError::NoSuchFile) }
}

/// All Tenants and the time, as a page sees them.
struct Seen {
    tenants: Vec<Arc<Tenant>>,
    now: Timestamp,
}

impl Seen {
    fn all(&self) -> impl Iterator<Item = &Tenant> {
        self.tenants.iter().map(|tenant| &**tenant)
    }
}

impl Admin {
    /// A view of all Tenants.
    async fn view<T: Send + 'static>(&self, of: impl FnOnce(&Seen) -> T + Send + 'static) -> Result<T, PageError> {
        Ok(self.computed(move |tenants, now| of(&Seen { tenants, now })).await?)
    }
}

/// Shows a view. `here` is the path in the menu.
fn page(owner: &Owner, here: &'static str, name: &str, view: &(impl Serialize + ?Sized)) -> PageResult {
    let page = render(name, context! { csrf => owner.csrf(), notice => owner.notice(), here, view => Serde(view) })?;
    Ok(page.into_response())
}

#[cfg(test)]
mod tests;
