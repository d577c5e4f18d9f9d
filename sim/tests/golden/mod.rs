//! Golden tables: exact results of small runs. After a change that is meant: `BLESS=1 cargo test -p sim`.

use std::{fs, path::Path};

use sim::outcome::Outcome;

/// What `outcome` holds, to nine digits: what libm may round differently elsewhere is beyond them.
pub(crate) fn of(name: &str, outcome: &Outcome) -> String {
    let mut table = format!("{name}\n");
    for figure in &outcome.figures {
        table += &format!("  {} {:.8e}\n", figure.name, figure.estimate.value);
    }
    if !outcome.counts.is_empty() {
        table += &format!("  {:?}\n", outcome.counts);
    }
    table
}

/// Holds `table` to the file of that name.
pub(crate) fn hold(name: &str, table: &str) {
    let file = format!("tests/golden/{name}.txt");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, table).expect("writable");
    }
    let golden = fs::read_to_string(&path).expect("BLESS=1 writes it");
    for (line, golden) in table.lines().zip(golden.lines()) {
        assert_eq!(line, golden, "run with BLESS=1 if the change is meant");
    }
    assert_eq!(table.lines().count(), golden.lines().count());
}
