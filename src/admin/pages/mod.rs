//! The pages of the owners' door.

use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

use super::{Admin, Owner};
use crate::web::serving::problem::Problem;

const TEMPLATES: [(&str, &str); 3] = [
    ("admin/layout.html", include_str!("templates/layout.html")),
    ("admin/login.html", include_str!("templates/login.html")),
    ("admin/start.html", include_str!("templates/start.html")),
];

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    for (name, text) in TEMPLATES {
        environment.add_template(name, text)?;
    }
    Ok(environment)
}

/// A page.
pub fn render(name: &str, context: Value) -> Result<Html<String>, minijinja::Error> {
    static PAGES: LazyLock<Result<Environment<'static>, String>> =
        LazyLock::new(|| environment().map_err(|error| error.to_string()));
    let pages = PAGES.as_ref().map_err(|why| minijinja::Error::new(minijinja::ErrorKind::SyntaxError, why.clone()))?;
    pages.get_template(name)?.render(context).map(Html)
}

/// Their paths.
pub fn routes() -> Router<Arc<Admin>> {
    Router::new().route("/admin", get(start))
}

async fn start(owner: Owner) -> Result<Html<String>, Problem> {
    render("admin/start.html", context! { csrf => owner.csrf() }).map_err(|e| Problem::internal("the first page", &e))
}
