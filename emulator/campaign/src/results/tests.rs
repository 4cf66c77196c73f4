use super::columns::COLUMNS;
use super::*;
use crate::synthetic;
use std::fs;
use std::path::{Path, PathBuf};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("mktme-emu-results-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn part(table: &Table, part: u64, parts: u64) -> Table {
    let shard = Shard { part, parts };
    let rows = table.rows.iter().filter(|row| shard.has(row.id)).cloned().collect();
    Table { campaign: table.campaign.clone(), shard, rows }
}

fn put(path: &Path, table: &Table) {
    write(path, &table.campaign, table.shard, &table.rows).unwrap();
}

#[test]
fn what_is_written_is_read_and_the_same_rows_give_the_same_bytes() {
    let scratch = Scratch::new("same");
    let (a, b) = (scratch.path("a.parquet"), scratch.path("b.parquet"));
    for rows in [0, 1, 2, 3000] {
        let table = synthetic::table(1, rows);
        put(&a, &table);
        assert_eq!(read(&a).unwrap(), table);
        let mut shuffled = table.clone();
        shuffled.rows.reverse();
        put(&b, &shuffled);
        assert_eq!(fs::read(&a).unwrap(), fs::read(&b).unwrap());
    }
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 2, "no temporary files");
}

#[test]
fn extreme_values_survive() {
    let scratch = Scratch::new("extreme");
    let mut table = synthetic::table(1, 2);
    let row = &mut table.rows[1];
    (row.line, row.rip, row.element, row.end) = (Some(u64::MAX), Some(0xffff_ffff_8100_0000), u64::MAX, u64::MAX);
    (row.bit, row.keyid, row.latency) = (Some(u32::MAX), Some(u16::MAX), Some(0));
    row.console_text = Some("\0\u{1b}[31m</script>\u{202e}é".into());
    row.detail = String::new();
    let row = &mut table.rows[0];
    (row.line, row.rip, row.bit, row.keyid, row.phase, row.console_text) = (None, None, None, None, None, None);
    put(&scratch.path("x"), &table);
    assert_eq!(read(&scratch.path("x")).unwrap(), table);
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_one() {
    let scratch = Scratch::new("old");
    let path = scratch.path("x.parquet");
    let table = synthetic::table(1, 5);
    put(&path, &table);
    let mut twice = table.clone();
    twice.rows.push(twice.rows[0].clone());
    let error = write(&path, &twice.campaign, Shard::WHOLE, &twice.rows).unwrap_err().to_string();
    assert!(error.contains("injection 0 is there twice"), "{error}");
    assert_eq!(read(&path).unwrap(), table);
    let error = write(&scratch.path("no/x"), &table.campaign, Shard::WHOLE, &table.rows).unwrap_err().to_string();
    assert!(error.contains("no such file or directory; accepted: a file that can be written"), "{error}");
    let error = write(&scratch.0, &table.campaign, Shard::WHOLE, &table.rows).unwrap_err().to_string();
    assert!(error.contains("directory"), "{error}");
    let error = read(&scratch.path("none")).unwrap_err().to_string();
    assert!(error.contains("none: no such file or directory; accepted: results of a campaign"), "{error}");
}

#[test]
fn damaged_and_foreign_files_are_refused() {
    let scratch = Scratch::new("damaged");
    let path = scratch.path("x.parquet");
    put(&path, &synthetic::table(1, 20));
    let good = fs::read(&path).unwrap();
    let refused = |bytes: Vec<u8>, what: &str| {
        let error = bytes::unpack(bytes).expect_err(what);
        assert!(!error.is_empty() && error.len() < 400, "{what}: {error}");
        error
    };
    for length in 0..good.len() {
        refused(good[..length].to_vec(), &format!("the first {length} bytes"));
    }
    for at in 0..good.len() {
        for bit in [at % 8, (at / 8 + 3) % 8] {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            refused(bad, &format!("bit {bit} of byte {at}"));
        }
    }
    let mut long = good.clone();
    long.push(0);
    refused(long, "a byte more");
    assert_eq!(refused(Vec::new(), "nothing"), "it is not a Parquet file");
    assert_eq!(refused(b"id,outcome\n1,sdc\n".to_vec(), "text"), "it is not a Parquet file");
    assert_eq!(refused(good[..good.len() / 2].to_vec(), "half"), "its end is missing");
    let mut bad = good.clone();
    bad[good.len() / 3] ^= 1;
    assert_eq!(refused(bad.clone(), "one bit"), "its checksum is wrong: it is damaged");
    fs::write(&path, bad).unwrap();
    let error = read(&path).unwrap_err().to_string();
    let start = format!("{}: not results of a campaign: its checksum is wrong", path.display());
    assert!(error.starts_with(&start) && error.contains("; accepted: a Parquet file of"), "{error}");
}

/// What says something else under a right checksum.
#[test]
fn other_formats_parts_and_orders_are_refused() {
    let table = synthetic::table(1, 20);
    let rows: Vec<&crate::row::Row> = table.rows.iter().collect();
    let pack = |shard| bytes::pack(&table.campaign, shard, &rows).unwrap();
    let mut other = pack(Shard::WHOLE);
    let key = b"mktme-emu.format\x18\x01";
    let at = other.windows(key.len()).position(|window| window == key).unwrap() + key.len();
    other[at] = b'9';
    assert_eq!(bytes::unpack(other.clone()).unwrap_err(), "its checksum is wrong: it is damaged");
    assert!(checksum::put(&mut other));
    assert_eq!(bytes::unpack(other).unwrap_err(), "it is of format 9, this program reads 1");
    for (part, parts) in [(0, 1), (2, 1), (0, 0)] {
        let error = bytes::unpack(pack(Shard { part, parts })).unwrap_err();
        assert_eq!(error, format!("mktme-emu.shard: part {part} of {parts}"));
    }
    let mut rows = rows.clone();
    rows.swap(3, 4);
    let other = bytes::pack(&table.campaign, Shard::WHOLE, &rows).unwrap();
    assert_eq!(bytes::unpack(other).unwrap_err(), "row 4 comes before row 3");
}

#[test]
fn parts_merge_to_the_file_of_the_whole() {
    let scratch = Scratch::new("merge");
    for stopped in [None, Some(100)] {
        let whole = synthetic::stopped(synthetic::table(2, 1000), stopped);
        put(&scratch.path("whole"), &whole);
        for parts in [1, 2, 7, 8] {
            let read_back = |k: u64| {
                let path = scratch.path(&format!("part{k}"));
                put(&path, &part(&whole, k, parts));
                (path.clone(), read(&path).unwrap())
            };
            let merged = merge((1..=parts).rev().map(read_back).collect()).unwrap();
            assert_eq!(merged, whole);
            put(&scratch.path("merged"), &merged);
            assert_eq!(fs::read(scratch.path("merged")).unwrap(), fs::read(scratch.path("whole")).unwrap());
        }
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let whole = synthetic::table(3, 100);
    let named = |k: u64, parts: u64| (PathBuf::from(format!("{k}.parquet")), part(&whole, k, parts));
    let refused = |tables: Vec<(PathBuf, Table)>, expected: &str| {
        let error = merge(tables).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(error.contains("; accepted: "), "{error}");
    };
    refused(vec![], "no results to merge");
    refused(vec![named(1, 3), named(3, 3)], "1 of 3 parts of synthetic are missing: 2;");
    refused(vec![named(1, 20)], "19 of 20 parts of synthetic are missing: 2, 3, 4, 5, 6, 7, 8, 9, ...;");
    let again = (PathBuf::from("again.parquet"), part(&whole, 2, 2));
    refused(vec![named(1, 2), named(2, 2), again], "2.parquet and again.parquet: both are part 2 of 2");
    refused(vec![named(1, 2), named(2, 3)], "2.parquet: part 2 of 3, but 1.parquet is one of 2 parts");
    let mut other = named(2, 2);
    other.1.campaign.identity = "f".repeat(32);
    refused(vec![named(1, 2), other], "2.parquet: results of campaign synthetic (ffff");
    let mut other = named(2, 2);
    other.1.campaign.golden.end += 1;
    refused(vec![named(1, 2), other], "2.parquet: the golden run is not that of 1.parquet");
    let mut other = named(2, 2);
    other.1.campaign.strata[0].stopped_after = Some(3);
    refused(vec![named(1, 2), other], "2.parquet: what was done of the strata is not that of 1.parquet");
    let mut less = named(2, 2);
    less.1.rows.remove(7);
    refused(vec![named(1, 2), less], "2.parquet: injection 15 is missing");
    let mut less = named(2, 2);
    less.1.rows.pop();
    refused(vec![named(1, 2), less], "2.parquet: injection 99 is missing");
    let mut more = named(2, 2);
    more.1.rows.push(whole.rows[50].clone());
    refused(vec![named(1, 2), more], "2.parquet: injection 50 does not belong to it");
    let mut more = named(2, 2);
    more.1.rows.push(whole.rows[51].clone());
    refused(vec![named(1, 2), more], "2.parquet: injection 51 is there twice");
    let mut more = named(2, 2);
    more.1.rows.push(whole.rows[99].clone());
    refused(vec![named(1, 2), more], "2.parquet: injection 99 is there twice");
    let mut beyond = named(2, 2);
    beyond.1.rows.last_mut().unwrap().id = 101;
    refused(vec![named(1, 2), beyond], "2.parquet: injection 99 is missing");
    let mut elsewhere = named(2, 2);
    elsewhere.1.rows[0].stratum = "elsewhere".into();
    refused(vec![named(1, 2), elsewhere], "2.parquet: injection 1 is of stratum elsewhere, not ");
}

#[test]
fn the_page_lists_every_column() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/campaign-results.md");
    let page = fs::read_to_string(page).unwrap();
    let listed: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let rows = COLUMNS.map(|column| {
        let optional = if column.is_optional() { ", may be null" } else { "" };
        format!("| `{}` | {}{optional} | ", column.name, column.type_name())
    });
    let columns = &listed[..COLUMNS.len().min(listed.len())];
    assert!(
        columns.len() == rows.len() && columns.iter().zip(&rows).all(|(line, row)| line.starts_with(row)),
        "{listed:#?}"
    );
}
