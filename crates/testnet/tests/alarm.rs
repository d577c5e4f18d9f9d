//! An alarm between real processes (ATTACKS t01): one mix is cut off from everyone before it, as who wants only a
//! target's packets in it would do. Its own loops are lost, it says so, and everyone hears it.
//!
//! | when                                        | what must be seen                                                 |
//! |---------------------------------------------|-------------------------------------------------------------------|
//! | all links up (the control)                  | no alarm anywhere, for longer than the cut mix will take            |
//! | the mix's inbound links are shut            | it alarms within the computed time, and holds its output            |
//! |                                             | the gateways alarm as well, no other mix does                      |
//! |                                             | each node and both clients hear a notice                           |
//!
//! Nothing counts in the first 30 s of a node's loops (LOOP-4), which is most of what this takes. It waits for counts,
//! each within a limit.

use core::time::Duration;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use client::{
    api::{Request, Response},
    call::Call,
};
use proto::client::PATIENCE;
use serde_json::Value;
use shell::clock::Clock;
use testnet::{
    network::{CLIENTS, Network, Plan},
    progress::Progress,
};

/// Loops of each node: 2.2 / (0.03 × (3 + 2 / 3)) = 20 a second.
const PARAMS: &str = "delay_mean_ms = 30\n";
const LOOPS_HZ: u64 = 20;
/// From the first loop until they count, and a little more.
const WARM_UP_S: u64 = 32;
/// For so long nobody alarms while nothing is cut.
const CALM_S: u64 = 8;
/// Beyond the computed time: delays, ticks, a busy machine.
const SLACK: Duration = Duration::from_secs(8);
const LIMIT: Duration = Duration::from_secs(90);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// The mix that is cut off.
const CUT: usize = 4;
const MIXES: usize = 9;

/// What one node says of itself.
#[derive(Debug)]
struct Node {
    is_mix: bool,
    returned: u64,
    alarms: u64,
    /// Of others, and its own.
    notices: u64,
    until_noticed: u64,
    holds: u64,
}

/// Gateways first, then mixes.
async fn nodes(network: &Network) -> anyhow::Result<Vec<Node>> {
    let mut nodes = Vec::new();
    let mut holds = 0;
    for (path, page) in network.pages().await? {
        if path == "/metrics" {
            let count = |line: &str| line.strip_prefix("lacuna_mix_holds_total ")?.parse().ok();
            holds = page.lines().find_map(count).unwrap_or(0);
            continue;
        }
        let status: Value = serde_json::from_str(&page)?;
        let number = |part: &str, key: &str| status[part][key].as_u64().context("a number");
        nodes.push(Node {
            is_mix: status["role"] == "mix",
            returned: number("loops", "returned")?,
            alarms: number("loops", "alarms")?,
            notices: number("notices", "alarms")?,
            until_noticed: number("loops", "loops_until_noticed")?,
            holds,
        });
    }
    Ok(nodes)
}

/// Alarms of nodes that each client has heard of.
async fn heard(network: &Network) -> anyhow::Result<Vec<u64>> {
    let mut heard = Vec::new();
    for name in CLIENTS {
        let mut call = Call::open(&network.socket(name)).await?;
        let Response::Status(status) = call.ask(&Request::Status {}).await? else {
            anyhow::bail!("no status");
        };
        heard.push(status.counts.of("notice_alarm"));
    }
    Ok(heard)
}

/// Asks until `done` finds something in what the nodes say.
async fn until<T>(
    network: &Network,
    what: &str,
    limit: Duration,
    done: impl Fn(&[Node]) -> Option<T>,
) -> anyhow::Result<T> {
    let mut ask = tokio::time::interval(ASK_EVERY);
    let mut last = Vec::new();
    let asking = async {
        loop {
            last = nodes(network).await?;
            if let Some(found) = done(&last) {
                return anyhow::Ok(found);
            }
            ask.tick().await;
        }
    };
    let found = tokio::time::timeout(limit, asking).await;
    found.with_context(|| format!("{what}: {last:?}"))?
}

/// t01, LOOP-4, LOOP-5, LOOP-8, LOOP-9, MIX-6
#[tokio::test]
async fn attack_t01_a_mix_that_is_cut_off_alarms_and_everyone_hears_it() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let clock = Clock::start();
    let plan = Plan {
        executable: PathBuf::from(env!("CARGO_BIN_EXE_lacuna-testnet")),
        params: PARAMS.to_owned(),
        applications: false,
        ..Plan::demo(folder.path())?
    };
    let network = Network::start(plan, clock, &Progress::new()).await?;
    let calm = LOOPS_HZ * (WARM_UP_S + CALM_S);
    let all_calm = |nodes: &[Node]| nodes.iter().all(|node| node.returned >= calm).then_some(());
    until(&network, "loops", LIMIT, all_calm).await?;
    let before = nodes(&network).await?;
    for node in &before {
        ensure!((node.alarms, node.notices) == (0, 0), "control: {before:?}");
    }
    assert_eq!(heard(&network).await?, [0; 2], "control");
    let mixes = before.len() - MIXES;
    let computed_s = before[mixes + CUT].until_noticed as f64 / LOOPS_HZ as f64;
    let computed = PATIENCE + Duration::from_secs_f64(computed_s);
    ensure!(computed < Duration::from_secs(CALM_S), "{computed:?}");

    let cut = clock.now();
    network.shut_mix(CUT);
    let alarmed = |nodes: &[Node]| (nodes[mixes + CUT].alarms > 0).then_some(());
    until(&network, "no alarm", computed + SLACK, alarmed).await?;
    println!("computed: {computed:?}; took {:?}", clock.now().since(cut));
    let all_heard = |nodes: &[Node]| {
        let own = &nodes[mixes + CUT];
        let gateways = nodes.iter().filter(|node| !node.is_mix);
        let alarm = own.holds > 0 && gateways.clone().all(|node| node.alarms > 0);
        (alarm && nodes.iter().all(|node| node.notices > 0)).then_some(())
    };
    until(&network, "not heard", LIMIT, all_heard).await?;
    let mut ask = tokio::time::interval(ASK_EVERY);
    let clients = async {
        while heard(&network).await?.contains(&0) {
            ask.tick().await;
        }
        anyhow::Ok(())
    };
    let clients = tokio::time::timeout(LIMIT, clients).await;
    clients.context("a client heard nothing")??;
    for (at, node) in nodes(&network).await?.iter().enumerate() {
        let cut = at == mixes + CUT;
        assert!(
            !node.is_mix || cut || node.alarms == 0,
            "mix {at}: {node:?}"
        );
    }
    network.stop().await
}
