//! What the pages say about the code, compared with the code: files that they name, where a change is made, and numbers.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(ROOT).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files below a folder, by their paths in the repository.
fn below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(Path::new(ROOT).join(folder)).expect("a folder").flatten() {
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(below(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// The pages that people write, with their texts on one line.
fn pages() -> Vec<(String, String)> {
    let docs = below("docs").into_iter().filter(|path| path.ends_with(".md"));
    let pages = docs.chain(["README.md".into(), "CONTRIBUTING.md".into()]);
    pages.map(|page| (page.clone(), read(&page).split_whitespace().collect::<Vec<_>>().join(" "))).collect()
}

/// What stands in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// `a/{b,c}.rs` is two files.
fn expanded(path: &str) -> Vec<String> {
    match path.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?))) {
        Some((start, (names, end))) => names.split(',').map(|name| format!("{start}{name}{end}")).collect(),
        None => vec![path.to_owned()],
    }
}

const FOLDERS: [&str; 9] =
    ["benches/", "charts/", "cluster/", "crds/", "docs/", "examples/", "image/", "src/", "tests/"];

#[test]
fn files_that_the_pages_name_exist() {
    let code: Vec<_> = ["src", "tests", "benches"].into_iter().flat_map(below).collect();
    let mut named = 0;
    for (page, text) in pages() {
        for path in quoted(&text).filter(|path| !path.contains(['<', '*', ' ', '"', ':'])).flat_map(expanded) {
            let exists = if FOLDERS.iter().any(|folder| path.starts_with(folder)) {
                Path::new(ROOT).join(&path).exists()
            } else if path.ends_with(".rs") {
                code.iter().any(|file| file.ends_with(&format!("/{path}")))
            } else {
                continue;
            };
            assert!(exists, "{page} names {path}, which does not exist");
            named += 1;
        }
    }
    assert!(named > 100, "{named}");
}

/// A row of the table in CONTRIBUTING.md: the examples, and the files.
struct Row {
    what: String,
    examples: Vec<String>,
    files: Vec<String>,
}

fn rows() -> Vec<Row> {
    let page = read("CONTRIBUTING.md");
    let table = page.split("## Where do I change ...").nth(1).expect("the section");
    let rows = table.lines().filter(|line| line.starts_with("| a"));
    rows.map(|row| {
        let (what, files) = row.trim_matches(['|', ' ']).split_once(" | ").expect("two cells");
        let (what, examples) = what.split_once(" (").expect("an example");
        Row {
            what: what.into(),
            examples: quoted(examples).map(str::to_owned).collect(),
            files: quoted(files).flat_map(expanded).collect(),
        }
    })
    .collect()
}

/// Whether a text holds a word as a whole.
fn mentions(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| !text[..at].ends_with(part) && !text[at + word.len()..].starts_with(part))
}

/// What `make generate` writes.
fn generated(path: &str) -> bool {
    path.starts_with("charts/tenant-operator/files/crds/") || path.ends_with("/values.schema.json")
}

#[test]
fn a_change_is_made_where_the_page_says() {
    let rows = rows();
    assert!(rows.len() > 10, "{} rows", rows.len());
    let sources: Vec<_> = ["src", "charts"].into_iter().flat_map(below).filter(|path| !generated(path)).collect();
    let texts: Vec<_> = sources
        .iter()
        .filter_map(|path| Some((path, std::fs::read_to_string(Path::new(ROOT).join(path)).ok()?)))
        .collect();
    for Row { what, examples, files } in &rows {
        for file in files {
            assert!(PathBuf::from(ROOT).join(file).is_file(), "{what}: {file} does not exist");
        }
        // Rows with the same example share its files.
        let named: BTreeSet<_> =
            rows.iter().filter(|row| row.examples == *examples).flat_map(|row| &row.files).collect();
        for (path, text) in &texts {
            if examples.iter().any(|example| mentions(text, example)) {
                assert!(
                    named.contains(path),
                    "{what}: {path} mentions {examples:?}, and CONTRIBUTING.md does not name it"
                );
            }
        }
        for file in files {
            let text = read(file).to_lowercase();
            let about =
                examples.iter().map(|example| core(example)).any(|word| text.contains(&word) || file.contains(&word));
            assert!(about, "{what}: {file} has nothing to do with {examples:?}");
        }
    }
}

/// What a file that belongs to an example holds at least: `suspended` of `Phase::Suspended`, `/account` of `/account/close`.
fn core(example: &str) -> String {
    let word = match example.strip_prefix('/') {
        Some(path) => format!("/{}", path.split('/').next().unwrap_or_default()),
        None if example.ends_with("::Args") => example.trim_end_matches("::Args").to_owned(),
        None => example.rsplit("::").next().unwrap_or_default().trim_matches('"').to_owned(),
    };
    word.to_lowercase()
}
