//! Takes the two files of Swagger UI that the API's reference loads out of the archive that a crate brings, each as a
//! gzip file. A zip and a gzip file hold the same stream, so nothing is unpacked.

use std::path::Path;

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED as ARCHIVE;

const FILES: [&str; 2] = ["swagger-ui.css", "swagger-ui-bundle.js"];

/// Beginnings of the records of a zip file (<https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>).
const ENTRY: &[u8] = b"PK\x01\x02";
const DIRECTORY_END: &[u8] = b"PK\x05\x06";
/// The only method of compression that gzip knows.
const DEFLATED: usize = 8;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = std::env::var("OUT_DIR").expect("cargo names a folder");
    for name in FILES {
        let file = gzip(&format!("/dist/{name}")).unwrap_or_else(|| panic!("the archive of Swagger UI has no {name}"));
        std::fs::write(Path::new(&folder).join(format!("{name}.gz")), file).expect("the folder can be written to");
    }
}

/// A little-endian number of so many bytes.
fn number(at: usize, bytes: usize) -> usize {
    ARCHIVE[at..at + bytes].iter().rev().fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

/// The file whose path ends so, as a gzip file (RFC 1952).
fn gzip(path: &str) -> Option<Vec<u8>> {
    let end = ARCHIVE.windows(DIRECTORY_END.len()).rposition(|bytes| bytes == DIRECTORY_END)?;
    let mut at = number(end + 16, 4);
    while ARCHIVE[at..].starts_with(ENTRY) {
        let (size, name) = (number(at + 20, 4), number(at + 28, 2));
        if ARCHIVE[at + 46..at + 46 + name].ends_with(path.as_bytes()) && number(at + 10, 2) == DEFLATED {
            let header = number(at + 42, 4);
            let start = header + 30 + number(header + 26, 2) + number(header + 28, 2);
            // Compressed by deflate, with no name, no time, and an unknown system.
            let mut file = b"\x1f\x8b\x08\0\0\0\0\0\0\xff".to_vec();
            file.extend(&ARCHIVE[start..start + size]);
            // The checksum and the size before compression, which both formats keep.
            file.extend(&ARCHIVE[at + 16..at + 20]);
            file.extend(&ARCHIVE[at + 24..at + 28]);
            return Some(file);
        }
        at += 46 + name + number(at + 30, 2) + number(at + 32, 2);
    }
    None
}
