use super::*;
use crate::row::Outcome;
use crate::synthetic;

const HOSTILE: &str =
    "</title></script><script>alert(1)</script><img src=x onerror='a(\"b\")'>&lt;\0\u{1b}[2J\u{202e}\u{ffff}";

/// Elements are closed in the order in which they were opened, and attributes are quoted: what a browser forgives.
fn well_formed(text: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        let end = rest.find('>').expect("a tag ends");
        let tag = &rest[..end];
        assert_eq!(tag.matches('"').count() % 2, 0, "<{tag}>");
        let name = tag.split([' ', '/']).find(|name| !name.is_empty()).unwrap_or(tag);
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "</{name}>");
        } else if !tag.starts_with(['!', '?']) && !tag.ends_with('/') && !["meta", "br"].contains(&name) {
            open.push(name);
        }
        // Scripts and styles have no markup, but may have `<`.
        rest = &rest[end + 1..];
        if name == "script" && !tag.starts_with('/') {
            rest = &rest[rest.find("</script>").expect("a script ends")..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn text_of_guests_and_plans_is_only_text() {
    let mut table = synthetic::table(7, 300);
    let campaign = &mut table.campaign;
    for text in [&mut campaign.name, &mut campaign.plan, &mut campaign.golden.console, &mut campaign.golden.state_hash]
    {
        *text = HOSTILE.into();
    }
    campaign.identity = HOSTILE.into();
    campaign.golden.phases[0].1 = HOSTILE.into();
    campaign.strata[0].name = HOSTILE.into();
    campaign.strata[1].faults = HOSTILE.into();
    for row in &mut table.rows {
        if row.stratum == "dram" {
            row.stratum = HOSTILE.into();
        }
        row.phase = Some(HOSTILE.into());
        (row.target, row.fault) = (HOSTILE.into(), HOSTILE.into());
        if row.outcome == Outcome::Sdc {
            row.console_text = Some(HOSTILE.into());
        } else {
            row.detail = HOSTILE.into();
        }
    }
    let page = html(&table);
    well_formed(&page);
    assert_eq!(page.matches("<script").count(), 1);
    assert!(!page.contains("<img") && !page.contains('\0') && !page.contains('\u{1b}') && !page.contains('\u{202e}'));
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    for (name, svg) in svgs(&table) {
        well_formed(&svg);
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{name}");
        assert!(!svg.contains("<script") && !svg.contains("<img"));
    }
    let text = text(&table);
    assert!(!text.chars().any(|c| c.is_control() && c != '\n') && !text.contains('\u{202e}'));
}

#[test]
fn tables_of_nothing_and_of_one_outcome_are_whole() {
    let mut none = synthetic::table(1, 0);
    let mut one = synthetic::table(1, 500);
    one.rows
        .iter_mut()
        .for_each(|row| (row.outcome, row.latency, row.triggered, row.line) = (Outcome::Masked, None, None, None));
    let single = synthetic::table(1, 1);
    for table in [&none, &one, &single] {
        let page = html(table);
        well_formed(&page);
        svgs(table).iter().for_each(|(_, svg)| well_formed(svg));
        let markup = &page[..page.find("<script").unwrap()];
        for wrong in ["NaN", ">inf", "\"inf", "-0.0"] {
            assert!(!markup.contains(wrong) && !text(table).contains(wrong), "{wrong}");
        }
    }
    assert!(
        html(&none).contains("No injections.") && html(&one).contains("No injection ended in silent data corruption")
    );
    none.campaign.strata.clear();
    well_formed(&html(&none));
    assert_eq!(svgs(&none).len(), 3);
}

/// Few injections are marks, more are cells, and each is drawn once.
#[test]
fn every_injection_is_in_the_map() {
    for (injections, class) in [(700, "mark"), (4000, "cell"), (15_000, "cell")] {
        let table = synthetic::table(9, injections);
        let (_, map) = svgs(&table).into_iter().find(|(name, _)| name == "fault-space").unwrap();
        well_formed(&map);
        let found = map.matches(&format!("class=\"{class}")).count();
        if class == "mark" {
            assert_eq!(found as u64, injections);
            continue;
        }
        // `<title>lines 0x... to 0x...: 3 masked, 1 sdc</title>`
        let listed = map.split("<g class=\"cell\"><title>").skip(1).map(|cell| {
            let counts = cell[..cell.find('<').unwrap()].rsplit(": ").next().unwrap();
            counts.split(", ").map(|part| part.split(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
        });
        assert_eq!(listed.sum::<u64>(), injections);
        assert!(found > 600, "{found}");
    }
}

#[test]
fn numbers_at_the_ends_of_their_range_do_no_harm() {
    let mut table = synthetic::table(1, 40);
    table.campaign.golden.end = 0;
    table.campaign.golden.start = u64::MAX;
    table.campaign.confidence_ppm = 0;
    table.campaign.strata[0].population = 0;
    table.campaign.strata[1].population = u64::MAX;
    table.campaign.strata[2].population = 1;
    for (index, row) in table.rows.iter_mut().enumerate() {
        let end = if index % 2 == 0 { 0 } else { u64::MAX };
        (row.line, row.triggered, row.latency, row.rip, row.wrong_lines) =
            (Some(end), Some(end), Some(end), Some(end), Some(end));
    }
    well_formed(&html(&table));
    svgs(&table).iter().for_each(|(_, svg)| well_formed(svg));
    text(&table);
    table.shard = crate::meta::Shard { part: 0, parts: 0 };
    well_formed(&html(&table));
}

#[test]
fn the_text_has_the_counts_and_fits_terminals() {
    let table = synthetic::table(5, 4000);
    let text = text(&table);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    for stratum in &table.campaign.strata {
        let count = table.rows.iter().filter(|row| row.stratum == stratum.name && row.outcome == Outcome::Sdc).count();
        let block = &text[text.find(&format!("\n{} ", stratum.name)).unwrap()..];
        let line = block.lines().find(|line| line.contains(" sdc ")).unwrap();
        assert!(line.split_whitespace().any(|word| word == count.to_string()), "{line}");
    }
}

#[test]
fn a_weighted_share_is_that_of_the_strata() {
    let table = synthetic::table(5, 4000);
    let summary = Summary::new(&table);
    let all: f64 = table.campaign.strata.iter().map(|stratum| stratum.population as f64).sum();
    let expected: f64 = table
        .campaign
        .strata
        .iter()
        .map(|stratum| {
            let failed =
                table.rows.iter().filter(|row| row.stratum == stratum.name && row.outcome.is_failure()).count();
            stratum.population as f64 / all * failed as f64 / stratum.injections as f64
        })
        .sum();
    let found = summary.overall(Outcome::is_failure).unwrap();
    assert!((found.share - expected).abs() < 1e-12);
    // Targets are strata here, and phases divide all of them.
    let total: f64 = summary.phases.iter().filter_map(|phase| summary.group_failures(phase)).map(|e| e.total()).sum();
    assert!((total / found.total() - 1.0).abs() < 1e-9, "{total}");
    let target = summary.targets.iter().find(|group| group.name == "key-flip").unwrap();
    let share = summary.group_share(target, Outcome::is_failure);
    let stratum = summary.strata[1].share(Outcome::is_failure, summary.confidence);
    assert!((share.share - stratum.share).abs() < 1e-12);
    assert!((share.interval.high - stratum.interval.high).abs() < 1e-3);
}

#[test]
fn parts_know_how_many_injections_they_have() {
    let table = synthetic::table(5, 1003);
    for parts in [1, 2, 7] {
        let planned: Vec<u64> = (1..=parts)
            .map(|part| {
                let mut table = table.clone();
                table.shard = crate::meta::Shard { part, parts };
                table.rows.retain(|row| table.shard.has(row.id));
                let summary = Summary::new(&table);
                assert_eq!(summary.planned(), table.rows.len() as u64);
                summary.planned()
            })
            .collect();
        assert_eq!(planned.iter().sum::<u64>(), 1003);
    }
}

#[test]
fn numbers_are_read_easily() {
    use super::number::{estimate, grouped, percent, percents, short, step};
    assert_eq!([0, 999, 1000, 12_582_912].map(grouped), ["0", "999", "1,000", "12,582,912"]);
    assert_eq!([0.0, 0.26, 9.94, 9.96, 1234.4, 999_999.0].map(estimate), ["0", "0.3", "9.9", "10", "1,234", "999,999"]);
    assert_eq!([1e6, 4.5312e9, 9.999e9].map(estimate), ["1.00×10⁶", "4.53×10⁹", "1.00×10¹⁰"]);
    assert_eq!([0.0, 500.0, 2000.0, 20_000.0, 2.5e6, 1e10].map(short), ["0", "500", "2000", "20 k", "2.5 M", "10 G"]);
    let interval = crate::stats::wilson(362, 1000, crate::stats::Confidence::P95);
    assert_eq!((percent(0.362, interval), percents(interval)), ("36.2".into(), "33.3–39.2".into()));
    assert_eq!([1.0, 100.0, 7e6, 0.0].map(|limit| step(limit, 5.0)), [0.2, 20.0, 2e6, 1.0]);
}
