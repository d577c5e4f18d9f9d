//! What a node says of itself to authorities: one descriptor for a period (DIR-4).
//!
//! Invariant: whoever asks, first or again, hears the same bytes, until the link certificate in them
//! is a day old.

use std::sync::{Arc, Mutex, PoisonError};

use proto::{
    NetworkId,
    directory::{Params, SignedDescriptor},
};

use crate::keys::{About, Keys, KeysError};

const DAY_S: u64 = 86_400;

/// What this node says of itself: made once for a period, then said again word for word, so that
/// all authorities hold the same, whoever asks first and however often.
pub(crate) struct Describer {
    keys: Arc<Keys>,
    network: NetworkId,
    about: About,
    made: Mutex<Option<Made>>,
}

impl Describer {
    pub(crate) fn new(keys: Arc<Keys>, network: NetworkId, about: About) -> Self {
        Self {
            keys,
            network,
            about,
            made: Mutex::new(None),
        }
    }

    pub(crate) fn describe(
        &self,
        period: u64,
        params: &Params,
        now_s: u64,
    ) -> Result<SignedDescriptor, KeysError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |made: &&Made| {
            // Its link certificate is renewed daily while no document comes.
            let fresh = now_s.abs_diff(made.made_s) < DAY_S;
            made.period == period && made.params == *params && fresh
        };
        if let Some(made) = made.as_ref().filter(fits) {
            return Ok(made.said.clone());
        }
        let described = self
            .keys
            .descriptor(&self.network, &self.about, period, params, now_s);
        let said = described?;
        *made = Some(Made {
            period,
            params: params.clone(),
            made_s: now_s,
            said: said.clone(),
        });
        Ok(said)
    }
}

/// A descriptor, and what it was made for.
struct Made {
    period: u64,
    params: Params,
    made_s: u64,
    said: SignedDescriptor,
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proto::directory::Role;

    use super::*;
    use crate::state::StateDir;

    /// DIR-4: authorities that ask at once hear the same, and its keys are those on the disk.
    #[test]
    fn a_node_says_one_thing_to_all() {
        let root = tempfile::tempdir().unwrap();
        let keys = Keys::open(StateDir::open(&root.path().join("state")).unwrap()).unwrap();
        let describer = Describer {
            keys: Arc::new(keys),
            network: NetworkId([1; 32]),
            about: About {
                role: Role::Mix,
                address: "127.0.0.1:9000".to_owned(),
                family: "nobody".to_owned(),
                check: proto::directory::SelfCheck::new(sphinx::Path::Portable, 1, 1),
            },
            made: Mutex::new(None),
        };
        let params = Params::default();
        let now_s = 100 * DAY_S;
        let say = |now_s| describer.describe(0, &params, now_s).unwrap();
        let all: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> = (0..4)
                .map(|i| scope.spawn(move || say(now_s + i)))
                .collect();
            asked.into_iter().map(|said| said.join().unwrap()).collect()
        });
        assert!(all.iter().all(|said| *said == all[0]));
        let said = all[0].verify(&NetworkId([1; 32])).unwrap();
        for (epoch, key) in (0..).map(proto::calendar::Epoch).zip(&said.packet_keys) {
            let secret = describer.keys.packet_secret(epoch).unwrap().unwrap();
            assert_eq!(secret.public(), *key);
        }
        // A day later with a new certificate, and still with the same keys.
        let later = say(now_s + 2 * DAY_S).verify(&NetworkId([1; 32])).unwrap();
        assert_ne!(later.link, said.link);
        assert_eq!(later.packet_keys, said.packet_keys);
    }
}
