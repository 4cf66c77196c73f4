//! The checksum of a results file.
//!
//! A Parquet file has none over all of it. It is kept as a value of the key-value metadata, 32 hexadecimal digits, and is that
//! of the file with zeros in their place. So a reader of Parquet sees an ordinary file, and damage is found before anything in
//! the file is believed: the crate `parquet` panics on some damaged pages.

use xxhash_rust::xxh3::Xxh3;

/// Its key.
pub(super) const KEY: &str = "mktme-emu.checksum";

/// What the checksum is computed with in its place.
pub(super) const ZEROS: &str = "00000000000000000000000000000000";

/// What follows the key in Thrift's compact protocol: field 2 (one more than the key's) of type binary, 32 bytes.
const VALUE: [u8; 2] = [0x18, 0x20];

/// Where the digits are. The metadata comes last in a file, and this entry last in it.
fn digits(file: &[u8]) -> Option<std::ops::Range<usize>> {
    let needle = [KEY.as_bytes(), &VALUE].concat();
    let at = file.windows(needle.len()).rposition(|window| window == needle)? + needle.len();
    (at + ZEROS.len() <= file.len()).then_some(at..at + ZEROS.len())
}

fn hash(file: &[u8], digits: &std::ops::Range<usize>) -> String {
    let mut hash = Xxh3::new();
    hash.update(&file[..digits.start]);
    hash.update(ZEROS.as_bytes());
    hash.update(&file[digits.end..]);
    format!("{:032x}", hash.digest128())
}

/// Puts the checksum into a file that was written with [`ZEROS`]. False if there is no place for it.
pub(super) fn put(file: &mut [u8]) -> bool {
    let Some(digits) = digits(file) else { return false };
    let hash = hash(file, &digits);
    file[digits].copy_from_slice(hash.as_bytes());
    true
}

/// Whether a file is as it was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Check {
    Good,
    /// Not by this program, or its end is missing.
    None,
    Bad,
}

/// Compares a file with its checksum.
pub(super) fn check(file: &[u8]) -> Check {
    let Some(digits) = digits(file) else { return Check::None };
    if hash(file, &digits).as_bytes() == &file[digits] { Check::Good } else { Check::Bad }
}
