//! `mktme-emu bench`: that it measures all it says, and refuses what cannot be measured. How long anything takes is no
//! test's business.

mod common;

use common::{Scratch, emu};
use crypto::{Backend, Width};
use serde_json::Value;

const WORKLOADS: [&str; 5] = ["single lines", "dependent chain", "page", "1 MiB", "mixed keys"];

/// Every number below `value` is one that a figure can be: JSON has no infinities, they would have become null.
fn assert_finite(value: &Value, at: &str) {
    match value {
        Value::Null => panic!("{at} is no number"),
        Value::Number(n) => assert!(n.as_f64().is_some_and(|n| n.is_finite() && n >= 0.0), "{at}: {n}"),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| assert_finite(item, &format!("{at}[{i}]")))
        }
        Value::Object(fields) => fields.iter().for_each(|(name, field)| assert_finite(field, &format!("{at}.{name}"))),
        Value::Bool(_) | Value::String(_) => {}
    }
}

fn rows<'a>(report: &'a Value, section: &str) -> &'a Vec<Value> {
    report[section].as_array().unwrap_or_else(|| panic!("no {section} in {report}"))
}

#[test]
fn quick_measures_every_backend_on_every_workload_and_writes_table_json_and_plots() {
    let scratch = Scratch::new();
    let (json, svg) = (scratch.path("bench.json"), scratch.path("bench.svg"));
    let files = [json.display().to_string(), svg.display().to_string()];
    let run = emu(["bench", "--quick", "--json", &files[0], "--svg", &files[1]]);
    assert_eq!((run.status, run.stderr.as_str()), (0, ""), "{}", run.stdout);
    assert_eq!(scratch.names(), ["bench.json", "bench.svg"]);

    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["format"], 1);
    if Width::ALL.into_iter().any(Width::is_available) {
        assert_finite(&report, "report");
    }
    let datapath = rows(&report, "datapath");
    let mut expected = 0;
    let libraries = if cfg!(feature = "openssl") { vec!["xts-mode", "openssl"] } else { vec!["xts-mode"] };
    for implementation in Backend::available().map(Backend::name).chain(libraries.iter().copied()) {
        for algorithm in ["AES-XTS-128", "AES-XTS-256"] {
            for direction in ["encrypt", "decrypt"] {
                for workload in WORKLOADS {
                    let matching = datapath.iter().filter(|row| {
                        row["implementation"] == implementation
                            && row["algorithm"] == algorithm
                            && row["direction"] == direction
                            && row["workload"] == workload
                    });
                    let row: Vec<_> = matching.collect();
                    assert_eq!(row.len(), 1, "{implementation} {algorithm} {direction} {workload}");
                    let ns = |name: &str| row[0][name].as_f64().unwrap();
                    assert!(ns("best_ns") > 0.0 && ns("best_ns") <= ns("median_ns"));
                    expected += 1;
                }
            }
        }
    }
    assert_eq!(datapath.len(), expected);
    assert_eq!(rows(&report, "ratios").len(), 2 * 2 * 2 * libraries.len());

    let memory = rows(&report, "memory");
    assert_eq!(memory.len(), 6 * 3);
    let ciphered = |access: &str, encryption: &str| {
        let row = memory.iter().find(|row| row["access"] == access && row["encryption"] == encryption);
        row.unwrap_or_else(|| panic!("{access} {encryption}"))["lines_ciphered"].as_f64().unwrap()
    };
    assert_eq!(["on", "bypass", "off"].map(|encryption| ciphered("fill", encryption)), [1.0, 0.0, 0.0]);
    assert_eq!(ciphered("fill and write-back", "on"), 2.0);
    assert_eq!(ciphered("hit", "on"), 0.0);

    // The embedded guest fills lines under KeyIDs of its own, and encryption costs it time.
    let keyids = report["guest"]["keyids"].as_array().unwrap();
    assert!(keyids.len() > 1 && keyids.iter().any(|row| row["keyid"] == 0), "{keyids:?}");
    let slowdown = |policy: &str| {
        let policies = report["model"]["policies"].as_array().unwrap();
        policies.iter().find(|row| row["policy"] == policy).unwrap()["slowdown_percent"].as_f64().unwrap()
    };
    assert_eq!(slowdown("no encryption"), 0.0);
    assert!(slowdown("bypass, AES-XTS-128 for KeyIDs") < slowdown("AES-XTS-128 for all"));
    assert!(slowdown("AES-XTS-128 for all") < slowdown("AES-XTS-256 for all"));

    for text in ["Encryption datapath", "% of limit", "xts-mode", "Modelled memory system", "slowdown"] {
        assert!(run.stdout.contains(text), "{text}: {}", run.stdout);
    }
    let plots = std::fs::read_to_string(svg).unwrap();
    assert!(plots.starts_with("<svg") && plots.trim_end().ends_with("</svg>"));
    for text in ["AES-XTS-128, encryption", "Modelled memory system", "Slowdown of the guest", "page, portable"] {
        assert!(plots.contains(text), "{text}");
    }
}

#[test]
fn one_backend_can_be_measured_alone_and_the_model_changed() {
    let scratch = Scratch::new();
    let json = scratch.path("bench.json").display().to_string();
    let options = ["--aes-backend", "portable", "--samples", "1", "--aes-latency", "60", "--guest-icount", "100K"];
    let run = emu(["bench", "-quick", "-json", &json].into_iter().chain(options));
    assert_eq!(run.status, 0, "{}", run.stderr);
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    let implementations = rows(&report, "datapath").iter().map(|row| row["implementation"].as_str().unwrap());
    assert!(implementations.clone().any(|name| name == "portable"));
    assert!(!implementations.clone().any(|name| name == "aesni"));
    assert_eq!((&report["samples"], &report["model"]["aes_latency_cycles"]), (&1.into(), &60.0.into()));
    let executed = report["guest"]["instructions"].as_u64().unwrap();
    assert!((90_000..=101_000).contains(&executed), "{executed}");
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is() {
    let scratch = Scratch::new();
    let dir = scratch.dir().display().to_string();
    for (options, message) in [
        (
            "--json /nonexistent/x",
            "--json /nonexistent/x: no such file or directory; accepted: a file that can be written",
        ),
        (&format!("--json {dir}/a --svg {dir}"), "is a directory; accepted: a file that can be written"),
        ("--kernel /nonexistent/vmlinuz", "-kernel /nonexistent/vmlinuz: no such file or directory"),
        ("-m 1", "1 MiB"),
        ("--clock 0", "--clock 0; accepted: a number of GHz above 0, at most 100"),
        ("--bandwidth NaN", "--bandwidth NaN; accepted: a number of GB/s above 0"),
        ("--cpi=-1", "--cpi -1; accepted: a number of cycles above 0"),
        ("--dram-cycles 2", "--dram-cycles 2: a line takes 7.5 cycles on the channel alone"),
        ("--aes-interval 21", "--aes-interval 21: larger than --aes-latency 20"),
    ] {
        let run = emu(["bench", "--quick"].into_iter().chain(options.split(' ')));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{options}: {}", run.stderr);
        assert!(run.stderr.starts_with("mktme-emu: ") && run.stderr.contains(message), "{options}: {}", run.stderr);
    }
    for (options, message) in [
        ("--aes-backend sse", "accepted: auto, portable, aesni, vaes256, vaes512"),
        ("--samples 0", "0 is not in 1..=1000"),
        ("--clock fast", "invalid value 'fast'"),
        ("--initrd x", "--kernel"),
    ] {
        let run = emu(["bench"].into_iter().chain(options.split(' ')));
        assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{options}: {}", run.stderr);
        assert!(run.stderr.contains(message), "{options}: {}", run.stderr);
    }
    assert!(scratch.names().is_empty(), "{:?}", scratch.names());
}

#[test]
fn a_backend_that_the_processor_lacks_is_refused_with_those_it_has() {
    for backend in Backend::ALL.into_iter().filter(|backend| !backend.is_available()) {
        for command in ["run", "bench"] {
            let run = emu([command, "--aes-backend", backend.name()]);
            assert_eq!((run.status, run.stdout.as_str()), (2, ""), "{}", run.stderr);
            let message = format!(
                "mktme-emu: --aes-backend {backend}: this processor lacks the instructions; accepted: auto, portable"
            );
            assert!(run.stderr.starts_with(&message), "{}", run.stderr);
        }
    }
}

#[test]
fn the_backend_changes_nothing_that_the_guest_or_the_state_hash_sees() {
    let auto = emu(["run", "--state-hash"]);
    for backend in Backend::available() {
        let run = emu(["run", "--state-hash", "--aes-backend", backend.name()]);
        assert_eq!(run.status, 0, "{}", run.stderr);
        assert_eq!(run.stdout, auto.stdout, "{backend}");
    }
}
