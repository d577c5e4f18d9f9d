//! How series look: colours, dashes, markers, and the legend that says which is which.
//!
//! Colours are those of Okabe and Ito, told apart by every common kind of colour blindness. Colour is never the only
//! sign: lines and dots have markers, references dashes, and 42 series pass before a pair comes again.

use std::fmt::Write as _;

use super::{LEFT, RIGHT, WIDTH, axis::Axis, escape};
use crate::outcome::{Mark, Series};

/// Blue, vermilion, bluish green, purple, black, orange, sky blue.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#9a4f80", "#000000", "#e69f00", "#56b4e9",
];

/// Shapes of markers.
const SHAPES: usize = 6;

/// Of references.
const DASHES: [&str; 4] = ["7 5", "2 4", "12 4 3 4", "5 2"];

/// Markers on a line of many points, about.
const MARKERS: usize = 8;

/// Points of a line that all have a marker.
const FEW: usize = 24;

/// Height of a row of the legend.
pub(super) const LEGEND_ROW: f64 = 20.0;

/// Characters of a name that the legend shows at most: as many as fit a row.
pub(super) const LEGEND_CHARS: usize = 85;

/// What tells a series from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Style {
    colour: &'static str,
    shape: usize,
    dashes: &'static str,
    /// Whether its line has markers.
    marked: bool,
    number: usize,
}

/// One for each of `series`. A band has that of the series before it, whose band it is.
pub(super) fn styles(series: &[Series]) -> Vec<Style> {
    let lines = series.iter().filter(|one| one.mark == Mark::Line).count();
    let (mut next, mut references) = (0, 0);
    let style = |one: &Series| {
        let number = match one.mark {
            Mark::Band | Mark::Intervals => next.max(1) - 1,
            Mark::Line | Mark::Reference | Mark::Bars | Mark::Dots => {
                next += 1;
                next - 1
            }
        };
        references += usize::from(one.mark == Mark::Reference);
        Style {
            colour: COLOURS[number % COLOURS.len()],
            shape: number % SHAPES,
            dashes: DASHES[references.max(1).wrapping_sub(1) % DASHES.len()],
            marked: lines > 1 || one.points.len() == 1,
            number,
        }
    };
    series.iter().map(style).collect()
}

/// Draws `points`, bars being `bar` wide in data.
pub(super) fn draw(
    out: &mut String,
    mark: Mark,
    points: &[(f64, f64)],
    style: Style,
    bar: f64,
    (x, y): (&Axis, &Axis),
) {
    let colour = style.colour;
    let at = |&(px, py): &(f64, f64)| (x.place(px), y.place(py));
    match mark {
        Mark::Line | Mark::Reference => {
            let path: String = points
                .iter()
                .map(at)
                .map(|(x, y)| format!("{x:.1},{y:.1} "))
                .collect();
            let _ = write!(
                out,
                "<polyline fill=\"none\" stroke=\"{colour}\" {} points=\"{}\"/>",
                stroke(mark, style),
                path.trim_end()
            );
            if mark == Mark::Line && style.marked {
                let each = if points.len() <= FEW {
                    1
                } else {
                    points.len().div_ceil(MARKERS)
                };
                // Not all lines at the same places: where they coincide, each still shows.
                let first = (style.number * each / 3) % each;
                for point in points.iter().skip(first).step_by(each) {
                    out.push_str(&marker(at(point), style));
                }
            }
        }
        Mark::Bars => {
            let width = x.stretch(bar) * 0.86;
            for (px, top) in points.iter().map(at) {
                let _ = write!(
                    out,
                    "<rect fill=\"{colour}\" fill-opacity=\"0.55\" x=\"{:.1}\" y=\"{top:.1}\" \
                     width=\"{width:.1}\" height=\"{:.1}\"/>",
                    px - width / 2.0,
                    (y.start - top).max(0.0)
                );
            }
        }
        Mark::Intervals => {
            for pair in points.chunks_exact(2) {
                let ((at, low), (_, high)) = (at(&pair[0]), at(&pair[1]));
                let _ = write!(
                    out,
                    "<line stroke=\"#555\" stroke-width=\"1.5\" x1=\"{at:.1}\" x2=\"{at:.1}\" \
                     y1=\"{low:.1}\" y2=\"{high:.1}\"/>",
                );
            }
        }
        Mark::Band => {
            let lows = points.iter().step_by(2);
            let highs = points.iter().skip(1).step_by(2).rev();
            let path: String = lows
                .chain(highs)
                .map(at)
                .map(|(x, y)| format!("{x:.1},{y:.1} "))
                .collect();
            let _ = write!(
                out,
                "<polygon fill=\"{colour}\" fill-opacity=\"0.18\" points=\"{}\"/>",
                path.trim_end()
            );
        }
        Mark::Dots => {
            for point in points {
                out.push_str(&marker(at(point), style));
            }
        }
    }
}

fn stroke(mark: Mark, style: Style) -> String {
    if mark == Mark::Reference {
        format!("stroke-width=\"2\" stroke-dasharray=\"{}\"", style.dashes)
    } else {
        "stroke-width=\"2.5\"".to_owned()
    }
}

/// A circle, square, triangle, diamond, cross or plus.
fn marker((x, y): (f64, f64), style: Style) -> String {
    let colour = style.colour;
    let filled = |path: &str| format!("<path fill=\"{colour}\" d=\"M{x:.1} {y:.1}{path}z\"/>");
    let open = |path: &str| {
        format!(
            "<path fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" d=\"M{x:.1} {y:.1}{path}\"/>"
        )
    };
    match style.shape {
        0 => format!("<circle fill=\"{colour}\" r=\"3.5\" cx=\"{x:.1}\" cy=\"{y:.1}\"/>"),
        1 => filled("m-3.3-3.3h6.6v6.6h-6.6"),
        2 => filled("m0-4.6l4.3 7.6h-8.6"),
        3 => filled("m0-5l4.2 5l-4.2 5l-4.2-5"),
        4 => open("m-3.8-3.8l7.6 7.6m0-7.6l-7.6 7.6"),
        _ => open("m-4.8 0h9.6m-4.8-4.8v9.6"),
    }
}

/// Where each entry of the legend stands (left, middle of its row), and how far further rows push
/// the picture down. Widths are those of a wide font, so that none runs out of the picture; a series without a name
/// has no entry.
#[expect(clippy::cast_precision_loss, reason = "a few characters")]
pub(super) fn places(series: &[Series]) -> (Vec<(f64, f64)>, f64) {
    let (mut at, mut middle) = (LEFT, 16.0);
    let place = |series: &Series| {
        if series.name.is_empty() {
            return (at, middle);
        }
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

pub(super) fn legend(out: &mut String, series: &[Series], styles: &[Style], places: &[(f64, f64)]) {
    let entries = series.iter().zip(styles).zip(places);
    for ((series, style), &(at, middle)) in entries.filter(|((one, _), _)| !one.name.is_empty()) {
        let colour = style.colour;
        let line = format!(
            "<line x1=\"{at:.0}\" x2=\"{:.0}\" y1=\"{middle}\" y2=\"{middle}\" stroke=\"{colour}\" {}/>",
            at + 24.0,
            stroke(series.mark, *style)
        );
        let area = |opacity: &str| {
            format!(
                "<rect x=\"{at:.0}\" y=\"{}\" width=\"24\" height=\"12\" fill=\"{colour}\" \
                 fill-opacity=\"{opacity}\"/>",
                middle - 6.0
            )
        };
        let sample = match series.mark {
            Mark::Line if style.marked && series.points.len() == 1 => {
                marker((at + 12.0, middle), *style)
            }
            Mark::Line if style.marked => line + &marker((at + 12.0, middle), *style),
            Mark::Line | Mark::Reference => line,
            Mark::Bars => area("0.55"),
            Mark::Band => area("0.18"),
            Mark::Intervals => format!(
                "<line x1=\"{0:.0}\" x2=\"{0:.0}\" y1=\"{1}\" y2=\"{2}\" \
                 stroke=\"#555\" stroke-width=\"1.5\"/>",
                at + 12.0,
                middle - 8.0,
                middle + 8.0
            ),
            Mark::Dots => marker((at + 12.0, middle), *style),
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
