//! Plots as inline SVG: axes, lines, bars, dots, a legend. No script, no external font.
//!
//! Written by hand because it is all that a report needs: the `plotters` crate would bring a
//! font stack and a canvas for three shapes and an axis.
//!
//! | module  | what                                                         |
//! |---------|--------------------------------------------------------------|
//! | `axis`  | linear and logarithmic axes, ticks                           |
//! | `marks` | how series look, and the legend                              |
//!
//! | quantity    | unit                                       |
//! |-------------|--------------------------------------------|
//! | picture     | 760 × 340 user units, scaled by the page; higher by each further row of the legend |
//! | data        | whatever the plot's axes say                 |
//!
//! Non-finite points are left out.

mod axis;
mod marks;

use std::fmt::Write as _;

use axis::{Axis, Scale, by_factors, width};
use marks::{draw, legend, places, styles};

use crate::outcome::{Mark, Plot, Series};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 340.0;
/// Left and right of the axes, at least: labels take what they need.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 48.0;

/// Left of the labels of the y axis: what the axis is called.
const NAME: f64 = 26.0;

/// From labels of ticks to the axis.
const GAP: f64 = 7.0;

/// Steps of the x axis, about; fewer if their labels are long.
const X_STEPS: [f64; 4] = [9.0, 6.0, 4.0, 2.0];

/// Share of the x axis left free beside the first and the last dot.
const BESIDE_DOTS: f64 = 0.04;

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
    let (places, below) = places(&plot.series);
    let height = HEIGHT + below;
    let bar = plot
        .series
        .iter()
        .filter(|series| series.mark == Mark::Bars);
    let bar = bar
        .map(|series| spacing(&series.points))
        .fold(0.0, f64::max);
    let y = y_scale(&plot.series);
    let left = LEFT.max(NAME + y.widest() + GAP);
    let y = y.on(height - BOTTOM, TOP + below);
    let x = x_scale(&plot.series, bar, WIDTH - left - RIGHT);
    let last = x.ticks.last().map_or(0.0, |(_, label)| width(label));
    let x = x.on(left, WIDTH - RIGHT.max(last / 2.0 + 2.0));

    let mut out = String::new();
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(&plot.title)
    );
    frame(&mut out, plot, &x, &y);
    let styles = styles(&plot.series);
    // Bands first: they hide nothing.
    let drawn = || plot.series.iter().zip(&styles);
    let band = |series: &Series| series.mark == Mark::Band;
    let (bands, others) = (
        drawn().filter(|(one, _)| band(one)),
        drawn().filter(|(one, _)| !band(one)),
    );
    for (series, style) in bands.chain(others) {
        let points: Vec<(f64, f64)> = finite(series).collect();
        draw(&mut out, series.mark, &points, *style, bar, (&x, &y));
    }
    legend(&mut out, &plot.series, &styles, &places);
    out.push_str("</svg>");
    out
}

fn finite(series: &Series) -> impl Iterator<Item = (f64, f64)> {
    let points = series.points.iter().copied();
    points.filter(|(x, y)| x.is_finite() && y.is_finite())
}

/// The least and the greatest of `values`, or those of an empty plot.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let none = (f64::INFINITY, f64::NEG_INFINITY);
    let ends = values.fold(none, |(low, high), x| (low.min(x), high.max(x)));
    if ends.0 <= ends.1 { ends } else { (0.0, 1.0) }
}

fn x_scale(series: &[Series], bar: f64, pixels: f64) -> Scale {
    let all = || series.iter().flat_map(finite).map(|point| point.0);
    let (low, high) = ends(all());
    if bar == 0.0 && by_factors(all()) {
        return Scale::logarithmic(low, high, false).padded(BESIDE_DOTS);
    }
    let (low, high) = (low - bar / 2.0, high + bar / 2.0);
    let whole = all().all(|x| x.fract() == 0.0);
    let mut scales = X_STEPS.map(|count| Scale::linear(low, high, count, false, whole));
    #[expect(clippy::cast_precision_loss, reason = "a few ticks")]
    let fits = |scale: &Scale| (scale.widest() + 2.0 * GAP) * (scale.ticks.len() as f64) < pixels;
    let at = scales.iter().position(fits).unwrap_or(X_STEPS.len() - 1);
    scales.swap(0, at);
    let [scale, ..] = scales;
    let single = |one: &Series| one.mark == Mark::Line && one.points.len() == 1;
    let dots = |one: &Series| matches!(one.mark, Mark::Dots | Mark::Intervals) || single(one);
    if bar == 0.0 && series.iter().any(dots) {
        scale.padded(BESIDE_DOTS)
    } else {
        scale
    }
}

fn y_scale(series: &[Series]) -> Scale {
    let (low, high) = ends(series.iter().flat_map(finite).map(|point| point.1));
    let bars = series.iter().any(|one| one.mark == Mark::Bars);
    // Neither theory nor the far end of an interval that is almost 0 makes the axis.
    let plain = |one: &&Series| matches!(one.mark, Mark::Line | Mark::Dots);
    let values = || {
        let plain = series.iter().filter(plain);
        plain.flat_map(finite).map(|point| point.1)
    };
    if !bars && by_factors(values()) {
        return Scale::logarithmic(ends(values()).0, high, true);
    }
    if series.iter().flat_map(finite).next().is_none() {
        return Scale::linear(0.0, 1.0, 5.0, true, false);
    }
    // Bars and shares stand on 0, and what comes near it does; else the least is far up.
    let shares = (0.0..=1.0).contains(&low) && high <= 1.0;
    let near = low > 0.0 && low < high / 2.0;
    if bars || shares || near || low == high {
        Scale::linear(low.min(0.0), high.max(0.0), 5.0, true, false)
    } else {
        Scale::linear(low, high, 5.0, true, false)
    }
}

/// Distance between neighbouring points.
fn spacing(points: &[(f64, f64)]) -> f64 {
    let gaps = points.windows(2).map(|pair| pair[1].0 - pair[0].0);
    let least = gaps.fold(f64::INFINITY, f64::min);
    if least.is_finite() { least } else { 1.0 }
}

fn frame(out: &mut String, plot: &Plot, x: &Axis, y: &Axis) {
    for (value, label) in &y.scale.ticks {
        let at = y.place(*value);
        let _ = write!(
            out,
            "<line class=\"grid\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            x.start,
            x.end,
            x.start - GAP,
            at + 4.0
        );
    }
    for (value, label) in &x.scale.ticks {
        let at = x.place(*value);
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

#[cfg(test)]
mod tests {
    use super::{marks::LEGEND_CHARS, *};

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

    /// `count` times the same line, by other names.
    fn lines(count: usize, points: &[(f64, f64)]) -> Plot {
        let mut plot = plot(points.to_vec());
        let series = plot.series[0].clone();
        plot.series = (0..count)
            .map(|number| Series {
                name: format!("number {number} of a long legend"),
                ..series.clone()
            })
            .collect();
        plot
    }

    /// The value of `attribute` in each `tag` of `svg` that has it, if it is a number.
    fn numbers(svg: &str, tag: &str, attribute: &str) -> Vec<f64> {
        let tags = svg.split(tag).skip(1);
        tags.filter_map(|rest| {
            let inside = rest.split_once('>')?.0;
            let value = inside.split_once(&format!(" {attribute}=\""))?.1;
            value.split_once('"')?.0.parse().ok()
        })
        .collect()
    }

    /// Many long entries take further rows; no entry ends to the right of the picture, and the
    /// data stays below the legend.
    #[test]
    fn a_long_legend_takes_further_rows() {
        let points = [(0.0, 1.0), (1.0, 2.0)];
        assert!(svg(&plot(points.to_vec())).contains("viewBox=\"0 0 760 340\""));
        let plot = lines(7, &points);
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

    /// No label of a tick runs out of the picture or into what the axis is called.
    #[test]
    fn labels_have_room() {
        for points in [
            vec![(10.0, 24_000.0), (10_000.0, 8_750_000.0), (20_000.0, 9e6)],
            vec![(0.0, 3e-9), (123_456.0, 9e-9)],
            vec![(1.0, 1.0), (1e4, 3e5), (1e6, 4e9)],
            vec![(1.0, -3e11), (2.0, 1e12)],
        ] {
            let svg = svg(&plot(points));
            for text in svg.split("<text x=\"").skip(1) {
                let at: f64 = text.split_once('"').expect("closed").0.parse().expect("x");
                let label = text.split_once('>').expect("closed").1;
                let long = width(label.split_once('<').expect("closed").0);
                if text.contains("text-anchor=\"end\"") {
                    assert!(at - long >= NAME, "{text}");
                } else if text.contains("text-anchor=\"middle\"") && !text.contains("label") {
                    assert!(at + long / 2.0 <= WIDTH, "{text}");
                }
            }
        }
    }

    /// From 0 only where that leaves something to be seen; what is below 0 is in the picture.
    #[test]
    fn values_far_from_0_fill_the_picture() {
        for (values, from_0) in [
            ([12.1, 12.4, 12.2], false),
            ([-3.0, 2.0, 4.0], false),
            ([-0.3, -0.2, -0.1], false),
            ([0.9, 0.95, 1.0], true),
            ([4.0, 12.0, 9.0], true),
        ] {
            let points: Vec<_> = [1.0, 2.0, 3.0].into_iter().zip(values).collect();
            let svg = svg(&plot(points));
            let line = svg.split_once(" points=\"").expect("a line").1;
            let heights = line.split_once('"').expect("closed").0.split(' ');
            let heights: Vec<f64> = heights
                .map(|pair| pair.split_once(',').expect("a pair").1.parse().expect("y"))
                .collect();
            let (low, high) = ends(heights.iter().copied());
            assert!(
                low >= TOP - 0.1 && high <= HEIGHT - BOTTOM + 0.1,
                "{values:?}"
            );
            let filled = (high - low) / (HEIGHT - BOTTOM - TOP);
            assert!(from_0 || filled > 0.4, "{values:?}: {filled}");
            assert_eq!(
                svg.contains(">0.0<") || svg.contains(">0<"),
                from_0 || values[0] < -1.0,
                "{values:?}"
            );
        }
    }

    /// As many lines as there are pairs of a colour and a shape differ in one of them, in the legend as well.
    #[test]
    fn many_lines_differ_in_more_than_colour() {
        let plot = lines(42, &[(0.0, 1.0), (1.0, 2.0)]);
        let styles = styles(&plot.series);
        for (at, style) in styles.iter().enumerate() {
            let drawn = |style| {
                let mut out = String::new();
                let scale = || Scale::linear(0.0, 1.0, 5.0, false, false).on(0.0, 1.0);
                let points = [(0.5, 0.5)];
                draw(
                    &mut out,
                    Mark::Line,
                    &points,
                    style,
                    0.0,
                    (&scale(), &scale()),
                );
                out
            };
            for other in &styles[..at] {
                assert_ne!(drawn(*style), drawn(*other));
            }
        }
    }

    #[test]
    fn a_line_of_one_point_is_a_dot() {
        assert!(svg(&plot(vec![(0.5, 1.0)])).contains("<circle"));
        assert!(!svg(&plot(vec![(0.5, 1.0), (1.0, 1.0)])).contains("<circle"));
    }

    #[test]
    fn a_band_is_drawn_around_its_line() {
        let mut plot = lines(2, &[(0.0, 1.0), (1.0, 2.0)]);
        let band = |half: f64| {
            let around = move |(x, y): (f64, f64)| [(x, y - half), (x, y + half)];
            [(0.0, 1.0), (1.0, 2.0)].into_iter().flat_map(around)
        };
        plot.series.insert(
            1,
            Series {
                name: String::new(),
                mark: Mark::Band,
                points: band(0.5).collect(),
            },
        );
        let svg = svg(&plot);
        let colour = |tag: &str, attribute: &str| {
            let start = svg.split_once(tag).expect("drawn").1;
            let value = start
                .split_once(&format!("{attribute}=\""))
                .expect("coloured")
                .1;
            value.split_once('"').expect("closed").0.to_owned()
        };
        assert_eq!(colour("<polygon", "fill"), colour("<polyline", "stroke"));
        assert_eq!(
            svg.matches("a long legend").count(),
            2,
            "the band has no entry"
        );
        assert_eq!(svg.matches("<polygon").count(), 1);
    }

    /// Neither the first nor the last dot stands on the edge.
    #[test]
    fn dots_stand_inside() {
        let mut plot = plot(vec![(1.0, 1.0), (2.0, 2.0)]);
        plot.series[0].mark = Mark::Dots;
        let at = numbers(&svg(&plot), "<circle", "cx");
        assert!(
            at[0] > LEFT + 10.0 && at[1] < WIDTH - RIGHT - 10.0,
            "{at:?}"
        );
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
}
