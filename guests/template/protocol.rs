//! What the loader tells: which protocol it speaks, and where the command line is.

use core::fmt;

/// EAX at the entry; for PVH what `boot.s` puts there.
const MULTIBOOT1: u32 = 0x2bad_b002;
const MULTIBOOT2: u32 = 0x36d7_6289;
const PVH: u32 = 0x336e_c578;

/// Multiboot 1 information: flags, and the command line if bit 2 of them is set.
const MB1_CMDLINE_VALID: u32 = 1 << 2;
const MB1_CMDLINE: u64 = 16;
/// Multiboot 2 information: total size, reserved, then tags of type, size, contents, padded to 8 bytes.
const MB2_TAGS: u64 = 8;
const MB2_END: u32 = 0;
const MB2_CMDLINE: u32 = 1;
/// hvm_start_info.
const PVH_CMDLINE: u64 = 24;

/// How this program was started.
pub struct Boot {
    magic: u32,
    info: u64,
}

impl Boot {
    pub fn new(magic: u32, info: u32) -> Self {
        Self { magic, info: info.into() }
    }

    pub fn protocol(&self) -> &'static str {
        match self.magic {
            MULTIBOOT1 => "Multiboot 1",
            MULTIBOOT2 => "Multiboot 2",
            PVH => "PVH",
            _ => "an unknown loader",
        }
    }

    pub fn command_line(&self) -> Text {
        Text(match self.magic {
            MULTIBOOT1 if word(self.info) & MB1_CMDLINE_VALID != 0 => word(self.info + MB1_CMDLINE).into(),
            MULTIBOOT2 => self.multiboot2_tag(MB2_CMDLINE).unwrap_or(0),
            PVH => word(self.info + PVH_CMDLINE).into(),
            _ => 0,
        })
    }

    /// Address of a tag's contents.
    fn multiboot2_tag(&self, kind: u32) -> Option<u64> {
        let end = self.info + u64::from(word(self.info));
        let mut at = self.info + MB2_TAGS;
        while at < end && word(at) != MB2_END {
            if word(at) == kind {
                return Some(at + 8);
            }
            // A size below 8 would never get to the end.
            at += u64::from(word(at + 4).max(8)).next_multiple_of(8);
        }
        None
    }
}

/// A NUL-terminated string at a physical address; 0 for none.
pub struct Text(u64);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;
        let mut at = self.0;
        while at != 0 && byte(at) != 0 {
            f.write_char(byte(at).into())?;
            at += 1;
        }
        Ok(())
    }
}

fn word(address: u64) -> u32 {
    // SAFETY: the loader put its structures below 4 GiB, all of which is mapped to itself.
    unsafe { (address as *const u32).read_unaligned() }
}

fn byte(address: u64) -> u8 {
    // SAFETY: as for `word`.
    unsafe { (address as *const u8).read() }
}
