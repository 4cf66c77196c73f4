//! Guests that travel with the emulator: bare-metal programs, compiled by this crate's build script and embedded as ELF
//! images. Nothing here depends on the emulator, and the emulator sees nothing but bytes.
//!
//! `docs/embedded-guest.md` and `docs/test-kernel.md` say what each guest shows and which entry state it expects.

/// A guided tour of TME and MKTME on the serial port: enumeration, the four PCONFIG commands, plaintext and ciphertext of
/// one page, a stale alias and its cure, each step checked by the guest itself.
///
/// A static ELF64 executable for x86-64, physical = virtual addresses, entered like a vmlinux in the state of the Linux
/// 64-bit boot protocol.
pub const HELLO_MKTME: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/hello-mktme"));

/// The template of an MKTME test kernel (`guests/template`): programs a key, maps one page under two KeyIDs and reads it
/// through both.
///
/// A static ELF64 executable for x86-64 with a Multiboot 1 header (and its address fields), a Multiboot 2 header and a PVH
/// note; entered in 32-bit protected mode.
pub const TEMPLATE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/template"));

/// Victims of attacks on encrypted memory (`guests/attacks`, docs/attack-*.md): `story=NAME` on the command line.
///
/// An image like [`TEMPLATE`].
pub const ATTACKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/attacks"));

/// What the name of an embedded guest starts with where a file's name is accepted as well.
pub const PREFIX: &str = "embedded:";

/// Every guest and its name.
pub const ALL: [(&str, &[u8]); 3] = [("hello-mktme", HELLO_MKTME), ("template", TEMPLATE), ("attacks", ATTACKS)];

/// The embedded guest that a file's name stands for. `None`: the name has no [`PREFIX`], so it is that of a file.
///
/// # Errors
/// There is no such guest; the message says which there are.
pub fn embedded(name: &str) -> Option<Result<&'static [u8], String>> {
    let guest = name.strip_prefix(PREFIX)?;
    Some(ALL.into_iter().find(|(other, _)| *other == guest).map(|(_, image)| image).ok_or_else(|| {
        let names: Vec<String> = ALL.iter().map(|(name, _)| format!("{PREFIX}{name}")).collect();
        format!("{name}: no such guest; accepted: {}", names.join(", "))
    }))
}
