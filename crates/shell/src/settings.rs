//! Settings of a program: defaults, then file, then environment, then flags.
//!
//! One rule for all programs: the setting `pool_max` is `pool_max = 5` in the file,
//! `LACUNA_MIX_NODE_POOL_MAX=5` in the environment, `--pool-max 5` as a flag. A new setting is a
//! line of the program's `example.toml` and a field of its settings struct; nothing else names it.
//!
//! | source      | how                                | wins over        |
//! |-------------|------------------------------------|------------------|
//! | defaults    | `example.toml`, compiled in        |                  |
//! | file        | `--config FILE`                    | defaults         |
//! | environment | `PREFIX` + upper-case key          | file             |
//! | flags       | `--` + key with `-` for `_`        | environment      |
//!
//! A line of the example is `key = value # help`; the value also gives the setting its type.
//! Where it is a string, text from the environment or a flag needs no quotes.
//!
//! Only what may differ between two honest nodes is a setting: delays, sizes and hop counts are
//! the network's, and come from the signed consensus. Not done here: reading the command line
//! (each program's `clap` does, with [`Settings::flags`]).

use core::ops::RangeInclusive;
use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// What is wrong with the settings: one line, with the remedy. Exit code 2.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SettingsError {
    /// No setting has that name.
    #[error("{source_name}: unknown setting `{key}`; did you mean `{nearest}`?")]
    Unknown {
        /// Which source names it.
        source_name: String,
        /// The unknown name.
        key: String,
        /// The known name that is nearest.
        nearest: String,
    },
    /// A value is of the wrong kind.
    #[error("{source_name}: `{key}` must be {expected}, not `{found}`")]
    Kind {
        /// Which source has it.
        source_name: String,
        /// The setting.
        key: String,
        /// What kind of value it takes, with its default as an example.
        expected: String,
        /// What was found.
        found: String,
    },
    /// The file can't be read.
    #[error("{file}: {message}")]
    Unread {
        /// Name of the file.
        file: String,
        /// What the system says.
        message: String,
    },
    /// The file is not TOML.
    #[error("{file}:{line}: {message}")]
    Toml {
        /// Name of the file.
        file: String,
        /// Line, counted from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// All kinds are right, but the program refuses a value.
    #[error("settings: {0}")]
    Refused(String),
}

/// A setting as a flag of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// Name of the setting; the flag is `--` and this with `-` for `_`.
    pub key: String,
    /// What the example file says about it.
    pub help: String,
    /// Its default, as TOML.
    pub default: String,
}

/// The settings that one program knows.
#[derive(Clone, Debug)]
pub struct Settings {
    example: &'static str,
    env_prefix: &'static str,
    defaults: Table,
}

impl Settings {
    /// The settings of an example file. `env_prefix` is e.g. `LACUNA_MIX_NODE_`.
    ///
    /// # Panics
    ///
    /// If the example, which is compiled in, is not TOML; each program's test parses its own.
    #[must_use]
    pub fn new(example: &'static str, env_prefix: &'static str) -> Self {
        Self {
            example,
            env_prefix,
            defaults: example
                .parse()
                .expect("the program's tests parse its example"),
        }
    }

    /// A flag for each setting, in the order of the example file.
    #[must_use]
    pub fn flags(&self) -> Vec<Flag> {
        let settings = self.example.lines().filter_map(|line| {
            let (setting, help) = line.split_once(" # ")?;
            let (key, default) = setting.split_once('=')?;
            Some(Flag {
                key: key.trim().to_owned(),
                help: help.trim().to_owned(),
                default: default.trim().to_owned(),
            })
        });
        settings
            .filter(|flag| self.defaults.contains_key(&flag.key))
            .collect()
    }

    /// The settings in force, with the file at `path`, if there is one; see [`Settings::merge`].
    ///
    /// # Errors
    ///
    /// A [`SettingsError`] that names the source, the setting and the remedy.
    pub fn load<T: DeserializeOwned>(
        &self,
        path: Option<&Path>,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &BTreeMap<String, String>,
    ) -> Result<T, SettingsError> {
        let Some(path) = path else {
            return self.merge("", "", environment, flags);
        };
        let file = path.display().to_string();
        match fs::read_to_string(path) {
            Ok(text) => self.merge(&text, &file, environment, flags),
            Err(error) => {
                let message = error.to_string();
                Err(SettingsError::Unread { file, message })
            }
        }
    }

    /// The settings in force.
    ///
    /// `file` is the text of the settings file (empty if there is none) and its name; `flags` are
    /// the settings given on the command line, by key.
    ///
    /// # Errors
    ///
    /// A [`SettingsError`] that names the source, the setting and the remedy.
    pub fn merge<T: DeserializeOwned>(
        &self,
        file: &str,
        file_name: &str,
        environment: impl Iterator<Item = (OsString, OsString)>,
        flags: &BTreeMap<String, String>,
    ) -> Result<T, SettingsError> {
        let mut settings = self.defaults.clone();
        for (key, value) in parse(file, file_name)? {
            self.check(file_name, &key, &value)?;
            settings.insert(key, value);
        }
        for (name, text) in environment {
            let (name, text) = (name.to_string_lossy(), text.to_string_lossy());
            if let Some(key) = name.strip_prefix(self.env_prefix) {
                let key = key.to_lowercase();
                let source = format!("environment variable {name}");
                settings.insert(key.clone(), self.read_text(&source, &key, &text)?);
            }
        }
        for (key, text) in flags {
            let source = format!("flag --{}", key.replace('_', "-"));
            settings.insert(key.clone(), self.read_text(&source, key, text)?);
        }
        let refused = |error: toml::de::Error| SettingsError::Refused(one_line(&error.to_string()));
        settings.try_into().map_err(refused)
    }

    /// The default of `key`, or an error with the nearest name.
    fn known(&self, source: &str, key: &str) -> Result<&Value, SettingsError> {
        self.defaults.get(key).ok_or_else(|| {
            let names = self.defaults.keys();
            let nearest = names.min_by_key(|known| strsim::osa_distance(known, key));
            SettingsError::Unknown {
                source_name: source.to_owned(),
                key: key.to_owned(),
                nearest: nearest.cloned().unwrap_or_default(),
            }
        })
    }

    fn check(&self, source: &str, key: &str, value: &Value) -> Result<(), SettingsError> {
        let default = self.known(source, key)?;
        if default.same_type(value) {
            return Ok(());
        }
        Err(kind_error(source, key, default, &value.to_string()))
    }

    fn read_text(&self, source: &str, key: &str, text: &str) -> Result<Value, SettingsError> {
        let default = self.known(source, key)?;
        if default.is_str() {
            return Ok(Value::String(text.to_owned()));
        }
        let value = text.parse().ok().filter(|value| default.same_type(value));
        value.ok_or_else(|| kind_error(source, key, default, text))
    }
}

fn kind_error(source: &str, key: &str, default: &Value, found: &str) -> SettingsError {
    let article = if default.is_integer() || default.is_array() {
        "an"
    } else {
        "a"
    };
    SettingsError::Kind {
        source_name: source.to_owned(),
        key: key.to_owned(),
        expected: format!("{article} {} like `{default}`", default.type_str()),
        found: found.to_owned(),
    }
}

/// Reads a TOML table; errors name the file and the line.
pub(crate) fn parse(text: &str, file_name: &str) -> Result<Table, SettingsError> {
    text.parse::<Table>().map_err(|error| SettingsError::Toml {
        file: file_name.to_owned(),
        line: line_of(text, &error),
        message: one_line(error.message()),
    })
}

/// The line of `text`, counted from 1, that a TOML error is about.
pub(crate) fn line_of(text: &str, error: &toml::de::Error) -> usize {
    let at = error.span().map_or(0, |span| span.start);
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// Parsers' messages may have several lines; ours have one.
pub(crate) fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether each number is within its range.
///
/// # Errors
///
/// The first that is not, with what it may be.
pub fn within(numbers: &[(&str, usize, RangeInclusive<usize>)]) -> Result<(), String> {
    let beyond = numbers
        .iter()
        .find(|(_, value, range)| !range.contains(value));
    beyond.map_or(Ok(()), |(name, value, range)| {
        let (least, most) = (range.start(), range.end());
        Err(format!(
            "settings: {name} must be {least} to {most}, not {value}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use serde::{Deserialize, Serialize};

    use super::*;

    const EXAMPLE: &str = r#"
# A program's settings.
listen = "127.0.0.1:1789" # address to accept links on
pool_max = 100000         # packets held at once
relay = true              # whether to relay
"#;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Example {
        listen: std::net::SocketAddr,
        pool_max: usize,
        relay: bool,
    }

    fn merge(file: &str, env: &[&str], flags: &[(&str, &str)]) -> Result<Example, SettingsError> {
        let env = env.iter().map(|pair| {
            let (name, text) = pair.split_once('=').unwrap();
            (name.into(), text.into())
        });
        let flags = flags
            .iter()
            .map(|(key, text)| (String::from(*key), String::from(*text)));
        Settings::new(EXAMPLE, "LACUNA_EXAMPLE_").merge(file, "example.toml", env, &flags.collect())
    }

    #[test]
    fn the_example_gives_defaults_and_flags() {
        let config = merge("", &[], &[]).unwrap();
        assert_eq!(Table::try_from(config).unwrap(), EXAMPLE.parse().unwrap());
        let flags = Settings::new(EXAMPLE, "").flags();
        let (keys, helps): (Vec<_>, Vec<_>) =
            flags.iter().map(|flag| (&*flag.key, &*flag.help)).unzip();
        assert_eq!(keys, ["listen", "pool_max", "relay"]);
        assert_eq!(helps[1], "packets held at once");
        assert_eq!(flags[0].default, "\"127.0.0.1:1789\"");
    }

    #[test]
    fn a_later_source_wins() {
        let (file, env) = ("pool_max = 2", "LACUNA_EXAMPLE_POOL_MAX=3");
        for (config, expected) in [
            (merge("", &[], &[]), 100_000),
            (merge(file, &[], &[]), 2),
            (merge(file, &[env, "OTHER=1"], &[]), 3),
            (merge(file, &[env], &[("pool_max", "4")]), 4),
        ] {
            assert_eq!(config.unwrap().pool_max, expected);
        }
        // Strings need no quotes.
        let config = merge("", &["LACUNA_EXAMPLE_LISTEN=127.0.0.1:1"], &[]).unwrap();
        assert_eq!(config.listen.port(), 1);
    }

    #[test]
    fn what_is_wrong_is_said_in_one_line_with_the_remedy() {
        let (many, maybe) = ("LACUNA_EXAMPLE_POOLMAX=1", "LACUNA_EXAMPLE_RELAY=maybe");
        for (result, expected) in [
            (
                merge("pool_maximum = 1", &[], &[]),
                "example.toml: unknown setting `pool_maximum`; did you mean `pool_max`?",
            ),
            (
                merge("", &[many], &[]),
                "environment variable LACUNA_EXAMPLE_POOLMAX: unknown setting `poolmax`; \
                 did you mean `pool_max`?",
            ),
            (
                merge("", &[], &[("rely", "true")]),
                "flag --rely: unknown setting `rely`; did you mean `relay`?",
            ),
            (
                merge("pool_max = 'many'", &[], &[]),
                "example.toml: `pool_max` must be an integer like `100000`, not `\"many\"`",
            ),
            (
                merge("", &[maybe], &[]),
                "environment variable LACUNA_EXAMPLE_RELAY: `relay` must be a boolean like \
                 `true`, not `maybe`",
            ),
        ] {
            assert_eq!(result.unwrap_err().to_string(), expected);
        }
        let error = merge("relay = true\npool_max 5", &[], &[])
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("example.toml:2: "), "{error}");
        // Of the right kind, yet refused: still one line that says which value.
        let error = merge("listen = 'here'", &[], &[]).unwrap_err().to_string();
        assert!(
            error.starts_with("settings: ") && !error.contains('\n'),
            "{error}"
        );
        assert!(merge("pool_max = -1", &[], &[]).is_err());
    }
}
