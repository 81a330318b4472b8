//! Files that pages load. Their names follow from their content, so browsers keep them for a year.

use std::borrow::Cow;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

const STYLE: &str = include_str!("style.css");
/// The colour in it that the platform team may replace.
const COLOR: &str = "#3653d8";

/// The style of all pages. The colour of buttons and links is `#rrggbb`; anything else leaves the default.
pub fn style(color: Option<&str>) -> Cow<'static, str> {
    // What is no colour would end the rule, and with it the style.
    let is_color = |color: &&str| color.strip_prefix('#').is_some_and(|rgb| rgb.len() == 6 && hex::decode(rgb).is_ok());
    color.filter(is_color).map_or(Cow::Borrowed(STYLE), |color| STYLE.replace(COLOR, color).into())
}

/// A file that pages load.
pub struct Asset {
    name: String,
    kind: &'static str,
    content: Cow<'static, [u8]>,
    gzipped: bool,
}

impl Asset {
    /// A style (`css`) or a script (`js`).
    pub fn new(ending: &str, content: impl Into<Cow<'static, [u8]>>) -> Self {
        let content = content.into();
        let kind = if ending == "css" { "text/css; charset=utf-8" } else { "text/javascript; charset=utf-8" };
        Self {
            name: format!("{}.{ending}", hex::encode(&Sha256::digest(&content)[..6])),
            kind,
            content,
            gzipped: false,
        }
    }

    /// Of a text that the program holds.
    pub fn text(ending: &str, content: &'static str) -> Self {
        Self::new(ending, content.as_bytes())
    }

    /// Of a gzip file that the program holds.
    pub fn gzip(ending: &str, content: &'static [u8]) -> Self {
        Self { gzipped: true, ..Self::new(ending, content) }
    }

    /// The name of the file.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl IntoResponse for &Asset {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=31536000, immutable"));
        if self.gzipped {
            // Every browser takes it, and no program needs these files.
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        (StatusCode::OK, headers, self.content.clone()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_colour_replaces_the_colour() {
        assert!(style(Some("#12ab9F")).contains("--brand: #12ab9F;"));
        for wrong in ["#12ab9", "red", "#zzzzzz", "#12ab9f; } body { display: none"] {
            assert_eq!(style(Some(wrong)), STYLE, "{wrong}");
        }
        assert!(style(None).contains(COLOR));
    }
}
