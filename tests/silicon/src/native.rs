//! Executes one instruction on the host's processor.
//!
//! A case is entered by a routine that loads every user register from memory and jumps to the instruction. After it
//! stands a jump through memory to a second routine, which stores every register: no signal is needed, so this path
//! takes well under a microsecond. What does not fall through (taken branches reach the INT3s that fill the code pages;
//! faults) arrives as a signal, whose handler takes the registers from the signal frame and resumes after the call.
#![allow(unsafe_code)]

use crate::layout::{ARENA_BYTES, CODE, CODE_BYTES, EXIT_FROM_32, EXIT_SLOT, PAGE, PAGES, in_code};
use crate::state::{Case, Fault, Outcome, SELECTORS, State, USER_FLAGS, fx};
use std::arch::{asm, global_asm};
use std::io::Error;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

const INT3: u8 = 0xCC;
/// JMP [RIP + disp32].
const JMP_RIP: [u8; 2] = [0xFF, 0x25];
/// JMP ptr16:32.
const JMP_FAR: u8 = 0xEA;
/// Bytes of the longer of the two jumps that may stand behind a case.
pub const JMP_BYTES: usize = 7;

/// Memory that the entry and exit routines address directly.
#[repr(C, align(64))]
struct Shared {
    pre: State,
    post: State,
    /// Where the entry routine goes with the case's registers: the case, or a far jump to it.
    entry: u64,
    far_offset: u32,
    far_selector: u32,
    host_rsp: u64,
    host_fs_base: u64,
    host_rflags: u64,
    /// True from the entry of a case until its registers have been stored.
    running: u64,
    host_mxcsr: u32,
    /// What a signal reported; the vector is [`NO_SIGNAL`] if none came.
    vector: u64,
    error: u64,
    cr2: u64,
    /// Cases entered so far, for the watchdog, and what it saw last.
    entered: u64,
    seen: u64,
    stuck: u64,
}

const NO_SIGNAL: u64 = u64::MAX;

/// The one process-wide instance. Only the thread that owns the [`Native`] and the signal handlers that interrupt it touch
/// it.
static mut SHARED: MaybeUninit<Shared> = MaybeUninit::zeroed();

global_asm!(
    ".p2align 4",
    "silicon_enter:",
    "push rbx",
    "push rbp",
    "push r12",
    "push r13",
    "push r14",
    "push r15",
    "mov [rip + {s} + {host_rsp}], rsp",
    "pushfq",
    "pop qword ptr [rip + {s} + {host_rflags}]",
    "rdfsbase rax",
    "mov [rip + {s} + {host_fs}], rax",
    "mov qword ptr [rip + {s} + {running}], 1",
    "mov rax, [rip + {s} + {pre} + {fs}]",
    "wrfsbase rax",
    "mov rax, [rip + {s} + {pre} + {gs}]",
    "wrgsbase rax",
    "mov es, word ptr [rip + {s} + {pre} + {selectors}]",
    "mov ds, word ptr [rip + {s} + {pre} + {selectors} + 6]",
    "fxrstor64 [rip + {s} + {pre}]",
    "push qword ptr [rip + {s} + {pre} + {flags}]",
    "popfq",
    "mov rax, [rip + {s} + {pre} + {gpr}]",
    "mov rcx, [rip + {s} + {pre} + {gpr} + 8]",
    "mov rdx, [rip + {s} + {pre} + {gpr} + 16]",
    "mov rbx, [rip + {s} + {pre} + {gpr} + 24]",
    "mov rsp, [rip + {s} + {pre} + {gpr} + 32]",
    "mov rbp, [rip + {s} + {pre} + {gpr} + 40]",
    "mov rsi, [rip + {s} + {pre} + {gpr} + 48]",
    "mov rdi, [rip + {s} + {pre} + {gpr} + 56]",
    "mov r8, [rip + {s} + {pre} + {gpr} + 64]",
    "mov r9, [rip + {s} + {pre} + {gpr} + 72]",
    "mov r10, [rip + {s} + {pre} + {gpr} + 80]",
    "mov r11, [rip + {s} + {pre} + {gpr} + 88]",
    "mov r12, [rip + {s} + {pre} + {gpr} + 96]",
    "mov r13, [rip + {s} + {pre} + {gpr} + 104]",
    "mov r14, [rip + {s} + {pre} + {gpr} + 112]",
    "mov r15, [rip + {s} + {pre} + {gpr} + 120]",
    "jmp qword ptr [rip + {s} + {entry}]",
    "silicon_enter_32:",
    "jmp fword ptr [rip + {s} + {far_offset}]",
    ".p2align 4",
    // The instruction fell through.
    "silicon_exit:",
    "mov [rip + {s} + {post} + {gpr}], rax",
    "mov [rip + {s} + {post} + {gpr} + 8], rcx",
    "mov [rip + {s} + {post} + {gpr} + 16], rdx",
    "mov [rip + {s} + {post} + {gpr} + 24], rbx",
    "mov [rip + {s} + {post} + {gpr} + 32], rsp",
    "mov [rip + {s} + {post} + {gpr} + 40], rbp",
    "mov [rip + {s} + {post} + {gpr} + 48], rsi",
    "mov [rip + {s} + {post} + {gpr} + 56], rdi",
    "mov [rip + {s} + {post} + {gpr} + 64], r8",
    "mov [rip + {s} + {post} + {gpr} + 72], r9",
    "mov [rip + {s} + {post} + {gpr} + 80], r10",
    "mov [rip + {s} + {post} + {gpr} + 88], r11",
    "mov [rip + {s} + {post} + {gpr} + 96], r12",
    "mov [rip + {s} + {post} + {gpr} + 104], r13",
    "mov [rip + {s} + {post} + {gpr} + 112], r14",
    "mov [rip + {s} + {post} + {gpr} + 120], r15",
    "mov rsp, [rip + {s} + {host_rsp}]",
    "pushfq",
    "pop qword ptr [rip + {s} + {post} + {flags}]",
    "push qword ptr [rip + {s} + {host_rflags}]",
    "popfq",
    "fxsave64 [rip + {s} + {post}]",
    "fninit",
    "ldmxcsr [rip + {s} + {host_mxcsr}]",
    "rdfsbase rax",
    "mov [rip + {s} + {post} + {fs}], rax",
    "rdgsbase rax",
    "mov [rip + {s} + {post} + {gs}], rax",
    "mov word ptr [rip + {s} + {post} + {selectors}], es",
    "mov word ptr [rip + {s} + {post} + {selectors} + 2], cs",
    "mov word ptr [rip + {s} + {post} + {selectors} + 4], ss",
    "mov word ptr [rip + {s} + {post} + {selectors} + 6], ds",
    "mov word ptr [rip + {s} + {post} + {selectors} + 8], fs",
    "mov word ptr [rip + {s} + {post} + {selectors} + 10], gs",
    "xor eax, eax",
    "mov es, eax",
    "mov ds, eax",
    "mov fs, eax",
    "mov gs, eax",
    "mov rax, [rip + {s} + {host_fs}]",
    "wrfsbase rax",
    // The handler stored the registers already and has put FS.base, x87, MXCSR, RSP and RFLAGS back.
    "silicon_leave:",
    "mov qword ptr [rip + {s} + {running}], 0",
    "pop r15",
    "pop r14",
    "pop r13",
    "pop r12",
    "pop rbp",
    "pop rbx",
    "ret",
    s = sym SHARED,
    pre = const offset_of!(Shared, pre),
    post = const offset_of!(Shared, post),
    host_rsp = const offset_of!(Shared, host_rsp),
    host_fs = const offset_of!(Shared, host_fs_base),
    host_rflags = const offset_of!(Shared, host_rflags),
    host_mxcsr = const offset_of!(Shared, host_mxcsr),
    running = const offset_of!(Shared, running),
    gpr = const offset_of!(State, gpr),
    entry = const offset_of!(Shared, entry),
    far_offset = const offset_of!(Shared, far_offset),
    flags = const offset_of!(State, rflags),
    fs = const offset_of!(State, fs_base),
    gs = const offset_of!(State, gs_base),
    selectors = const offset_of!(State, selectors),
);

unsafe extern "C" {
    fn silicon_enter();
    fn silicon_enter_32();
    fn silicon_exit();
    fn silicon_leave();
}

/// The signal frame's registers in encoding order.
const GREGS: [libc::c_int; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// Writes to standard error without the library, which a handler may not use.
fn complain(text: &[u8]) {
    // SAFETY: write(2) on a valid buffer; its result does not matter on the way out.
    unsafe { libc::write(2, text.as_ptr().cast(), text.len()) };
}

/// Ends the process from a handler: `reason`, and the number of the case it happened in.
fn give_up(reason: &[u8], case: u64) -> ! {
    let mut digits = [b'0'; 20];
    let mut n = case;
    for d in digits.iter_mut().rev() {
        *d = b'0' + (n % 10) as u8;
        n /= 10;
    }
    complain(reason);
    complain(&digits);
    complain(b"\n");
    // SAFETY: _exit(2) may be called at any time.
    unsafe { libc::_exit(4) }
}

extern "C" fn on_fault(signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid ucontext, which this handler alone uses until it returns. SHARED is touched by
    // this thread only, and the interrupted code (the case) does not hold references to it. No Rust code that needs the
    // thread pointer runs before FS.base is the host's again.
    unsafe {
        let shared = (&raw mut SHARED).cast::<Shared>();
        if (*shared).running == 0 {
            give_up(b"silicon: a signal outside of a case, after case ", (*shared).entered);
        }
        let (fs, gs): (u64, u64);
        asm!("rdfsbase {}", out(reg) fs);
        asm!("rdgsbase {}", out(reg) gs);
        let (es, ds, fs_selector, gs_selector): (u16, u16, u16, u16);
        asm!("mov {0:x}, es", "mov {1:x}, ds", "mov {2:x}, fs", "mov {3:x}, gs", out(reg) es, out(reg) ds,
            out(reg) fs_selector, out(reg) gs_selector);
        asm!("mov es, {0:e}", "mov ds, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) 0);
        asm!("wrfsbase {}", in(reg) (*shared).host_fs_base);
        let context = &mut *context.cast::<libc::ucontext_t>();
        let gregs = &mut context.uc_mcontext.gregs;
        let post = &mut (*shared).post;
        for (value, name) in post.gpr.iter_mut().zip(GREGS) {
            *value = gregs[name as usize] as u64;
        }
        post.rip = gregs[libc::REG_RIP as usize] as u64;
        post.rflags = gregs[libc::REG_EFL as usize] as u64;
        post.fs_base = fs;
        post.gs_base = gs;
        // CS, GS, FS and SS, 16 bits each.
        let pushed = gregs[libc::REG_CSGSFS as usize] as u64;
        post.selectors = [es, pushed as u16, (pushed >> 48) as u16, ds, fs_selector, gs_selector];
        gregs[libc::REG_CSGSFS as usize] = (u64::from(SELECTORS[1]) | u64::from(SELECTORS[2]) << 48) as i64;
        let image = context.uc_mcontext.fpregs.cast::<u8>();
        ptr::copy_nonoverlapping(image, post.fx.as_mut_ptr(), 512);
        (*shared).vector = gregs[libc::REG_TRAPNO as usize] as u64;
        (*shared).error = gregs[libc::REG_ERR as usize] as u64;
        (*shared).cr2 = gregs[libc::REG_CR2 as usize] as u64;
        if signal == libc::SIGBUS && (*shared).vector == 14 {
            give_up(b"silicon: the kernel could not supply a page, case ", (*shared).entered);
        }
        // Resume after the call with clean x87 and SSE control.
        let clean = State::default();
        ptr::copy_nonoverlapping(clean.fx.as_ptr(), image, fx::FIP);
        ptr::copy_nonoverlapping(clean.fx[fx::MXCSR..].as_ptr(), image.add(fx::MXCSR), 4);
        gregs[libc::REG_RSP as usize] = (*shared).host_rsp as i64;
        gregs[libc::REG_EFL as usize] = USER_FLAGS as i64;
        gregs[libc::REG_RIP as usize] = silicon_leave as *const () as i64;
    }
}

/// Seconds without a new case that count as a hang.
const PATIENCE: u64 = 20;

extern "C" fn on_tick(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: as in `on_fault`; no thread-local storage is used.
    unsafe {
        let shared = (&raw mut SHARED).cast::<Shared>();
        let entered = (*shared).entered;
        if entered != (*shared).seen {
            (*shared).seen = entered;
            (*shared).stuck = 0;
            return;
        }
        (*shared).stuck += 1;
        if (*shared).stuck == PATIENCE {
            let place: &[u8] =
                if (*shared).running != 0 { b"silicon: hang on the host, case " } else { b"silicon: hang, case " };
            give_up(place, entered);
        }
    }
}

/// The pages, handlers and timer that cases run with. One per process.
pub struct Native {
    /// Code bytes to be filled with INT3 before the next case.
    used: (usize, usize),
}

fn check(ok: bool, what: &str) -> Result<(), String> {
    if ok { Ok(()) } else { Err(format!("{what}: {}", Error::last_os_error())) }
}

fn map(linear: u64, bytes: usize, protection: libc::c_int) -> Result<(), String> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
    // SAFETY: MAP_FIXED_NOREPLACE cannot replace a mapping of the process.
    let got = unsafe { libc::mmap(linear as *mut _, bytes, protection, flags, -1, 0) };
    check(got as u64 == linear, "mmap of a test page")
}

impl Native {
    /// Maps the pages and installs the handlers. `read_only` is the content of the page that cases cannot write.
    ///
    /// # Errors
    /// Why cases cannot run here, as a sentence.
    pub fn new(image: &[u8; ARENA_BYTES]) -> Result<Native, String> {
        // SAFETY: getauxval(3) only reads.
        let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
        const HWCAP2_FSGSBASE: u64 = 1 << 1;
        if hwcap2 & HWCAP2_FSGSBASE == 0 {
            return Err("the kernel does not enable FSGSBASE, with which cases are entered".into());
        }
        let (r, rw) = (libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE);
        map(CODE, CODE_BYTES, rw | libc::PROT_EXEC)?;
        for (i, page) in PAGES.iter().enumerate() {
            map(page.linear, PAGE, rw)?;
            // SAFETY: the page was mapped above and nothing else refers to it.
            unsafe {
                ptr::copy_nonoverlapping(image[i * PAGE..].as_ptr(), page.linear as *mut u8, PAGE);
                if !page.writable {
                    check(libc::mprotect(page.linear as *mut _, PAGE, r) == 0, "mprotect")?;
                }
            }
        }
        // SAFETY: the code pages were mapped above; handlers match the SA_SIGINFO signature; the alternate stack is
        // leaked, so it lives as long as the process.
        unsafe {
            ptr::write_bytes(CODE as *mut u8, INT3, CODE_BYTES);
            (EXIT_SLOT as *mut u64).write(silicon_exit as *const () as u64);
            let back = (EXIT_SLOT as i64 - EXIT_FROM_32 as i64 - 6) as i32;
            let jump = EXIT_FROM_32 as *mut u8;
            ptr::copy_nonoverlapping(JMP_RIP.as_ptr(), jump, 2);
            ptr::copy_nonoverlapping(back.to_le_bytes().as_ptr(), jump.add(2), 4);
            let shared = (&raw mut SHARED).cast::<Shared>();
            (*shared).host_mxcsr = 0x1F80;
            const STACK_BYTES: usize = 1 << 18;
            let stack = vec![0u8; STACK_BYTES].leak();
            let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK_BYTES };
            check(libc::sigaltstack(&stack, ptr::null_mut()) == 0, "sigaltstack")?;
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigfillset(&mut action.sa_mask);
            action.sa_sigaction = on_fault as *const () as usize;
            for signal in [libc::SIGTRAP, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGBUS] {
                check(libc::sigaction(signal, &action, ptr::null_mut()) == 0, "sigaction")?;
            }
            action.sa_sigaction = on_tick as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
            check(libc::sigaction(libc::SIGALRM, &action, ptr::null_mut()) == 0, "sigaction")?;
            let second = libc::timeval { tv_sec: 1, tv_usec: 0 };
            let timer = libc::itimerval { it_interval: second, it_value: second };
            check(libc::setitimer(libc::ITIMER_REAL, &timer, ptr::null_mut()) == 0, "setitimer")?;
        }
        Ok(Native { used: (0, 0) })
    }

    /// Executes a case and stores what it led to.
    pub fn run(&mut self, case: &Case, out: &mut Outcome) {
        let at = (case.pre.rip - CODE) as usize;
        let fall_through = case.pre.rip + case.bytes.len() as u64;
        let jump = if case.bits == 64 {
            let disp = EXIT_SLOT.wrapping_sub(fall_through + 6) as i32;
            [&JMP_RIP[..], &disp.to_le_bytes()].concat()
        } else {
            [&[JMP_FAR][..], &(EXIT_FROM_32 as u32).to_le_bytes(), &SELECTORS[1].to_le_bytes()].concat()
        };
        let end = at + case.bytes.len() + jump.len();
        assert!(end <= CODE_BYTES, "the case leaves the code pages");
        // SAFETY: the pages were mapped by `new` at these addresses, nothing in Rust refers to them, and the ranges were
        // checked. The instruction touches only harmless addresses (`layout::harmless`, the generator's duty), so what
        // it does stays in the test pages; registers that Rust relies on are restored by the exit routine or the handler.
        unsafe {
            let code = CODE as *mut u8;
            ptr::write_bytes(code.add(self.used.0), INT3, self.used.1 - self.used.0);
            self.used = (at, end);
            ptr::copy_nonoverlapping(case.bytes.as_ptr(), code.add(at), case.bytes.len());
            ptr::copy_nonoverlapping(jump.as_ptr(), code.add(end - jump.len()), jump.len());
            for (i, page) in PAGES.iter().enumerate().filter(|(_, p)| p.writable) {
                ptr::copy_nonoverlapping(case.memory[i * PAGE..].as_ptr(), page.linear as *mut u8, PAGE);
            }
            let shared = (&raw mut SHARED).cast::<Shared>();
            (*shared).pre = case.pre.clone();
            (*shared).far_offset = case.pre.rip as u32;
            (*shared).far_selector = u32::from(case.pre.selectors[1]);
            (*shared).entry = if case.bits == 64 { case.pre.rip } else { silicon_enter_32 as *const () as u64 };
            (*shared).vector = NO_SIGNAL;
            (*shared).entered += 1;
            silicon_enter();
            out.state = (*shared).post.clone();
            out.fault = None;
            match (*shared).vector {
                NO_SIGNAL => {
                    out.state.rip = fall_through;
                    // The exit routine is 64-bit code.
                    out.state.selectors[1] = case.pre.selectors[1];
                }
                // A branch reached an INT3 that fills the code pages. INT3 itself leaves RIP right behind the case.
                3 if in_code(out.state.rip - 1) && case.insn.code() != iced_x86::Code::Int3 => out.state.rip -= 1,
                vector => out.fault = Some(Fault { vector: vector as u8, error: (*shared).error, cr2: (*shared).cr2 }),
            }
            for (i, page) in PAGES.iter().enumerate() {
                ptr::copy_nonoverlapping(page.linear as *const u8, out.memory[i * PAGE..].as_mut_ptr(), PAGE);
            }
        }
    }
}
