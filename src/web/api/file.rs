//! The file of an upload: how it comes in a request, and the name that it gets.

use axum::extract::multipart::Field;
use axum::extract::{FromRequest, Multipart, Request};
use axum::http::{HeaderMap, StatusCode, header};
use utoipa::ToSchema;

use crate::plain::is_hidden;
use crate::web::serving::bodies::{self, LARGEST_FILE, Unread};
use crate::web::serving::problem::{Code, Problem};

/// The longest title, in characters.
const LONGEST_TITLE: usize = 200;

/// A file in a form.
#[derive(ToSchema)]
#[allow(dead_code)]
pub struct FileForm {
    /// The file: PDF or plain text, at most 10 MB.
    #[schema(value_type = String, format = Binary)]
    file: Vec<u8>,
}

/// A file that arrived.
pub struct File {
    /// The name that the document gets.
    pub title: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

impl File {
    /// A file of that name.
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { title: clean_title(name), bytes }
    }
}

/// The file of a request: as the field `file` of a form, or as the body itself.
pub async fn file(headers: &HeaderMap, request: Request) -> Result<File, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if kind.starts_with("multipart/form-data") {
        return in_form(request).await;
    }
    let whole = bodies::whole(request.into_body(), LARGEST_FILE).await;
    let bytes = whole.map_err(|why| if why == Unread::Large { too_large() } else { why.into() })?;
    Ok(File::new("", bytes))
}

fn too_large() -> Problem {
    let detail = "The file is larger than 10 MB. Split it and upload the parts.";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, Code::TooLarge, detail)
}

fn malformed() -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::Malformed, "The form cannot be read.")
}

async fn in_form(request: Request) -> Result<File, Problem> {
    let mut form = Multipart::from_request(request, &()).await.map_err(|_| malformed())?;
    while let Some(part) = form.next_field().await.map_err(|_| malformed())? {
        if part.name() == Some("file") {
            return field(part).await;
        }
    }
    Ok(File::new("", Vec::new()))
}

/// The file in a field of a form.
pub async fn field(field: Field<'_>) -> Result<File, Problem> {
    let name = field.file_name().unwrap_or_default().to_owned();
    let bytes = field.bytes().await;
    let bytes =
        bytes.map_err(|e| if e.status() == StatusCode::PAYLOAD_TOO_LARGE { too_large() } else { malformed() })?;
    if bytes.len() > LARGEST_FILE { Err(too_large()) } else { Ok(File::new(&name, bytes.into())) }
}

/// A name that can be shown: the last part of a path, without what cannot be seen.
pub fn clean_title(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let title: String = last.chars().filter(|c| !is_hidden(*c)).take(LONGEST_TITLE).collect();
    let title = title.trim();
    if title.is_empty() { "Untitled".into() } else { title.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_the_last_part_of_a_path_and_can_be_seen() {
        for (name, wanted) in [
            ("../../etc/passwd", "passwd"),
            ("C:\\files\\Policy.pdf", "Policy.pdf"),
            ("a\u{0}b\n\u{202e}c", "abc"),
            ("", "Untitled"),
            ("  / ", "Untitled"),
            ("Übersicht 企業.txt", "Übersicht 企業.txt"),
        ] {
            assert_eq!(clean_title(name), wanted, "{name:?}");
        }
        assert_eq!(clean_title(&"x".repeat(1000)).chars().count(), LONGEST_TITLE);
    }
}
