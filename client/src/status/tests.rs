//! What a status says in words and figures.

use super::*;
use proto::directory::Params;

/// CLI-29: each way in which a link can be down is told in words of its own.
#[test]
fn a_link_that_is_down_says_why_and_what_becomes_of_it() {
    let now = Time::ZERO.after(core::time::Duration::from_secs(40));
    let link = |up, failed| Known {
        up,
        made: 1,
        trouble: "refused".to_owned(),
        failed,
        down_since: (!up).then_some(Time::ZERO),
    };
    let entrance = |dead, leaving| Entrance {
        failing: Some(Time::ZERO),
        dead,
        leaving,
        ..Entrance::default()
    };
    assert_eq!(
        entry_trouble(&link(true, 0), &Entrance::default(), now),
        None
    );
    assert_eq!(mailbox_trouble(&link(true, 0), true, None, now), None);
    let mut seen = std::collections::BTreeSet::new();
    for (failed, dead, leaving, words) in [
        (0, true, false, "dialling"),
        (2, true, true, "another one is entered by"),
        (9, true, false, "there is no other"),
        (9, false, false, "check this machine's connection"),
    ] {
        let said = entry_trouble(&link(false, failed), &entrance(dead, leaving), now);
        let said = said.expect("it is down");
        assert!(
            said.contains(words) && said.contains("refused; down for 40 s"),
            "{said}"
        );
        assert!(seen.insert(said));
    }
    let withdrew = Entrance {
        withdrew: true,
        ..entrance(true, true)
    };
    let said = entry_trouble(&link(false, 2), &withdrew, now).expect("it is down");
    assert!(
        said.contains("withdrawn") && !said.contains("dead"),
        "{said}"
    );
    let both = mailbox_trouble(&link(false, 3), false, None, now).expect("it is down");
    assert!(!both.contains("waits there"), "{both}");
    let new = Known::default();
    assert_eq!(
        mailbox_trouble(&new, true, None, now).as_deref(),
        Some("no word yet; dialling")
    );
    // CLI-44: a move that would be refused is not advised.
    let wait_s = 336 * 3600 - 1;
    for (refused, words) in [
        (None, "`lacuna move` takes another one"),
        (Some(AddressError::TooSoon { wait_s }), "in 336 hours"),
        (Some(AddressError::NoOther), "`lacuna move --to GATEWAY`"),
        (Some(AddressError::Moving), "No move is possible now"),
    ] {
        let alone = mailbox_trouble(&link(false, 3), true, refused, now).expect("it is down");
        assert!(alone.contains("waits there"), "{alone}");
        assert!(alone.contains(words), "{alone}");
        assert_eq!(alone.contains("`lacuna move` takes"), refused.is_none());
    }
}

/// A day of frames of a known rate.
#[test]
fn what_was_measured_is_scaled_to_a_day() {
    let measured = Measured::of([36, 60], 60);
    assert_eq!(measured.up_bytes_per_day, 36 * 1440 * 2432);
    assert_eq!(measured.down_bytes_per_day, 60 * 1440 * 2432);
    assert_eq!(Measured::of([1, 0], 0).up_bytes_per_day, 2432 * 86_400);
}

/// What each profile costs a day, confirmations included.
#[test]
fn a_profile_says_what_it_costs() {
    let params = Params::default();
    for (name, up_mb, down_mb) in [
        ("interactive", "4833 MB", "8405 MB"),
        ("messaging", "133 MB", "210 MB"),
        ("frugal", "13.0 MB", "15.0 MB"),
    ] {
        let (_, profile) = params.profile(name).unwrap();
        let (up, down) = bytes_per_day(profile);
        assert_eq!(
            (&*megabytes(up), &*megabytes(down)),
            (up_mb, down_mb),
            "{name}"
        );
    }
    // CLI-42: a month of `frugal` with a move in it.
    let (_, frugal) = params.profile("frugal").unwrap();
    let ((up, down), (more_up, more_down)) = (bytes_per_day(frugal), mailbox_bytes_per_day(frugal));
    let month = 30 * (up + down) + 14 * (more_up + more_down);
    assert_eq!(month / 1_000_000, 1054);
}

/// CLI-23: why a message does not leave is told in words.
#[test]
fn messages_that_wait_for_a_gateway_say_so() {
    let status = |messages_stranded| Status {
        messages_under_way: 2,
        messages_stranded,
        ..Status::default()
    };
    for (stranded, words) in [
        (0, None),
        (1, Some("1 of them waits for a gateway that")),
        (2, Some("2 of them wait for a gateway that")),
    ] {
        let said = status(stranded).to_string();
        assert_eq!(said.contains("of another network"), words.is_some());
        assert!(said.contains(words.unwrap_or_default()), "{said}");
    }
}

/// Messages that nobody takes are weighed; near the bound the owner is told what to do.
#[test]
fn what_waits_to_be_received_is_weighed() {
    for (incoming_bytes, shown, filling) in [
        (0, "memory    0.0 MB of 403 MB", false),
        (322_000_000, "memory    322 MB of 403 MB", false),
        (322_200_000, "memory    322 MB of 403 MB", true),
    ] {
        let said = Status {
            incoming_bytes,
            incoming_bytes_max: 384 << 20,
            ..Status::default()
        };
        let said = said.to_string();
        assert!(said.contains(shown), "{said}");
        assert_eq!(said.contains("`lacuna receive`"), filling, "{said}");
    }
}
