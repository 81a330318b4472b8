//! Styles and scripts of the pages. Their names follow from their content, so browsers keep them for a year.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::Brand;
use crate::web::App;
use crate::web::serving::problem::Problem;

const STYLE: &str = include_str!("assets/style.css");
const SCRIPT: &str = include_str!("assets/pages.js");
const REFERENCE_STYLE: &str = include_str!("assets/reference.css");
const REFERENCE_SCRIPT: &str = include_str!("assets/reference.js");
/// Of Swagger UI, as gzip files. `build.rs` writes them.
const SWAGGER_STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));
const SWAGGER_SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));
/// The colour in it that the platform team may replace.
const COLOR: &str = "#3653d8";

/// A file that pages load.
struct Asset {
    name: String,
    kind: &'static str,
    content: Cow<'static, [u8]>,
    gzipped: bool,
}

impl Asset {
    fn new(ending: &str, content: impl Into<Cow<'static, [u8]>>) -> Self {
        let content = content.into();
        let kind = if ending == "css" { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
        Self {
            name: format!("{}.{ending}", hex::encode(&Sha256::digest(&content)[..6])),
            kind,
            content,
            gzipped: false,
        }
    }

    fn text(ending: &str, content: &'static str) -> Self {
        Self::new(ending, content.as_bytes())
    }

    fn gzip(ending: &str, content: &'static [u8]) -> Self {
        Self { gzipped: true, ..Self::new(ending, content) }
    }

    fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

/// The files.
pub struct Assets {
    style: Asset,
    script: Asset,
    reference_style: Asset,
    reference_script: Asset,
    swagger_style: Asset,
    swagger_script: Asset,
}

/// Where the files of the API's reference are.
#[derive(Serialize)]
pub struct Reference {
    style: String,
    script: String,
    swagger_style: String,
    swagger_script: String,
}

impl Assets {
    /// In the operator's colour.
    pub fn new(brand: &Brand) -> Self {
        // What is no colour would end the rule, and with it the style.
        let plain = brand.color.len() == 7 && brand.color.starts_with('#') && hex::decode(&brand.color[1..]).is_ok();
        let color = if plain { &brand.color } else { COLOR };
        Self {
            style: Asset::new("css", STYLE.replace(COLOR, color).into_bytes()),
            script: Asset::text("js", SCRIPT),
            reference_style: Asset::text("css", REFERENCE_STYLE),
            reference_script: Asset::text("js", REFERENCE_SCRIPT),
            swagger_style: Asset::gzip("css", SWAGGER_STYLE),
            swagger_script: Asset::gzip("js", SWAGGER_SCRIPT),
        }
    }

    /// Where the style is.
    pub fn style_path(&self) -> String {
        self.style.path()
    }

    /// Where the script is.
    pub fn script_path(&self) -> String {
        self.script.path()
    }

    /// Where the files of the API's reference are.
    pub fn reference(&self) -> Reference {
        Reference {
            style: self.reference_style.path(),
            script: self.reference_script.path(),
            swagger_style: self.swagger_style.path(),
            swagger_script: self.swagger_script.path(),
        }
    }

    fn find(&self, name: &str) -> Option<&Asset> {
        let Self { style, script, reference_style, reference_script, swagger_style, swagger_script } = self;
        let all = [style, script, reference_style, reference_script, swagger_style, swagger_script];
        all.into_iter().find(|asset| asset.name == name)
    }
}

/// `GET /assets/{name}`
pub async fn asset(State(app): State<Arc<App>>, Path(wanted): Path<String>) -> Result<Response, Problem> {
    let Asset { kind, content, gzipped, .. } = app.pages.assets.find(&wanted).ok_or_else(Problem::not_found)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
    if *gzipped {
        // Every browser takes it, and no program needs these files.
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok((StatusCode::OK, headers, content.clone()).into_response())
}
