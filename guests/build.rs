//! Compiles the guests. They are freestanding programs for the host's own target, so the compiler and linker that build
//! the emulator build them as well and nothing else has to be installed (design D11).
//!
//! rustc is called directly. A nested cargo would have to share, or get around, the lock of the outer one, and the
//! RUSTFLAGS meant for the emulator (`target-cpu=native`, say) must not reach code that runs on the emulated CPU.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// How a guest differs from a program for the host.
const CODEGEN: &[&str] = &[
    "panic=abort",
    "opt-level=2",
    // The baseline of x86-64: no extension that a modelled CPU might lack.
    "target-cpu=x86-64",
    // Linked at its physical address, entered without a loader that could relocate it.
    "relocation-model=static",
    // An exception pushes its frame on the stack that it interrupts.
    "no-redzone=yes",
    // Drops the parts of `core` that refer to unwinding, which there is nothing to satisfy.
    "lto=fat",
    "codegen-units=1",
    "embed-bitcode=yes",
    "force-unwind-tables=no",
    // Function names stay, for reports about the guest (docs/symbols.md).
    "strip=debuginfo",
    "link-arg=-nostdlib",
    "link-arg=-static",
    "link-arg=-no-pie",
    "link-arg=-Wl,--build-id=none",
];

fn main() {
    let manifest_dir = path("CARGO_MANIFEST_DIR");
    let out_dir = path("OUT_DIR");
    let target = text("TARGET");
    assert!(
        target.starts_with("x86_64-") && target.contains("-linux-"),
        "the embedded guests are x86-64 ELF programs and are built with an x86_64 Linux toolchain; this one is for {target}"
    );
    // The attacks are linked as the template is, and share files with it.
    for (guest, layout) in [("hello-mktme", "hello-mktme"), ("template", "template"), ("attacks", "template")] {
        build_guest(&manifest_dir, guest, &manifest_dir.join(layout).join("link.ld"), &out_dir, &target);
    }
}

fn build_guest(manifest_dir: &Path, name: &str, layout: &Path, out_dir: &Path, target: &str) {
    let source = manifest_dir.join(name);
    println!("cargo::rerun-if-changed={}", source.display());

    let mut rustc = Command::new(text("RUSTC"));
    rustc.args(["--edition=2024", "--crate-type=bin", "--target", target]);
    rustc.args(["--crate-name", &name.replace('-', "_")]);
    for option in CODEGEN {
        rustc.args(["-C", option]);
    }
    rustc.arg("-C").arg(format!("link-arg=-T{}", layout.display()));
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = std::ffi::OsString::from("linker=");
        option.push(linker);
        rustc.arg("-C").arg(option);
    }
    // Panic messages name source files; where the repository lies is nobody's business and would make builds differ.
    rustc.arg(format!("--remap-path-prefix={}=guests", manifest_dir.display()));
    rustc.arg("-o").arg(out_dir.join(name)).arg(source.join("main.rs"));

    let output = rustc.output().unwrap_or_else(|error| panic!("cannot run {rustc:?}: {error}"));
    let messages = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "building the guest {name} failed: {rustc:?}\n{messages}");
    for line in messages.lines().filter(|line| line.starts_with("warning")) {
        println!("cargo::warning={name}: {line}");
    }
}

fn text(variable: &str) -> String {
    env::var(variable).unwrap_or_else(|error| panic!("cargo gives build scripts {variable}: {error}"))
}

fn path(variable: &str) -> PathBuf {
    PathBuf::from(text(variable))
}
