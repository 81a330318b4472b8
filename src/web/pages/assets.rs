//! Style and script of the pages. Their names follow from their content, so browsers keep them for a year.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Brand;
use crate::web::App;
use crate::web::problem::Problem;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/pages.js");

fn style(brand: &Brand) -> String {
    // What is no colour would end the rule, and with it the style.
    let plain = brand.color.len() == 7 && brand.color.starts_with('#') && hex::decode(&brand.color[1..]).is_ok();
    let color = if plain { &brand.color } else { "#3653d8" };
    STYLE.replace("#3653d8", color)
}

fn name(content: &str, ending: &str) -> String {
    format!("{}.{ending}", hex::encode(&Sha256::digest(content)[..6]))
}

/// Where the style is.
pub fn style_path(brand: &Brand) -> String {
    format!("/assets/{}", name(&style(brand), "css"))
}

/// Where the script is.
pub fn script_path() -> String {
    format!("/assets/{}", name(SCRIPT, "js"))
}

/// `GET /assets/{name}`
pub async fn asset(State(app): State<Arc<App>>, Path(wanted): Path<String>) -> Result<Response, Problem> {
    let style = style(&app.config.brand);
    let (content, kind) = if wanted == name(&style, "css") {
        (style, "text/css; charset=utf-8")
    } else if wanted == name(SCRIPT, "js") {
        (SCRIPT.to_owned(), "text/javascript; charset=utf-8")
    } else {
        return Err(Problem::not_found());
    };
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((StatusCode::OK, headers, content).into_response())
}
