//! Which part uses which: as docs/architecture.md draws it, and never in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What each part of `src/` may use; `cli` puts all of them together.
const ARROWS: [(&str, &[&str]); 20] = [
    ("api", &[]),
    ("clock", &["api"]),
    ("email", &[]),
    ("watches", &[]),
    ("keys", &["api"]),
    ("telemetry", &[]),
    ("sandbox", &[]),
    ("lifecycle", &["api"]),
    ("operator_keys", &["api", "email"]),
    ("events", &["api", "telemetry"]),
    ("links", &["api", "operator_keys"]),
    ("providers", &["api", "lifecycle"]),
    ("pins", &["lifecycle", "providers"]),
    ("rag", &["api", "providers"]),
    ("export", &["api", "providers", "rag"]),
    (
        "controller",
        &[
            "api",
            "clock",
            "events",
            "export",
            "keys",
            "lifecycle",
            "operator_keys",
            "pins",
            "providers",
            "rag",
            "telemetry",
            "watches",
        ],
    ),
    (
        "web",
        &[
            "api",
            "clock",
            "email",
            "events",
            "export",
            "keys",
            "lifecycle",
            "links",
            "operator_keys",
            "pins",
            "providers",
            "rag",
            "telemetry",
            "watches",
        ],
    ),
    ("preflight", &["api", "pins", "providers"]),
    ("dev", &["api", "controller", "operator_keys", "pins", "providers", "sandbox", "web"]),
    (
        "cli",
        &[
            "api",
            "controller",
            "dev",
            "email",
            "events",
            "export",
            "lifecycle",
            "operator_keys",
            "pins",
            "preflight",
            "providers",
            "rag",
            "sandbox",
            "telemetry",
            "web",
        ],
    ),
];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

/// The code of a file, without its unit tests and comments.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("a file");
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The names that follow a prefix: of `crate::{a::B, c}` and `crate::a::B` alike.
fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    found.insert(name(&group[start..i]));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[test]
fn parts_use_only_what_is_below_them() {
    let src = Path::new(ROOT).join("src");
    let arrows: BTreeMap<_, _> = ARROWS.into_iter().collect();
    let mut seen = BTreeSet::new();
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy().replace(".rs", "");
        if matches!(first.as_str(), "lib" | "main" | "bin") {
            continue;
        }
        let allowed = arrows.get(first.as_str()).unwrap_or_else(|| panic!("{first} has no arrows in this test"));
        for used in names_after(&code(&path), "crate::") {
            if used != first && arrows.contains_key(used.as_str()) {
                assert!(allowed.contains(&used.as_str()), "{} uses {used}", relative.display());
                seen.insert((first.clone(), used));
            }
        }
    }
    let drawn = ARROWS.iter().flat_map(|(from, to)| to.iter().map(|to| ((*from).to_owned(), (*to).to_owned())));
    let idle: Vec<_> = drawn.filter(|arrow| !seen.contains(arrow)).collect();
    assert!(idle.is_empty(), "arrows that nothing uses: {idle:?}");
}

/// Modules of one folder that use each other, directly or by a third, are one thing in several files.
#[test]
fn no_files_of_a_folder_use_each_other_in_circles() {
    let mut by_folder: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in sources(&Path::new(ROOT).join("src")) {
        by_folder.entry(path.parent().expect("a folder").to_owned()).or_default().push(path);
    }
    for (folder, files) in by_folder {
        let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
        let names: BTreeSet<_> = files.iter().map(|p| stem(p)).filter(|n| n != "mod").collect();
        let uses: BTreeMap<_, BTreeSet<_>> = files
            .iter()
            .filter(|path| names.contains(&stem(path)))
            .map(|path| (stem(path), names_after(&code(path), "super::").intersection(&names).cloned().collect()))
            .collect();
        // Takes away what uses nothing that is left, until nothing is left or all of it is in circles.
        let mut left = uses.clone();
        loop {
            let done: Vec<_> = left
                .iter()
                .filter(|(name, used)| used.iter().all(|u| u == *name || !left.contains_key(u)))
                .map(|(name, _)| name.clone())
                .collect();
            if done.is_empty() {
                break;
            }
            left.retain(|name, _| !done.contains(name));
        }
        assert!(left.is_empty(), "circles in {}: {left:?}", folder.display());
    }
}

#[test]
fn the_architecture_names_every_folder() {
    let text = std::fs::read_to_string(format!("{ROOT}/docs/architecture.md")).expect("the page");
    for root in ["src", "tests"] {
        for entry in std::fs::read_dir(format!("{ROOT}/{root}")).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() {
                assert!(
                    text.contains(&format!("`{root}/{name}/`")),
                    "docs/architecture.md does not name {root}/{name}/"
                );
            }
        }
    }
}
