//! The network's parameters as a file for people.
//!
//! Rule DIR-2 has their ranges. `params.toml` beside this package holds the defaults, and a test
//! says so; a file of an authority may leave keys out, and those then keep their defaults. The
//! list of profiles is taken as a whole: a client names its profile by its place in that list.

use std::{fs, path::Path};

use anyhow::{Context, anyhow};
use proto::directory::{Params, Profile};
use serde::{Deserialize, Serialize};

/// The defaults, as a file with its explanation.
pub const EXAMPLE: &str = include_str!("../params.toml");

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    epoch_s: u32,
    epochs: u16,
    delay_mean_ms: u32,
    expiry_s: u32,
    profiles: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    payload_uhz: u64,
    loops_uhz: u64,
    downstream_uhz: u64,
    confirm_ms: u32,
}

impl Default for File {
    fn default() -> Self {
        let Params {
            epoch_s,
            epochs,
            delay_mean_ms,
            expiry_s,
            profiles,
        } = Params::default();
        let entry = |profile: Profile| Entry {
            name: profile.name,
            payload_uhz: profile.payload_uhz,
            loops_uhz: profile.loops_uhz,
            downstream_uhz: profile.downstream_uhz,
            confirm_ms: profile.confirm_ms,
        };
        Self {
            epoch_s,
            epochs,
            delay_mean_ms,
            expiry_s,
            profiles: profiles.into_iter().map(entry).collect(),
        }
    }
}

/// The parameters in the file at `path`; the defaults if there is no path.
///
/// # Errors
///
/// In one line what is wrong with the file, or which range a number is out of.
pub fn load(path: &Path) -> anyhow::Result<Params> {
    if path.as_os_str().is_empty() {
        return Ok(Params::default());
    }
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("reading {name}"))?;
    parse(&text).with_context(|| name.to_string())
}

fn parse(text: &str) -> anyhow::Result<Params> {
    let file: File = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
        anyhow!("line {line}: {}", error.message())
    })?;
    let profile = |entry: Entry| Profile {
        name: entry.name,
        payload_uhz: entry.payload_uhz,
        loops_uhz: entry.loops_uhz,
        downstream_uhz: entry.downstream_uhz,
        confirm_ms: entry.confirm_ms,
    };
    let params = Params {
        epoch_s: file.epoch_s,
        epochs: file.epochs,
        delay_mean_ms: file.delay_mean_ms,
        expiry_s: file.expiry_s,
        profiles: file.profiles.into_iter().map(profile).collect(),
    };
    params.check()?; // DIR-2
    Ok(params)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Neither more nor less than the parameters have, and equal to the defaults.
    #[test]
    fn the_example_file_holds_the_defaults() {
        assert_eq!(parse(EXAMPLE).unwrap(), Params::default());
        let example: toml::Table = EXAMPLE.parse().unwrap();
        assert_eq!(toml::Table::try_from(File::default()).unwrap(), example);
    }

    #[test]
    fn what_a_file_leaves_out_keeps_its_default() {
        let params = parse("epoch_s = 90\ndelay_mean_ms = 20").unwrap();
        assert_eq!((params.epoch_s, params.delay_mean_ms), (90, 20));
        assert_eq!(params.profiles, Params::default().profiles);
    }

    /// DIR-2: what `lacuna-sim plan` wrote is a file for an authority, and says its own delay.
    #[test]
    fn shipped_plans_are_files_of_an_authority() {
        for (text, delay_mean_ms, inbound_percent) in [
            (include_str!("../../docs/plans/interactive.toml"), 50, 100),
            (include_str!("../../docs/plans/messaging.toml"), 50, 100),
            (include_str!("../../docs/plans/frugal.toml"), 50, 94),
            (include_str!("../../docs/plans/service.toml"), 50, 75),
            (include_str!("../../docs/plans/network.toml"), 46, 100),
            (include_str!("../../docs/plans/two-seconds.toml"), 26, 100),
            (
                include_str!("../../docs/plans/twenty-seconds.toml"),
                1778,
                100,
            ),
        ] {
            let params = parse(text).unwrap();
            assert_eq!(params.delay_mean_ms, delay_mean_ms);
            let [profile] = params.profiles.as_slice() else {
                panic!("one profile");
            };
            assert_eq!(profile.name, "planned");
            let stored = profile.payload_uhz * inbound_percent / 100 + profile.loops_uhz;
            assert!(profile.downstream_uhz * 4 >= stored * 5);
        }
    }

    /// DIR-2
    #[test]
    fn what_is_wrong_is_said_in_one_line() {
        for (text, expected) in [
            ("epoch_s = 89", "epoch_s must be 90 to 86400"),
            ("\nepochs_s = 90", "line 2: unknown field `epochs_s`"),
            ("epoch_s = 'long'", "line 1: invalid type"),
            (
                "[[profiles]]\nname = 'a'\npayload_hz = 1",
                "line 3: unknown field `payload_hz`",
            ),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }
}
