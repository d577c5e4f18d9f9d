//! Messages between two client machines over a tiny network: delivered once, whatever happens.

mod client_net;

use client_net::{Net, params, rates, secs};
use proto::client::{ClientEvent, Return, State};

fn body(len: usize, salt: u8) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8 ^ salt).collect()
}

/// CLI-24, MSG-5
#[test]
fn a_message_is_queued_sent_delivered_and_acked() {
    let mut net = Net::new(1, params(rates(5.0, 0.5, 20.0), 3600), 2);
    assert!(!net.run(secs(1.0), |_| false));
    net.send(0, 7, 1, body(100, 1), Return::Address);
    assert!(net.run(secs(60.0), |net| net.states(0, 7).contains(&State::Acked)));
    assert_eq!(net.states(0, 7), [State::Queued, State::Sent, State::Acked]);
    assert_eq!(net.bodies(1), [body(100, 1)]);
    net.run(secs(120.0), |_| false);
    assert!(net.count(0, ClientEvent::DropSent) > 100);
    assert!(
        net.count(
            0,
            ClientEvent::LoopReturned {
                latency: core::time::Duration::ZERO
            }
        ) > 20
    );
}
