//! Style and script of the pages. Their names follow from their content, so browsers keep them for a year.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::Brand;
use crate::web::App;
use crate::web::serving::problem::Problem;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/pages.js");
/// The colour in it that the platform team may replace.
const COLOR: &str = "#3653d8";

/// The files, and their names.
pub struct Assets {
    style: (String, String),
    script: String,
}

impl Assets {
    /// In the operator's colour.
    pub fn new(brand: &Brand) -> Self {
        // What is no colour would end the rule, and with it the style.
        let plain = brand.color.len() == 7 && brand.color.starts_with('#') && hex::decode(&brand.color[1..]).is_ok();
        let color = if plain { &brand.color } else { COLOR };
        let style = STYLE.replace(COLOR, color);
        Self { style: (name(&style, "css"), style), script: name(SCRIPT, "js") }
    }

    /// Where the style is.
    pub fn style_path(&self) -> String {
        format!("/assets/{}", self.style.0)
    }

    /// Where the script is.
    pub fn script_path(&self) -> String {
        format!("/assets/{}", self.script)
    }
}

fn name(content: &str, ending: &str) -> String {
    format!("{}.{ending}", hex::encode(&Sha256::digest(content)[..6]))
}

/// `GET /assets/{name}`
pub async fn asset(State(app): State<Arc<App>>, Path(wanted): Path<String>) -> Result<Response, Problem> {
    let Assets { style, script } = &app.pages.assets;
    let (content, kind) = if wanted == style.0 {
        (style.1.clone(), "text/css; charset=utf-8")
    } else if wanted == *script {
        (SCRIPT.to_owned(), "text/javascript; charset=utf-8")
    } else {
        return Err(Problem::not_found());
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((StatusCode::OK, headers, content).into_response())
}
