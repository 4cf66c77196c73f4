//! The figures as bars, in one SVG.

use super::datapath::{Way, algorithm_name};
use super::report::{Report, label};
use crypto::Algorithm;
use plotters::prelude::*;

/// Pixels of a bar with the gap to the next.
const PITCH: i32 = 18;
const BAR: i32 = 12;
const TITLE: i32 = 40;
const MARGIN: i32 = 20;
const WIDTH: i32 = 1200;
/// Where bars start in a panel.
const LABELS: i32 = 220;
/// What the longest bar's figure needs.
const FIGURES: i32 = 70;
const COLORS: [RGBColor; 6] = [
    RGBColor(0x4E, 0x79, 0xA7),
    RGBColor(0xF2, 0x8E, 0x2B),
    RGBColor(0x59, 0xA1, 0x4F),
    RGBColor(0xE1, 0x57, 0x59),
    RGBColor(0x76, 0xB7, 0xB2),
    RGBColor(0xB0, 0x7A, 0xA1),
];

/// Bars with a title.
pub struct Panel {
    pub title: String,
    pub bars: Vec<(String, f64)>,
    /// Bars of a group have the same colour.
    pub group: usize,
}

impl Panel {
    fn height(&self) -> i32 {
        TITLE + PITCH * self.bars.len() as i32 + MARGIN
    }
}

/// The figures of a report.
pub fn panels(report: &Report) -> [Vec<Panel>; 2] {
    let datapath = [Algorithm::AesXts128, Algorithm::AesXts256].map(|algorithm| {
        let rows: Vec<_> =
            report.datapath.iter().filter(|r| r.algorithm == algorithm && r.way == Way::Encrypt).collect();
        // Implementations of one workload stand together.
        let group = rows.iter().take_while(|row| row.workload == rows[0].workload).count().max(1);
        Panel {
            title: format!("{}, encryption, GiB/s at the best sample", algorithm_name(algorithm)),
            bars: rows.iter().map(|row| (label(row), row.gib_per_s())).collect(),
            group,
        }
    });
    let memory = Panel {
        title: "Modelled memory system, ns per line".into(),
        bars: report
            .memory
            .iter()
            .map(|row| (format!("{}, {}", row.access.name(), row.encryption.name()), row.timing.best))
            .collect(),
        group: super::memory::Encryption::ALL.len(),
    };
    let policies = Panel {
        title: "Slowdown of the guest by policy, percent".into(),
        bars: report.policies.iter().map(|cost| (cost.policy.name().to_owned(), cost.slowdown_percent)).collect(),
        group: 1,
    };
    [datapath.into(), vec![memory, policies]]
}

/// Draws rows of panels, at most two in each.
///
/// # Errors
/// What the drawing library says.
pub fn render(rows: &[Vec<Panel>]) -> Result<String, String> {
    let height: i32 = rows.iter().map(|row| row.iter().map(Panel::height).max().unwrap_or(0)).sum();

    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (WIDTH as u32, height.max(1) as u32)).into_drawing_area();
        root.fill(&WHITE).map_err(|e| e.to_string())?;
        let mut top = 0;
        for row in rows {
            for (column, panel) in row.iter().enumerate() {
                draw(&root, (column as i32 * WIDTH / 2, top), panel).map_err(|e| e.to_string())?;
            }
            top += row.iter().map(Panel::height).max().unwrap_or(0);
        }
        root.present().map_err(|e| e.to_string())?;
    }
    Ok(text)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type DrawResult = Result<(), DrawingAreaErrorKind<std::io::Error>>;

fn draw(area: &Area, (left, top): (i32, i32), panel: &Panel) -> DrawResult {
    let font = ("sans-serif", 15).into_font();
    let heading = ("sans-serif", 19).into_font();
    area.draw(&Text::new(panel.title.clone(), (left + MARGIN, top + MARGIN / 2), heading))?;
    let room = WIDTH / 2 - MARGIN - LABELS - FIGURES;
    let largest = panel.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    for (index, (name, value)) in panel.bars.iter().enumerate() {
        let y = top + TITLE + PITCH * index as i32;
        let start = left + MARGIN + LABELS;
        let end = start + (value / largest * f64::from(room)).max(1.0) as i32;
        let color = COLORS[index / panel.group % COLORS.len()];
        area.draw(&Text::new(name.clone(), (left + MARGIN, y), font.clone()))?;
        area.draw(&Rectangle::new([(start, y), (end, y + BAR)], color.filled()))?;
        area.draw(&Text::new(format!("{value:.2}"), (end + 5, y), font.clone()))?;
    }
    Ok(())
}
