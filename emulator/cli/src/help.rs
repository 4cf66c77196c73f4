//! The long texts of `--help`.

pub const GUEST: &str = "Guest";
pub const MACHINE: &str = "Machine";
pub const BIOS: &str = "Memory encryption (BIOS menu)";
pub const KNOBS: &str = "Knobs of the hardware model (docs/machine-file.md)";
pub const CONSOLE: &str = "Console";
pub const END: &str = "When to end";
pub const SNAPSHOTS: &str = "Snapshots";
pub const SANITIZER: &str = "Alias sanitizer";
pub const REPORTS: &str = "Logs and reports";
pub const MEASUREMENT: &str = "Measurement";
pub const OPPONENT: &str = "What it is compared with";
pub const MODEL: &str = "Latency model";

pub const ABOUT: &str = "An x86-64 machine with Intel's memory encryption (TME, MKTME), emulated";

pub const LONG_ABOUT: &str = "\
An x86-64 machine with Intel's memory encryption (TME, MKTME), emulated. Every cache line in its DRAM is AES-XTS \
ciphertext, lines are cached per KeyID and not coherent between KeyIDs, and unmodified kernels boot on it.

Without a kernel it boots a guest of its own that shows what memory encryption does, step by step. Options may have one \
dash or two.";

pub const RUN_ABOUT: &str = "\
Boots a guest: the one of -kernel, or the embedded one. Options may have one dash or two. The same options without \
`run` do the same.";

pub const CONFORMANCE_ABOUT: &str = "\
Checks the model against the hardware specification: each statement MK-001 to MK-147 is a test. What a guest can observe \
runs as code on the emulated processor; what only a probe sees is read through the host's interface as well. \
docs/conformance.md says more.";

pub const CONFORMANCE_AFTER: &str = "\
Exit statuses:
   0  every applicable statement that was run holds
   1  at least one does not
   2  bad usage, or the JUnit file could not be written";

pub const BENCH_ABOUT: &str = "\
Measures the encryption datapath line by line, every backend of the host and other libraries side by side, as a \
percentage of what the processor's AES instructions could do in the same run; then the modelled memory system with the \
encryption on, bypassed and off; then models what encryption costs a guest, on the line transfers of a real run. \
docs/bench.md says more.";

pub const BENCH_AFTER: &str = "\
The table goes to standard output, progress to standard error. Compare figures of one run only.

Exit statuses:
   0  measured
   2  bad usage or bad input: nothing was measured
  14  the host failed, for example a full disk";

pub const CAMPAIGN_ABOUT: &str = "\
Injects many faults into one guest, one at a time, each from the same snapshot, and counts what becomes of the guest: \
masked, latent, silent data corruption, detected, crash, hang. A plan says which guest, which faults and how exact the result shall \
be. docs/campaigns.md says more.";

pub const CAMPAIGN_AFTER: &str = "\
Example:
  mktme-emu campaign check plan.toml
  mktme-emu campaign run plan.toml -o results
  mktme-emu campaign report results --html report.html
  mktme-emu campaign replay results --id 17 -- -d int,mktme

Exit statuses:
   0  done
   1  replay: the injection went otherwise than in the results
   2  bad usage or bad input
  14  the host failed, for example a full disk: results so far are kept
  16  ended by a signal: the same command goes on from there";

pub const CAMPAIGN_RUN_ABOUT: &str = "\
Makes the injections of a plan, or those that a run before this one did not make: a campaign that was interrupted, by Ctrl-C or \
worse, goes on when it is started again. The results are one Parquet file in the directory of the campaign.";

pub const CAMPAIGN_REPLAY_ABOUT: &str = "\
Makes one injection again, from the start of the golden run to its end, and compares it with the results. With options of `run` after `--` it \
is an ordinary run from the campaign's snapshot with the fault: with an event log, the sanitizer, a bus trace.";

pub const BENCH_BOOT_ABOUT: &str = "\
Boots a guest that ends by itself, in turns with this emulator at its default settings and with QEMU's TCG (or, with \
--against, another build of mktme-emu). CPU time, user and system, of the whole processes is compared, and by items if the \
console has lines that mark them. Everything runs on one processor. docs/bench.md says more.";

pub const BENCH_BOOT_AFTER: &str = "\
Example:
  mktme-emu bench boot -kernel vmlinuz -initrd initramfs.cpio -append 'console=ttyS0 guest.run=workload'
      The workload of guests/linux, three times each.

Exit statuses:
   0  measured, and all consoles have the same results
   1  measured, but the results differ
   2  bad usage or bad input: nothing was run
  14  a run failed or hung, or the host failed
  16  SIGINT, SIGTERM or SIGHUP";

pub const EXPLORE_ABOUT: &str = "\
Repeats a run under many seeds and cache policies, and tells which outcomes there are, how often, and the command line that \
repeats each. An outcome is the exit status together with the console output. Whether a bug of aliased KeyIDs shows depends \
on what is evicted when; this finds out. docs/explore.md says more.";

pub const EXPLORE_AFTER: &str = "\
Examples:
  mktme-emu explore --seeds 20 -- run
      The embedded guest with 20 seeds and 8 policies.
  mktme-emu explore --outcome 'console:checksum (.*)' -- run -kernel vmlinuz -initrd test.cpio -no-reboot
      Outcomes are told apart by what the guest prints after `checksum`.

Exit statuses:
   0  all runs had the same outcome
   1  they had different ones
   2  bad usage, or bad input of the run
  14  the host failed
  16  SIGINT, SIGTERM or SIGHUP; the table has the runs until then";

pub const BUS_TRACE_ABOUT: &str = "\
Shows the trace that `run --bus-trace FILE` has written: every line that went between memory controller and DRAM, with its \
time, KeyID and ciphertext. Writes it as Ramulator 2 or DRAMsim3 read it, or as CSV, or adds it up. docs/bus-trace.md says more.";

pub const BUS_TRACE_AFTER: &str = "\
Examples:
  mktme-emu run --bus-trace trace && mktme-emu bus-trace trace --summary
  mktme-emu bus-trace trace --format dramsim3 --dram-mhz 1200 >requests

Exit statuses:
   0  the whole trace was written
   1  it is cut short or damaged; what comes before was written
   2  bad usage, or not a trace
  14  the host failed, for example a full disk";

pub const AFTER: &str = "Examples, keys and exit statuses: mktme-emu --help";

pub const AFTER_LONG: &str = "\
Examples:
  mktme-emu
      Boots the embedded guest: a guided tour of TME and MKTME.
  mktme-emu run -m 512M -kernel vmlinuz -initrd initramfs.cpio -append console=ttyS0
      Boots Linux; the serial port is this terminal.
  mktme-emu run --tme bypass --dump-dram dram.bin
      KeyID 0 in clear; afterwards dram.bin has what a probe on the memory bus would find.
  mktme-emu run -kernel vmlinuz -append console=ttyS0 --until 'console:Kernel panic' --until icount:5G
      Ends at a panic (exit status 12), or after five thousand million instructions (10).
  mktme-emu run -kernel vmlinuz -append console=ttyS0 --savevm 'up.snap,at=console:login:,stop'
      Saves the booted machine; mktme-emu run --loadvm up.snap goes on from there.
  mktme-emu run -d int,mktme -D log.txt
      Interrupts, exceptions and everything about keys go to log.txt.

Keys on a terminal:
  Ctrl-A X       end the run
  Ctrl-A H       help
  Ctrl-A Ctrl-A  send one Ctrl-A
  All other keys, Ctrl-C among them, are the guest's.

Exit statuses:
   0  the guest powered off, or wrote 10H to the debug-exit port F4H; Ctrl-A X
   2  bad usage or bad input: nothing was run
   4  triple fault (registers on standard error)
   6  halted, and nothing can wake the processor (registers on standard error)
   8  the guest reset the machine, with -no-reboot
  10  --until icount: or pc:, or --savevm with ,stop
  12  --until console:
  14  the host failed, for example a full disk
  16  SIGINT, SIGTERM or SIGHUP
  18  the guest ended well, but its --input script was not finished
  20  --sanitize=stop: the guest broke a rule for KeyIDs
  22  the guest ended well, but before a snapshot that --savevm asks for
  (v << 1) | 1, always odd: the guest wrote v, other than 10H, to port F4H

The serial port goes to standard output, port E9H (debug console) and everything else to standard error; --state-hash \
prints on standard output. Two runs with the same options, files and --input script are identical, instruction by \
instruction; what is typed or piped in is not reproducible.";
