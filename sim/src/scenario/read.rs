//! Reads a scenario file against the table of keys and says what is wrong with it.
//!
//! The error reported is the first by line; it names the key, the value, what is allowed and
//! the line. Unknown keys are refused with the nearest known name. Deliberately no defaults
//! by omission of a whole section: a section may be absent, its keys then hold their defaults.

use std::{borrow::Cow, collections::BTreeMap};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::keys::{KEYS, Key, Kind, Value, find};

/// What is wrong with a scenario, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScenarioError {
    /// Line of the file, from 1; `None` if what is wrong is missing.
    pub line: Option<usize>,
    /// Names the key, the value and what is allowed.
    pub message: String,
}

impl core::fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl core::error::Error for ScenarioError {}

/// Characters of a value that an error shows at most.
const SHOWN: usize = 60;

/// The values of a scenario by key, each with the line it came from (`None`: the default).
#[derive(Clone, Debug)]
pub struct Values(BTreeMap<&'static str, (Value, Option<usize>)>);

impl Values {
    /// Reads `text`.
    ///
    /// # Errors
    ///
    /// The first fault by line.
    pub fn read(text: &str) -> Result<Self, ScenarioError> {
        let line_of = |offset: usize| 1 + text[..offset].matches('\n').count();
        let tree = DeTable::parse(text).map_err(|error| {
            let message = error.message().lines().collect::<Vec<_>>().join("; ");
            let line = error.span().map(|span| line_of(span.start));
            // A fault of syntax names no key: the line does.
            let whole = line.and_then(|line| text.lines().nth(line - 1));
            let whole = whole.map_or(String::new(), |whole| format!(": {}", shown(whole.trim())));
            let message = message + &whole;
            ScenarioError { line, message }
        })?;
        let mut leaves = Vec::new();
        collect(tree.get_ref(), "", &mut leaves);
        leaves.sort_by_key(|leaf| leaf.offset);
        let mut values = BTreeMap::new();
        for leaf in leaves {
            let line = Some(line_of(leaf.offset));
            let refuse = |message| ScenarioError { line, message };
            let held = text[leaf.value_span.clone()].lines().next();
            let held = shown(held.unwrap_or_default());
            if is_section(&leaf.name) {
                let name = &leaf.name;
                return Err(refuse(format!(
                    "{name} = {held}: must be a section, [{name}]"
                )));
            }
            let key = find(&leaf.name).ok_or_else(|| refuse(unknown(&leaf.name)))?;
            let value = accept(key, leaf.value)
                .ok_or_else(|| refuse(format!("{} = {held}: must be {}", key.name, key.kind)))?;
            values.insert(key.name, (value, line));
        }
        for key in KEYS {
            if !values.contains_key(key.name) {
                let default = key.default.clone().ok_or_else(|| ScenarioError {
                    line: None,
                    message: format!("{} is missing: it must be {}", key.name, key.kind),
                })?;
                values.insert(key.name, (default, None));
            }
        }
        Ok(Self(values))
    }

    /// Replaces a value from outside the file, as a flag does.
    ///
    /// # Errors
    ///
    /// If the table of keys does not allow it.
    pub fn set(&mut self, name: &'static str, value: Value) -> Result<(), ScenarioError> {
        let refuse = |message| ScenarioError {
            line: None,
            message,
        };
        let key = find(name).ok_or_else(|| refuse(unknown(name)))?;
        if !key.kind.allows(&value) {
            return Err(refuse(format!("{name} = {value}: must be {}", key.kind)));
        }
        self.0.insert(name, (value, None));
        Ok(())
    }

    fn get(&self, name: &str) -> &Value {
        &self.0.get(name).expect("the table of keys names it").0
    }

    /// Whether `name` holds `value`.
    pub(super) fn holds(&self, name: &str, value: &Value) -> bool {
        self.get(name) == value
    }

    /// The whole number under `name`.
    #[must_use]
    pub fn count(&self, name: &str) -> u64 {
        let Value::Count(n) = self.get(name) else {
            unreachable!("{name} is of another kind")
        };
        *n
    }

    /// The number under `name`.
    #[must_use]
    pub fn real(&self, name: &str) -> f64 {
        let Value::Real(x) = self.get(name) else {
            unreachable!("{name} is of another kind")
        };
        *x
    }

    /// The string under `name`.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        let Value::Text(text) = self.get(name) else {
            unreachable!("{name} is of another kind")
        };
        text
    }

    /// The flag under `name`.
    #[must_use]
    pub fn flag(&self, name: &str) -> bool {
        let Value::Flag(flag) = self.get(name) else {
            unreachable!("{name} is of another kind")
        };
        *flag
    }

    /// An error that blames the value under `name`; `must` completes "must …".
    #[must_use]
    pub fn refuse(&self, name: &str, must: &str) -> ScenarioError {
        let (value, line) = self.0.get(name).expect("the table of keys names it");
        let default =
            line.is_none() && find(name).is_some_and(|key| key.default.as_ref() == Some(value));
        let origin = if default { " (the default)" } else { "" };
        let value = shown(&value.to_string());
        ScenarioError {
            line: *line,
            message: format!("{name} = {value}{origin}: must {must}"),
        }
    }

    /// One `key = value` line per key in the order of the table, defaults included: two files
    /// that mean the same have the same canonical form, hence the same hash.
    #[must_use]
    pub fn canonical(&self) -> String {
        KEYS.iter()
            .map(|key| format!("{} = {}\n", key.name, self.get(key.name)))
            .collect()
    }
}

struct Leaf<'a> {
    name: String,
    offset: usize,
    value: &'a DeValue<'a>,
    value_span: std::ops::Range<usize>,
}

fn collect<'a>(table: &'a DeTable<'a>, prefix: &str, leaves: &mut Vec<Leaf<'a>>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        if let (DeValue::Table(inner), true) = (value.get_ref(), is_section(&name)) {
            collect(inner, &format!("{name}."), leaves);
        } else {
            leaves.push(Leaf {
                offset: key.span().start,
                value: value.get_ref(),
                value_span: Spanned::span(value),
                name,
            });
        }
    }
}

fn is_section(name: &str) -> bool {
    KEYS.iter().any(|key| {
        key.name
            .split_once('.')
            .is_some_and(|(section, _)| section == name)
    })
}

/// What an error shows of a value.
fn shown(value: &str) -> String {
    if value.chars().count() > SHOWN {
        value.chars().take(SHOWN).chain(['…']).collect()
    } else {
        value.to_owned()
    }
}

fn unknown(name: &str) -> String {
    let nearest = KEYS
        .iter()
        .map(|key| key.name)
        .chain(
            KEYS.iter()
                .filter_map(|key| Some(key.name.split_once('.')?.0)),
        )
        .min_by_key(|known| strsim::osa_distance(known, name))
        .unwrap_or_default();
    if strsim::osa_distance(nearest, name) > name.chars().count() / 2 {
        return format!("unknown key {name}; `lacuna-sim keys` lists those there are");
    }
    format!("unknown key {name}; did you mean {nearest}?")
}

/// The value if it is of the key's kind and in its range.
fn accept(key: &Key, value: &DeValue<'_>) -> Option<Value> {
    let value = match key.kind {
        Kind::Count { .. } => {
            let n = value.as_integer()?;
            Value::Count(u64::from_str_radix(n.as_str(), n.radix()).ok()?)
        }
        Kind::Real { .. } => Value::Real(match value.as_integer() {
            #[expect(clippy::cast_precision_loss, reason = "as TOML's own numbers")]
            Some(n) => i128::from_str_radix(n.as_str(), n.radix()).ok()? as f64,
            None => value.as_float()?.as_str().parse().ok()?,
        }),
        Kind::Choice(_) | Kind::Text => Value::Text(Cow::Owned(value.as_str()?.to_owned())),
        Kind::Flag => Value::Flag(value.as_bool()?),
    };
    key.kind.allows(&value).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_ignores_comments_order_and_what_is_left_to_default() {
        let terse = Values::read("version = 1\n").unwrap();
        let wordy = Values::read(
            "# a comment\nversion = 1\n[mix]\ndelay_mean_ms = 50 # as ever\n[network]\nlayers = 0x3",
        )
        .unwrap();
        assert_eq!(terse.canonical(), wordy.canonical());
        let other = Values::read("version = 1\nnetwork.layers = 4").unwrap();
        assert_ne!(terse.canonical(), other.canonical());
    }

    #[test]
    fn a_number_is_read_in_its_own_base() {
        for (text, ms) in [
            ("0x32", 50.0),
            ("0o62", 50.0),
            ("0b110010", 50.0),
            ("5_0", 50.0),
            ("5e1", 50.0),
        ] {
            let values = Values::read(&format!("version = 1\nmix.delay_mean_ms = {text}")).unwrap();
            assert_eq!(
                values.real("mix.delay_mean_ms").to_bits(),
                f64::to_bits(ms),
                "{text}"
            );
        }
    }

    #[test]
    fn the_canonical_form_can_be_read_back() {
        let canonical = Values::read("version = 1\ntitle = \"a \\\" b\"")
            .unwrap()
            .canonical();
        assert_eq!(Values::read(&canonical).unwrap().canonical(), canonical);
    }

    #[test]
    fn every_default_is_allowed() {
        for key in KEYS {
            if let Some(default) = &key.default {
                let text = format!("version = 1\n{} = {default}", key.name);
                Values::read(&text).unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }
}
