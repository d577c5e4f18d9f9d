//! `lacuna-sim keys`: the scenario language.

use sim::scenario::keys::KEYS;

/// Prints every key of a scenario.
#[expect(clippy::print_stdout, reason = "the results of this command")]
pub(crate) fn run() {
    for key in KEYS {
        let default = match &key.default {
            Some(default) => format!("default {default}"),
            None => "required".to_owned(),
        };
        println!(
            "{}\n    {}\n    {}; {default}",
            key.name, key.meaning, key.kind
        );
    }
}
