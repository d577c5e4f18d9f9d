//! Whether the figures that a grid names can be drawn, as far as scenarios show it before they are run.
//!
//! What depends on the run is not known here: how many packets leave in a window, whether anybody is alarmed.

use crate::{
    flow::Setup,
    outcome::FIGURES,
    scenario::{Engine, Scenario},
    stats::quantile_groups,
};

/// Whether there is a figure of this name at all.
pub(super) fn known(figure: &str) -> Result<(), String> {
    if FIGURES.contains(&figure) {
        return Ok(());
    }
    let distance = |known: &&&str| strsim::osa_distance(known, figure);
    let nearest = FIGURES.iter().min_by_key(distance).unwrap_or(&"");
    Err(format!(
        "figures: no run has a figure {figure}; did you mean {nearest}?"
    ))
}

/// Whether one of `scenarios` measures `figure`.
pub(super) fn measured(figure: &str, scenarios: &[Scenario]) -> Result<(), String> {
    let mut why = None;
    for scenario in scenarios {
        match needs(figure, scenario) {
            None => return Ok(()),
            needs => why = why.or(needs),
        }
    }
    match why {
        None => Ok(()),
        Some(needs) => Err(format!("figures: no run has {figure}: it needs {needs}")),
    }
}

/// What `figure` needs that `scenario` has not.
fn needs(figure: &str, scenario: &Scenario) -> Option<&'static str> {
    let starts = |words: &[&str]| words.iter().any(|word| figure.starts_with(word));
    let ends = |end: &str| figure.ends_with(end);
    let packet = starts(&["message_", "loop_", "first_"]);
    if packet || figure == "occupancy_mean_packets" {
        let fits = !packet || scenario.engine == Engine::Packet;
        return (!fits).then_some("engine = \"packet\"");
    }
    let flow = &scenario.flow;
    let few = |n, q| quantile_groups(1, n, q).is_none();
    // A user's are those of one pass, eight messages.
    let users = Setup::replications(flow.targets);
    let messages = 8 * users;
    let (lacks, needs) = match figure {
        _ if scenario.engine != Engine::Flow => (true, "engine = \"flow\""),
        "guesswork_mean_packets" => (!flow.guesswork, "flow.guesswork = true"),
        "pass_entropy_p01_bits" => (few(users, 0.01), "flow.targets of at least 8000"),
        "pass_entropy_p05_bits" => (few(users, 0.05), "flow.targets of at least 1600"),
        "pass_entropy_p50_bits" => (few(users, 0.5), "flow.targets of at least 160"),
        _ if starts(&["receiver_"]) && flow.receivers == 0 => (true, "flow.receivers above 0"),
        _ if starts(&["contact_"]) && flow.contacts == 0 => {
            (true, "flow.contacts_per_user above 0")
        }
        _ if starts(&["loopix_", "unlinkability_"]) => (flow.games == 0, "flow.games above 0"),
        _ if ends("_p01_bits") => (few(messages, 0.01), "flow.targets of at least 1000"),
        _ if ends("_p05_bits") => (few(messages, 0.05), "flow.targets of at least 200"),
        _ if ends("_p50_bits") => (few(messages, 0.5), "flow.targets of at least 20"),
        _ => (false, ""),
    };
    lacks.then_some(needs)
}
