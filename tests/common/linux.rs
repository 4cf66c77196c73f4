//! Debian's Linux as a guest, from the kit in `guests/linux`.

use super::{Run, emu, run};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const MEMORY: &str = "512M";
/// Nothing of this is in a healthy log. The last two are `generic_get_mtrr()` and `mtrr_wrmsr()` of Linux 6.1 at odds with
/// the MTRRs it found.
const TROUBLE: [&str; 7] =
    ["WARNING:", "BUG:", "Oops", "unchecked MSR access", "Call Trace", "incorrect mask", "MTRR: CPU 0: Writing MSR"];

/// A kernel and the file system that goes with it.
pub struct Kit {
    pub dir: PathBuf,
    kernel: &'static str,
}

impl Kit {
    pub fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    pub fn kernel(&self) -> String {
        self.path(self.kernel)
    }
}

/// The long forms of the tests, too slow for every push, were asked for with MKTME_LONG=1.
pub fn long() -> bool {
    std::env::var_os("MKTME_LONG").is_some_and(|v| v == "1")
}

/// Runs a script of the kit. `None`: it failed, which has been said; an error if MKTME_REQUIRE_LINUX=1.
pub fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Option<PathBuf> {
    let linux = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/linux");
    let made = run(Command::new(linux.join(name)).args(arguments).envs(environment.iter().copied()));
    if made.status != 0 {
        let required = std::env::var_os("MKTME_REQUIRE_LINUX").is_some_and(|v| v == "1");
        assert!(!required, "guests/linux/{name}: {}", made.stderr);
        eprintln!("SKIPPED, no Linux guest: guests/linux/{name} says\n{}", made.stderr);
        return None;
    }
    Some(linux.join("work"))
}

fn fetch(kernel: &'static str, flavour: &str) -> Option<Kit> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/linux/work");
    if !dir.join(kernel).exists() || !dir.join("initramfs.cpio").exists() {
        script("build.sh", &[], &[("KERNEL_FLAVOUR", flavour)])?;
    }
    Some(Kit { dir, kernel })
}

/// The cloud kernel, fetched once. `None`: it cannot be fetched, and that has been said.
pub fn kit() -> Option<&'static Kit> {
    static KIT: OnceLock<Option<Kit>> = OnceLock::new();
    KIT.get_or_init(|| fetch("vmlinuz", "cloud-amd64")).as_ref()
}

/// The kernel for ordinary PCs, with the same file system.
pub fn plain_kit() -> Option<&'static Kit> {
    static KIT: OnceLock<Option<Kit>> = OnceLock::new();
    KIT.get_or_init(|| kit().and_then(|_| fetch("vmlinuz-amd64", "amd64"))).as_ref()
}

/// The initrd with the kernel module `mktme_demo` and its program, made once. `None`: likewise.
pub fn module_initrd() -> Option<&'static str> {
    static INITRD: OnceLock<Option<String>> = OnceLock::new();
    let initrd = INITRD.get_or_init(|| {
        kit()?;
        Some(script("module.sh", &[], &[])?.join("module-initramfs.cpio").display().to_string())
    });
    initrd.as_deref()
}

/// Boots with `append` added to the command line.
pub fn boot(kit: &Kit, append: &str, options: &[&str]) -> Run {
    boot_with(kit, &kit.path("initramfs.cpio"), MEMORY, append, options)
}

/// Boots with another file system and memory size.
pub fn boot_with(kit: &Kit, initrd: &str, memory: &str, append: &str, options: &[&str]) -> Run {
    let kernel = kit.kernel();
    let append = format!("console=ttyS0 cryptomgr.notests {append}");
    let base = ["run", "-no-reboot", "-m", memory, "-kernel", &kernel, "-initrd", initrd, "-append", &append];
    let mut all: Vec<&str> = base.into_iter().chain(["--until", "console:Kernel panic"]).collect();
    all.extend(options);
    // A guest that hangs ends as well.
    if !options.iter().any(|option| option.starts_with("icount:")) {
        all.extend(["--until", "icount:20G"]);
    }
    emu(all)
}

pub fn assert_healthy(run: &Run) {
    assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
    for word in TROUBLE {
        assert!(!run.stdout.contains(word), "{word}: {}", run.stdout);
    }
}

/// The lines of the kernel's log about memory encryption, without their times.
pub fn tme_lines(run: &Run) -> Vec<&str> {
    // The guest prints its log once more.
    let log = run.stdout.split("GUEST-READY").next().unwrap_or_default();
    log.lines()
        .filter_map(|line| line.split_once("] "))
        .map(|(_, text)| text)
        .filter(|text| text.contains("x86/tme") || text.contains("x86/mktme"))
        .collect()
}
