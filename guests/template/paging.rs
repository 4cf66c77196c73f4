//! Windows: pages above the identity map of `boot.s`, which lead to one page frame under KeyIDs of your choice.

use crate::cpu::clflush;
use crate::mktme::{LINE_BYTES, Machine};
use core::cell::UnsafeCell;

const PAGE_BYTES: u64 = 4096;
const ENTRIES: usize = 512;
/// Present and writable (SDM Vol. 3A, 5.5.4). The page is write-back.
const P_RW: u64 = 0b11;
/// The window of KeyID n is the n-th page from here, the first address that `boot.s` does not map.
const WINDOWS: u64 = 4 << 30;
/// Index of that address in the page-directory-pointer table.
const PDPT_INDEX: usize = 4;

#[repr(C, align(4096))]
struct Page<T>(UnsafeCell<T>);

// SAFETY: one CPU, no interrupts. Tables are written by `map` only, the frame through windows with volatile accesses only.
unsafe impl<T> Sync for Page<T> {}

type Table = Page<[u64; ENTRIES]>;

static DIRECTORY: Table = Page(UnsafeCell::new([0; ENTRIES]));
static TABLE: Table = Page(UnsafeCell::new([0; ENTRIES]));
static FRAME: Page<[u8; PAGE_BYTES as usize]> = Page(UnsafeCell::new([0; PAGE_BYTES as usize]));

unsafe extern "C" {
    /// Of `boot.s`.
    static pdpt: Table;
}

impl<T> Page<T> {
    /// Linear address, which the identity map makes the physical address.
    fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

fn set(table: &Table, index: usize, entry: u64) {
    // SAFETY: nobody holds a reference into a table. Volatile: the processor reads it.
    unsafe { table.0.get().cast::<u64>().add(index % ENTRIES).write_volatile(entry) }
}

/// The frame's first line as one KeyID sees it.
pub struct Window(u64);

/// Maps the frame under a KeyID below 512.
///
/// Every KeyID gets a page of its own, so no TLB entry ever has to go. Code that changes the KeyID of a mapping that is in
/// use has to flush the page's lines through the old mapping and to execute INVLPG.
pub fn map(machine: &Machine, keyid: u16) -> Window {
    // SAFETY: `boot.s` defines it as a page.
    let top = unsafe { &pdpt };
    set(top, PDPT_INDEX, DIRECTORY.address() | P_RW);
    set(&DIRECTORY, 0, TABLE.address() | P_RW);
    let index = usize::from(keyid);
    set(&TABLE, index, FRAME.address() | u64::from(keyid) << machine.keyid_shift | P_RW);
    Window(WINDOWS + index as u64 * PAGE_BYTES)
}

impl Window {
    pub fn write(&self, line: &[u8; LINE_BYTES]) {
        // SAFETY: inside the window, which maps the frame for writing.
        unsafe { (self.0 as *mut [u8; LINE_BYTES]).write_volatile(*line) }
    }

    pub fn read(&self) -> [u8; LINE_BYTES] {
        // SAFETY: as for `write`; all bytes are values.
        unsafe { (self.0 as *const [u8; LINE_BYTES]).read_volatile() }
    }

    /// Writes the line back, if it is dirty, and drops it from the cache: the copy under this KeyID, and no other.
    pub fn flush(&self) {
        clflush(self.0);
    }
}
