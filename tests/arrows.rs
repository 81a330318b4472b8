//! Which part uses which: as docs/architecture.md draws it, and never in circles.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The crates beside the product's, each in a folder of its own.
const CRATES: [&str; 2] = ["sandbox", "dev"];

/// What each part of `src/` and each other crate may use, as the table in docs/architecture.md says.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/architecture.md")).expect("the page");
    let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    let is_crate = |line: &str| CRATES.iter().any(|name| line.starts_with(&format!("| `{name}/` |")));
    let rows = page.lines().filter(|line| line.starts_with("| `src/") || is_crate(line));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [part, _, uses] = cells[..] else { panic!("a row of three cells: {row}") };
        let part = quoted(part).into_iter().next().expect("a part");
        let name = part.trim_start_matches("src/").trim_end_matches('/').trim_end_matches(".rs").to_owned();
        let uses = quoted(uses);
        assert_eq!(uses.is_empty(), cells[2] == "nothing", "what it uses, or `nothing`: {row}");
        (name, uses.into_iter().collect())
    })
    .collect()
}

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
    let arrows = arrows();
    let mut seen = BTreeSet::new();
    for path in sources(&src) {
        let relative = path.strip_prefix(&src).expect("below src");
        let first = relative.iter().next().expect("a name").to_string_lossy().replace(".rs", "");
        if matches!(first.as_str(), "lib" | "main" | "bin") {
            continue;
        }
        let allowed = arrows.get(&first).unwrap_or_else(|| panic!("docs/architecture.md has no row for src/{first}"));
        for used in names_after(&code(&path), "crate::") {
            if used != first && arrows.contains_key(&used) {
                assert!(
                    allowed.contains(&used),
                    "{} uses {used}, which docs/architecture.md does not say",
                    relative.display()
                );
                seen.insert((first.clone(), used));
            }
        }
    }
    for name in CRATES {
        let allowed = arrows.get(name).unwrap_or_else(|| panic!("docs/architecture.md has no row for {name}/"));
        for path in sources(&Path::new(ROOT).join(name).join("src")) {
            let code = code(&path);
            let others = CRATES.into_iter().filter(|other| code.contains(&format!("tenant_operator_{other}::")));
            let used = names_after(&code, "tenant_operator::").into_iter().chain(others.map(str::to_owned));
            for used in used.filter(|used| used != name) {
                assert!(
                    allowed.contains(&used),
                    "{} uses {used}, which docs/architecture.md does not say",
                    path.display()
                );
                seen.insert((name.to_owned(), used));
            }
        }
    }
    let drawn = arrows.iter().flat_map(|(from, to)| to.iter().map(|to| (from.clone(), to.clone())));
    let idle: Vec<_> = drawn.filter(|arrow| !seen.contains(arrow)).collect();
    assert!(idle.is_empty(), "arrows that nothing uses: {idle:?}");
}

/// Which of the names are left when all that use nothing else of what is left are taken away: those in circles.
fn in_circles(uses: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<String> {
    let mut left: BTreeSet<String> = uses.keys().cloned().collect();
    loop {
        let done: Vec<_> =
            left.iter().filter(|name| uses[*name].iter().all(|u| u == *name || !left.contains(u))).cloned().collect();
        if done.is_empty() {
            return left;
        }
        left.retain(|name| !done.contains(name));
    }
}

/// What is tested is what is shipped: nothing in the product knows its stand-ins. Only the tests may depend on them.
#[test]
fn the_product_uses_neither_the_sandbox_nor_dev() {
    let manifest =
        |folder: &str| std::fs::read_to_string(Path::new(ROOT).join(folder).join("Cargo.toml")).expect("a file");
    let root = manifest("");
    let (product, tests) = root.split_once("[dev-dependencies]").expect("what the tests depend on");
    for name in CRATES {
        let package = format!("tenant-operator-{name} ");
        assert!(!product.contains(&package) && tests.contains(&package), "{package}");
        for path in sources(&Path::new(ROOT).join("src")) {
            assert!(!code(&path).contains(&format!("tenant_operator_{name}")), "{} uses {name}", path.display());
        }
    }
    assert!(!manifest("sandbox").contains("tenant-operator ="), "the sandbox depends on the product");
}

/// Modules of one folder that use each other, directly or by a third, are one thing in several files.
#[test]
fn no_files_of_a_folder_use_each_other_in_circles() {
    let mut by_folder: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for path in ["src", "sandbox/src", "dev/src"].iter().flat_map(|root| sources(&Path::new(ROOT).join(root))) {
        by_folder.entry(path.parent().expect("a folder").to_owned()).or_default().push(path);
    }
    for (folder, files) in by_folder {
        let stem = |path: &Path| path.file_stem().expect("a name").to_string_lossy().into_owned();
        let names: BTreeSet<_> = files.iter().map(|p| stem(p)).filter(|n| n != "mod").collect();
        let uses: BTreeMap<_, BTreeSet<_>> = files
            .iter()
            .filter(|path| names.contains(&stem(path)))
            .map(|path| {
                // In the files at the root of a crate, both mean the same.
                let (code, at_root) = (code(path), folder.ends_with("src"));
                let mut used = names_after(&code, "super::");
                used.extend(at_root.then(|| names_after(&code, "crate::")).into_iter().flatten());
                (stem(path), used.intersection(&names).cloned().collect())
            })
            .collect();
        let left = in_circles(&uses);
        assert!(left.is_empty(), "circles in {}: {left:?}", folder.display());
    }
}

/// A part's folders are layers. What a part has beside its folders, such as `web/routes.rs`, may use all of them.
#[test]
fn no_folders_of_a_part_use_each_other_in_circles() {
    for part in ["lifecycle", "web"] {
        let root = Path::new(ROOT).join("src").join(part);
        let folders: BTreeSet<String> = std::fs::read_dir(&root)
            .expect("a part")
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        assert!(folders.len() > 1, "{part} has folders");
        let uses: BTreeMap<_, BTreeSet<_>> = folders
            .iter()
            .map(|folder| {
                let used = sources(&root.join(folder))
                    .iter()
                    .flat_map(|path| {
                        let code = code(path);
                        let mut used = names_after(&code, &format!("crate::{part}::"));
                        used.extend(names_after(&code, "super::super::"));
                        // Of the folder's own `mod.rs`, one step up is the part.
                        if path.file_stem().is_some_and(|stem| stem == "mod") {
                            used.extend(names_after(&code, "super::"));
                        }
                        used
                    })
                    .collect::<BTreeSet<_>>();
                (folder.clone(), used.intersection(&folders).cloned().collect())
            })
            .collect();
        let left = in_circles(&uses);
        assert!(left.is_empty(), "circles between the folders of {part}: {left:?}, of {uses:?}");
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

/// Where conditions are read, and why. Everywhere else decisions rest on the fields of the status, so that a word that
/// people read can change without changing what happens.
const READ_CONDITIONS: [(&str, &str); 17] = [
    ("api/tenant.rs", "`kubectl get` prints whether a tenant is Ready"),
    ("api/earlier.rs", "the facts that an earlier version kept in them"),
    ("lifecycle/status.rs", "what is shown is compared with what is to be shown"),
    ("lifecycle/held_decision.rs", "an admin answers the question that a condition asks"),
    ("lifecycle/brake.rs", "a status that is about to be written loses the condition of what happens with it"),
    ("controller/reconcile/record.rs", "Events tell which conditions turned bad"),
    ("controller/steps/notices.rs", "alerts quote their messages"),
    ("controller/sweeps/usage_billing/shown.rs", "what is shown is compared with what is to be shown"),
    ("controller/sweeps/usage/shown.rs", "a condition that holds again is shown where it did not hold"),
    ("cli/data.rs", "prints which namespaces hold documents"),
    ("cli/desired.rs", "which subscriptions end at Stripe is shown, and no field says it"),
    ("cli/describe.rs", "prints them all"),
    ("cli/export.rs", "prints how far an export is"),
    ("cli/list.rs", "prints the reason of Ready, and lists those that are not Ready"),
    ("cli/usage_billed.rs", "prints whether Stripe has all usage"),
    ("cli/usage_lines.rs", "prints what the controller found at Stripe, without a key of its own"),
    ("cli/why.rs", "prints what a tenant waits for"),
];
/// Shown to customers as the steps of their account; by whether they hold, and never by their reason.
const SHOWS_STEPS: &str = "web/customer/progress.rs";

#[test]
fn conditions_are_shown_and_not_read_back() {
    let src = Path::new(ROOT).join("src");
    let mut read = BTreeMap::new();
    for part in ["api", "lifecycle", "controller", "web", "cli"] {
        for path in sources(&src.join(part)) {
            let relative = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            let code = code(&path);
            // The field, however it is reached; the module is named with `conditions::`.
            let fields = code.matches(".conditions").count();
            let calls = ["conditions::get(", "conditions::is_true(", "get(&status.conditions", "is_true(&"];
            if fields > 0 || calls.iter().any(|call| code.contains(call)) {
                read.insert(relative, code);
            }
        }
    }
    let allowed = |file: &str| file == SHOWS_STEPS || READ_CONDITIONS.iter().any(|(known, _)| *known == file);
    let others: Vec<_> = read.keys().filter(|file| !allowed(file)).collect();
    assert!(others.is_empty(), "read conditions, which a field of the status should tell: {others:?}");
    for (file, why) in READ_CONDITIONS {
        assert!(read.contains_key(file), "{file} no longer reads conditions ({why})");
    }
    assert!(!read[SHOWS_STEPS].contains("reason"), "{SHOWS_STEPS} reads the reason of a condition");
}
