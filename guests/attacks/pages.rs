//! Windows: pages above the identity map of `boot.s`, each of which leads to a page frame of your choice under a KeyID of your
//! choice.

use crate::cpu::clflush;
use crate::mktme::{LINE_BYTES, Machine};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub const PAGE_BYTES: u64 = 4096;
const ENTRIES: usize = 512;
/// Present and writable (SDM Vol. 3A, 5.5.4). The page is write-back.
const P_RW: u64 = 0b11;
/// The first address that `boot.s` does not map.
const WINDOWS: u64 = 4 << 30;
/// Index of that address in the page-directory-pointer table.
const PDPT_INDEX: usize = 4;

pub type Line = [u8; LINE_BYTES];

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; ENTRIES]>);

// SAFETY: one CPU, no interrupts; written by `set` only.
unsafe impl Sync for Table {}

static DIRECTORY: Table = Table(UnsafeCell::new([0; ENTRIES]));
static TABLE: Table = Table(UnsafeCell::new([0; ENTRIES]));
/// How many windows there are. Entries are never changed, so no TLB entry ever has to go.
static USED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" {
    /// Of `boot.s`.
    static pdpt: Table;
}

impl Table {
    /// Linear address, which the identity map makes the physical address.
    fn address(&self) -> u64 {
        self.0.get() as u64
    }

    fn set(&self, index: usize, entry: u64) {
        // SAFETY: nobody holds a reference into a table. Volatile: the processor reads it.
        unsafe { self.0.get().cast::<u64>().add(index % ENTRIES).write_volatile(entry) }
    }
}

/// A page frame as one KeyID sees it.
pub struct Window {
    linear: u64,
}

/// Maps the frame of a physical address under a KeyID.
pub fn map(machine: &Machine, keyid: u16, physical: u64) -> Window {
    // SAFETY: `boot.s` defines it as a page.
    let top = unsafe { &pdpt };
    top.set(PDPT_INDEX, DIRECTORY.address() | P_RW);
    DIRECTORY.set(0, TABLE.address() | P_RW);
    let index = USED.fetch_add(1, Relaxed);
    assert!(index < ENTRIES, "too many windows");
    TABLE.set(index, physical & !(PAGE_BYTES - 1) | u64::from(keyid) << machine.keyid_shift | P_RW);
    Window { linear: WINDOWS + index as u64 * PAGE_BYTES }
}

impl Window {
    fn at(&self, line: usize) -> u64 {
        self.linear + (line * LINE_BYTES) as u64 % PAGE_BYTES
    }

    /// Lines are counted from the start of the page.
    pub fn write(&self, line: usize, bytes: &Line) {
        // SAFETY: inside the window, which maps a frame for writing that nothing else of this program is in.
        unsafe { (self.at(line) as *mut Line).write_volatile(*bytes) }
    }

    pub fn read(&self, line: usize) -> Line {
        // SAFETY: as for `write`; all bytes are values.
        unsafe { (self.at(line) as *const Line).read_volatile() }
    }

    /// Writes the line back, if it is dirty, and drops it from the cache: the copy under this KeyID, and no other.
    pub fn flush(&self, line: usize) {
        clflush(self.at(line));
    }

    /// Writes a line and brings it to memory.
    pub fn store(&self, line: usize, bytes: &Line) {
        self.write(line, bytes);
        self.flush(line);
    }

    /// Reads a line from memory and leaves no copy in the cache.
    pub fn load(&self, line: usize) -> Line {
        self.flush(line);
        let bytes = self.read(line);
        self.flush(line);
        bytes
    }
}
