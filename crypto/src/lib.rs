//! AES-XTS as the memory controller uses it: every 64-byte line is its own data unit.
//!
//! Section 6 of the hardware specification (MC-33) fixes the construction: the data-unit number is the physical line
//! number with the KeyID removed, `Mem(pa) >> 6`, taken as a 128-bit little-endian integer; there is no ciphertext
//! stealing because a line is always four whole blocks.
//!
//! The batch calls are the building blocks and the single line is their special case. A block cipher only reaches its
//! throughput when it is given many independent blocks at a time, and with four blocks to a line only a run of lines
//! provides them: per line, a page costs about a quarter of what 64 separate calls cost.
//!
//! Several kernels compute the same function, see [`Backend`]. A key is expanded for the fastest one of the host, and a
//! caller may ask for another.
//!
//! The types say on which side of the controller bytes are: [`PlainLine`] above it, [`CipherLine`] below. This crate is
//! the only place where one turns into the other by way of a key.

#[cfg(target_arch = "x86_64")]
mod aesni;
mod algorithm;
mod backend;
mod batch;
mod direction;
mod limit;
mod line;
mod portable;
mod run;
mod tweak;
#[cfg(target_arch = "x86_64")]
mod vaes256;
#[cfg(target_arch = "x86_64")]
mod vaes512;
mod xts;

pub use algorithm::Algorithm;
pub use backend::{Backend, BackendError, Features};
pub use batch::{Request, decrypt_batch, encrypt_batch};
pub use limit::Width;
pub use line::{CipherLine, LINE_BYTES, PlainLine};
pub use xts::XtsKey;
