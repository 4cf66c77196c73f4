//! The address types. No bare `u64` address crosses a module border (design, section 3).

use std::fmt;

/// Bytes in a cache line, the unit of encryption (MK specification section 6.2).
pub const LINE_BYTES: usize = 64;
/// Bytes in the smallest page, the unit of plaintext frames and of DRAM allocation.
pub const PAGE_BYTES: usize = 4096;
/// Lines in a page: one bit each in a `u64`.
pub const LINES_PER_PAGE: usize = PAGE_BYTES / LINE_BYTES;
pub(crate) const LINE_SHIFT: u32 = 6;
pub(crate) const PAGE_SHIFT: u32 = 12;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
        #[repr(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The address of the 4 KiB page that holds this address.
            #[inline(always)]
            pub const fn page(self) -> Self {
                Self(self.0 & !(PAGE_BYTES as u64 - 1))
            }

            /// The byte offset inside the 4 KiB page.
            #[inline(always)]
            pub const fn page_offset(self) -> usize {
                self.0 as usize & (PAGE_BYTES - 1)
            }

            /// The address of the 64-byte line that holds this address.
            #[inline(always)]
            pub const fn line_start(self) -> Self {
                Self(self.0 & !(LINE_BYTES as u64 - 1))
            }

            /// The byte offset inside the 64-byte line.
            #[inline(always)]
            pub const fn line_offset(self) -> usize {
                self.0 as usize & (LINE_BYTES - 1)
            }

            /// The number of the 64-byte line inside its page, 0 to 63.
            #[inline(always)]
            pub const fn line_in_page(self) -> u32 {
                (self.0 >> LINE_SHIFT) as u32 & (LINES_PER_PAGE as u32 - 1)
            }

            /// The address `bytes` further on, modulo 2^64.
            #[inline(always)]
            #[must_use]
            pub const fn offset(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// A linear address.
    VirtAddr
);
address!(
    /// A full physical address as the core emits it, KeyID bits included ("full PA" in the MK specification).
    BusAddr
);
address!(
    /// A physical address without KeyID bits, `Mem(pa)`.
    PhysAddr
);

impl PhysAddr {
    /// The number of the 64-byte line, which is also the data unit number of the cipher (MC-33).
    #[inline(always)]
    pub const fn line(self) -> LineAddr {
        LineAddr(self.0 >> LINE_SHIFT)
    }
}

/// The number of a physical 64-byte line, `Mem(pa) >> 6`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[repr(transparent)]
pub struct LineAddr(pub u64);

impl LineAddr {
    /// The address of the line's first byte.
    #[inline(always)]
    pub const fn start(self) -> PhysAddr {
        PhysAddr(self.0 << LINE_SHIFT)
    }
}

/// Index of a key table entry. KeyID 0 is the TME key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[repr(transparent)]
pub struct KeyId(pub u16);

/// A count of retired instructions (design D6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, serde::Serialize, serde::Deserialize)]
#[repr(transparent)]
pub struct Icount(pub u64);

/// How a full physical address splits into KeyID and memory address (MK specification, notation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct AddressLayout {
    /// `M`: physical address bits, CPUID.80000008H:EAX\[7:0\].
    pub maxphyaddr: u8,
    /// `k`: KeyID bits, the topmost of the `M`; 0 until activation has succeeded.
    pub keyid_bits: u8,
}

impl AddressLayout {
    /// `A = M - k`: the address bits that select memory.
    #[inline(always)]
    pub const fn memory_bits(self) -> u32 {
        (self.maxphyaddr as u32).wrapping_sub(self.keyid_bits as u32) & 63
    }

    /// `KeyID(pa)`. Bits at and above `M` are ignored.
    #[inline(always)]
    pub const fn keyid(self, address: BusAddr) -> KeyId {
        KeyId(((address.0 >> self.memory_bits()) & ((1 << self.keyid_bits) - 1)) as u16)
    }

    /// `Mem(pa)`: the address with the KeyID removed.
    #[inline(always)]
    pub const fn mem(self, address: BusAddr) -> PhysAddr {
        PhysAddr(address.0 & ((1 << self.memory_bits()) - 1))
    }

    /// The full physical address that reaches `address` through `keyid`.
    #[inline(always)]
    pub const fn join(self, address: PhysAddr, keyid: KeyId) -> BusAddr {
        let k = keyid.0 as u64 & ((1 << self.keyid_bits) - 1);
        BusAddr(address.0 & ((1 << self.memory_bits()) - 1) | k << self.memory_bits())
    }
}

/// Memory types with their PAT and MTRR encodings (SDM Vol. 3A, "Memory Cache Control", table of encodings).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum MemType {
    Uc = 0,
    Wc = 1,
    Wt = 4,
    Wp = 5,
    Wb = 6,
    /// UC-, a PAT encoding only: UC unless an MTRR says WC.
    UcMinus = 7,
}

impl MemType {
    /// The type with this encoding; `None` for the reserved encodings 2, 3 and above 7.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Uc,
            1 => Self::Wc,
            4 => Self::Wt,
            5 => Self::Wp,
            6 => Self::Wb,
            7 => Self::UcMinus,
            _ => return None,
        })
    }
}

/// Why the core touches a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// A load or a page walk.
    Read,
    /// A store, or the store half of a read-modify-write: allocates the line and makes it dirty.
    Write,
    /// An instruction fetch.
    Fetch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyid_and_memory_address_split_and_join() {
        let layout = AddressLayout { maxphyaddr: 46, keyid_bits: 6 };
        let bus = layout.join(PhysAddr(0x1234_5678), KeyId(0x2A));
        assert_eq!(bus, BusAddr(0x2A << 40 | 0x1234_5678));
        assert_eq!(layout.keyid(bus), KeyId(0x2A));
        assert_eq!(layout.mem(bus), PhysAddr(0x1234_5678));
    }

    #[test]
    fn without_keyid_bits_every_address_has_keyid_0() {
        let layout = AddressLayout { maxphyaddr: 46, keyid_bits: 0 };
        assert_eq!(layout.keyid(BusAddr((1 << 46) - 1)), KeyId(0));
        assert_eq!(layout.mem(BusAddr((1 << 46) - 1)), PhysAddr((1 << 46) - 1));
    }

    #[test]
    fn line_numbers_are_shifted_addresses() {
        assert_eq!(PhysAddr(0x1043).line(), LineAddr(0x41));
        assert_eq!(BusAddr(0x1FC0).line_in_page(), 63);
    }
}
