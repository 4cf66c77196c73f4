//! The fault space: when and where faults were, and what came of them.

use super::number::{grouped, short, step};
use super::summary::{Counts, Summary};
use super::svg::{Figure, cut, mark, width};
use crate::meta::GoldenRun;
use crate::row::{Outcome, Row};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 114.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 34.0;
/// Of all regions together.
const HEIGHT: f64 = 320.0;
/// Between regions.
const GAP: f64 = 14.0;
/// Of the strip for faults without an address, and no region is lower.
const STRIP: f64 = 18.0;
/// More regions would not be read.
const REGIONS_MAX: usize = 8;
/// More marks would hide each other.
const MARKS_MAX: usize = 1500;
/// Width of a cell, and its height as long as there are few injections in it.
const CELL: f64 = 10.0;
/// From so many injections on, cells are higher, and divided from top to bottom: a row of them is a bar for each time.
const DENSE: usize = 12_000;
const HIGH: f64 = 26.0;
const LINE_BYTES: u64 = 64;

/// The instruction at which a fault was triggered, or was to be.
fn instruction(row: &Row) -> Option<u64> {
    row.triggered.or_else(|| {
        let word = row.fault.split_whitespace().find_map(|word| word.strip_prefix("at=icount:"))?;
        word.split(',').next()?.parse().ok()
    })
}

/// Neighbouring addresses, and where they are drawn.
struct Region {
    lines: RangeInclusive<u64>,
    top: f64,
    height: f64,
}

impl Region {
    /// Lines, those that nothing was injected into among them.
    fn size(&self) -> f64 {
        ((self.lines.end() - self.lines.start()) / LINE_BYTES) as f64 + 1.0
    }

    /// Rows of cells that are about so high.
    fn rows(&self, high: f64) -> f64 {
        (self.height / high).round().clamp(1.0, self.size())
    }

    /// The middle of a line; low addresses are at the bottom.
    fn y(&self, line: u64) -> f64 {
        let index = (line.saturating_sub(*self.lines.start()) / LINE_BYTES) as f64 + 0.5;
        self.top + self.height * (1.0 - index / self.size())
    }
}

/// Cuts the addresses where nothing is for long, and lays the regions out, the highest on top.
fn regions(lines: &BTreeSet<u64>) -> Vec<Region> {
    let (Some(&first), Some(&last)) = (lines.first(), lines.last()) else { return Vec::new() };
    let long = ((last - first) / 20).max(16 * LINE_BYTES);
    let mut gaps: Vec<(u64, u64)> =
        lines.iter().zip(lines.iter().skip(1)).map(|(a, b)| (b - a, *b)).filter(|(gap, _)| *gap > long).collect();
    gaps.sort_by(|a, b| b.cmp(a));
    gaps.truncate(REGIONS_MAX - 1);
    let mut starts: Vec<u64> = gaps.into_iter().map(|(_, start)| start).chain([first]).collect();
    starts.sort_unstable_by(|a, b| b.cmp(a));
    let mut spans = Vec::new();
    let mut below = u64::MAX;
    for start in starts {
        let end = lines.range(start..=below).next_back().copied().unwrap_or(start);
        spans.push(start..=end);
        below = start.saturating_sub(1);
    }
    let left = HEIGHT - GAP * (spans.len() - 1) as f64 - STRIP * spans.len() as f64;
    let size = |span: &RangeInclusive<u64>| (span.end() - span.start()) as f64 + LINE_BYTES as f64;
    let all: f64 = spans.iter().map(size).sum();
    let mut top = TOP;
    let mut regions = Vec::new();
    for span in spans {
        let height = STRIP + left * size(&span) / all;
        regions.push(Region { lines: span, top, height });
        top += height + GAP;
    }
    regions
}

/// The horizontal axis.
struct Time {
    start: u64,
    end: u64,
}

impl Time {
    fn new(golden: &GoldenRun, instructions: impl Iterator<Item = u64>) -> Time {
        let (mut start, mut end) = (golden.start, golden.end);
        for at in instructions {
            (start, end) = (start.min(at), end.max(at));
        }
        Time { start, end: end.max(start.saturating_add(1)) }
    }

    fn x(&self, at: u64) -> f64 {
        let share = at.saturating_sub(self.start) as f64 / (self.end - self.start) as f64;
        LEFT + (RIGHT - LEFT) * share.min(1.0)
    }
}

pub(super) fn figure(summary: &Summary) -> Figure {
    let mut figure = Figure::new("fault-space", "Fault space: time and address of faults, and their outcomes", WIDTH);
    let golden = &summary.table.campaign.golden;
    let placed: Vec<(&Row, u64)> =
        summary.table.rows.iter().filter_map(|row| instruction(row).map(|at| (row, at))).collect();
    if placed.is_empty() {
        figure.description = "No injection has an instruction at which it was triggered.".into();
        figure.say_empty();
        return figure;
    }
    let time = Time::new(golden, placed.iter().map(|(_, at)| *at));
    let regions = regions(&placed.iter().filter_map(|(row, _)| row.line).collect());
    let strip = placed.iter().any(|(row, _)| row.line.is_none());
    let mut bottom = regions.last().map_or(TOP - GAP, |region| region.top + region.height);
    let strip = strip.then(|| {
        bottom += GAP + STRIP;
        bottom - STRIP
    });
    for region in &regions {
        ground(&mut figure, region.top, region.height);
        let (first, last) = (*region.lines.start(), *region.lines.end());
        if region.height < 30.0 || first == last {
            figure.text(LEFT - 8.0, region.top + region.height / 2.0 + 4.0, "end address", &format!("{first:#x}"));
        } else {
            figure.text(LEFT - 8.0, region.top + 9.0, "end address", &format!("{last:#x}"));
            figure.text(LEFT - 8.0, region.top + region.height, "end address", &format!("{first:#x}"));
        }
    }
    if let Some(top) = strip {
        ground(&mut figure, top, STRIP);
        figure.text(LEFT - 8.0, top + 13.0, "end muted small", "no address");
    }
    figure.text(LEFT - 8.0, TOP - 10.0, "end muted small", "line");
    axis(&mut figure, golden, &time, bottom);
    let place = |row: &Row| match (row.line, strip) {
        (Some(line), _) => {
            let region = regions.iter().position(|region| region.lines.contains(&line))?;
            Some((region, regions[region].y(line)))
        }
        (None, Some(top)) => Some((regions.len(), top + STRIP / 2.0)),
        (None, None) => None,
    };
    let binned = placed.len() > MARKS_MAX;
    let dense = placed.len() > DENSE;
    if binned {
        let high = if dense { HIGH } else { CELL };
        let of_regions = regions.iter().map(|region| (region.top, region.height, region.rows(high)));
        let extents: Vec<(f64, f64, f64)> = of_regions.chain(strip.map(|top| (top, STRIP, 1.0))).collect();
        cells(&mut figure, &placed, &time, &extents, dense, place);
    } else {
        marks(&mut figure, &placed, &time, golden, place);
    }
    phases(&mut figure, golden, &time, bottom);
    let outcomes: Vec<Outcome> =
        Outcome::ALL.into_iter().filter(|outcome| placed.iter().any(|(row, _)| row.outcome == *outcome)).collect();
    figure.height = figure.legend(&outcomes, !binned, LEFT, bottom + 66.0);
    let elsewhere = summary.table.rows.len() - placed.len();
    figure.description = format!(
        "{} of {} injections by the instruction at which the fault was triggered and by the physical address of its line, in {} \
         regions of addresses. {}{}",
        grouped(placed.len() as u64),
        grouped(summary.table.rows.len() as u64),
        regions.len(),
        if binned { "Each cell is divided as its injections are by outcome." } else { "Each mark is an injection." },
        if elsewhere > 0 { " The others were never triggered, and their plan names no instruction." } else { "" }
    );
    figure
}

fn ground(figure: &mut Figure, top: f64, height: f64) {
    figure.put(format_args!(
        "<rect class=\"ground\" x=\"{LEFT}\" y=\"{top:.1}\" width=\"{}\" height=\"{height:.1}\"/>",
        RIGHT - LEFT
    ));
}

/// Where phases start, and the names that fit.
fn phases(figure: &mut Figure, golden: &GoldenRun, time: &Time, bottom: f64) {
    let mut phases: Vec<(u64, &str)> = golden.phases.iter().map(|(at, name)| (*at, name.as_str())).collect();
    phases.sort_by_key(|(at, _)| *at);
    for (index, (at, name)) in phases.iter().enumerate() {
        if *at < time.start || *at > time.end {
            continue;
        }
        let x = time.x(*at);
        let end = phases.get(index + 1).map_or(RIGHT, |(next, _)| time.x(*next));
        figure.line((x, TOP - 22.0), (x, bottom), "phase");
        let room = end - x - 10.0;
        let fits = (room / 8.2).max(0.0) as usize;
        if width(name) <= room {
            figure.text(x + 5.0, TOP - 12.0, "start small", name);
        } else if fits >= 4 {
            figure.text(x + 5.0, TOP - 12.0, "start small", &cut(name, fits - 1));
        }
    }
}

fn axis(figure: &mut Figure, golden: &GoldenRun, time: &Time, bottom: f64) {
    figure.line((LEFT, bottom + 4.0), (RIGHT, bottom + 4.0), "axis");
    let from = golden.start;
    let step = step((time.end - time.start) as f64, 8.0).max(1.0) as u64;
    let mut at = 0u64;
    while from.saturating_add(at) <= time.end {
        let x = time.x(from.saturating_add(at));
        figure.line((x, bottom + 4.0), (x, bottom + 9.0), "axis");
        // The last one stays inside.
        let class = if x > RIGHT - 16.0 { "end muted small" } else { "middle muted small" };
        figure.text(x.min(RIGHT), bottom + 23.0, class, &short(at as f64));
        let Some(next) = at.checked_add(step) else { break };
        at = next;
    }
    figure.text(LEFT, bottom + 42.0, "start muted small", "instructions since the start of the golden run");
}

/// One mark for each injection; failures on top of the others.
fn marks<'a>(
    figure: &mut Figure,
    placed: &[(&'a Row, u64)],
    time: &Time,
    golden: &GoldenRun,
    place: impl Fn(&'a Row) -> Option<(usize, f64)>,
) {
    for outcome in Outcome::ALL {
        for (row, at) in placed.iter().filter(|(row, _)| row.outcome == outcome) {
            let Some((_, y)) = place(row) else { continue };
            let address = row.line.map_or(String::new(), |line| format!(", line {line:#x}"));
            figure.put(format_args!(
                "<path class=\"mark o-{outcome}\" d=\"{}\"><title>{}: {outcome}, instruction {}{address}</title></path>",
                mark(outcome, time.x(*at), y),
                row.id,
                grouped(at.saturating_sub(golden.start)),
            ));
        }
    }
}

/// What is in a cell.
#[derive(Default)]
struct Cell {
    counts: Counts,
    /// From the lowest to the highest address.
    lines: Option<(u64, u64)>,
}

/// Cells, divided as their injections are. `extents` has the top, the height and the rows of regions.
fn cells<'a>(
    figure: &mut Figure,
    placed: &[(&'a Row, u64)],
    time: &Time,
    extents: &[(f64, f64, f64)],
    dense: bool,
    place: impl Fn(&'a Row) -> Option<(usize, f64)>,
) {
    let columns = ((RIGHT - LEFT) / CELL).floor();
    let wide = (RIGHT - LEFT) / columns;
    // By region, row and column.
    let mut cells: BTreeMap<(usize, u32, u32), Cell> = BTreeMap::new();
    for (row, at) in placed {
        let Some((region, y)) = place(row) else { continue };
        let (top, height, rows) = extents[region];
        let column = ((time.x(*at) - LEFT) / wide).floor().min(columns - 1.0) as u32;
        let line = ((y - top) / (height / rows)).floor().clamp(0.0, rows - 1.0) as u32;
        let cell = cells.entry((region, line, column)).or_default();
        cell.counts.add(row.outcome);
        if let Some(line) = row.line {
            let (low, high) = cell.lines.unwrap_or((line, line));
            cell.lines = Some((low.min(line), high.max(line)));
        }
    }
    for ((region, line, column), Cell { counts, lines }) in cells {
        let (top, height, rows) = extents[region];
        let high = height / rows;
        let (x, y) = (LEFT + wide * f64::from(column), top + high * f64::from(line));
        let present: Vec<Outcome> = Outcome::ALL.into_iter().filter(|of| counts.of(*of) > 0).collect();
        let listed: Vec<String> = present.iter().map(|of| format!("{} {of}", counts.of(*of))).collect();
        let where_ = match lines {
            Some((low, high)) if low == high => format!("line {low:#x}"),
            Some((low, high)) => format!("lines {low:#x} to {high:#x}"),
            None => "no address".into(),
        };
        figure.put(format_args!("<g class=\"cell\"><title>{where_}: {}</title>", listed.join(", ")));
        let mut before = 0.0;
        for outcome in present {
            let part = counts.of(outcome) as f64 / counts.all() as f64;
            let (left, top, width, height) = if dense {
                (x, y + (high - 2.0) * before, wide, (high - 2.0) * part)
            } else {
                (x + (wide - 0.8) * before, y, (wide - 0.8) * part, high - 0.8)
            };
            figure.put(format_args!(
                "<rect class=\"o-{outcome}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>"
            ));
            before += part;
        }
        figure.put(format_args!("</g>"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_cut_where_nothing_is_and_do_not_overlap() {
        let near = |base: u64, lines: u64| (0..lines).map(move |i| base + i * LINE_BYTES);
        let lines: BTreeSet<u64> = near(0x1000, 64).chain(near(0x40_0000, 2)).chain([1 << 45]).collect();
        let laid = regions(&lines);
        assert_eq!(laid.iter().map(|r| *r.lines.start()).collect::<Vec<_>>(), [1 << 45, 0x1000]);
        for pair in laid.windows(2) {
            assert!(pair[0].top + pair[0].height < pair[1].top);
        }
        let last = laid.last().unwrap();
        assert!((last.top + last.height - TOP - HEIGHT).abs() < 1e-6);
        for line in lines {
            let region = laid.iter().find(|region| region.lines.contains(&line)).unwrap();
            assert!(region.y(line) > region.top && region.y(line) < region.top + region.height);
        }
        assert!(regions(&BTreeSet::new()).is_empty());
        let many: BTreeSet<u64> = (0..20).map(|i| i << 30).collect();
        assert!(regions(&many).len() <= REGIONS_MAX);
        assert_eq!(regions(&BTreeSet::from([0, !63])).len(), 2);
    }
}
