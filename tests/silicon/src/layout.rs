//! Where a test case lives. The same linear addresses are mapped on the host and in the guest; everything else below
//! 4 GiB is unmapped in both, so every page has an unmapped neighbour to fault on.

/// Two pages of code, writable so that cases can be put there: the instruction under test, and INT3 everywhere else.
pub const CODE: u64 = 0x1000_0000;
pub const CODE_BYTES: usize = 2 * PAGE;
/// Address of the last jump's target, at the start of the code pages.
pub const EXIT_SLOT: u64 = CODE;
/// A far jump of 32-bit code to here goes on at the exit slot's target.
pub const EXIT_FROM_32: u64 = CODE + 0x10;
/// Cases are placed from here on.
pub const CODE_FIRST: u64 = CODE + 0x40;

pub const PAGE: usize = 4096;

/// Two adjacent pages of data.
pub const DATA: u64 = 0x2000_0000;
pub const DATA_BYTES: u64 = 2 * PAGE as u64;
/// One page that user code may only read.
pub const READ_ONLY: u64 = 0x2001_0000;
/// One page of stack.
pub const STACK: u64 = 0x3000_0000;

/// Where the interpreter's descriptor tables and handlers are. No case goes near it.
pub const SYSTEM: u64 = 0x6600_0000;
const SYSTEM_BYTES: u64 = 1 << 20;

/// A page of the arena.
#[derive(Debug, Clone, Copy)]
pub struct ArenaPage {
    pub linear: u64,
    pub writable: bool,
}

/// The pages whose contents belong to a case, in the order of [`Arena`].
pub const PAGES: [ArenaPage; 4] = [
    ArenaPage { linear: DATA, writable: true },
    ArenaPage { linear: DATA + PAGE as u64, writable: true },
    ArenaPage { linear: STACK, writable: true },
    ArenaPage { linear: READ_ONLY, writable: false },
];
pub const ARENA_BYTES: usize = PAGES.len() * PAGE;

/// Contents of the arena pages.
pub type Arena = [u8; ARENA_BYTES];

/// The index in an [`Arena`] of a linear address.
pub fn arena_index(linear: u64) -> Option<usize> {
    let page = PAGES.iter().position(|p| p.linear == linear & !(PAGE as u64 - 1))?;
    Some(page * PAGE + (linear % PAGE as u64) as usize)
}

/// The linear address of an index in an [`Arena`].
pub fn arena_address(index: usize) -> u64 {
    PAGES[index / PAGE].linear + (index % PAGE) as u64
}

/// True for addresses that a case may name: nothing of the test process can be there. Its own memory lies between
/// 4 GiB and the end of the user half; the last page but one is the vsyscall page, which is executable by name only.
pub fn harmless(linear: u64) -> bool {
    const VSYSCALL: u64 = 0xFFFF_FFFF_FF60_0000;
    let system = linear.wrapping_sub(SYSTEM) < SYSTEM_BYTES;
    !system && !(0xFFFF_0000..0x7FFF_FFFF_F000).contains(&linear) && linear & !0xFFF != VSYSCALL
}

/// True in the two code pages.
pub fn in_code(linear: u64) -> bool {
    linear.wrapping_sub(CODE) < CODE_BYTES as u64
}
