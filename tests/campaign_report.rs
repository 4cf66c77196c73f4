//! Reports of campaigns, opened in a browser: headless Chromium. Where there is none, the tests say so and are skipped.

mod common;
#[path = "common/synthetic.rs"]
mod synthetic;

use campaign::report;
use campaign::results::Table;
use campaign::row::Outcome;
use common::Scratch;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Measures the page as it was laid out, and leaves what it found in an attribute.
const PROBE: &str = r##"<script>
const probe = {width: document.documentElement.scrollWidth, window: innerWidth, overlaps: [], outside: []};
for (const svg of document.querySelectorAll("svg")) {
  const frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll("text")].map(text => [text.textContent, text.getBoundingClientRect()]);
  texts.forEach(([name, a], index) => {
    if (a.left < frame.left - 1 || a.right > frame.right + 1 || a.bottom > frame.bottom + 1) probe.outside.push(name);
    for (const [other, b] of texts.slice(index + 1)) {
      const x = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const y = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (x > 0.5 && y > 3) probe.overlaps.push(name + " / " + other);
    }
  });
}
const buttons = [...document.querySelectorAll("#strata th button")];
probe.buttons = buttons.length;
buttons.find(button => button.textContent === "sdc")?.click();
probe.order = [...document.querySelectorAll("#strata tbody th")].map(head => head.firstChild.textContent);
probe.small = Math.min(...[...document.querySelectorAll("svg text")].map(text => {
  return parseFloat(getComputedStyle(text).fontSize) * text.getScreenCTM().a;
}));
document.body.dataset.probe = btoa(unescape(encodeURIComponent(JSON.stringify(probe))));
</script></body>"##;

/// `None` without a browser.
fn chromium(scratch: &Scratch, page: &Path, size: &str, args: &[&str]) -> Option<Vec<u8>> {
    if Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no chromium");
        return None;
    }
    let profile = scratch.path(&format!("profile-{size}-{}", args[0].len()));
    let output = Command::new("timeout")
        .args(["120", "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--window-size={size}"))
        .args(args)
        .arg(page)
        .stdin(Stdio::null())
        .output()
        .expect("coreutils are there");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// The page as the browser built it, and what the probe found.
fn opened(scratch: &Scratch, table: &Table, size: &str) -> Option<(String, Value)> {
    let page = scratch.path("page.html");
    fs::write(&page, report::html(table).replace("</body>", PROBE)).expect("the scratch directory is writable");
    let dom = String::from_utf8(chromium(scratch, &page, size, &["--dump-dom"])?).expect("UTF-8");
    let probe = dom.split("data-probe=\"").nth(1).and_then(|rest| rest.split('"').next());
    let probe = base64(probe.unwrap_or_else(|| panic!("no probe in {dom}")));
    Some((dom, serde_json::from_slice(&probe).expect("JSON")))
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => Some(c - b'A'),
        b'a'..=b'z' => Some(c - b'a' + 26),
        b'0'..=b'9' => Some(c - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for value in text.bytes().filter_map(digit) {
        (bits, count) = ((bits << 6 | u32::from(value)) & 0xfff_ffff, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

/// Texts of the cells of a table's body, row by row; parts of a cell are separated by spaces.
fn cells(dom: &str, id: &str) -> BTreeMap<String, Vec<String>> {
    let table = &dom[dom.find(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no table {id}"))..];
    let body = table.split("<tbody>").nth(1).and_then(|rest| rest.split("</tbody>").next()).expect("a body");
    let plain = |cell: &str| {
        let mut text = String::new();
        let mut inside = true;
        for c in cell.chars() {
            match c {
                '<' => inside = false,
                '>' => (inside, text) = (true, text + " "),
                c if inside => text.push(c),
                _ => {}
            }
        }
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let row = |row: &str| {
        let (head, rest) = row.split_once("</th>").expect("a head");
        let name =
            head.split("scope=\"row\">").nth(1).and_then(|name| name.split('<').next()).expect("a name").to_owned();
        let cells = rest.split("<td").skip(1).map(|cell| plain(&cell[cell.find('>').map_or(0, |at| at + 1)..]));
        (name, cells.collect())
    };
    body.split("<tr").skip(1).map(row).collect()
}

fn count(table: &Table, stratum: &str, outcome: Outcome) -> usize {
    table.rows.iter().filter(|row| row.stratum == stratum && row.outcome == outcome).count()
}

fn check_layout(probe: &Value, size: &str) {
    let list = |name: &str| probe[name].as_array().map(Vec::len);
    assert_eq!(list("overlaps"), Some(0), "{size}: {probe}");
    assert_eq!(list("outside"), Some(0), "{size}: {probe}");
    assert!(probe["width"].as_f64() <= probe["window"].as_f64(), "{size}: wider than the window: {probe}");
    assert!(probe["small"].as_f64() >= Some(8.5), "{size}: {probe}");
}

#[test]
fn the_page_has_its_figures_and_the_values_of_the_rows() {
    let scratch = Scratch::new();
    let table = synthetic::table(2026, 4000);
    let Some((dom, probe)) = opened(&scratch, &table, "1280,2400") else { return };
    // All strata and each of the four; the fault space; latencies.
    assert_eq!(dom.matches("<svg").count(), 7);
    assert_eq!(dom.matches("<title id=").count(), 7);
    assert_eq!(dom.matches("class=\"bar\"").count(), 5 * Outcome::ALL.len());
    assert!(dom.matches("class=\"cell\"").count() > 800 && !dom.contains("class=\"mark"));
    let bins = dom.matches("class=\"bin\"").count();
    assert!((15..30).contains(&bins), "{bins}");
    let cells_of = |id: &str| cells(&dom, id);
    let strata = cells_of("strata");
    assert_eq!(strata.len(), 5);
    for stratum in &table.campaign.strata {
        let row = &strata[&stratum.name];
        assert_eq!(row[1].replace(',', ""), stratum.injections.to_string());
        for (outcome, cell) in Outcome::ALL.into_iter().zip(&row[2..]) {
            let n = count(&table, &stratum.name, outcome);
            let mut words = cell.split(' ');
            assert_eq!(
                words.next().map(|word| word.replace(',', "")),
                Some(n.to_string()),
                "{}: {outcome}",
                stratum.name
            );
            let share: f64 = words.next().and_then(|word| word.parse().ok()).expect("a share");
            assert!((share - 100.0 * n as f64 / stratum.injections as f64).abs() <= 0.06, "{cell}");
        }
    }
    let phases = cells_of("phases");
    assert_eq!(phases.keys().collect::<Vec<_>>(), ["encrypt", "load", "print", "verify"]);
    assert_eq!(cells_of("keyids").len(), 2);
    assert_eq!(cells_of("targets").len(), 4);
    let total: usize = phases.values().map(|row| row[0].replace(',', "").parse::<usize>().expect("a number")).sum();
    assert_eq!(total, table.rows.len());
    let sdc = table.rows.iter().find(|row| row.outcome == Outcome::Sdc).expect("an SDC");
    assert!(dom.contains(&format!("mktme-emu campaign replay DIR --id {}<", sdc.id)));
    // The script sorts, and leaves the sum where it is.
    assert_eq!(probe["buttons"], 12);
    let mut names: Vec<&str> = table.campaign.strata.iter().map(|stratum| stratum.name.as_str()).collect();
    let share = |name: &str| {
        let row = table.campaign.strata.iter().find(|stratum| stratum.name == name).expect("a stratum");
        count(&table, name, Outcome::Sdc) as f64 / row.injections as f64
    };
    names.sort_by(|a, b| share(b).total_cmp(&share(a)));
    names.push("all, weighted");
    assert_eq!(probe["order"], serde_json::json!(names));
    check_layout(&probe, "1280");
}

#[test]
fn few_injections_are_marks_and_narrow_windows_are_enough() {
    let scratch = Scratch::new();
    let table = synthetic::table(2027, 700);
    let Some((dom, probe)) = opened(&scratch, &table, "600,2400") else { return };
    assert_eq!(dom.matches("class=\"mark ").count(), 700);
    for outcome in Outcome::ALL {
        let n = table.rows.iter().filter(|row| row.outcome == outcome).count();
        assert_eq!(dom.matches(&format!("class=\"mark o-{outcome}\"")).count(), n, "{outcome}");
    }
    assert!(!dom.contains("class=\"cell\""));
    check_layout(&probe, "600");
}

#[test]
fn hostile_text_does_nothing_in_a_browser() {
    let scratch = Scratch::new();
    let mut table = synthetic::table(2028, 100);
    let hostile =
        "</td></table></script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";
    table.campaign.name = hostile.into();
    table.campaign.golden.console = hostile.into();
    table.campaign.golden.phases[1].1 = hostile.into();
    for row in &mut table.rows {
        (row.fault, row.detail, row.console_text) = (hostile.into(), hostile.into(), Some(hostile.into()));
        (row.phase, row.target) = (Some(hostile.into()), hostile.into());
    }
    let Some((dom, probe)) = opened(&scratch, &table, "1280,2400") else { return };
    assert!(!dom.contains("<title>taken") && !dom.contains("<img"));
    // The page's script and the probe.
    assert_eq!(dom.matches("<script").count(), 2);
    check_layout(&probe, "hostile");
}

#[test]
fn the_page_and_the_exported_figures_are_not_blank() {
    let scratch = Scratch::new();
    let table = synthetic::table(2026, 4000);
    let page = scratch.path("page.html");
    fs::write(&page, report::html(&table)).expect("the scratch directory is writable");
    let mut pages = vec![(page, 9)];
    for (name, svg) in report::svgs(&table) {
        if name == "fault-space" || name == "outcomes" {
            let path = scratch.path(&format!("{name}.svg"));
            fs::write(&path, svg).expect("the scratch directory is writable");
            pages.push((path, 9));
        }
    }
    assert_eq!(pages.len(), 3);
    // Of figure.css: masked, latent, detected, SDC, crash, hang, errors of the tool.
    let palette = [0x7c_c3ee, 0x00_72b2, 0x00_9e73, 0xd5_5e00, 0xa3_427e, 0xe9_b000, 0x1b_1f24];
    for (page, colours) in pages {
        let shot = page.with_extension("png");
        let screenshot = format!("--screenshot={}", shot.display());
        if chromium(&scratch, &page, "1280,2400", &[&screenshot]).is_none() {
            return;
        }
        let mut decoder = png::Decoder::new(std::io::BufReader::new(fs::File::open(&shot).expect("a screenshot")));
        decoder.set_transformations(png::Transformations::normalize_to_color8() | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().expect("a PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("a picture");
        assert_eq!((info.width, info.height), (1280, 2400));
        let mut found: BTreeMap<u32, u32> = BTreeMap::new();
        for pixel in pixels.chunks_exact(info.color_type.samples()) {
            *found.entry(u32::from_be_bytes([0, pixel[0], pixel[1], pixel[2]])).or_default() += 1;
        }
        assert!(found.len() > colours, "{}: {} colours", page.display(), found.len());
        for colour in palette {
            // The two that nearly never come are a few pixels of a bar of no width.
            let enough = found.get(&colour).copied().unwrap_or(0);
            assert!(
                enough > 20 || [0x00_9e73, 0x1b_1f24].contains(&colour),
                "{}: {colour:06x} {enough}",
                page.display()
            );
        }
    }
}
