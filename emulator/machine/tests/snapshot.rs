//! Snapshots of whole machines, in memory and as files, with the embedded guest.

use firmware::Images;
use machine::snapshot::container::{FileReader, FileWriter, Tag};
use machine::{Config, Exit, Machine, Snapshot, SnapshotError};
use mem::{CacheModel, Rate};
use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::io::Read;

fn booted(config: &Config) -> Machine {
    let mut machine = Machine::new(config.clone()).unwrap();
    let mut bios = machine.power_on().unwrap();
    let images =
        Images { kernel: guests::HELLO_MKTME, kernel_name: "", modules: Vec::new(), cmdline: "", protocol: None };
    machine.boot(&mut bios, &images).unwrap();
    machine
}

/// To the end of the guest.
fn finish(machine: &mut Machine) -> (Exit, u64, u128, Vec<u8>) {
    let exit = machine.run(u64::MAX);
    let output = machine.chipset().take_serial_output();
    (exit, machine.cpu.icount(), machine.state_hash(), output)
}

fn bytes(snapshot: &Snapshot) -> Vec<u8> {
    snapshot.write(Vec::new(), &mut |_, _| ()).unwrap().0
}

fn read(bytes: &[u8]) -> Result<Snapshot, SnapshotError> {
    Snapshot::read(bytes, &mut |_, _| ())
}

fn small() -> Config {
    Config { ram_bytes: 64 << 20, ..Config::default() }
}

fn configs() -> Vec<Config> {
    let base = small();
    let rate = Rate::from_ppm(5_000).unwrap();
    vec![
        base.clone(),
        Config { fast: false, ..base.clone() },
        Config { links: false, bulk_strings: false, ..base.clone() },
        Config { cache_bytes: 8 << 10, cache_ways: 2, ..base.clone() },
        Config { cache: CacheModel::Lazy, evict_rate: rate, prefetch: rate, seed: 5, ..base.clone() },
        Config { cache: CacheModel::Off, ..base.clone() },
        Config { packages: 2, dma_device: true, ..base },
    ]
}

#[test]
fn a_guest_goes_on_from_any_point_as_if_nothing_had_been() {
    for config in configs() {
        let mut plain = booted(&config);
        let expected = finish(&mut plain);
        let length = expected.1;
        let mut rng = ChaCha20Rng::seed_from_u64(1);
        let mut machine = booted(&config);
        let mut ladder = Vec::new();
        for n in 0..12u64 {
            assert_eq!(machine.run(length * n / 12 + rng.next_u64() % (length / 12)), Exit::Icount);
            let hash = machine.state_hash();
            let snapshot = machine.snapshot();
            assert_eq!(machine.state_hash(), hash);
            ladder.push((snapshot, hash));
        }
        assert_eq!(finish(&mut machine), expected, "{config:?}");
        for n in 0..24 {
            let (snapshot, hash) = &ladder[(rng.next_u64() % 12) as usize];
            // In the machine that has been everywhere, or in a new one.
            let mut new = (n % 3 == 0).then(|| Machine::from_snapshot(&read(&bytes(snapshot)).unwrap()).unwrap());
            let machine = new.as_mut().unwrap_or(&mut machine);
            machine.restore(snapshot).unwrap();
            assert_eq!((machine.state_hash(), machine.cpu.icount()), (*hash, snapshot.icount()));
            assert_eq!(machine.cpu.now(), snapshot.time());
            assert_eq!(finish(machine), expected, "{} {config:?}", snapshot.icount());
        }
    }
}

#[test]
fn a_file_reads_as_what_was_written() {
    let mut machine = booted(&small());
    machine.run(50_000);
    let snapshot = machine.snapshot();
    let file = bytes(&snapshot);
    assert_eq!(bytes(&read(&file).unwrap()), file);
}

#[test]
fn machines_of_other_configurations_are_refused_by_the_knob() {
    let mut machine = booted(&small());
    machine.run(1_000);
    let snapshot = machine.snapshot();
    let refused = |config: Config| Machine::new(config).unwrap().restore(&snapshot).map_err(|e| e.to_string());
    assert_eq!(
        refused(Config { seed: 3, ips: 1_000_000, ..small() }).unwrap_err(),
        "a snapshot of another machine: seed is 0 there and 3 here"
    );
    assert_eq!(
        refused(Config::default()).unwrap_err(),
        "a snapshot of another machine: memory is \"64M\" there and \"512M\" here"
    );
    assert!(refused(Config { fast: false, links: false, bulk_strings: false, ..small() }).is_ok());
}

#[test]
fn damaged_files_are_refused_wherever_they_are_damaged() {
    let mut machine = booted(&small());
    machine.run(200_000);
    let file = bytes(&machine.snapshot());
    let mut rng = ChaCha20Rng::seed_from_u64(9);
    let mut at = |length: usize| rng.next_u64() as usize % length;
    for n in 0..600 {
        let mut damaged = file.clone();
        match n % 4 {
            0 => damaged.truncate(at(file.len())),
            1 => damaged[at(600)] ^= 1 << (n / 4 % 8),
            2 => {
                let (from, to) = (at(file.len() - 64), at(file.len() - 64));
                let piece: [u8; 64] = damaged[from..from + 64].try_into().unwrap();
                damaged[to..to + 64].copy_from_slice(&piece);
            }
            _ => damaged[at(file.len())] ^= 1 << (n / 4 % 8),
        }
        assert!(damaged == file || read(&damaged).is_err(), "{n}");
    }
    let message = |bytes: &[u8]| read(bytes).err().unwrap().to_string();
    assert_eq!(message(b"\x7fELF and so on, much longer than a header"), "not a snapshot");
    assert_eq!(message(b""), "not a snapshot");
    let mut other = file.clone();
    other[20] = 9;
    assert_eq!(message(&other), "a snapshot of format 9; this program reads format 2");
    assert_eq!(
        message(&[&file[..], b"x"].concat()),
        format!("damaged at byte {}: the file goes on after its end", file.len())
    );
    assert!(message(&file[..file.len() - 1]).contains("the file ends early"));
}

#[test]
fn snapshots_are_taken_to_other_threads() {
    let config = small();
    let mut machine = booted(&config);
    machine.run(30_000);
    let snapshot = machine.snapshot();
    let expected = finish(&mut machine);
    let runs = [(); 2].map(|()| {
        let snapshot = snapshot.clone();
        std::thread::spawn(move || finish(&mut Machine::from_snapshot(&snapshot).unwrap()))
    });
    for run in runs {
        assert_eq!(run.join().unwrap(), expected);
    }
}

/// With two sets of one line each, most lines of code have left the cache before execution leaves them.
#[test]
fn lines_that_were_evicted_while_they_are_executed_go_on_to_be() {
    const STEP: u64 = 2;
    let config = Config { cache_bytes: 128, cache_ways: 1, ..small() };
    let mut machine = booted(&config);
    machine.run(20_000);
    let (start, mut hashes, mut snapshots) = (machine.cpu.icount(), Vec::new(), Vec::new());
    for n in 1..200 {
        snapshots.push(machine.snapshot());
        hashes.push(machine.state_hash());
        machine.run(start + n * STEP);
    }
    for (n, snapshot) in snapshots.iter().enumerate() {
        // A new machine knows nothing about the lines.
        let mut other = Machine::from_snapshot(snapshot).unwrap();
        let later = (n + 1).min(hashes.len() - 1);
        other.run(start + later as u64 * STEP);
        assert_eq!(other.state_hash(), hashes[later], "{n}");
        machine.restore(snapshot).unwrap();
        machine.run(start + later as u64 * STEP);
        assert_eq!(machine.state_hash(), hashes[later], "{n}");
    }
}

/// The sections of a file.
fn sections(file: &[u8]) -> Vec<(Tag, Vec<u8>)> {
    let mut reader = FileReader::new(file).unwrap();
    let sections = [*b"CONF", *b"MACH", *b"KEYS", *b"CACH", *b"DRAM"].map(|tag| {
        let mut bytes = Vec::new();
        reader.section(tag).read_to_end(&mut bytes).unwrap();
        (tag, bytes)
    });
    reader.finish().unwrap();
    sections.into()
}

/// Somebody who knows the format can sign anything. It must not get further than into a machine of its own making.
#[test]
fn forged_files_never_bring_the_host_down() {
    let mut machine = booted(&Config { dma_device: true, ..small() });
    machine.run(200_000);
    let sections = sections(&bytes(&machine.snapshot()));
    let mut rng = ChaCha20Rng::seed_from_u64(4);
    let mut below = |end: usize| rng.next_u64() as usize % end;
    let (mut refused, mut taken) = (0, 0);
    for n in 0..400 {
        let mut forged = sections.clone();
        let part = &mut forged[n % 4].1;
        for _ in 0..1 + below(3) {
            let at = below(part.len());
            match below(4) {
                0 => part[at] = [0, 0xFF, 0x7F, 0x80][below(4)],
                1 => drop(part.splice(at..(at + below(9)).min(part.len()), [1; 4])),
                _ => part[at] ^= 1 << below(8),
            }
        }
        let mut file = FileWriter::new(Vec::new()).unwrap();
        for (tag, bytes) in &forged {
            file.section(*tag, |out| out.write_all(bytes)).unwrap();
        }
        match read(&file.finish().unwrap().0) {
            Err(_) => refused += 1,
            Ok(snapshot) => {
                taken += 1;
                // Of another size it could take long; of another kind it is still a machine.
                if snapshot.config().ram_bytes <= 64 << 20 {
                    let mut machine = Machine::from_snapshot(&snapshot).unwrap();
                    machine.run(snapshot.icount().saturating_add(300));
                    machine.state_hash();
                }
            }
        }
    }
    assert!(refused > 20 && taken > 20, "{refused} {taken}");
}
