//! The processor: a cached interpreter of x86-64 with its MMU (design D5).
//!
//! Reading order: [`state`] (registers), [`lazy`] (the arithmetic flags), [`mode`] (operating modes and segments),
//! [`op`] and [`block`] (what code is turned into), [`translate`] (iced-x86 instructions to ops), [`exec`] (what ops and
//! instructions do), [`mmu`] (linear address to bus address to bytes), [`clock`] and [`run`] (the loop around it all), [`snapshot`].
//!
//! Two kinds of instruction semantics exist and each instruction has exactly one. *Hot* integer instructions are
//! handlers specialised by operand form, chained by tail calls (`exec::int`). Everything else is an [`ExecFn`]: a plain
//! function of the processor and the decoded instruction.

pub mod block;
pub mod clock;
mod dma;
pub mod exec;
pub mod lazy;
pub mod machine_check;
pub mod mmu;
pub mod mode;
mod observe;
pub mod op;
pub mod operand;
pub mod reset;
pub mod run;
pub mod snapshot;
pub mod state;
pub mod trace;
pub mod translate;
mod traps;

pub use snapshot::CpuSnapshot;
pub use state::Cpu;
pub use traps::Traps;

use iced_x86::Instruction;
use x86::Exception;

/// Semantics of one instruction. On `Err` nothing architectural may have changed (faults are restartable), except for
/// what the SDM says changes. RIP is already [`Cpu::next_ip`] for the function: a control transfer sets it with
/// [`Cpu::set_rip`]; a fault is delivered with the instruction's own RIP by the caller.
pub type ExecFn = fn(&mut Cpu, &Instruction) -> Result<(), Exception>;
