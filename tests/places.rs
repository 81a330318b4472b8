//! What the pages say about the code, compared with the code: files that they name, where a change is made, and
//! numbers.

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
    let docs = below("docs").into_iter().filter(|path| path.rsplit('.').next() == Some("md"));
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

const FOLDERS: [&str; 11] =
    ["benches/", "charts/", "cluster/", "crds/", "dev/", "docs/", "examples/", "image/", "sandbox/", "src/", "tests/"];

#[test]
fn files_that_the_pages_name_exist() {
    let code: Vec<_> = ["src", "sandbox", "dev", "tests", "benches"].into_iter().flat_map(below).collect();
    let mut named = 0;
    for (page, text) in pages() {
        for path in quoted(&text).filter(|path| !path.contains(['<', '*', ' ', '"', ':'])).flat_map(expanded) {
            let exists = if FOLDERS.iter().any(|folder| path.starts_with(folder)) {
                Path::new(ROOT).join(&path).exists()
            } else if path.rsplit('.').next() == Some("rs") {
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

/// Whether a text mentions an example: as it stands, and a phase by its name in quotes too, as the CRD's rules and the
/// pages' templates do.
fn is_about(text: &str, example: &str) -> bool {
    let quoted = |name: &str| ['\'', '"'].iter().any(|mark| text.contains(&format!("{mark}{name}{mark}")));
    mentions(text, example) || example.strip_prefix("Phase::").is_some_and(quoted)
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
            if examples.iter().any(|example| is_about(text, example)) {
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

/// What a file that belongs to an example holds at least: `suspended` of `Phase::Suspended`, `/account` of
/// `/account/close`.
fn core(example: &str) -> String {
    let word = match example.strip_prefix('/') {
        Some(path) => format!("/{}", path.split('/').next().unwrap_or_default()),
        None if example.ends_with("::Args") => example.trim_end_matches("::Args").to_owned(),
        None => example.rsplit("::").next().unwrap_or_default().trim_matches('"').to_owned(),
    };
    word.to_lowercase()
}

/// The value of a constant of a file with this name, wherever the file is: a number, or seconds.
fn constant(file: &str, name: &str) -> f64 {
    let found = below("src").into_iter().filter(|path| path.ends_with(&format!("/{file}"))).find_map(|path| {
        let text = read(path);
        let (_, rest) = text.split_once(&format!("const {name}: "))?;
        Some(value(rest.split_once(" = ")?.1.split_once(';')?.0))
    });
    found.unwrap_or_else(|| panic!("no constant {name} in a {file}"))
}

/// The default of a setting of the lifecycle.
fn setting(name: &str) -> f64 {
    let policy = below("src").into_iter().find(|path| path.ends_with("lifecycle/policy.rs")).expect("the settings");
    let text = read(policy);
    let defaults = text.split("impl Default for Policy").nth(1).expect("defaults");
    value(defaults.split_once(&format!(" {name}: ")).expect(name).1.split_once(",\n").expect("a value").0)
}

/// Of `24 * 3600`, `10 << 20`, `Duration::from_millis(500)`; of a list, its length.
fn value(expression: &str) -> f64 {
    let number = |text: &str| text.trim().replace('_', "").parse::<f64>().unwrap_or_else(|_| panic!("{expression}"));
    if let Some(list) = expression.strip_prefix('[') {
        return f64::from(u32::try_from(list.split(',').count()).expect("few"));
    }
    if let Some(call) = expression.strip_prefix("Duration::from_") {
        let (unit, count) = call.trim_end_matches(')').split_once('(').expect("a call");
        let seconds = match unit {
            "millis" => 0.001,
            "secs" => 1.0,
            "mins" => 60.0,
            _ => 3600.0,
        };
        return number(count) * seconds;
    }
    if let Some((number_, shift)) = expression.split_once(" << ") {
        return number(number_) * number(shift).exp2();
    }
    expression.split(" * ").map(number).product()
}

#[test]
fn numbers_of_the_architecture_are_those_of_the_code() {
    let text = pages().into_iter().find(|(page, _)| page == "docs/architecture.md").expect("the page").1;
    for (sentence, said, is) in [
        ("after 6 failures in a row", 6.0, constant("breaker.rs", "FAILURES")),
        ("or when 8 calls hang", 8.0, constant("breaker.rs", "HANGING")),
        ("in four priorities", 4.0, constant("priority.rs", "ALL")),
        ("one probe every half second", 0.5, constant("unavailable.rs", "PROBE")),
        ("with 192 MB, 20 s of processor time", f64::from(192 << 20), constant("extract.rs", "MEMORY")),
        ("with 192 MB, 20 s of processor time", 20.0, constant("extract.rs", "CPU")),
        ("one window of six passages at a time", 6.0, constant("passages.rs", "WINDOW")),
        ("Two files are read at a time", 2.0, constant("extract.rs", "AT_ONCE")),
        ("four uploads are held in memory", 4.0, constant("places.rs", "ALL")),
        ("two at a time and at the lowest priority", 2.0, constant("exports.rs", "AT_ONCE")),
        ("its passages are fetched 50 at a time", 50.0, constant("pinecone/limits.rs", "FETCH_IDS")),
        ("those of five minutes before it once more", 300.0, constant("bulk.rs", "OVERLAP")),
        ("and for a day after that", 86_400.0, constant("keys.rs", "OVERLAP")),
        ("only when it lasts for half a second", 0.5, constant("reconcile/mod.rs", "DELAY")),
        ("another replica takes it within half a second", 0.5, constant("lease.rs", "LOOK")),
        ("while the controller is overloaded they wait, 20 s at most", 20.0, setting("welcome_hold")),
        ("An operation is deleted 93 days after it ended", 93.0, constant("ledger/account.rs", "KNOWN_DAYS")),
        ("counts as ended 92 days earlier", 93.0 - 92.0, constant("ledger/decision.rs", "UNCOUNTED_DAYS")),
        ("a period that begins more than 5 minutes from now", 300.0, constant("ledger/decision.rs", "AHEAD")),
        ("passes over a billion numbers of lines", 1e9, constant("sqlite/copy.rs", "PASSED_OVER")),
        ("(`ledger/answers.rs`) live for a day", 86_400.0, constant("ledger/answers.rs", "KEPT")),
        ("A login Secret whose Tenant was never made is deleted after an hour", 3600.0, setting("orphan_ttl")),
    ] {
        assert!(text.contains(sentence), "docs/architecture.md no longer says {sentence:?}: correct this list");
        assert!((said - is).abs() < 1e-6, "docs/architecture.md says {sentence:?}, and the code {is}");
    }
}

/// Of `--hold-limit` (1 h) and the like.
#[test]
fn defaults_that_pages_name_are_those_of_the_arguments() {
    let reference = read("docs/cli.md");
    let default = |flag: &str| {
        let row = reference.lines().find(|row| row.starts_with(&format!("| `{flag}` |")))?;
        let default = row.split('|').nth(3)?.trim().trim_matches('`');
        let span: jiff::Span = default.parse().ok()?;
        span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())).ok()
    };
    let mut compared = 0;
    for (page, text) in pages() {
        for (at, _) in text.match_indices("`--") {
            let Some((flag, rest)) = text[at + 1..].split_once('`') else { continue };
            let Some((said, _)) = rest.strip_prefix(" (").and_then(|rest| rest.split_once(')')) else { continue };
            let Some((count, unit)) = said.split_once(' ') else { continue };
            let seconds = match unit {
                "s" => 1.0,
                "min" => 60.0,
                "h" => 3600.0,
                "d" | "days" => 86_400.0,
                _ => continue,
            };
            let Ok(count) = count.parse::<f64>() else { continue };
            let is = default(flag).unwrap_or_else(|| panic!("{page}: {flag} has no default"));
            assert!((count * seconds - is).abs() < 1e-6, "{page}: {flag} ({said}) is {is} s");
            compared += 1;
        }
    }
    assert!(compared > 4, "{compared}");
}

/// The variants of an enum of a file.
fn variants(path: &str, name: &str) -> Vec<String> {
    let text = read(path);
    let body =
        text.split_once(&format!("enum {name} {{")).and_then(|(_, rest)| rest.split_once("\n}")).expect("the enum").0;
    let names = body.lines().map(str::trim).filter(|line| line.starts_with(char::is_uppercase));
    names.map(|line| line.trim_end_matches(',').to_owned()).collect()
}

#[test]
fn pages_that_count_seeded_mistakes_count_all() {
    let mistakes =
        variants("tests/model/mistakes.rs", "Mistake").len() + variants("tests/model/moves.rs", "Mistake").len();
    let mut told = 0;
    for (page, text) in pages() {
        for (at, _) in text.match_indices(" seeded mistakes") {
            let count = text[..at].rsplit(' ').next().and_then(|count| count.parse().ok());
            assert_eq!(count, Some(mistakes), "{page}");
            told += 1;
        }
    }
    assert!(told > 1, "{told}");
}

#[test]
fn the_start_page_tells_of_every_phase() {
    let path =
        below("src").into_iter().find(|path| path.ends_with("/phase.rs") && read(path).contains("pub enum Phase {"));
    let phases: BTreeSet<_> = variants(&path.expect("the phases"), "Phase").into_iter().collect();
    let page = read("docs/index.md");
    let table = page.split("| phase | meaning | next |").nth(1).expect("the table");
    let rows = table.lines().take_while(|line| line.is_empty() || line.starts_with('|')).skip(2);
    let told: BTreeSet<_> = rows
        .filter_map(|row| row.split('|').nth(1))
        .flat_map(|cell| cell.split(','))
        .map(|phase| phase.trim().to_owned())
        .filter(|phase| !phase.is_empty())
        .collect();
    assert_eq!(told, phases);
}
