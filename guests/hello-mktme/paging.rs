//! Page tables of the program's own: the first 4 GiB one to one under KeyID 0, and above them *windows*, 4 KiB each, that
//! all lead to one page frame and differ only in the KeyID bits of their page-table entries.

use core::cell::UnsafeCell;

use crate::cpu;
use crate::mktme::LINE_BYTES;

const PAGE_BYTES: u64 = 4096;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const ENTRIES: usize = 512;

// Bits of an entry (SDM Vol. 3A, 5.5.4).
const P: u64 = 1 << 0;
const RW: u64 = 1 << 1;
const PS: u64 = 1 << 7;

/// Gigabytes that are mapped one to one: as many as the entry state maps.
const IDENTITY_GIB: usize = 4;

/// Where the windows begin: the first address after the identity map.
const WINDOWS: u64 = (IDENTITY_GIB as u64) << 30;

/// KeyIDs that get a window: 0 to 3.
pub const WINDOW_COUNT: u16 = 4;

#[repr(C, align(4096))]
struct Page<T>(UnsafeCell<T>);

type Table = Page<[u64; ENTRIES]>;

// SAFETY: one CPU and no interrupts; the tables are written by `map` before they are loaded, the frame only by way of
// windows, with volatile accesses.
unsafe impl<T> Sync for Page<T> {}

impl<T> Page<T> {
    /// Linear address, which the identity map makes the physical address.
    fn address(&self) -> u64 {
        self.0.get() as u64
    }
}

impl Table {
    const fn empty() -> Self {
        Self(UnsafeCell::new([0; ENTRIES]))
    }

    fn set(&self, index: usize, entry: u64) {
        // SAFETY: nobody holds a reference into a table.
        let table = unsafe { &mut *self.0.get() };
        table[index] = entry;
    }
}

static PML4: Table = Table::empty();
static PDPT: Table = Table::empty();
static IDENTITY: [Table; IDENTITY_GIB] = [const { Table::empty() }; IDENTITY_GIB];
static WINDOW_PD: Table = Table::empty();
static WINDOW_PT: Table = Table::empty();

/// The page frame that the demonstrations use. Nothing else is in it, and it is only ever touched through windows.
static FRAME: Page<[u8; PAGE_BYTES as usize]> = Page(UnsafeCell::new([0; PAGE_BYTES as usize]));

/// How the machine splits a physical address: MAXPHYADDR bits, of which the top `keyid_bits` are the KeyID.
#[derive(Clone, Copy)]
pub struct AddressLayout {
    pub maxphyaddr: u32,
    pub keyid_bits: u32,
}

impl AddressLayout {
    /// Lowest bit of the KeyID: the number of bits that address memory.
    pub fn keyid_shift(self) -> u32 {
        self.maxphyaddr.saturating_sub(self.keyid_bits)
    }

    /// The same memory under a KeyID.
    pub fn with_keyid(self, address: u64, keyid: u16) -> u64 {
        address | u64::from(keyid) << self.keyid_shift()
    }
}

/// A view of the frame through one KeyID.
#[derive(Clone, Copy)]
pub struct Window {
    /// The KeyID that its page-table entry names.
    pub keyid: u16,
    /// Linear address.
    pub linear: u64,
    /// The page-table entry.
    pub entry: u64,
}

/// All windows.
#[derive(Clone, Copy)]
pub struct Windows([Window; WINDOW_COUNT as usize]);

impl Windows {
    /// The view through a KeyID below [`WINDOW_COUNT`].
    pub fn through(&self, keyid: u16) -> Window {
        self.0[usize::from(keyid)]
    }

    pub fn iter(&self) -> impl Iterator<Item = Window> {
        self.0.into_iter()
    }

    /// Flushes every line of the frame through every KeyID: afterwards DRAM is all there is, and no cached copy can
    /// interfere with what follows. KeyID 0 comes first, so that leftovers of the loader do not survive.
    pub fn flush_all(&self) {
        for window in self.iter() {
            for line in 0..LINES {
                window.flush(line);
            }
        }
    }
}

/// Lines in the frame.
const LINES: usize = PAGE_BYTES as usize / LINE_BYTES;

impl Window {
    /// Stores a whole line.
    pub fn write(&self, line: usize, bytes: &[u8; LINE_BYTES]) {
        // SAFETY: inside the window, which maps the frame for writing; aligned.
        unsafe { (self.line_address(line) as *mut [u64; LINE_BYTES / 8]).write_volatile(words(bytes)) }
    }

    /// Loads a whole line.
    pub fn read(&self, line: usize) -> [u8; LINE_BYTES] {
        // SAFETY: as for `write`; every bit pattern is a value.
        let words = unsafe { (self.line_address(line) as *const [u64; LINE_BYTES / 8]).read_volatile() };
        let mut bytes = [0; LINE_BYTES];
        for (chunk, word) in bytes.chunks_mut(8).zip(words) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// CLFLUSH through this mapping. It reaches the copies cached under this KeyID and no others.
    pub fn flush(&self, line: usize) {
        cpu::clflush(self.line_address(line));
    }

    fn line_address(&self, line: usize) -> u64 {
        assert!(line < LINES);
        self.linear + (line * LINE_BYTES) as u64
    }
}

fn words(bytes: &[u8; LINE_BYTES]) -> [u64; LINE_BYTES / 8] {
    let (chunks, _) = bytes.as_chunks();
    core::array::from_fn(|index| u64::from_le_bytes(chunks[index]))
}

/// Physical address of the frame, without KeyID.
pub fn frame() -> u64 {
    FRAME.address()
}

/// Builds the tables with a window for each KeyID and loads CR3.
pub fn map(layout: AddressLayout) -> Windows {
    PML4.set(0, PDPT.address() | P | RW);
    for (gib, table) in IDENTITY.iter().enumerate() {
        PDPT.set(gib, table.address() | P | RW);
        for index in 0..ENTRIES {
            let address = (gib * ENTRIES + index) as u64 * LARGE_PAGE_BYTES;
            table.set(index, address | P | RW | PS);
        }
    }
    PDPT.set(IDENTITY_GIB, WINDOW_PD.address() | P | RW);
    WINDOW_PD.set(0, WINDOW_PT.address() | P | RW);
    let windows = core::array::from_fn(|index| {
        let keyid = index as u16;
        let entry = layout.with_keyid(FRAME.address(), keyid) | P | RW;
        WINDOW_PT.set(index, entry);
        Window { keyid, linear: WINDOWS + index as u64 * PAGE_BYTES, entry }
    });
    // SAFETY: everything that the entry state mapped stays where it is.
    unsafe { cpu::write_cr3(PML4.address()) };
    Windows(windows)
}

/// Whether CR3 points at the tables of `map`.
pub fn is_loaded() -> bool {
    cpu::read_cr3() & !(PAGE_BYTES - 1) == PML4.address()
}
