//! Campaigns as a whole, on the embedded guest.

mod common;

use campaign::engine::{self, Options};
use campaign::error::CampaignError;
use campaign::experiment::Shortcuts;
use campaign::guest::Guest;
use campaign::journal::{self, Journal};
use campaign::meta::Shard;
use campaign::results::{self, Table};
use campaign::row::{Outcome, Proof, Row};
use common::{Scratch, StopAfter, options, plan, prepare, run};
use machine::Machine;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::sync::Arc;

const MIXED: &str = r#"
[[stratum]]
name = "text"
faults = "dram-flip line={0x21e000..0x21e080/64} bit={0..512} at=icount:{window}"
injections = 150
[[stratum]]
# Read and written back by this guest about then.
name = "text while it is written"
faults = "dram-flip line={0x21e000..0x21e080/64} bit={0..512} at=icount:{285000..287000}"
injections = 50
[[stratum]]
name = "keys"
faults = "key-flip keyid={1|2} field={k1|k2} bit={0..128} at=icount:{window}"
injections = 60
[[stratum]]
name = "lost"
faults = "write-back-drop line=0x21e000 at=icount:{window}"
injections = 40
[[stratum]]
name = "registers"
faults = "gpr-flip reg={rax|rcx|rsp|rdi|rip} bit={0..64} at=icount:{window}"
injections = 150
"#;

fn count(rows: &[Row], of: impl Fn(&Row) -> bool) -> usize {
    rows.iter().filter(|row| of(row)).count()
}

#[test]
fn shortcuts_change_no_outcome_and_no_state() {
    let ready = Arc::new(prepare(&plan(MIXED)).expect("a campaign"));
    let fast = run(&ready, options()).expect("rows").rows;
    let slow = run(&ready, Options { shortcuts: Shortcuts::NONE, ..options() }).expect("rows").rows;
    assert_eq!(fast.len(), 450);
    for (fast, slow) in fast.iter().zip(&slow) {
        // What is not run has no RIP, and a flip in DRAM has the KeyID of the transfer that sees it.
        let same = Row { proof: slow.proof, rip: slow.rip, keyid: slow.keyid, ..fast.clone() };
        assert_eq!(&same, slow);
    }
    for proof in Proof::ALL {
        assert!(count(&fast, |row| row.proof == proof) > 0, "{}", proof.name());
    }
    for outcome in [Outcome::Masked, Outcome::Latent, Outcome::Sdc, Outcome::Crash, Outcome::NotActivated] {
        assert!(count(&fast, |row| row.outcome == outcome) > 0, "{outcome}");
    }
}

#[test]
fn neither_threads_nor_the_order_nor_other_injections_matter() {
    let ready = Arc::new(prepare(&plan(MIXED)).expect("a campaign"));
    let rows = run(&ready, options()).expect("rows").rows;
    assert_eq!(rows, run(&ready, Options { jobs: 1, ..options() }).expect("rows").rows);
    let again = Arc::new(prepare(&plan(MIXED)).expect("a campaign"));
    assert_eq!(again.campaign, ready.campaign);
    // Alone, in a machine that has just been made and in one that has made another injection.
    let machine = || Guest::new(Machine::from_snapshot(&again.golden.rungs[0].snapshot).expect("a machine"));
    let mut used = machine();
    for row in rows.iter().rev().step_by(8) {
        let injection = again.injection(row.id).expect("an injection");
        assert_eq!(&again.perform(&mut machine(), &injection, Shortcuts::ALL).expect("a row"), row);
        let alone = again.perform(&mut used, &injection, Shortcuts::NONE).expect("a row");
        assert_eq!((alone.outcome, &alone.state_hash), (row.outcome, &row.state_hash), "{row:?}");
    }
}

#[test]
fn one_flipped_bit_of_ciphertext_costs_one_block() {
    // Before the text is read back, after it has been written and flushed: the third fill, as docs/faults.md has it.
    let text = plan(
        r#"
[[stratum]]
name = "one line"
faults = "dram-flip line=0x21e000 bit={0..512} at=fill:0x21e000,keyid=1,nth=3"
injections = "all"
"#,
    )
    // Fills are counted from the start of the guest.
    .replace("icount:100000", "begin");
    let ready = Arc::new(prepare(&text).expect("a campaign"));
    let rows = run(&ready, options()).expect("rows").rows;
    assert_eq!(rows.len(), 512);
    let golden = ready.campaign.golden.console.clone();
    let mut blocks = BTreeMap::new();
    for row in &rows {
        assert_eq!((row.outcome, row.keyid), (Outcome::Sdc, Some(1)), "{row:?}");
        // The guest dumps the text in lines of 16 bytes, which are the blocks.
        let block = row.bit.expect("a bit") / 128;
        let said = row.console_text.as_deref().expect("a line that differs");
        assert!(said.trim_start().starts_with(&format!("{:02x}  ", block * 16)), "bit {:?}: {said}", row.bit);
        assert!(!golden.contains(said));
        *blocks.entry(block).or_insert(0) += 1;
    }
    assert_eq!(blocks, BTreeMap::from([(0, 128), (1, 128), (2, 128), (3, 128)]));
}

#[test]
fn what_is_overwritten_before_it_is_read_is_masked() {
    let text = plan(
        r#"
[[stratum]]
name = "overwritten"
faults = "dram-flip line=0x21e000 bit={0..512} at=write-back:0x21e000,keyid=1"
injections = "all"
"#,
    );
    let ready = Arc::new(prepare(&text).expect("a campaign"));
    let rows = run(&ready, Options { shortcuts: Shortcuts::NONE, ..options() }).expect("rows").rows;
    assert_eq!(count(&rows, |row| row.outcome == Outcome::Masked && row.effect.is_some()), 512);
    assert!(rows.iter().all(|row| row.state_hash == ready.campaign.golden.state_hash));
}

/// `story=alias` of the guest `attacks` reads its record from DRAM after marker 52H, and writes it no more.
fn record(integrity: bool, strata: &str) -> String {
    plan(strata)
        .replace("[guest]", "[guest]\nkernel = \"embedded:attacks\"\nappend = \"story=alias check=off\"")
        .replace("[machine]", &format!("[machine]\nintegrity = {integrity}"))
        .replace("icount:100000", "begin")
        + "[oracle]\nconsole = 'result: (.*)'\n"
}

#[test]
fn with_integrity_everything_is_noticed_but_replay() {
    const FLIPS: &str = r#"
[[stratum]]
name = "cells"
faults = "dram-flip line=0x800000 bit={0..512} at=marker:0x52"
injections = "all"
[[stratum]]
name = "another line"
faults = "splice line=0x800000 from={0x1000000..0x1000400/64} at=marker:0x52"
injections = "all"
[[stratum]]
name = "replay"
faults = "replay line=0x800000 since=marker:0x51 at=marker:0x52"
"#;
    const MACS: &str = r#"
[[stratum]]
name = "MAC"
faults = "mac-flip line=0x800000 bit={0..28} at=marker:0x52"
injections = "all"
"#;
    let with = Arc::new(prepare(&record(true, &format!("{FLIPS}{MACS}"))).expect("a campaign"));
    let rows = run(&with, options()).expect("rows").rows;
    assert_eq!(rows.len(), 512 + 16 + 1 + 28);
    for row in rows {
        let expected = if row.stratum == "replay" { Outcome::Sdc } else { Outcome::Detected };
        assert_eq!(row.outcome, expected, "{row:?}");
        if expected == Outcome::Detected {
            assert_eq!(row.detail, "#MC, line 0x800000");
            assert!(row.latency.is_some_and(|latency| latency < 1000), "{row:?}");
        }
    }
    let without = Arc::new(prepare(&record(false, FLIPS)).expect("a campaign"));
    let rows = run(&without, options()).expect("rows").rows;
    assert_eq!(count(&rows, |row| row.outcome == Outcome::Detected), 0);
    assert_eq!(count(&rows, |row| row.stratum == "replay" && row.outcome == Outcome::Sdc), 1);
}

#[test]
fn faults_that_draw_are_all_different() {
    let decay = |draw: &str| {
        let faults = format!("dram-decay rate=1e-5{draw} at=icount:380000");
        let text = plan(&format!("[[stratum]]\nname = \"decay\"\nfaults = \"{faults}\"\ninjections = \"all\"\n"));
        let ready = Arc::new(prepare(&text).expect("a campaign"));
        run(&ready, options()).expect("rows").rows
    };
    let rows = decay(" draw={0..12}");
    let hashes: std::collections::BTreeSet<_> = rows.iter().map(|row| &row.state_hash).collect();
    assert_eq!((rows.len(), hashes.len()), (12, 12));
    // Without the key a fault has the number 0, being the only one.
    let first = rows.iter().find(|row| row.element == 0).expect("the first");
    assert_eq!(decay("")[0].state_hash, first.state_hash);
}

#[test]
fn memory_is_a_result_if_the_plan_says_so() {
    // The text is not read any more then.
    let text = plan(
        r#"
[[stratum]]
name = "late"
faults = "dram-flip line=0x21e000 bit={0..512} at=icount:{400000..401000}"
injections = 20
"#,
    );
    let ready = Arc::new(prepare(&text).expect("a campaign"));
    let rows = run(&ready, options()).expect("rows").rows;
    assert_eq!(count(&rows, |row| (row.outcome, row.proof) == (Outcome::Latent, Proof::Unread)), 20, "{rows:?}");
    let text = text + "[oracle]\nmemory = [\"0x21e000+0x40,keyid=2\"]\n";
    let ready = Arc::new(prepare(&text).expect("a campaign"));
    let rows = run(&ready, options()).expect("rows").rows;
    assert_eq!(count(&rows, |row| row.outcome == Outcome::Sdc && row.detail == "memory at 0x21e000"), 20, "{rows:?}");
}

#[test]
fn shards_make_what_the_whole_makes() {
    const PARTS: u64 = 8;
    let ready = Arc::new(prepare(&plan(MIXED)).expect("a campaign"));
    let scratch = Scratch::new();
    let write = |name: &str, shard: Shard| {
        let path = scratch.0.join(name);
        let finished = run(&ready, Options { shard, ..options() }).expect("rows");
        results::write(&path, &finished.campaign, shard, &finished.rows).expect("a file");
        path
    };
    let whole = write("whole.parquet", Shard::WHOLE);
    let parts = (1..=PARTS).map(|part| write(&format!("{part}.parquet"), Shard { part, parts: PARTS }));
    let tables: Vec<_> = parts.map(|path| (path.clone(), results::read(&path).expect("a part"))).collect();
    let Table { campaign, shard, rows } = results::merge(tables).expect("one table");
    let merged = scratch.0.join("merged.parquet");
    results::write(&merged, &campaign, shard, &rows).expect("a file");
    assert!(fs::read(whole).expect("bytes") == fs::read(merged).expect("bytes"));
}

#[test]
fn a_campaign_that_is_stopped_goes_on_where_it_was() {
    let ready = Arc::new(prepare(&plan(MIXED)).expect("a campaign"));
    let whole = run(&ready, options()).expect("rows").rows;
    let scratch = Scratch::new();
    let path = scratch.0.join("journal");
    let mut before = 0;
    // A stop now and then, and after it the beginning of a row, as a process leaves it that is killed.
    for stop in [0, 1, 40, 90, u64::MAX] {
        let (mut journal, rows) = Journal::open(&path, &ready.campaign, Shard::WHOLE).expect("a journal");
        assert!(rows.len() >= before);
        before = rows.len();
        let finished = engine::run(&ready, &mut journal, rows, options(), &mut StopAfter(stop)).expect("rows");
        drop(journal);
        if stop == u64::MAX {
            assert!(finished.complete);
            assert_eq!(finished.rows, whole);
        }
        assert_eq!(journal::rows(&path).expect("rows").len(), finished.rows.len());
        let mut torn = fs::OpenOptions::new().append(true).open(&path).expect("a file");
        torn.write_all(b"{\"id\":7,\"stra").expect("written");
    }
}

#[test]
fn a_journal_takes_the_rows_of_one_campaign_and_one_process() {
    let ready = prepare(&plan(MIXED)).expect("a campaign");
    let scratch = Scratch::new();
    let path = scratch.0.join("journal");
    let open = |ready: &campaign::experiment::Ready, shard| {
        Journal::open(&path, &ready.campaign, shard).map(|_| ()).map_err(|e| e.to_string())
    };
    let kept = Journal::open(&path, &ready.campaign, Shard::WHOLE).expect("a journal");
    assert!(open(&ready, Shard::WHOLE).expect_err("locked").contains("another process writes it"));
    drop(kept);
    let other = prepare(&plan(&MIXED.replace("150", "151"))).expect("a campaign");
    assert!(open(&other, Shard::WHOLE).expect_err("another").contains("another campaign"));
    assert!(open(&ready, Shard { part: 1, parts: 2 }).expect_err("another").contains("--shard"));
    fs::write(&path, "{\"identity\":\"x\"}\nnonsense\n").expect("written");
    assert!(open(&ready, Shard::WHOLE).expect_err("damaged").contains("line 1"));
}

#[test]
fn a_stratum_ends_when_its_intervals_are_narrow() {
    let text = plan(
        r#"
[statistics]
margin = 0.1
batch = 20
stop = true
[[stratum]]
name = "always masked"
faults = "dram-flip line=0x21e000 bit={0..512} at=write-back:0x21e000,keyid=1"
injections = 400
[[stratum]]
name = "mixed"
faults = "dram-flip line=0x21e000 bit={0..512} at=icount:{window}"
injections = 400
"#,
    );
    let ready = Arc::new(prepare(&text).expect("a campaign"));
    let finished = run(&ready, options()).expect("rows");
    let stopped: Vec<_> = finished.campaign.strata.iter().map(|of| of.stopped_after).collect();
    assert!(stopped[0].is_some_and(|n| n <= 60), "{stopped:?}");
    assert!(stopped[1].is_some_and(|n| n > stopped[0].unwrap_or(0) && n < 400), "{stopped:?}");
    assert_eq!(finished.rows.len() as u64, stopped.iter().flatten().sum::<u64>());
    let again = run(&ready, Options { jobs: 1, ..options() }).expect("rows");
    assert_eq!((again.rows, again.campaign), (finished.rows, finished.campaign));
}

#[test]
fn hangs_end_at_the_budget() {
    let text = plan(
        r#"
[[stratum]]
name = "stack and code"
faults = "gpr-flip reg=rip bit={0..64} at=icount:{window}"
injections = 60
"#,
    )
    .replace("end = \"exit\"", "end = \"exit\"\nbudget = 2.0");
    let ready = Arc::new(prepare(&text).expect("a campaign"));
    let rows = run(&ready, options()).expect("rows").rows;
    let (start, end) = (ready.campaign.golden.start, ready.campaign.golden.end);
    assert!(rows.iter().all(|row| row.end <= start + 2 * (end - start)), "{rows:?}");
    assert!(count(&rows, |row| row.outcome == Outcome::Crash) > 0);
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let refused = |text: &str| match prepare(text).err().expect("refused") {
        CampaignError::Input(text) => text,
        CampaignError::Host(text) => panic!("{text}"),
    };
    let stratum = |faults: &str| plan(&format!("[[stratum]]\nname = \"s\"\nfaults = \"{faults}\"\ninjections = 1\n"));
    for (text, message) in [
        (plan(""), "no faults"),
        (stratum("bit-rot at=icount:{window}"), "bit-rot"),
        (stratum("dram-flip line={lines-read keyid=9} bit=0 at=icount:{window}"), "is empty"),
        (stratum("dram-flip line=0x4000000 bit=0 at=icount:{window}"), "not in RAM"),
        (stratum("dram-flip line=0 bit={0..513} at=icount:{window}"), "512"),
        (stratum("key-flip keyid={1|99} field=k1 bit=0 at=icount:{window}"), "99"),
        (stratum("dram-flip line=0 bit=0 at=icount:5"), "has passed"),
        (stratum("dram-flip line={secret} bit=0 at=icount:{window}"), "no such set"),
        (plan(MIXED) + "[statistics]\nmargin = 2.0\n", "margin"),
        (plan(MIXED) + "[statistic]\nmargin = 2.0\n", "statistic"),
        (plan(MIXED).replace("\"exit\"", "\"marker:0x51\""), "debug exit 0x10 before the verdict"),
        (plan(MIXED).replace("\"icount:100000\"", "\"marker:7\""), "ended before"),
        (plan(MIXED).replace("\"exit\"", "\"never\""), "begin, icount:N, marker:VALUE"),
        (plan(MIXED) + "[detected]\nconsole = ['PASS|ok']\nmarkers = []\n", "counts as detected"),
        (plan(MIXED) + "[oracle]\nmemory = [\"0x3ffffc0+0x80\"]\n", "is not in RAM"),
        (plan(MIXED) + "[oracle]\nmemory = [\"0x1000+0x80,keyid=64\"]\n", "0 to 63"),
        (plan(MIXED) + "[oracle]\nmemory = [\"0x1000\"]\n", "ADDRESS+BYTES"),
        (plan(MIXED).replace("memory = \"64M\"", "memory = \"64 miles\""), "memory"),
    ] {
        let said = refused(&text);
        assert!(said.contains(message), "{message}: {said}");
    }
}
