//! What the loader tells: the zero page of the Linux boot protocol (struct boot_params).

/// Offsets in the zero page (Linux, Documentation/arch/x86/zero-page.rst and boot.rst).
mod offset {
    pub const EXT_CMD_LINE_PTR: u64 = 0x0c8;
    pub const E820_ENTRIES: u64 = 0x1e8;
    pub const CMD_LINE_PTR: u64 = 0x228;
    pub const E820_TABLE: u64 = 0x2d0;
}

/// Entries that fit in the zero page.
const E820_MAX_ENTRIES: u64 = 128;
/// Layout of an entry: base, size, type.
const E820_ENTRY_BYTES: u64 = 20;
const E820_SIZE: u64 = 8;
const E820_TYPE: u64 = 16;
/// Usable memory ("AddressRangeMemory" of ACPI).
const E820_RAM: u32 = 1;

/// Longest command line that is looked at.
const COMMAND_LINE_MAX: u64 = 2048;

/// The entry state maps the first 4 GiB; what lies beyond cannot be read.
const MAPPED: u64 = 1 << 32;

/// The zero page.
pub struct BootParams {
    address: u64,
}

/// Sum of the usable E820 ranges.
pub struct Memory {
    pub ranges: usize,
    pub bytes: u64,
}

impl BootParams {
    /// The zero page at the physical (= linear) address that the loader passed in RSI.
    pub fn at(address: u64) -> Self {
        Self { address }
    }

    /// Usable memory according to E820; `None` when the loader passed no table.
    pub fn memory(&self) -> Option<Memory> {
        let [entries] = self.read(offset::E820_ENTRIES)?;
        let mut memory = Memory { ranges: 0, bytes: 0 };
        for index in 0..u64::from(entries).min(E820_MAX_ENTRIES) {
            let entry = offset::E820_TABLE + index * E820_ENTRY_BYTES;
            let bytes = u64::from_le_bytes(self.read(entry + E820_SIZE)?);
            if u32::from_le_bytes(self.read(entry + E820_TYPE)?) == E820_RAM {
                memory.ranges += 1;
                memory.bytes = memory.bytes.saturating_add(bytes);
            }
        }
        (entries > 0).then_some(memory)
    }

    /// The command line, unprintable bytes as dots; `None` when there is none.
    pub fn command_line(&self) -> Option<impl Iterator<Item = char>> {
        let low = u32::from_le_bytes(self.read(offset::CMD_LINE_PTR)?);
        let high = u32::from_le_bytes(self.read(offset::EXT_CMD_LINE_PTR)?);
        let address = u64::from(high) << 32 | u64::from(low);
        let bytes = (0..COMMAND_LINE_MAX).map_while(move |index| read(address.checked_add(index)?));
        let text = bytes.map(|[byte]| byte).take_while(|byte| *byte != 0);
        let printable = |byte: u8| if byte.is_ascii_graphic() || byte == b' ' { byte as char } else { '.' };
        (address != 0).then(|| text.map(printable))
    }

    fn read<const N: usize>(&self, offset: u64) -> Option<[u8; N]> {
        if self.address == 0 { None } else { read(self.address.checked_add(offset)?) }
    }
}

/// Reads bytes at a physical address below 4 GiB.
fn read<const N: usize>(address: u64) -> Option<[u8; N]> {
    let end = address.checked_add(N as u64)?;
    // SAFETY: mapped one to one by the entry state, and any bytes are a value.
    (address != 0 && end <= MAPPED).then(|| unsafe { (address as *const [u8; N]).read_volatile() })
}
