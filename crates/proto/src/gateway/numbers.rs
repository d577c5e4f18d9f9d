//! The numbers that a store gives the packets of a mailbox.
//!
//! Spec: docs/spec/gateway.md, rule GW-32.
//!
//! | quantity | type  | unit, range                                                              |
//! |----------|-------|--------------------------------------------------------------------------|
//! | number   | `u64` | UTC s × 2²⁰ at which counting began, and as many more as were given since |
//! | highest  | `u64` | the last number given or left out in a mailbox; 0: none                  |
//!
//! Invariants: numbers rise in a mailbox, and lie above all that any store before this one gave in it,
//! as long as no mailbox is given 2¹⁹ a second. One is left out only where packets may be missing.

/// Numbers of one second: more than a gateway opens packets for all its mailboxes.
const A_SECOND: u64 = 1 << 20;

/// Gives numbers in a store that was opened just now.
#[derive(Debug, Default)]
pub struct Numbers {
    /// What the first packet since then could have at least.
    floor: Option<u64>,
}

impl Numbers {
    /// The number of a packet that is stored at `stored_at_s` (UTC) in a mailbox with that highest
    /// number.
    pub fn next(&mut self, highest: u64, stored_at_s: u64) -> u64 {
        let now = stored_at_s.saturating_mul(A_SECOND);
        let opened = *self.floor.get_or_insert(now);
        // A store that knows no number in it may have forgotten them.
        let floor = if highest == 0 { now } else { opened };
        highest.saturating_add(1).max(floor)
    }

    /// The highest number after `number` was given, and the mailbox is full with it or not: if it
    /// is, the next one is left out, so that its owner can see that packets were refused.
    #[must_use]
    pub fn highest(number: u64, full: bool) -> u64 {
        number.saturating_add(u64::from(full))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: u64 = 1_800_000_000;

    /// GW-32
    #[test]
    fn numbers_follow_one_another_but_after_a_full_mailbox_and_an_opening() {
        let mut numbers = Numbers::default();
        let first = numbers.next(0, NOW_S);
        let second = numbers.next(Numbers::highest(first, false), NOW_S + 1000);
        assert_eq!(second, first + 1);
        let third = numbers.next(Numbers::highest(second, true), NOW_S + 1000);
        assert_eq!(third, second + 2);
        let mut again = Numbers::default();
        let fourth = again.next(third, NOW_S + 2000);
        assert!(fourth > third + 1);
        assert_eq!(again.next(fourth, NOW_S + 2000), fourth + 1);
        // Also in a second, with a clock that goes back, and with a highest number from nowhere.
        assert_eq!(again.next(fourth, NOW_S), fourth + 1);
        assert_eq!(again.next(u64::MAX - 1, NOW_S), u64::MAX);
    }

    /// GW-32
    #[test]
    fn a_store_that_knows_nothing_gives_higher_ones_than_any_before() {
        let mut before = Numbers::default();
        let mut highest = before.next(0, NOW_S);
        for _ in 0..A_SECOND / 2 {
            highest = Numbers::highest(before.next(highest, NOW_S), true);
        }
        // Lost with the disk, a second later; and one mailbox lost in a store that is open.
        assert!(Numbers::default().next(0, NOW_S + 2) > highest);
        assert!(before.next(0, NOW_S + 2) > highest);
        // Numbers that a version from before this rule gave.
        assert!(Numbers::default().next(110, NOW_S) > 110);
    }
}
