//! What tests are written with: a machine, a few pages of harness on it, and code assembled on the spot.
//!
//! ```text
//! let mut s = Power::default().activated()?;      // profile and knobs, then the state "activated" of section 10
//! s.program(&Program::direct(1, XTS_128, K1, K2))?;
//! let km1 = s.map(FRAME, 1);                      // KM(1): a linear address of the frame with KeyID 1
//! let end = s.run(|a| { a.mov(rax, qword_ptr(km1))?; a.hlt() })?;   // guest code until HLT or an exception
//! s.dram(FRAME)                                   // raw DRAM, through the host's probe
//! ```
//!
//! The harness loads everything through the caches, as dirty lines. So a guest can switch encryption on under its own
//! feet: what is cached stays valid and is encrypted when it is written back (MK specification section 3.4, step 4).

mod dma;
mod image;
pub mod layout;
mod mode;
mod ops;
mod outcome;
mod power;
mod program;
mod scenario;

pub use dma::Dma;
pub use image::pte;
pub use mode::Mode;
pub use ops::{Asm, load_line, store_line};
pub use outcome::{Fault, Outcome};
pub use power::{ACTIVATE, Power};
pub use program::{Program, RAMP, XTS_128, XTS_256, key};
pub use scenario::Scenario;

use iced_x86::IcedError;

/// Why a statement does not hold, or why that could not be found out.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What was seen and what was expected.
    #[error("{0}")]
    Wrong(String),
    /// The test's code does not assemble.
    #[error("test code: {0}")]
    Assembler(#[from] IcedError),
    #[error(transparent)]
    Machine(#[from] machine::ConfigError),
    #[error(transparent)]
    Firmware(#[from] firmware::SetupError),
    #[error(transparent)]
    Boot(#[from] firmware::LoadError),
    #[error("{path}: {error}")]
    File { path: String, error: std::io::Error },
}

/// What a test returns.
pub type Verdict = Result<(), Failure>;

/// Fails with a message unless the condition holds.
#[macro_export]
macro_rules! check {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err($crate::harness::Failure::Wrong(format!($($message)+)));
        }
    };
}

/// Fails unless `got == want`; the message says what was looked at.
#[macro_export]
macro_rules! equal {
    ($got:expr, $want:expr, $($what:tt)+) => {{
        let (got, want) = (&$got, &$want);
        if got != want {
            let what = format!($($what)+);
            let (got, want) = ($crate::harness::shown(got), $crate::harness::shown(want));
            return Err($crate::harness::Failure::Wrong(format!("{what}: {got}, expected {want}")));
        }
    }};
}

/// Numbers in hexadecimal; bytes of AES blocks as the specification writes them.
pub fn shown(value: &(impl std::fmt::Debug + ?Sized)) -> String {
    let text = format!("{value:02x?}");
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(bytes) if text.len() >= 16 * 4 && bytes.split(", ").all(|b| b.len() == 2) => {
            let digits: Vec<&str> = bytes.split(", ").collect();
            digits.chunks(16).map(|block| block.concat()).collect::<Vec<_>>().join(" ")
        }
        _ => text,
    }
}
