//! Axes: where a value stands, which ticks there are, and how they are written.
//!
//! | axis        | when                                                                     |
//! |-------------|--------------------------------------------------------------------------|
//! | linear      | else; y has 0 for bars, shares and what comes near it                     |
//! | logarithmic | all values above 0, spread over two decades, half of them in the lowest tenth |
//!
//! So what grows or falls by factors is not pressed into a corner, and what is evenly spread stays linear. Deliberately
//! no choice for whoever makes a plot.

/// Between least and greatest value, for a logarithmic axis.
const DECADES_FROM: f64 = 100.0;

/// Pixels of a character of a tick's label.
const CHARACTER: f64 = 7.0;

/// What an axis shows: data from `low` to `high`.
pub(super) struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    /// Values with their labels, ascending.
    pub ticks: Vec<(f64, String)>,
}

/// Whether `values` grow by factors rather than by steps.
pub(super) fn by_factors(values: impl Iterator<Item = f64>) -> bool {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.dedup();
    let (Some(low), Some(high)) = (sorted.first(), sorted.last()) else {
        return false;
    };
    let median = sorted[(sorted.len() - 1) / 2];
    *low > 0.0 && high / low >= DECADES_FROM && median <= low + (high - low) / 10.0
}

impl Scale {
    /// Covers `low..=high` in about `count` steps, of at least 1 if `whole`; widened to whole steps if `snap`.
    pub(super) fn linear(low: f64, high: f64, count: f64, snap: bool, whole: bool) -> Self {
        let span = if high > low {
            high - low
        } else {
            low.abs().max(1.0)
        };
        let rough = span / count;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let nice = [1.0, 2.0, 5.0, 10.0].map(|nice| nice * magnitude);
        let step = nice.into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * magnitude);
        let (low, high) = if snap {
            (
                (low / step).floor() * step,
                (high / step - 1e-9).ceil() * step,
            )
        } else {
            (low, low + span)
        };
        let high = if high > low { high } else { low + step };
        let step = if whole { step.max(1.0) } else { step };
        Self {
            low,
            high,
            logarithmic: false,
            ticks: steps(low, high, step),
        }
    }

    /// Covers `low..=high`, both above 0; widened to whole ticks if `snap`.
    pub(super) fn logarithmic(low: f64, high: f64, snap: bool) -> Self {
        let [first, last] = [low, high].map(exponent);
        let decades = last - first;
        // 1, 2, 5, 10 …, 1, 10, 100 …, or fewer.
        let (digits, stride): (&[u32], usize) = match decades {
            ..4 => (&[1, 2, 5], 1),
            4..10 => (&[1], 1),
            _ => (&[1], usize::try_from(decades / 8).unwrap_or(1)),
        };
        let all: Vec<f64> = (first..=last + 1)
            .step_by(stride)
            .flat_map(|power| digits.iter().map(move |digit| (*digit, power)))
            // The nearest number to what is written, as powi would not give it.
            .filter_map(|(digit, power)| format!("{digit}e{power}").parse().ok())
            .collect();
        let (low, high) = if snap {
            let below = all.iter().rfind(|tick| **tick <= low * (1.0 + 1e-9));
            let above = all.iter().find(|tick| **tick >= high * (1.0 - 1e-9));
            (
                below.copied().unwrap_or(low),
                above.copied().unwrap_or(high),
            )
        } else {
            (low, high)
        };
        let inside = low * (1.0 - 1e-9)..=high * (1.0 + 1e-9);
        let shown: Vec<f64> = all
            .into_iter()
            .filter(|tick| inside.contains(tick))
            .collect();
        // Whole or as powers, but one way on one axis.
        let powers = shown.iter().any(|tick| !(-4..7).contains(&exponent(*tick)));
        let label = |tick: f64| {
            if powers {
                power(tick)
            } else {
                grouped(&tick.to_string())
            }
        };
        Self {
            low,
            high,
            logarithmic: true,
            ticks: shown.into_iter().map(|tick| (tick, label(tick))).collect(),
        }
    }

    /// Widened by a share of its length at both ends, so that no dot stands on the edge; its ticks stay.
    pub(super) fn padded(mut self, share: f64) -> Self {
        let (low, high) = (self.inner(self.low), self.inner(self.high));
        let pad = (high - low) * share;
        let outer = |at: f64| {
            if self.logarithmic { at.exp() } else { at }
        };
        (self.low, self.high) = (outer(low - pad), outer(high + pad));
        self
    }

    /// Pixels that the widest label takes.
    pub(super) fn widest(&self) -> f64 {
        let widths = self.ticks.iter().map(|(_, label)| width(label));
        widths.fold(0.0, f64::max)
    }

    /// What is proportional to pixels.
    fn inner(&self, value: f64) -> f64 {
        if self.logarithmic {
            value.max(f64::MIN_POSITIVE).ln()
        } else {
            value
        }
    }

    /// On pixels from `start` to `end`.
    pub(super) fn on(self, start: f64, end: f64) -> Axis {
        Axis {
            scale: self,
            start,
            end,
        }
    }
}

/// A scale on pixels.
pub(super) struct Axis {
    pub scale: Scale,
    pub start: f64,
    pub end: f64,
}

impl Axis {
    /// The pixel of `value`; on a logarithmic axis what is below it stands at its end.
    pub(super) fn place(&self, value: f64) -> f64 {
        let scale = &self.scale;
        let value = if scale.logarithmic {
            value.max(scale.low)
        } else {
            value
        };
        let [low, high, at] = [scale.low, scale.high, value].map(|value| scale.inner(value));
        self.start + (at - low) / (high - low) * (self.end - self.start)
    }

    /// Pixels of `length` on a linear axis.
    pub(super) fn stretch(&self, length: f64) -> f64 {
        (length / (self.scale.high - self.scale.low) * (self.end - self.start)).abs()
    }
}

/// Pixels of a label.
#[expect(clippy::cast_precision_loss, reason = "a few characters")]
pub(super) fn width(label: &str) -> f64 {
    label.chars().count() as f64 * CHARACTER
}

#[expect(clippy::cast_possible_truncation, reason = "a power of ten")]
fn exponent(value: f64) -> i32 {
    // A hair up: log10 of 1000 must not be 2.
    (value.log10() + 1e-9).floor() as i32
}

/// Multiples of `step`, with as many decimals as it has.
#[expect(clippy::cast_sign_loss, reason = "not negative")]
fn steps(low: f64, high: f64, step: f64) -> Vec<(f64, String)> {
    let first = (low / step - 1e-9).ceil();
    let values = (0..40).map(|i| (first + f64::from(i)) * step);
    let inside = values.take_while(|x| *x <= high + step * 1e-9);
    let largest = exponent(low.abs().max(high.abs()));
    let fine = exponent(step);
    let label = |x: f64| {
        if (-5..7).contains(&largest) && fine >= -6 {
            grouped(&format!("{x:.*}", (-fine).max(0) as usize))
        } else if x == 0.0 {
            "0".to_owned()
        } else {
            let mantissa = x / 10_f64.powi(largest);
            let decimals = (largest - fine).clamp(0, 12) as usize;
            format!("{mantissa:.decimals$}×10{}", superscript(largest))
        }
    };
    // No "-0".
    let whole = |x: f64| if x.abs() < step * 1e-9 { 0.0 } else { x };
    inside.map(whole).map(|x| (x, label(x))).collect()
}

/// 1, 2 or 5 times a power of ten.
fn power(x: f64) -> String {
    let power = exponent(x);
    let digit = (x / 10_f64.powi(power)).round();
    let times = if digit > 1.0 {
        format!("{digit}×")
    } else {
        String::new()
    };
    format!("{times}10{}", superscript(power))
}

/// `digits` with a thin space before each three of them, if they are whole and more than four.
fn grouped(digits: &str) -> String {
    let bare = digits.trim_start_matches('-');
    if bare.len() < 5 || bare.contains('.') {
        return digits.to_owned();
    }
    let mut out = digits[..digits.len() - bare.len()].to_owned();
    for (at, digit) in bare.chars().enumerate() {
        if at > 0 && (bare.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn superscript(power: i32) -> String {
    let raised = |c: char| match c.to_digit(10) {
        Some(digit) => ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'][digit as usize],
        None => '⁻',
    };
    power.to_string().chars().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(scale: &Scale) -> Vec<&str> {
        scale.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        let linear = |low, high| Scale::linear(low, high, 5.0, true, false);
        for (low, high, expected) in [
            (0.0, 1.0, vec!["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
            (0.0, 13.0, vec!["0", "5", "10", "15"]),
            (0.0, 0.07, vec!["0.00", "0.02", "0.04", "0.06", "0.08"]),
            (-1.0, 1.0, vec!["-1.0", "-0.5", "0.0", "0.5", "1.0"]),
            (
                0.0,
                24_000.0,
                vec![
                    "0",
                    "5000",
                    "10\u{202f}000",
                    "15\u{202f}000",
                    "20\u{202f}000",
                    "25\u{202f}000",
                ],
            ),
            (
                0.0,
                2.4e7,
                vec!["0", "0.5×10⁷", "1.0×10⁷", "1.5×10⁷", "2.0×10⁷", "2.5×10⁷"],
            ),
            (
                0.0,
                2e-6,
                vec!["0", "0.5×10⁻⁶", "1.0×10⁻⁶", "1.5×10⁻⁶", "2.0×10⁻⁶"],
            ),
        ] {
            assert_eq!(labels(&linear(low, high)), expected, "{low} to {high}");
        }
    }

    #[test]
    fn decades_have_ticks_of_their_own() {
        let logarithmic = |low, high| Scale::logarithmic(low, high, true);
        for (low, high, expected) in [
            (
                0.013,
                1.0,
                vec!["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"],
            ),
            (
                3.0,
                40_000.0,
                vec!["1", "10", "100", "1000", "10\u{202f}000", "100\u{202f}000"],
            ),
            (
                1e-8,
                2e-5,
                vec![
                    "10⁻⁸",
                    "2×10⁻⁸",
                    "5×10⁻⁸",
                    "10⁻⁷",
                    "2×10⁻⁷",
                    "5×10⁻⁷",
                    "10⁻⁶",
                    "2×10⁻⁶",
                    "5×10⁻⁶",
                    "10⁻⁵",
                    "2×10⁻⁵",
                ],
            ),
        ] {
            assert_eq!(labels(&logarithmic(low, high)), expected, "{low} to {high}");
        }
        let mixed = logarithmic(30.0, 3e7);
        assert_eq!(labels(&mixed)[..2], ["10¹", "10²"]);
        let wide = logarithmic(1e-30, 1e30);
        assert!((4..12).contains(&wide.ticks.len()), "{:?}", wide.ticks);
    }

    #[test]
    fn values_by_factors_are_told_from_values_by_steps() {
        let told = |values: &[f64]| by_factors(values.iter().copied());
        assert!(told(&[10.0, 100.0, 1000.0, 10_000.0]));
        assert!(told(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0]));
        let even: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert!(!told(&even));
        assert!(!told(&[0.0, 10.0, 1000.0]), "0 has no logarithm");
        assert!(!told(&[1.0, 2.0, 50.0]), "less than two decades");
        assert!(!told(&[]) && !told(&[3.0]));
    }

    #[test]
    fn a_logarithmic_axis_spaces_decades_evenly() {
        let axis = Scale::logarithmic(1.0, 1000.0, false).on(0.0, 300.0);
        for (value, at) in [(1.0, 0.0), (10.0, 100.0), (1000.0, 300.0), (0.0, 0.0)] {
            assert!((axis.place(value) - at).abs() < 1e-9, "{value}");
        }
        let padded = Scale::logarithmic(1.0, 1000.0, false).padded(0.1);
        assert!((padded.on(0.0, 360.0).place(1.0) - 30.0).abs() < 1e-9);
    }
}
