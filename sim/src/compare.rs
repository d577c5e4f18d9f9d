//! Two runs side by side: which figures differ, and by how many standard errors.
//!
//! z = (b − a) / √(se_a² + se_b²): the runs are taken as independent, which two runs of one seed are
//! not; then z is too small. Figures of only one of the two are listed without a difference.

use serde_json::Value;

/// One figure of both runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Name of the figure.
    pub name: String,
    /// Value in the first run, if it is there.
    pub a: Option<f64>,
    /// Value in the second.
    pub b: Option<f64>,
    /// Standard error of the difference; 0 if both are computed.
    pub standard_error: f64,
}

impl Difference {
    /// Second less first.
    #[must_use]
    pub fn difference(&self) -> Option<f64> {
        Some(self.b? - self.a?)
    }

    /// Standard errors between the two; none where both are computed and differ, or one is missing.
    #[must_use]
    pub fn z(&self) -> Option<f64> {
        let difference = self.difference()?;
        if difference == 0.0 {
            return Some(0.0);
        }
        (self.standard_error > 0.0).then(|| difference / self.standard_error)
    }

    /// Whether the two agree within `most` standard errors. What is missing on one side, or computed
    /// and different, does not agree.
    #[must_use]
    pub fn agrees(&self, most: f64) -> bool {
        self.z().is_some_and(|z| z.abs() <= most)
    }
}

/// Compares two summaries, figure by figure, in order of name.
///
/// # Errors
///
/// If one is no summary.
pub fn compare(a: &Value, b: &Value) -> Result<Vec<Difference>, String> {
    let figures = |summary: &Value| {
        let figures = summary["figures"].as_object().cloned();
        figures.ok_or_else(|| "no summary of a run: it has no figures".to_owned())
    };
    let (a, b) = (figures(a)?, figures(b)?);
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let read = |figure: Option<&Value>, key: &str| figure.and_then(|figure| figure[key].as_f64());
    let difference = |name: &String| {
        let (a, b) = (a.get(name), b.get(name));
        let error = |side| read(side, "standard_error").unwrap_or(0.0);
        Difference {
            name: name.clone(),
            a: read(a, "value"),
            b: read(b, "value"),
            standard_error: error(a).hypot(error(b)),
        }
    };
    Ok(names.into_iter().map(difference).collect())
}

/// What a summary is of, on one line.
#[must_use]
pub fn identity(summary: &Value) -> String {
    let text = |key: &str| summary[key].as_str().unwrap_or("unknown").to_owned();
    let start = |key: &str| text(key).chars().take(16).collect::<String>();
    let (seed, commit) = (&summary["seed"], start("commit"));
    let what = if summary["scenario_sha256"].is_string() {
        let (engine, scenario) = (text("engine"), start("scenario_sha256"));
        format!("{engine} engine, commit {commit}, scenario {scenario}")
    } else {
        format!("commit {commit}, {}", text("settings"))
    };
    format!("{:?}, seed {seed}, {what}", text("title"))
}

/// Why a difference may be no difference of what was measured, or none of chance.
#[must_use]
pub fn warnings(a: &Value, b: &Value) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if a["engine"] != b["engine"] {
        warnings.push("another engine: figures of one name may be measured differently");
    }
    if a["scenario_sha256"] != b["scenario_sha256"] || a["settings"] != b["settings"] {
        warnings.push("another scenario: differences are of that, not of chance alone");
    }
    if a["seed"] == b["seed"] {
        warnings.push("one seed: the runs are not independent, and z is too small");
    }
    warnings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn differences_are_in_standard_errors_of_both() {
        let run = |value: f64, error: f64| json!({"figures": {"x": {"value": value, "standard_error": error}, "same": {"value": 1.0, "standard_error": 0.0}}});
        let found = compare(&run(1.0, 3.0), &run(11.0, 4.0)).unwrap();
        assert_eq!(found[0].name, "same");
        assert!(found[0].agrees(0.0));
        assert_eq!(found[1].z(), Some(2.0));
        assert!(found[1].agrees(2.0) && !found[1].agrees(1.9));
        // Computed numbers agree only if they are equal; a missing one never does.
        assert!(!compare(&run(1.0, 0.0), &run(2.0, 0.0)).unwrap()[1].agrees(9.0));
        let other = json!({"figures": {"y": {"value": 1.0, "standard_error": 1.0}}});
        assert!(
            compare(&run(1.0, 1.0), &other)
                .unwrap()
                .iter()
                .all(|one| !one.agrees(9.0))
        );
        assert!(compare(&json!({}), &other).is_err());
    }
}
