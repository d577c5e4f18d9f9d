//! Scenario files: what is refused and how it is said, and that every example runs.

use std::fs;

use sim::{
    outcome::FIGURES,
    scenario::{
        Engine, Scenario,
        keys::{KEYS, Value},
    },
    sweep::Plan,
};

/// A fault, and what the error must say: the line, the key, the value, what is allowed.
const REFUSED: &[(&str, &str)] = &[
    (
        "",
        "version is missing: it must be a whole number from 1 to 1",
    ),
    (
        "version = 2",
        "line 1: version = 2: must be a whole number from 1 to 1",
    ),
    (
        "version = 1\n\n[network]\nlayers = 99",
        "line 4: network.layers = 99: must be a whole number from 1 to 32",
    ),
    (
        "version = 1\n[network]\nlayers = 2.5",
        "line 3: network.layers = 2.5: must be a whole number from 1 to 32",
    ),
    (
        "version = 1\n[network]\nlayers = -3",
        "line 3: network.layers = -3: must be a whole number from 1 to 32",
    ),
    (
        "version = 1\n[network]\nlayer = 3",
        "line 3: unknown key network.layer; did you mean network.layers?",
    ),
    (
        "version = 1\n[mix]\ndelay_mean = 50",
        "line 3: unknown key mix.delay_mean; did you mean mix.delay_mean_ms?",
    ),
    (
        "version = 1\n[netwrok]\nlayers = 3",
        "line 2: unknown key netwrok; did you mean network?",
    ),
    (
        "version = 1\n[mix]\ndelay_mean_ms = \"fast\"",
        "line 3: mix.delay_mean_ms = \"fast\": must be a number from 0.001 to 600000",
    ),
    (
        "version = 1\n[mix]\ndelay_mean_ms = nan",
        "line 3: mix.delay_mean_ms = nan: must be a number from 0.001 to 600000",
    ),
    (
        "version = 1\n[mix]\ndelay_mean_ms = 0",
        "line 3: mix.delay_mean_ms = 0: must be a number from 0.001 to 600000",
    ),
    (
        "version = 1\nengine = \"fluid\"",
        "line 2: engine = \"fluid\": must be one of \"flow\", \"packet\"",
    ),
    (
        "version = 1\n[flow]\nguesswork = 1",
        "line 3: flow.guesswork = 1: must be true or false",
    ),
    (
        "version = 1\nnetwork = 3",
        "line 2: network = 3: must be a section, [network]",
    ),
    (
        "version = 1\nseed = 3",
        "line 2: unknown key seed; `lacuna-sim keys` lists those there are",
    ),
    // The first of several faults, by line.
    (
        "version = 1\n[mix]\nbatch = 0\n[network]\nlayers = 0",
        "line 3: mix.batch = 0: must be a whole number from 1 to 1000000",
    ),
    // What no single key can show.
    (
        "version = 1\n[network]\nmixes_per_layer = 3\n[adversary]\ncorrupt_mixes_per_layer = 4",
        "line 5: adversary.corrupt_mixes_per_layer = 4: must be at most network.mixes_per_layer = 3",
    ),
    (
        "version = 1\n[traffic]\npayload_per_user_per_s = 0",
        "line 3: traffic.payload_per_user_per_s = 0.0: must be above 0 unless \
         traffic.loop_per_user_per_s is",
    ),
    (
        "version = 1\n[traffic]\nusers = 1000000000",
        "line 3: traffic.users = 1000000000: must keep at most 100000000 packets in flight, in mixes \
         and on links, here 1.5000e8",
    ),
    (
        "version = 1\n[traffic]\nusers = 10000000\n[flow]\nguesswork = true",
        "line 3: traffic.users = 10000000: must keep at most 1000000 packets in flight, in mixes and on \
         links, with flow.guesswork, here 1.5000e6",
    ),
    (
        "version = 1\n[traffic]\nusers = 1\npayload_per_user_per_s = 1e-9",
        "line 3: traffic.users = 1: must keep at least 0.001 packets of users in mixes, on average, \
         here 1.5000e-10",
    ),
    // What takes room besides users' packets in mixes.
    (
        "version = 1\n[network]\nmixes_per_layer = 9999\n[traffic]\nloop_per_mix_per_s = 9e4",
        "line 5: traffic.loop_per_mix_per_s = 90000.0: must keep at most 30000000 packets in flight, in \
         mixes and on links, here 4.0496e8",
    ),
    (
        "version = 1\n[adversary]\nflood_per_s = 1e9",
        "line 3: adversary.flood_per_s = 1000000000.0: must keep at most 30000000 packets in flight, in \
         mixes and on links, here 1.5000e8",
    ),
    (
        "version = 1\n[traffic]\nusers = 3000000\n[links]\njitter_ms = 9999",
        "line 5: links.jitter_ms = 9999.0: must keep at most 30000000 packets in flight, in mixes and on \
         links, here 6.0444e7",
    ),
    (
        "version = 1\n[traffic]\nusers = 400000\n[adversary]\ndelay_ms = 600000\n\
         corrupt_mixes_per_layer = 1",
        "line 5: adversary.delay_ms = 600000.0: must keep at most 30000000 packets in flight, in mixes \
         and on links, here 2.4006e8",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"timed\"\n[links]\nregions_ms = \"9999\"\n[traffic]\nusers = 999999",
        "line 5: links.regions_ms = \"9999\": must keep at most 10000000 packets in flight, in mixes and \
         on links, here 4.2996e7",
    ),
    // What takes longer than the clock can count.
    (
        "version = 1\n[mix]\ndelay_mean_ms = 0.001\n[traffic]\nusers = 10000\n[links]\njitter_ms = 999",
        "line 7: links.jitter_ms = 999.0: must keep the time that links, lines and corrupt mixes take on \
         a way, here up to 3.996 s, within 1 s: 1000000 mean delays or batches",
    ),
    (
        "version = 1\n[mix]\ndelay_mean_ms = 0.001\n[traffic]\nusers = 10000\n[adversary]\n\
         delay_ms = 999\ncorrupt_mixes_per_layer = 3",
        "line 7: adversary.delay_ms = 999.0: must keep the time that links, lines and corrupt mixes take \
         on a way, here up to 2.997 s, within 1 s: 1000000 mean delays or batches",
    ),
    (
        "version = 1\n[mix]\ndelay_mean_ms = 1\npackets_per_s = 3.6\n[traffic]\nusers = 1\n\
         payload_per_user_per_s = 10",
        "line 4: mix.packets_per_s = 3.6: must keep the time that links, lines and corrupt mixes take on \
         a way, here up to 1518.75 s, within 1000 s: 1000000 mean delays or batches",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"pool\"\nbatch = 1000000\nkept = 1000000",
        "line 4: mix.batch = 1000000: must keep at most 10000000 packets in flight, in mixes and on \
         links, here 1.8000e7",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"pool\"\nbatch = 1\nkept = 101",
        "line 5: mix.kept = 101: must be at most 100 × the packets of a batch, 1",
    ),
    (
        "version = 1\nengine = \"packet\"\n[network]\ntopology = \"cascade\"",
        "line 4: network.topology = \"cascade\": must be \"stratified\" for engine = \"packet\"",
    ),
    // What the chosen engine, topology, strategy or pattern does not read.
    (
        "version = 1\n[network]\ntopology = \"p2p\"\nmixes_per_layer = 5",
        "line 4: network.mixes_per_layer = 5: must be left out, for it has no effect: with network.topology = \"p2p\" the mixes are the users",
    ),
    (
        "version = 1\n[network]\ngateways = 5",
        "line 3: network.gateways = 5: must be left out, for it has no effect: engine = \"flow\" has no gateways",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"timed\"\ndelay_mean_ms = 20",
        "line 4: mix.delay_mean_ms = 20.0: must be left out, for it has no effect: mix.strategy is not \"poisson\"",
    ),
    (
        "version = 1\n[mix]\nbatch = 5",
        "line 3: mix.batch = 5: must be left out, for it has no effect: mix.strategy is not \"pool\"",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"pool\"\ninterval_ms = 5",
        "line 4: mix.interval_ms = 5.0: must be left out, for it has no effect: mix.strategy is not \"timed\" or \"dynamic\"",
    ),
    (
        "version = 1\n[mix]\nkept = 5",
        "line 3: mix.kept = 5: must be left out, for it has no effect: mix.strategy is \"poisson\", which keeps no packets back",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"timed\"\nfraction = 0.5",
        "line 4: mix.fraction = 0.5: must be left out, for it has no effect: mix.strategy is not \"dynamic\"",
    ),
    (
        "version = 1\n[links]\nregions_ms = \"0\"\ndelay_ms = 5",
        "line 4: links.delay_ms = 5.0: must be left out, for it has no effect: links.regions_ms has the delays",
    ),
    (
        "version = 1\n[traffic]\npattern = \"trace\"\ntrace_s = \"1, 2\"\npayload_per_user_per_s = 5",
        "line 5: traffic.payload_per_user_per_s = 5.0: must be left out, for it has no effect: with traffic.pattern = \"trace\" packets are at the times of traffic.trace_s",
    ),
    (
        "version = 1\n[traffic]\npattern = \"trace\"\ntrace_s = \"1, 2\"\nloop_per_user_per_s = 5",
        "line 5: traffic.loop_per_user_per_s = 5.0: must be left out, for it has no effect: with traffic.pattern = \"trace\" packets are at the times of traffic.trace_s",
    ),
    (
        "version = 1\n[traffic]\nonline_s = 5",
        "line 3: traffic.online_s = 5.0: must be left out, for it has no effect: traffic.pattern is not \"on-off\" or \"sessions\"",
    ),
    (
        "version = 1\n[traffic]\npattern = \"sessions\"\noffline_s = 5",
        "line 4: traffic.offline_s = 5.0: must be left out, for it has no effect: traffic.pattern is not \"on-off\"",
    ),
    (
        "version = 1\n[traffic]\ntrace_s = \"1, 2\"",
        "line 3: traffic.trace_s = \"1, 2\": must be left out, for it has no effect: traffic.pattern is not \"trace\"",
    ),
    (
        "version = 1\n[flow]\npopularity_exponent = 1",
        "line 3: flow.popularity_exponent = 1.0: must be left out, for it has no effect: flow.receivers is 0",
    ),
    (
        "version = 1\nengine = \"packet\"\n[adversary]\ncorrupt_mixes_per_layer = 1",
        "line 4: adversary.corrupt_mixes_per_layer = 1: must be 0 for engine = \"packet\"",
    ),
    (
        "version = 1\nengine = \"packet\"\n[adversary]\nplacement = \"random\"",
        "line 4: adversary.placement = \"random\": must be \"greedy\" for engine = \"packet\"",
    ),
    (
        "version = 1\nengine = \"packet\"\n[traffic]\nframe_bytes = 100",
        "line 4: traffic.frame_bytes = 100: must be 2432 for engine = \"packet\"",
    ),
    (
        "version = 1\nengine = \"packet\"\n[links]\nloss_ppm = 3",
        "line 4: links.loss_ppm = 3: must be 0 for engine = \"packet\"",
    ),
    (
        "version = 1\nengine = \"packet\"\n[links]\nregions_ms = \"0\"",
        "line 4: links.regions_ms = \"0\": must be absent for engine = \"packet\"",
    ),
    (
        "version = 1\n[links]\nregions_ms = \"0,1\\n2\"",
        "line 3: links.regions_ms = \"0,1\\n2\": must be up to 100 lines of as many numbers from 0 \
         to 10000, separated by commas",
    ),
    (
        "version = 1\n[traffic]\npattern = \"trace\"",
        "traffic.trace_s = \"\" (the default): must be at least one time in seconds, the last above \
         0, in ascending order, separated by commas or line ends",
    ),
    (
        "version = 1\n[traffic]\npattern = \"trace\"\ntrace_s = \"2, 1\"",
        "line 4: traffic.trace_s = \"2, 1\": must be at least one time in seconds, the last above \
         0, in ascending order, separated by commas or line ends",
    ),
    (
        "version = 1\n[traffic]\npattern = \"on-off\"\nonline_s = 60000",
        "line 4: traffic.online_s = 60000.0: must keep times within 50000 s: 1000000 mean delays or \
         batches",
    ),
    (
        "version = 1\n[mix]\npackets_per_s = 20",
        "line 3: mix.packets_per_s = 20.0: must be 0 or at least 35.08772, so that what comes to a mix over \
         links loads it to 0.95 at most, here 1.66667",
    ),
    (
        "version = 1\n[mix]\npackets_per_s = 36\n[traffic]\nloop_per_mix_per_s = 1",
        "line 3: mix.packets_per_s = 36.0: must be 0 or at least 37.19298, so that what comes to a mix over \
         links loads it to 0.95 at most, here 0.981481",
    ),
    (
        "version = 1\n[network]\ntopology = \"free\"\n[mix]\nstrategy = \"timed\"",
        "line 5: mix.strategy = \"timed\": must be \"poisson\" with free routes: a batch would mix \
         packets of all hops",
    ),
    (
        "version = 1\n[network]\ntopology = \"free\"\nmixes_per_layer = 9999\nlayers = 9",
        "line 4: network.mixes_per_layer = 9999: must keep layers² × mixes per layer at most 320000 \
         with free routes",
    ),
    (
        "version = 1\n[flow]\ncontacts_per_user = 3",
        "line 3: flow.contacts_per_user = 3: must be 0 unless flow.receivers is above 0",
    ),
    (
        "version = 1\n[links]\njitter_ms = 3\n[flow]\ngames = 8",
        "line 5: flow.games = 8: must be 0 unless users are steady, links take one constant time and carry \
         no dummies, mixes have no limit and the adversary only watches, and every link",
    ),
    (
        "version = 1\n[traffic]\nusers = 1\n[flow]\ngames = 8",
        "line 5: flow.games = 8: must be 0 unless traffic.users is from 2 to 10000 and at most 20000 \
         packets are in flight (here 0.15)",
    ),
    (
        "version = 1\n[traffic]\nusers = 1000\nloop_per_mix_per_s = 100000\n[flow]\ngames = 8",
        "line 6: flow.games = 8: must be 0 unless traffic.users is from 2 to 10000 and at most 20000 \
         packets are in flight (here 135150)",
    ),
    (
        "version = 1\n[adversary]\nflood_per_s = 3\n[flow]\ngames = 8",
        "line 5: flow.games = 8: must be 0 unless users are steady, links take one constant time and carry \
         no dummies, mixes have no limit and the adversary only watches, and every link",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"timed\"\n[traffic]\ndummy_per_user_per_s = 1.0",
        "line 5: traffic.dummy_per_user_per_s = 1.0: must be 0 unless mix.strategy is \"poisson\", users are \
         steady and mixes have no limit: elsewhere which packets were dummies could be told",
    ),
    (
        "version = 1\n[mix]\npackets_per_s = 1000\n[traffic]\ndummy_per_mix_per_s = 1.0",
        "line 5: traffic.dummy_per_mix_per_s = 1.0: must be 0 where mixes have a limit (mix.packets_per_s)",
    ),
    (
        "version = 1\n[adversary]\nunwatched_mixes_per_layer = 4",
        "line 3: adversary.unwatched_mixes_per_layer = 4: must be at most 3, all mixes",
    ),
    (
        "version = 1\n[adversary]\nunwatched_layers = \"1, 4\"",
        "line 3: adversary.unwatched_layers = \"1, 4\": must name layers from 1 to network.layers = 3",
    ),
    (
        "version = 1\n[adversary]\nunwatched_layers = \"first\"",
        "line 3: adversary.unwatched_layers = \"first\": must list layers from 1 to 32, as in \"1, 3\"",
    ),
    (
        "version = 1\n[network]\ntopology = \"cascade\"\n[adversary]\nunwatched_layers = \"1\"",
        "line 5: adversary.unwatched_layers = \"1\": must be empty unless network.topology is \
         \"stratified\": a packet stays in its cascade, and a mix is in all layers of a free route",
    ),
    (
        "version = 1\n[mix]\nstrategy = \"pool\"\n[adversary]\nunwatched_mixes_per_layer = 2",
        "line 5: adversary.unwatched_mixes_per_layer = 2: must watch all unless mix.strategy is \
         \"poisson\", mixes have no limit and links no regions: elsewhere times tell one mix from another",
    ),
    (
        "version = 1\n[adversary]\nunwatched_mixes_per_layer = 1\n[flow]\ngames = 8",
        "line 5: flow.games = 8: must be 0 unless users are steady, links take one constant time and carry \
         no dummies, mixes have no limit and the adversary only watches, and every link",
    ),
    (
        "version = 1\n[network]\ntopology = \"p2p\"\n[traffic]\nusers = 1",
        "line 5: traffic.users = 1: must be from 2 to 106666 for network.topology = \"p2p\"",
    ),
    (
        "version = 1\n[network]\ntopology = \"p2p\"\n[adversary]\ncorrupt_mixes_per_layer = 34",
        "line 5: adversary.corrupt_mixes_per_layer = 34: must be at most traffic.users / \
         network.layers = 33",
    ),
    (
        "version = 1\nengine = \"packet\"\n[mix]\nstrategy = \"pool\"",
        "line 4: mix.strategy = \"pool\": must be \"poisson\" for engine = \"packet\"",
    ),
    (
        "version = 1\n[network]\nmixes_per_layer = 1000\n[flow]\ngames = 8",
        "line 5: flow.games = 8: must be 0 unless there are at most 2000 pools, one for each mix and hop (here 3000)",
    ),
    // What the deployed machines can't do, and what does not fit into memory as packets.
    (
        "version = 1\nengine = \"packet\"\n[network]\nlayers = 4",
        "line 4: network.layers = 4: must be 3 for engine = \"packet\": the mixes of a deployed client's route",
    ),
    (
        "version = 1\nengine = \"packet\"\n[mix]\ndelay_mean_ms = 1.4",
        "line 4: mix.delay_mean_ms = 1.4: must be a whole number from 1 to 60000 for engine = \"packet\": the \
         network's document has no fractions",
    ),
    (
        "version = 1\nengine = \"packet\"\n[traffic]\npayload_per_user_per_s = 6000",
        "line 4: traffic.payload_per_user_per_s = 6000.0: must keep payload and loops of a user at most 5000 per \
         second together for engine = \"packet\", here 6000",
    ),
    (
        "version = 1\nengine = \"packet\"\n[mix]\ndelay_mean_ms = 200\n[packet]\nepoch_s = 90",
        "line 6: packet.epoch_s = 90: must be at least 173 for this mix.delay_mean_ms and packet.duration_s: packets \
         must be through before keys change, and the keys of two documents outlast the run",
    ),
    (
        "version = 1\nengine = \"packet\"\n[packet]\nepoch_s = 90\nduration_s = 86400",
        "line 4: packet.epoch_s = 90: must be at least 709 for this mix.delay_mean_ms and packet.duration_s: packets \
         must be through before keys change, and the keys of two documents outlast the run",
    ),
    (
        "version = 1\nengine = \"packet\"\n[network]\nmixes_per_layer = 10000",
        "line 4: network.mixes_per_layer = 10000: must keep at most 1000 mixes and gateways for engine = \"packet\", \
         here 30002",
    ),
    (
        "version = 1\nengine = \"packet\"\n[traffic]\nusers = 1000000000",
        "line 4: traffic.users = 1000000000: must keep at most 100000 users for engine = \"packet\", here 1000000000",
    ),
    (
        "version = 1\nengine = \"packet\"\n[packet]\nmessages_per_user = 100000",
        "line 4: packet.messages_per_user = 100000: must keep at most 1000000 messages of all users for engine = \
         \"packet\", here 10000000",
    ),
    (
        "version = 1\nengine = \"packet\"\n[packet]\nmessage_bytes = 10000000",
        "line 4: packet.message_bytes = 10000000: must keep at most 1000000000 bytes in all messages for engine = \
         \"packet\", here 3000000000",
    ),
];

#[test]
fn a_bad_scenario_is_refused_with_key_value_range_and_line() {
    for (text, expected) in REFUSED {
        let error = Scenario::parse(text).expect_err(text).to_string();
        assert_eq!(error, *expected, "for\n{text}");
    }
}

#[test]
fn faults_of_syntax_show_their_line() {
    for (text, line, shows) in [
        ("version = 1\n[network\nlayers = 3", 2, "[network"),
        ("version = 1\nversion = 1", 2, "duplicate key: version = 1"),
        ("version = 1\ntitle = \"open", 2, "title = \"open"),
        ("version = 1\n[flow]\ntargets = 1_\n", 3, "targets = 1_"),
    ] {
        let error = Scenario::parse(text).expect_err(text);
        assert_eq!(error.line, Some(line), "{error}");
        assert!(error.message.ends_with(shows), "{error}");
    }
}

/// None of n is not none at all: the interval is Wilson's.
#[test]
fn no_impossible_sender_among_some_leaves_a_doubt() {
    let text = "version = 1\n[mix]\ndelay_mean_ms = 1000\n[traffic]\nusers = 1000\n[flow]\ntargets = 16\ngames = 16";
    let outcome = sim::run(&Scenario::parse(text).unwrap(), 1, &|_| ()).unwrap();
    let delta = outcome.figure("loopix_delta").unwrap().estimate;
    assert!(delta.value.abs() < 1e-12, "{delta:?}");
    let (low, high) = delta.interval();
    assert!(
        low.abs() < 1e-12 && high > 0.05 && high < 0.8,
        "{low} {high}"
    );
}

/// What makes `scenario` short enough for a test.
fn small(scenario: &Scenario) -> Vec<(&'static str, Value)> {
    let (flow, packet) = (&scenario.flow, &scenario.packet);
    vec![
        ("flow.targets", Value::Count(16)),
        ("flow.window_means", Value::Real(1.0)),
        ("flow.games", Value::Count(flow.games.min(16))),
        (
            "traffic.users",
            Value::Count(scenario.traffic.users.min(10_000)),
        ),
        (
            "packet.duration_s",
            Value::Real(packet.duration_s.min(20.0)),
        ),
    ]
}

/// The text of a file of this crate.
fn shipped(name: &str) -> String {
    let path = format!("{}/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of the files in a folder of this crate.
fn names(folder: &str) -> Vec<String> {
    let path = format!("{}/{folder}", env!("CARGO_MANIFEST_DIR"));
    let files = fs::read_dir(path).expect("the folder is there");
    files
        .map(|file| {
            let name = file.expect("readable").file_name();
            name.into_string().expect("utf-8")
        })
        .collect()
}

/// Every example runs, cut to a size for tests; on the packet engine every message arrives.
#[test]
fn every_example_runs() {
    let (mut flows, mut packets) = (0, 0);
    for name in names("scenarios") {
        let text = shipped(&format!("scenarios/{name}"));
        let whole = Scenario::parse(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!whole.title.is_empty(), "{name} needs a title");
        let scenario = Scenario::parse_with(&text, small(&whole)).unwrap();
        let outcome = sim::run(&scenario, 1, &|_| ()).unwrap();
        assert_eq!(outcome.failures, Vec::<String>::new(), "{name}");
        for figure in &outcome.figures {
            assert!(FIGURES.contains(&figure.name.as_str()), "{}", figure.name);
        }
        match whole.engine {
            Engine::Flow => {
                let entropy = outcome.figure("entropy_mean_bits").expect("always there");
                assert!(entropy.estimate.value > 1.0, "{name}");
                assert_eq!(outcome.plots.len(), 4, "{name}");
                flows += 1;
            }
            Engine::Packet => {
                let said = scenario.traffic.users * scenario.packet.messages_per_user;
                assert_eq!(outcome.counts["messages_delivered"], said, "{name}");
                assert_eq!(outcome.plots.len(), 2, "{name}");
                packets += 1;
            }
        }
    }
    assert!(flows >= 6 && packets >= 1, "{flows}, {packets} examples");
}

/// Every sweep that is shipped runs at its first and its last point, cut to a size for tests, and
/// gives the figures that its pictures show.
#[test]
fn every_sweep_runs() {
    let mut seen = 0;
    for name in names("sweeps") {
        let grid = shipped(&format!("sweeps/{name}"));
        let base = |path: &str| Ok(shipped(&format!("sweeps/{path}")));
        let plan = Plan::new(&grid, base).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(plan.runs.len() > 1 && !plan.figures.is_empty(), "{name}");
        for run in [&plan.runs[0], &plan.runs[plan.runs.len() - 1]] {
            let whole = Scenario::parse(&run.scenario).unwrap();
            let scenario = Scenario::parse_with(&run.scenario, small(&whole)).unwrap();
            let outcome = sim::run(&scenario, run.seed, &|_| ()).unwrap();
            assert_eq!(outcome.failures, Vec::<String>::new(), "{name}");
            for figure in &plan.figures {
                assert!(outcome.figure(figure).is_some(), "{name}: {figure}");
            }
        }
        seen += 1;
    }
    assert!(seen >= 4, "{seen} sweeps");
}

/// The guide's table of keys is the table in the code. `BLESS=1 cargo test -p sim` writes it.
#[test]
fn the_guide_lists_every_key() {
    const BEGIN: &str = "<!-- keys: written by sim/tests/scenarios.rs -->\n";
    const END: &str = "<!-- end of keys -->";
    let mut table = "| key | holds | default | meaning |\n|---|---|---|---|\n".to_owned();
    for key in KEYS {
        let default = match &key.default {
            Some(default) => format!("`{default}`"),
            None => "required".to_owned(),
        };
        let (name, kind, meaning) = (key.name, key.kind, key.meaning);
        table += &format!("| `{name}` | {kind} | {default} | {meaning} |\n");
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/SIMULATOR.md");
    let guide = fs::read_to_string(path).expect("docs/SIMULATOR.md");
    let (before, rest) = guide.split_once(BEGIN).expect("the table begins");
    let (listed, after) = rest.split_once(END).expect("the table ends");
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, [before, BEGIN, &table, END, after].concat()).expect("writable");
    } else {
        assert_eq!(listed, table, "run with BLESS=1 if the change is meant");
    }
}
