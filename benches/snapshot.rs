//! What snapshots cost: `cargo bench --bench snapshot`. With the Linux kit in `guests/linux/work` the guest is Linux in
//! 512 MiB, without it the embedded one. Times are CPU time of this thread; medians.

use firmware::{Images, Module};
use machine::{Config, Machine, Snapshot};
use rustix::time::{ClockId, clock_gettime};
use std::path::Path;

/// Where the base is taken: Linux starts its drivers then.
const BASE_ICOUNT: u64 = 150_000_000;
const DIRTY_PAGES: usize = 1_000;
/// A guest that has nothing more to do writes nothing.
const INSNS_MAX: u64 = 20_000_000;
const ROUNDS: usize = 25;
const RUNGS: usize = 20;

fn seconds() -> f64 {
    let t = clock_gettime(ClockId::ThreadCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn timed<T>(what: impl FnOnce() -> T) -> (f64, T) {
    let start = seconds();
    let result = what();
    (seconds() - start, result)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn print(what: &str, seconds: f64, note: &str) {
    println!("{what:<44} {:>10.3} ms  {note}", seconds * 1e3);
}

fn boot(linux: &Path) -> Machine {
    let mut machine = Machine::new(Config::default()).expect("the default machine");
    let mut bios = machine.power_on().expect("it powers on");
    let read = |name: &str| std::fs::read(linux.join(name)).ok();
    let (kernel, initrd) = (read("vmlinuz"), read("initramfs.cpio"));
    let images = Images {
        kernel: kernel.as_deref().unwrap_or(guests::HELLO_MKTME),
        kernel_name: "",
        modules: initrd.iter().map(|data| Module { name: "initrd", arguments: "", data }).collect(),
        cmdline: "console=ttyS0 cryptomgr.notests guest.run=report",
        protocol: None,
    };
    machine.boot(&mut bios, &images).expect("it boots");
    machine
}

/// Runs until so many pages of DRAM were written.
fn dirty(machine: &mut Machine, pages: usize) -> u64 {
    let start = machine.cpu.icount();
    while machine.cpu.mem.dram().pages_written() < pages && machine.cpu.icount() < start + INSNS_MAX {
        let before = machine.cpu.icount();
        machine.run(before + 20_000);
        drop(machine.chipset().take_serial_output());
        if machine.cpu.icount() == before {
            break;
        }
    }
    machine.cpu.icount() - start
}

fn main() {
    let linux = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/linux/work");
    let mut machine = boot(&linux);
    machine.run(if linux.join("vmlinuz").exists() { BASE_ICOUNT } else { 100_000 });
    let (time, _) = timed(|| machine.state_hash());
    print("state hash, the first", time, "");
    let (time, base) = timed(|| machine.snapshot());
    print("snapshot, the first", time, &format!("{} pages of DRAM", base.dram_pages()));
    let (time, _) = timed(|| machine.state_hash());
    print("state hash, the first after it", time, "");
    let (time, hash) = timed(|| machine.state_hash());
    print("state hash, again", time, "");

    let mut times = [const { Vec::new() }; 4];
    let mut insns = 0;
    let mut restored = Default::default();
    for _ in 0..ROUNDS {
        let (run, n) = timed(|| dirty(&mut machine, DIRTY_PAGES));
        insns = n;
        let (hashing, _) = timed(|| machine.state_hash());
        let (restore, what) = timed(|| machine.restore(&base).expect("it is the same machine"));
        restored = what;
        let (again, after) = timed(|| machine.state_hash());
        assert_eq!(after, hash);
        [run, hashing, restore, again].into_iter().zip(&mut times).for_each(|(time, of)| of.push(time));
    }
    let [run, hashing, restore, again] = times.map(median);
    print("run", run, &format!("{insns} instructions, {:.0} MIPS", insns as f64 / run / 1e6));
    print("state hash after it", hashing, "");
    let what = format!("{} pages of DRAM, {} of the cache", restored.dram_pages, restored.cached_pages);
    print("restore", restore, &what);
    print("state hash after it", again, "");

    let ladder: Vec<(Snapshot, f64)> = (0..RUNGS)
        .map(|_| {
            dirty(&mut machine, DIRTY_PAGES);
            let (time, snapshot) = timed(|| machine.snapshot());
            (snapshot, time)
        })
        .collect();
    print("snapshot of a ladder", median(ladder.iter().map(|(_, time)| *time).collect()), "");
    let climb = (0..RUNGS).map(|n| {
        let rung = &ladder[n * 7 % RUNGS].0;
        let (time, _) = timed(|| machine.restore(rung).expect("it is the same machine"));
        dirty(&mut machine, 100);
        time
    });
    print("restore of another rung", median(climb.collect()), "100 pages written, any other rung before");
    let (time, mut new) = timed(|| Machine::from_snapshot(&base).expect("it is a machine"));
    print("new machine from a snapshot", time, "");
    let (time, n) = timed(|| dirty(&mut new, DIRTY_PAGES));
    print("its first run", time, &format!("{n} instructions"));
    let (time, file) = timed(|| base.write(Vec::new(), &mut |_, _| ()).expect("there is memory").0);
    print("write as a file", time, &format!("{} MiB", file.len() >> 20));
    let (time, _) = timed(|| Snapshot::read(&file[..], &mut |_, _| ()).expect("it was just written"));
    print("read", time, "");
}
