//! An outage is no attack (LOOP-12): loops that it takes say nothing, nor do those through a mix that has
//! said that it holds, and no longer than that.

mod client_net;

use core::time::Duration;

use client_net::{
    NETWORK, Net, config, consensus, gateway_id, mix_id, own_family, params, rates, utc_at,
};
use ed25519_dalek::SigningKey;
use proto::{
    NodeId,
    client::{ClientEvent, Config, Input},
    directory::params::NODE_PROFILE,
    notice::{Notice, What},
};

/// Two mixes that can speak for themselves, in the second and the third layer.
fn speakers() -> [SigningKey; 2] {
    [1, 2].map(|seed| SigningKey::from_bytes(&[seed; 32]))
}

fn id(of: &SigningKey) -> NodeId {
    NodeId(of.verifying_key().to_bytes())
}

/// Whose machine it is; its mailbox is at the gateway of its number in a network.
#[derive(Clone, Copy, Debug)]
enum Of {
    Client,
    Mix,
    Gateway,
}

const ALL: [Of; 3] = [Of::Client, Of::Mix, Of::Gateway];

/// Machines in one network, once their loops count.
fn watching<const N: usize>(of: [Of; N]) -> Net {
    let params = params(rates(1.0, 2.0, 60.0), 86_400);
    let (mut consensus, mut secrets) = consensus(params, 3, 4, own_family);
    for (layer, key) in (1..).zip(speakers()) {
        let (before, own) = (mix_id(layer, 0), id(&key));
        let node = consensus.nodes.iter_mut().find(|node| node.id == before);
        let node = node.expect("a mix");
        (node.id, node.family) = (own, own_family(own));
        let mixes = &mut consensus.layers[usize::from(layer)];
        mixes.retain(|mix| *mix != before);
        mixes.push(own);
        mixes.sort();
        let keys = secrets.remove(&before).expect("its keys");
        secrets.insert(own, keys);
    }
    consensus.nodes.sort_by_key(|node| node.id);
    let mut net = Net::with(7, consensus, secrets, u8::try_from(N).expect("few"));
    for (peer, of) in net.peers.iter_mut().zip(of) {
        let profile = match of {
            Of::Client => continue,
            Of::Mix | Of::Gateway => NODE_PROFILE.to_owned(),
        };
        peer.config = Config {
            profile,
            via: matches!(of, Of::Mix).then(|| mix_id(0, 0)),
            ..config()
        };
    }
    pass(&mut net, 45);
    assert!((0..N).all(|peer| alarms(&net, peer) == 0));
    net
}

fn pass(net: &mut Net, seconds: u64) {
    net.run(net.now.after(Duration::from_secs(seconds)), |_| false);
}

fn alarms(net: &Net, peer: usize) -> u64 {
    net.client(peer).watching().alarms
}

fn lost(net: &Net, peer: usize) -> u64 {
    net.count(peer, ClientEvent::LoopLost)
}

fn unjudged(net: &Net, peer: usize) -> u64 {
    net.count(peer, ClientEvent::LoopUnjudged)
}

/// What that mix says of itself comes to every client.
fn cry(net: &mut Net, mix: &SigningKey) {
    let frame = Notice::new(What::Alarm, id(mix), utc_at(net.now)).sign(&NETWORK, mix);
    for peer in 0..net.peers.len() {
        net.frame(peer, frame.clone());
    }
}

/// The gateway of peer 0's mailbox is gone for so long; the links of the last mixes to it are back ten
/// seconds after its own.
fn outage(net: &mut Net, seconds: u64) {
    net.dead.insert(gateway_id(0));
    net.loss = 1.0;
    pass(net, seconds);
    net.dead.clear();
    pass(net, 10);
    net.loss = 0.0;
}

/// LOOP-12: nobody whose mailbox is at a gateway that goes and comes back takes that for an attack; what
/// got no verdict is counted; and then loops count again.
#[test]
fn an_outage_of_the_mailboxs_gateway_raises_no_alarm() {
    for of in ALL {
        for seconds in [10, 60] {
            let mut net = watching([of]);
            let judged = net.client(0).watching().judged;
            outage(&mut net, seconds);
            let during = net.client(0).watching().judged;
            assert!(
                during.zip(judged).is_some_and(|(during, judged)| {
                    during.since(judged) < Duration::from_secs(1)
                })
            );
            pass(&mut net, 60);
            let figures = [alarms(&net, 0), lost(&net, 0)];
            assert_eq!(figures, [0; 2], "{of:?}, {seconds} s");
            assert!(unjudged(&net, 0) > seconds + 10, "{of:?}, {seconds} s");

            net.blocked.insert(mix_id(0, 0));
            let noticed = net.run(net.now.after(Duration::from_secs(90)), |net| {
                alarms(net, 0) > 0
            });
            assert!(noticed, "{of:?}, {seconds} s");
        }
    }
}

/// LOOP-12: a gateway that stands still, and leaves its links up, is no attack either; nor are the loops
/// that an entry link took with it. The controls: the same loops lost, with nothing that says why.
#[test]
fn what_a_gateway_that_stands_still_or_an_entry_that_breaks_takes_along_says_nothing() {
    let mut net = watching([Of::Mix]);
    net.frozen.insert(gateway_id(0));
    net.loss = 1.0;
    pass(&mut net, 10);
    net.frozen.clear();
    pass(&mut net, 2);
    net.loss = 0.0;
    pass(&mut net, 60);
    assert_eq!([alarms(&net, 0), lost(&net, 0)], [0; 2]);

    for breaks in [true, false] {
        let mut net = watching([Of::Mix]);
        net.loss = 1.0;
        pass(&mut net, 4);
        net.loss = 0.0;
        if breaks {
            let gateway = net.client(0).entry().expect("it has one");
            net.input(0, Input::EntryDown { gateway });
            net.input(0, Input::EntryUp { gateway });
        }
        pass(&mut net, 20);
        assert_eq!(lost(&net, 0) == 0, breaks);
    }
}

/// LOOP-12 (t01): an attack on a mix during an outage is noticed by those whose mailbox is elsewhere, and
/// after it by those whose mailbox was there.
#[test]
fn an_attack_during_an_outage_is_noticed() {
    let mut net = watching([Of::Gateway, Of::Gateway]);
    net.dead.insert(gateway_id(0));
    net.blocked.insert(mix_id(0, 0));
    pass(&mut net, 20);
    assert_eq!([alarms(&net, 0), alarms(&net, 1)], [0, 1]);
    net.dead.clear();
    let later = net.now.after(Duration::from_secs(50));
    assert!(net.run(later, |net| alarms(net, 0) > 0));
}

/// Two mixes hold for 30 s, once they have `said` so: alarms of a client, another mix and a gateway a
/// minute after the end.
fn two_hold(said: bool) -> [u64; 3] {
    let mut net = watching(ALL);
    let speakers = speakers();
    if said {
        speakers.iter().for_each(|mix| cry(&mut net, mix));
    }
    net.blocked.extend(speakers.iter().map(id));
    pass(&mut net, 30);
    net.blocked.clear();
    pass(&mut net, 60);
    [0, 1, 2].map(|peer| alarms(&net, peer))
}

/// LOOP-12, MIX-6: mixes that hold bring nobody else to hold or to alarm, since they have said so.
#[test]
fn holds_do_not_spread() {
    assert_eq!(two_hold(true), [0; 3]);
    assert!(
        two_hold(false).iter().all(|alarms| *alarms > 0),
        "the control"
    );
}

/// LOOP-12 (t11): a mix that cries, again and again, hides no other, and itself for half a minute in ten.
#[test]
fn a_crying_mix_does_not_blind_the_watch() {
    let [crier, other] = speakers();
    for blocked in [&other, &crier] {
        let mut net = watching([Of::Client, Of::Gateway]);
        cry(&mut net, &crier);
        net.blocked.insert(id(blocked));
        let mut minutes = 0;
        while minutes < 3 && !(0..2).all(|peer| alarms(&net, peer) > 0) {
            pass(&mut net, 60);
            cry(&mut net, &crier);
            minutes += 1;
        }
        let most = if *blocked == other { 1 } else { 2 };
        assert!(minutes <= most, "{minutes}");
    }
    // It holds again ten minutes later at the earliest, and says so.
    let mut net = watching([Of::Client]);
    for holds in [1, 2] {
        cry(&mut net, &crier);
        let before = unjudged(&net, 0);
        pass(&mut net, 30);
        assert!(unjudged(&net, 0) > before + 10, "hold {holds}");
        pass(&mut net, 570);
    }
}
