//! Styles and scripts of the pages. Their names follow from their content, so browsers keep them for a year.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Brand;
use crate::pages::{Asset, style};
use crate::web::App;
use crate::web::serving::problem::Problem;

const SCRIPT: &str = include_str!("assets/pages.js");
const REFERENCE_STYLE: &str = include_str!("assets/reference.css");
const REFERENCE_SCRIPT: &str = include_str!("assets/reference.js");
/// Of Swagger UI, as gzip files. `build.rs` writes them.
const SWAGGER_STYLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui.css.gz"));
const SWAGGER_SCRIPT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/swagger-ui-bundle.js.gz"));

/// Where they are.
const FOLDER: &str = "/assets/";

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
        Self {
            style: Asset::new("css", style(Some(&brand.color)).into_owned().into_bytes()),
            script: Asset::text("js", SCRIPT),
            reference_style: Asset::text("css", REFERENCE_STYLE),
            reference_script: Asset::text("js", REFERENCE_SCRIPT),
            swagger_style: Asset::gzip("css", SWAGGER_STYLE),
            swagger_script: Asset::gzip("js", SWAGGER_SCRIPT),
        }
    }

    /// Where the style is.
    pub fn style_path(&self) -> String {
        path(&self.style)
    }

    /// Where the script is.
    pub fn script_path(&self) -> String {
        path(&self.script)
    }

    /// Where the files of the API's reference are.
    pub fn reference(&self) -> Reference {
        Reference {
            style: path(&self.reference_style),
            script: path(&self.reference_script),
            swagger_style: path(&self.swagger_style),
            swagger_script: path(&self.swagger_script),
        }
    }

    fn find(&self, name: &str) -> Option<&Asset> {
        let Self { style, script, reference_style, reference_script, swagger_style, swagger_script } = self;
        let all = [style, script, reference_style, reference_script, swagger_style, swagger_script];
        all.into_iter().find(|asset| asset.name() == name)
    }
}

/// `GET /assets/{name}`
pub async fn asset(State(app): State<Arc<App>>, Path(wanted): Path<String>) -> Result<Response, Problem> {
    let asset = app.pages.assets.find(&wanted).ok_or_else(Problem::not_found)?;
    Ok(asset.into_response())
}

fn path(asset: &Asset) -> String {
    [FOLDER, asset.name()].concat()
}
