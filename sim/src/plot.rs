//! Plots as inline SVG: axes, lines, bars, dots, a legend. No script, no external font.
//!
//! Written by hand because it is all that a report needs: the `plotters` crate would bring a
//! font stack and a canvas for three shapes and an axis. Colours are those of Okabe and Ito,
//! told apart by every common kind of colour blindness; references are dashed as well, so that
//! colour is never the only sign.
//!
//! | quantity    | unit                                       |
//! |-------------|--------------------------------------------|
//! | picture     | 760 × 340 user units, scaled by the page; higher by each further row of the legend |
//! | data        | whatever the plot's axes say                 |
//!
//! Non-finite points are left out. Deliberately no logarithmic axes.

use std::fmt::Write as _;

use crate::outcome::{Mark, Plot, Series};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

/// Height of a row of the legend.
const LEGEND_ROW: f64 = 20.0;

/// Characters of a name that the legend shows at most: as many as fit a row.
const LEGEND_CHARS: usize = 85;

/// Blue, vermilion, bluish green, purple, black, orange, sky blue.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#9a4f80", "#000000", "#e69f00", "#56b4e9",
];

/// One axis: data from `low` to `high` on pixels from `start` to `end`.
struct Axis {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
    step: f64,
}

impl Axis {
    /// Covers `low..=high`, widened to whole ticks where `snap` says so.
    fn new(low: f64, high: f64, (start, end): (f64, f64), ticks: f64, snap: bool) -> Self {
        let span = if high > low {
            high - low
        } else {
            low.abs().max(1.0)
        };
        let rough = span / ticks;
        let magnitude = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0]
            .map(|nice| nice * magnitude)
            .into_iter()
            .find(|step| *step >= rough * 0.999)
            .unwrap_or(10.0 * magnitude);
        let (low, high) = if snap {
            (
                (low / step).floor() * step,
                (high / step - 1e-9).ceil() * step,
            )
        } else {
            (low, low + span)
        };
        Self {
            low,
            high: if high > low { high } else { low + step },
            start,
            end,
            step,
        }
    }

    fn place(&self, x: f64) -> f64 {
        self.start + (x - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    /// Ticks with their labels.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few decimals"
    )]
    fn ticks(&self) -> Vec<(f64, String)> {
        let decimals = (-self.step.log10().floor()).max(0.0) as usize;
        let first = (self.low / self.step - 1e-9).ceil();
        (0..40)
            .map(|i| (first + f64::from(i)) * self.step)
            .take_while(|x| *x <= self.high + self.step * 1e-9)
            .map(|x| {
                // No "-0".
                let x = if x.abs() < self.step * 1e-9 { 0.0 } else { x };
                (x, format!("{x:.decimals$}"))
            })
            .collect()
    }
}

/// `text` with the five characters escaped that mean something in HTML and SVG.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

/// `plot` as an `<svg>` element.
#[must_use]
pub fn svg(plot: &Plot) -> String {
    let finite = |series: &Series| -> Vec<(f64, f64)> {
        let points = series.points.iter().copied();
        points
            .filter(|(x, y)| x.is_finite() && y.is_finite())
            .collect()
    };
    let all: Vec<(f64, f64)> = plot.series.iter().flat_map(finite).collect();
    let bar = plot
        .series
        .iter()
        .filter(|series| series.mark == Mark::Bars);
    let bar = bar
        .map(|series| spacing(&series.points))
        .fold(0.0, f64::max);
    let least = |pick: fn(&(f64, f64)) -> f64| all.iter().map(pick).fold(f64::INFINITY, f64::min);
    let most =
        |pick: fn(&(f64, f64)) -> f64| all.iter().map(pick).fold(f64::NEG_INFINITY, f64::max);
    let (mut x_low, mut x_high, mut y_high) = (0.0, 1.0, 1.0);
    if !all.is_empty() {
        (x_low, x_high) = (least(|p| p.0) - bar / 2.0, most(|p| p.0) + bar / 2.0);
        y_high = most(|p| p.1);
    }
    let mut x = Axis::new(x_low, x_high, (LEFT, WIDTH - RIGHT), 9.0, false);
    if all.iter().all(|(x, _)| x.fract() == 0.0) {
        x.step = x.step.max(1.0);
    }
    let (places, below) = places(&plot.series);
    let height = HEIGHT + below;
    let y = Axis::new(0.0, y_high, (height - BOTTOM, TOP + below), 5.0, true);

    let mut out = String::new();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(&plot.title)
    );
    frame(&mut out, plot, &x, &y);
    for (series, colour) in plot.series.iter().zip(COLOURS.iter().cycle()) {
        draw(&mut out, series.mark, &finite(series), colour, bar, &x, &y);
    }
    legend(&mut out, &plot.series, &places);
    out.push_str("</svg>");
    out
}

/// Distance between neighbouring points.
fn spacing(points: &[(f64, f64)]) -> f64 {
    let gaps = points.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let least = gaps.fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { 1.0 }
}

fn frame(out: &mut String, plot: &Plot, x: &Axis, y: &Axis) {
    for (value, label) in y.ticks() {
        let at = y.place(value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            x.start,
            x.end,
            x.start - 7.0,
            at + 4.0
        );
    }
    for (value, label) in x.ticks() {
        let at = x.place(value);
        let _ = write!(
            out,
            "<line class=\"tick\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
            y.start,
            y.start + 5.0,
            y.start + 18.0
        );
    }
    let _ = write!(
        out,
        "<line class=\"axis\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>\
         <text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>\
         <text class=\"label\" transform=\"translate(15 {:.1}) rotate(-90)\" \
         text-anchor=\"middle\">{}</text>",
        x.start,
        x.end,
        y.start,
        y.start,
        f64::midpoint(x.start, x.end),
        y.start + BOTTOM - 10.0,
        escape(&plot.x_label),
        f64::midpoint(y.start, y.end),
        escape(&plot.y_label)
    );
}

fn draw(
    out: &mut String,
    mark: Mark,
    points: &[(f64, f64)],
    colour: &str,
    bar: f64,
    x: &Axis,
    y: &Axis,
) {
    match mark {
        Mark::Line | Mark::Reference => {
            let path: String = points
                .iter()
                .map(|(px, py)| format!("{:.1},{:.1} ", x.place(*px), y.place(*py)))
                .collect();
            let style = if mark == Mark::Line {
                "stroke-width=\"2.5\""
            } else {
                "stroke-width=\"2\" stroke-dasharray=\"7 5\""
            };
            let _ = write!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" {style} points=\"{}\"/>",
                path.trim_end()
            );
        }
        Mark::Bars => {
            let width = (x.place(x.low + bar) - x.start) * 0.86;
            for (px, py) in points {
                let top = y.place(*py);
                let _ = write!(
                    out,
                    "<rect fill=\"{colour}\" fill-opacity=\"0.55\" x=\"{:.1}\" y=\"{top:.1}\" \
                     width=\"{width:.1}\" height=\"{:.1}\"/>",
                    x.place(*px) - width / 2.0,
                    (y.start - top).max(0.0)
                );
            }
        }
        Mark::Intervals => {
            for pair in points.chunks_exact(2) {
                let (at, low, high) = (x.place(pair[0].0), pair[0].1, pair[1].1);
                let _ = write!(
                    out,
                    "<line stroke=\"#555\" stroke-width=\"1.5\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
                     y1=\"{:.1}\" y2=\"{:.1}\"/>",
                    y.place(low),
                    y.place(high)
                );
            }
        }
        Mark::Dots => {
            for (px, py) in points {
                let _ = write!(
                    out,
                    "<circle fill=\"{colour}\" r=\"3\" cx=\"{:.1}\" cy=\"{:.1}\"/>",
                    x.place(*px),
                    y.place(*py)
                );
            }
        }
    }
}

/// Where each entry of the legend stands (left, middle of its row), and how far further rows push
/// the picture down. Widths are those of a wide font, so that none runs out of the picture.
#[expect(clippy::cast_precision_loss, reason = "a few characters")]
fn places(series: &[Series]) -> (Vec<(f64, f64)>, f64) {
    let (mut at, mut middle) = (LEFT, 16.0);
    let place = |series: &Series| {
        let text = 31.0 + 7.6 * shown(&series.name).chars().count() as f64;
        if at > LEFT && at + text > WIDTH - RIGHT {
            (at, middle) = (LEFT, middle + LEGEND_ROW);
        }
        let place = (at, middle);
        at += text + 24.0;
        place
    };
    let places: Vec<(f64, f64)> = series.iter().map(place).collect();
    (places, middle - 16.0)
}

fn legend(out: &mut String, series: &[Series], places: &[(f64, f64)]) {
    let entries = series.iter().zip(places).zip(COLOURS.iter().cycle());
    for ((series, &(at, middle)), colour) in entries {
        let sample = match series.mark {
            Mark::Line => format!(
                "<line x1=\"{at:.0}\" x2=\"{:.0}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"{colour}\" \
                 stroke-width=\"2.5\"/>",
                at + 24.0
            ),
            Mark::Reference => format!(
                "<line x1=\"{at:.0}\" x2=\"{:.0}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"{colour}\" \
                 stroke-width=\"2\" stroke-dasharray=\"7 5\"/>",
                at + 24.0
            ),
            Mark::Bars => format!(
                "<rect x=\"{at:.0}\" y=\"{}\" width=\"24\" height=\"12\" fill=\"{colour}\" \
                 fill-opacity=\"0.55\"/>",
                middle - 6.0
            ),
            Mark::Intervals => format!(
                "<line x1=\"{0:.0}\" x2=\"{0:.0}\" y1=\"{1}\" y2=\"{2}\" \
                 stroke=\"#555\" stroke-width=\"1.5\"/>",
                at + 12.0,
                middle - 8.0,
                middle + 8.0
            ),
            Mark::Dots => {
                format!(
                    "<circle cx=\"{:.0}\" cy=\"{middle}\" r=\"3.5\" fill=\"{colour}\"/>",
                    at + 12.0
                )
            }
        };
        let _ = write!(
            out,
            "{sample}<text x=\"{:.0}\" y=\"{}\">{}</text>",
            at + 31.0,
            middle + 4.0,
            escape(&shown(&series.name))
        );
    }
}

fn shown(name: &str) -> String {
    match name.char_indices().nth(LEGEND_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(points: Vec<(f64, f64)>) -> Plot {
        Plot {
            title: "a < b".to_owned(),
            caption: String::new(),
            x_label: "x & y".to_owned(),
            y_label: String::new(),
            series: vec![Series {
                name: "s".to_owned(),
                mark: Mark::Line,
                points,
            }],
            table_head: Vec::new(),
            table_rows: Vec::new(),
        }
    }

    /// Many long entries take further rows; no entry ends to the right of the picture, and the
    /// data stays below the legend.
    #[test]
    fn a_long_legend_takes_further_rows() {
        let mut plot = plot(vec![(0.0, 1.0), (1.0, 2.0)]);
        let one = svg(&plot);
        assert!(one.contains("viewBox=\"0 0 760 340\""));
        let series = plot.series[0].clone();
        plot.series = (0..7)
            .map(|number| Series {
                name: format!("number {number} of a long legend"),
                ..series.clone()
            })
            .collect();
        let (places, below) = places(&plot.series);
        assert_eq!(below, 60.0); // two fit a row
        for (at, _) in &places {
            assert!(at + 31.0 + 7.6 * 25.0 <= WIDTH - RIGHT);
        }
        assert_eq!(places.last().expect("seven").1, 16.0 + below);
        assert!(svg(&plot).contains("viewBox=\"0 0 760 400\""));
    }

    #[test]
    fn a_name_longer_than_the_picture_is_cut() {
        let mut plot = plot(vec![(0.0, 1.0)]);
        plot.series[0].name = "ε".repeat(300);
        let svg = svg(&plot);
        assert_eq!(svg.matches('ε').count(), LEGEND_CHARS);
        #[expect(clippy::cast_precision_loss, reason = "a few characters")]
        let end = LEFT + 31.0 + 7.6 * (LEGEND_CHARS + 1) as f64;
        assert!(end <= WIDTH);
    }

    #[test]
    fn whole_numbers_have_whole_ticks() {
        let ticks = |points| svg(&plot(points)).matches("middle\">1.").count();
        assert_eq!(ticks(vec![(1.0, 0.0), (2.0, 0.0)]), 0);
        assert!(ticks(vec![(1.0, 0.0), (1.5, 0.0), (2.0, 0.0)]) > 3);
    }

    #[test]
    fn text_is_escaped_and_odd_numbers_left_out() {
        let svg = svg(&plot(vec![
            (0.0, 0.0),
            (f64::NAN, 1.0),
            (1.0, f64::INFINITY),
            (2.0, 4.0),
        ]));
        assert!(svg.contains("a &lt; b") && svg.contains("x &amp; y"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_plot_of_nothing_or_of_one_point_still_has_axes() {
        for points in [vec![], vec![(3.0, 0.0)], vec![(1e9, 1e-9)]] {
            let svg = svg(&plot(points));
            assert!(
                svg.contains("class=\"axis\"") && !svg.contains("NaN"),
                "{svg}"
            );
        }
    }

    #[test]
    fn ticks_are_round_numbers() {
        let labels = |low, high| -> Vec<String> {
            let axis = Axis::new(low, high, (0.0, 100.0), 5.0, true);
            axis.ticks().into_iter().map(|tick| tick.1).collect()
        };
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(
            labels(-3.0, 47.0),
            ["-10", "0", "10", "20", "30", "40", "50"]
        );
    }
}
