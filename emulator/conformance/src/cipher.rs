//! 10.6 Cipher.

/// D4 of section 6.4.
pub const D4: [u8; 64] = unhex(
    "d03882a8565d63eadfa2d372edc59861f292c7b64105036352eb16266e43a84259450a9e49e0e6e58faf85527f11419b01c114b4fab2f25a1c638864902cd63d",
);

/// A line in hexadecimal.
pub const fn unhex(text: &str) -> [u8; 64] {
    const fn digit(c: u8) -> u8 {
        match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            _ => panic!("not a digit"),
        }
    }
    let digits = text.as_bytes();
    assert!(digits.len() == 128);
    let mut line = [0; 64];
    let mut i = 0;
    while i < 64 {
        line[i] = digit(digits[2 * i]) << 4 | digit(digits[2 * i + 1]);
        i += 1;
    }
    line
}
pub const STATEMENTS: &[crate::statement::Statement] = &[];
