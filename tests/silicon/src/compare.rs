//! Compares two outcomes of a case.

use crate::generate::{operand_address, operand_bytes};
use crate::layout::{arena_address, arena_index};
use crate::rules::{Allowance, allowance};
use crate::state::{COMPARED_FLAGS, Case, Fault, Outcome, SELECTORS, State, fx};

/// A difference that no rule covers.
#[derive(Debug, Clone)]
pub struct Difference {
    pub what: String,
    pub host: String,
    pub model: String,
}

pub const GPR_NAMES: [&str; 16] =
    ["rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// Linear addresses from here on are the kernel's: Linux reports every fault on them as a protection violation, so
/// that programs cannot see what is mapped there (arch/x86/mm/fault.c, `set_signal_archinfo`).
const KERNEL_HALF: u64 = 0x7FFF_FFFF_F000;

fn visible(fault: Option<Fault>) -> Option<Fault> {
    fault.map(|f| match f.vector {
        14 if f.cr2 >= KERNEL_HALF => Fault { error: f.error | 1, ..f },
        14 => f,
        _ => Fault { cr2: 0, ..f },
    })
}

/// Everything that is not covered by the rules; empty if the outcomes agree. `used` is told the rows that were needed.
pub fn compare(case: &Case, host: &Outcome, model: &Outcome, used: &mut dyn FnMut(usize)) -> Vec<Difference> {
    let low_halves = case.bits == 32;
    let exact = differences(case, host, model, &Allowance { low_halves, ..Allowance::default() });
    if exact.is_empty() {
        return exact;
    }
    let (mut allowed, rows) = allowance(case);
    allowed.low_halves = low_halves;
    let host_fault = allowed.host_fault;
    if host.fault.is_some() || model.fault.is_some() {
        // An instruction that faulted has changed nothing, so nothing of it is undefined or approximate.
        allowed = Allowance {
            operand_fault: allowed.operand_fault,
            either_operand: allowed.either_operand,
            compatibility_upper: allowed.compatibility_upper,
            tags: allowed.mmx_transition,
            low_halves,
            ..Allowance::default()
        };
    }
    for row in rows {
        used(row);
    }
    if host.fault.is_some() && model.fault.is_none() && host_fault {
        return vec![];
    }
    differences(case, host, model, &allowed)
}

/// The same for a program, whose instructions leave only AF undefined.
pub fn compare_program(case: &Case, host: &Outcome, model: &Outcome) -> Vec<Difference> {
    differences(case, host, model, &Allowance { flags: x86::flags::AF, ..Allowance::default() })
}

/// True for the faults that an access to an operand at `at` may raise.
fn on_operand(fault: Option<Fault>, at: Option<u64>, len: u64) -> bool {
    fault.is_some_and(|f| match f.vector {
        12 | 13 => true,
        14 => at.is_some_and(|at| f.cr2.wrapping_sub(at) < len),
        _ => false,
    })
}

struct List(Vec<Difference>);

impl List {
    fn check<T: PartialEq + std::fmt::LowerHex>(&mut self, what: impl FnOnce() -> String, host: T, model: T) {
        if host != model {
            let d = Difference { what: what(), host: format!("{host:#x}"), model: format!("{model:#x}") };
            self.0.push(d);
        }
    }
}

fn differences(case: &Case, host: &Outcome, model: &Outcome, allowed: &Allowance) -> Vec<Difference> {
    let mut list = List(vec![]);
    let (hf, mf) = (visible(host.fault), visible(model.fault));
    let (at, len) = (operand_address(case), operand_bytes(case));
    let memory_fault = |f: Option<Fault>| f.is_some_and(|f| (10..=14).contains(&f.vector));
    let either = allowed.operand_fault && on_operand(hf, at, len) && on_operand(mf, at, len)
        || allowed.either_operand && memory_fault(hf) && memory_fault(mf);
    if hf != mf && !either {
        let show = |f: Option<Fault>| match f {
            None => "none".into(),
            Some(f) => format!("vector {} error {:#x} cr2 {:#x}", f.vector, f.error, f.cr2),
        };
        list.0.push(Difference { what: "fault".into(), host: show(hf), model: show(mf) });
    }
    registers(&host.state, &model.state, allowed, &mut list);
    vectors(&host.state, &model.state, allowed, &mut list);
    if host.memory != model.memory {
        memory(case, host, model, allowed, &mut list);
    }
    list.0
}

fn registers(h: &State, m: &State, allowed: &Allowance, list: &mut List) {
    let compatible = allowed.compatibility_upper && h.selectors[1] != SELECTORS[1] || allowed.low_halves;
    for (n, name) in GPR_NAMES.iter().enumerate() {
        let upper = if compatible { !0xFFFF_FFFF } else { 0 };
        let upper = if allowed.low_halves && n >= 8 { u64::MAX } else { upper };
        let ignored = upper | allowed.gprs.iter().filter(|(r, _)| *r == n).fold(0, |a, (_, mask)| a | mask);
        list.check(|| (*name).into(), h.gpr[n] & !ignored, m.gpr[n] & !ignored);
    }
    list.check(|| "rip".into(), h.rip, m.rip);
    let flags = COMPARED_FLAGS & !allowed.flags;
    list.check(|| "rflags".into(), h.rflags & flags, m.rflags & flags);
    for (n, name) in ["es", "cs", "ss", "ds", "fs", "gs"].iter().enumerate() {
        // The kernel's IRET to a signal handler clears RPL of null selectors (SDM Vol. 2A, "IRET").
        let model = if h.selectors[n] == 0 { m.selectors[n] & !3 } else { m.selectors[n] };
        list.check(|| (*name).into(), h.selectors[n], model);
    }
    list.check(|| "fs.base".into(), h.fs_base, m.fs_base);
    list.check(|| "gs.base".into(), h.gs_base, m.gs_base);
}

fn vectors(h: &State, m: &State, allowed: &Allowance, list: &mut List) {
    list.check(|| "mxcsr".into(), h.mxcsr(), m.mxcsr());
    for n in 0..16 {
        let (a, b) = (h.xmm(n), m.xmm(n));
        if a != b && !allowed.relative.is_some_and(|e| lanes_close(a, b, e)) {
            list.check(|| format!("xmm{n}"), a, b);
        }
    }
    list.check(|| "fcw".into(), h.get16(fx::FCW), m.get16(fx::FCW));
    const TOP: u16 = 7 << 11;
    let status = !allowed.fsw & if allowed.tags { !TOP } else { !0 };
    list.check(|| "fsw".into(), h.get16(fx::FSW) & status, m.get16(fx::FSW) & status);
    if !allowed.tags {
        list.check(|| "ftw (abridged)".into(), h.fx[fx::FTW], m.fx[fx::FTW]);
    }
    for n in 0..8 {
        // The image is in stack order.
        let turn = if allowed.tags { h.top() + 8 - m.top() } else { 0 };
        let (a, b) = (h.st(n), m.st((n + turn) & 7));
        // Sign, exponent and significand of neighbours are neighbours as integers, but for the explicit integer bit.
        if a != b && (a >> 79 != b >> 79 || ulps(a).abs_diff(ulps(b)) > allowed.x87_ulps) {
            list.check(|| format!("st{n}"), a, b);
        }
    }
}

/// An x87 magnitude as an integer that grows by 1 from each value to the next.
fn ulps(v: u128) -> u128 {
    let (exponent, significand) = (v >> 64 & 0x7FFF, v & u128::from(u64::MAX));
    if exponent == 0 { significand } else { (exponent << 63) + (significand & u128::from(u64::MAX >> 1)) }
}

fn lanes_close(a: u128, b: u128, relative: f64) -> bool {
    (0..4).all(|i| {
        let (a, b) = ((a >> (32 * i)) as u32, (b >> (32 * i)) as u32);
        let (x, y) = (f64::from(f32::from_bits(a)), f64::from(f32::from_bits(b)));
        a == b || x.is_finite() && y.is_finite() && x != 0.0 && ((x - y) / x).abs() <= relative
    })
}

fn memory(case: &Case, host: &Outcome, model: &Outcome, allowed: &Allowance, list: &mut List) {
    let operand = operand_address(case);
    let mut ignored = vec![];
    for (offset, len) in &allowed.memory {
        for i in 0..*len {
            let at = operand.and_then(|o| arena_index(o.wrapping_add(offset + i)));
            ignored.extend(at);
        }
    }
    let mut shown = 0;
    for (i, (h, m)) in host.memory.iter().zip(model.memory.iter()).enumerate() {
        if h != m && !ignored.contains(&i) && shown < 16 {
            shown += 1;
            list.check(|| format!("[{:#x}]", arena_address(i)), *h, *m);
        }
    }
}
