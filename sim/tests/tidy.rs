//! The house rules that a manifest or a lint cannot state: floors, file length, headers, and a
//! test for every numbered rule of the specification.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What must not be linked, however indirectly. `getrandom` is not here: the Sphinx crate's
/// dependencies link it without using it, and `.clippy.toml` bans the call.
const BANNED: [(&str, &[&str]); 3] = [
    ("sphinx", &["tokio", "mio", "socket2", "tracing", "serde"]),
    ("proto", &["tokio", "mio", "socket2", "tracing"]),
    ("sim", &["tokio", "mio", "socket2", "tracing"]),
];

/// The most lines of a source file.
const LINES_MAX: usize = 600;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below `folder` with this extension, build products and hidden folders left out.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else {
        return found;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn no_crate_links_what_its_floor_forbids() {
    for (package, banned) in BANNED {
        let tree = Command::new(env!("CARGO"))
            .args(["tree", "--offline", "--edges=normal", "--prefix=none", "-p"])
            .arg(package)
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(tree.status.success(), "cargo tree -p {package}");
        let tree = String::from_utf8(tree.stdout).expect("utf-8");
        assert!(
            tree.lines().count() > 3,
            "the tree of {package} is not empty"
        );
        for crate_name in tree.lines().filter_map(|line| line.split(' ').next()) {
            assert!(
                !banned.contains(&crate_name),
                "{package} links {crate_name}"
            );
        }
    }
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let sources = files(&root(), "rs");
    assert!(sources.len() > 10, "the tree is found");
    let mut faults = Vec::new();
    for path in sources {
        let text = read(&path);
        let lines = text.lines().count();
        if lines > LINES_MAX {
            faults.push(format!(
                "{}: {lines} lines, at most {LINES_MAX}",
                path.display()
            ));
        }
        let mut content = text.lines().skip_while(|line| line.starts_with("#!["));
        if !content.next().is_some_and(|line| line.starts_with("//! ")) {
            faults.push(format!("{}: no //! header", path.display()));
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

/// Rule ids (`ABC-12`) in `text`; with `bold`, only where they are defined: `**ABC-12**`.
fn rule_ids(text: &str, bold: bool) -> BTreeSet<String> {
    let bytes = text.as_bytes();
    let mut ids = BTreeSet::new();
    for (dash, _) in text.match_indices('-') {
        let upper = |byte: &u8| byte.is_ascii_uppercase();
        let letters = bytes[..dash]
            .iter()
            .rev()
            .take_while(|byte| upper(byte))
            .count();
        let digits = bytes[dash + 1..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        let (start, end) = (dash - letters, dash + 1 + digits);
        let joined = start > 0 && bytes[start - 1].is_ascii_alphanumeric();
        if !(2..=5).contains(&letters) || digits == 0 || joined {
            continue;
        }
        let defined = text[..start].ends_with("**") && text[end..].starts_with("**");
        if defined || !bold {
            ids.insert(text[start..end].to_owned());
        }
    }
    ids
}

/// A source file cut into its code and its tests.
fn code_and_tests(path: &Path, text: &str) -> (String, String) {
    let is_test = path.components().any(|part| {
        ["tests", "tests.rs", "fuzz"]
            .iter()
            .any(|name| part.as_os_str() == *name)
    });
    if is_test {
        return (String::new(), text.to_owned());
    }
    match text.find("#[cfg(test)]\nmod ") {
        Some(cut) => (text[..cut].to_owned(), text[cut..].to_owned()),
        None => (text.to_owned(), String::new()),
    }
}

#[test]
fn every_rule_is_cited_by_the_code_that_enforces_it_and_by_a_test() {
    let mut rules: BTreeMap<String, String> = BTreeMap::new();
    let mut twice = Vec::new();
    for path in files(&root().join("docs/spec"), "md") {
        let name = path
            .file_name()
            .expect("a file")
            .to_string_lossy()
            .into_owned();
        for id in rule_ids(&read(&path), true) {
            if let Some(other) = rules.insert(id.clone(), name.clone()) {
                twice.push(format!("{id}: in {other} and in {name}"));
            }
        }
    }
    let (mut in_code, mut in_tests) = (BTreeSet::new(), BTreeSet::new());
    for path in files(&root(), "rs") {
        let (code, tests) = code_and_tests(&path, &read(&path));
        in_code.extend(rule_ids(&code, false));
        in_tests.extend(rule_ids(&tests, false));
    }
    let mut faults = twice;
    for (id, name) in &rules {
        match (in_code.contains(id), in_tests.contains(id)) {
            (true, true) => {}
            (false, true) => faults.push(format!("{id} ({name}): no code cites it")),
            (true, false) => faults.push(format!("{id} ({name}): no test cites it")),
            (false, false) => faults.push(format!("{id} ({name}): nothing cites it")),
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {} rules\n{}",
        faults.len(),
        rules.len(),
        faults.join("\n")
    );
}

#[test]
fn rule_ids_are_found_where_they_stand() {
    let text = "**PKT-3** see MIX-2, `GW-1`; not SHA-, X-1, xMIX-9, 25519-MLK; **DIR-5**.";
    let set = |ids: &[&str]| {
        ids.iter()
            .map(|id| (*id).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(rule_ids(text, true), set(&["PKT-3", "DIR-5"]));
    assert_eq!(
        rule_ids(text, false),
        set(&["PKT-3", "MIX-2", "GW-1", "DIR-5"])
    );
}
