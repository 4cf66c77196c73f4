//! Every handler ends in a jump (design D5).
//!
//! rustc turns a call in tail position into a jump only while nothing in the function needs it afterwards, and says
//! nothing when it stops doing so. A handler that calls the next one grows the host's stack with every instruction of
//! the guest. This test reads the machine code of its own executable: a handler must contain no RET and no CALL through a
//! register.
#![cfg(all(not(debug_assertions), target_arch = "x86_64", target_os = "linux"))]

use iced_x86::{Decoder, DecoderOptions, FlowControl, Register};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};

/// Modules whose functions with the signature of a handler are checked, and what in them is not a handler.
const MODULES: [&str; 7] = [
    "int::branch",
    "int::fuse",
    "int::mov",
    "cold",
    "simd::hot",
    "general::string::rep_",
    "general::exchange::cmpxchg16b_hot",
];
const NOT_HANDLERS: [&str; 15] = [
    "::add_",
    "::fused",
    "FUSIONS",
    "_handler",
    "not_entered",
    "unlinked",
    "transfer",
    "leave_",
    "legacy_address",
    "cold::exec",
    "Direct",
    "hot::handler",
    "cold::lookup",
    "cold::undefined",
    "fuse::entry",
];

fn is_handler(name: &str) -> bool {
    // The handler of a step is an instance of `run`, that of several one of those in `fuse`.
    let in_modules = name == "cpu::exec::int::run"
        || name.starts_with("cpu::exec::int::run::")
        || MODULES.iter().any(|m| name.starts_with(&format!("cpu::exec::{m}")));
    // A selector such as `jcc_for` returns a handler; it is generic over the condition only and usually inlined.
    in_modules
        && !NOT_HANDLERS.iter().any(|n| name.contains(n))
        && !name.contains("_for")
        && !name.contains("_cc")
        && !name.contains("::cold::transferred")
}

#[test]
fn handlers_neither_return_nor_call_indirectly() {
    // Makes the linker keep the processor. Nothing is loaded: the reset vector reads as all ones.
    let mut machine = machine::Machine::new(machine::Config::default()).expect("the default machine can be built");
    machine.run(10);

    let exe = std::fs::read(std::env::current_exe().expect("the test knows its path")).expect("and can read itself");
    let file = object::File::parse(&*exe).expect("it is an object file");
    let mut handlers = 0;
    let mut bad = Vec::new();
    for symbol in file.symbols().filter(|s| s.kind() == SymbolKind::Text && s.size() > 0) {
        let name = format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or_default()));
        if !is_handler(&name) {
            continue;
        }
        let section = file.section_by_index(symbol.section_index().expect("text has a section")).expect("exists");
        let data = section.data().expect("text has data");
        let start = (symbol.address() - section.address()) as usize;
        let code = &data[start..start + symbol.size() as usize];
        handlers += 1;
        for insn in Decoder::with_ip(64, code, symbol.address(), DecoderOptions::NONE) {
            // `call [rip + x]` goes through the global offset table to a function known at link time: the slow paths.
            let next_op = insn.flow_control() == FlowControl::IndirectCall && insn.memory_base() != Register::RIP;
            if next_op || insn.flow_control() == FlowControl::Return {
                bad.push(format!("{name} at {:#x}: {:?}", insn.ip(), insn.mnemonic()));
            }
        }
    }
    // The number of specialised handlers only falls if some are folded or lost.
    assert!(handlers > 2000, "only {handlers} handlers found: were the modules renamed?");
    assert!(bad.is_empty(), "{} of {handlers} handlers do not end in jumps only:\n{}", bad.len(), bad.join("\n"));
}
