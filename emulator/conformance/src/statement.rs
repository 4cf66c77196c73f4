//! Statements, and the tables that hold them.

use crate::harness::{Failure, Verdict};
use std::fmt;
use std::path::PathBuf;

/// What tests may need from outside.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// `--kernel`: a bzImage of Debian's Linux 6.1.
    pub kernel: Option<PathBuf>,
}

/// How a statement is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// By code on the emulated processor.
    Guest,
    /// By code on the emulated processor, and by the host's probes of DRAM, caches and events.
    GuestAndProbe,
    /// Through the host's interface alone.
    Host,
    /// By booting a kernel.
    Kernel,
    /// Not at all.
    NotYet,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            How::Guest => "guest",
            How::GuestAndProbe => "guest, probe",
            How::Host => "host",
            How::Kernel => "kernel",
            How::NotYet => "-",
        })
    }
}

/// What there is to run.
#[derive(Debug, Clone, Copy)]
pub enum Check {
    Run(fn(&Env) -> Verdict),
    /// Needs `--kernel`.
    Boot(fn(&Env) -> Verdict),
    /// The emulator lacks what the statement is about.
    NotApplicable(&'static str),
}

/// One row of section 10.
#[derive(Debug, Clone, Copy)]
pub struct Statement {
    pub number: u16,
    /// The subsection.
    pub section: &'static str,
    pub text: &'static str,
    pub how: How,
    pub check: Check,
}

/// What became of it.
#[derive(Debug)]
pub enum Result {
    Pass,
    Fail(Failure),
    /// And why.
    NotApplicable(&'static str),
    /// And what it takes.
    NotRun(&'static str),
}

impl Statement {
    /// `MK-087`.
    pub fn name(&self) -> String {
        format!("MK-{:03}", self.number)
    }

    pub fn run(&self, env: &Env) -> Result {
        let test = match self.check {
            Check::NotApplicable(reason) => return Result::NotApplicable(reason),
            Check::Boot(_) if env.kernel.is_none() => {
                return Result::NotRun("needs --kernel with a Debian Linux 6.1 bzImage");
            }
            Check::Run(test) | Check::Boot(test) => test,
        };
        match test(env) {
            Ok(()) => Result::Pass,
            Err(failure) => Result::Fail(failure),
        }
    }
}

/// The number in `mk_087`.
pub const fn number(name: &str) -> u16 {
    let digits = name.as_bytes();
    let mut n = 0;
    let mut i = 3;
    while i < digits.len() {
        n = n * 10 + (digits[i] - b'0') as u16;
        i += 1;
    }
    n
}

/// The table of a subsection, and a `#[test]` for each row:
///
/// ```text
/// statements! {
///     "10.5 PCONFIG";
///     mk_087 GuestAndProbe "a DIRECT XTS-128 key gives K5's ciphertext";      // calls the function mk_087
///     mk_101 na "VMX is not modelled" "VMX non-root without ...: #UD";        // not applicable, and why
///     mk_134 boot "Linux on the profile `default` prints ...";                // needs --kernel
/// }
/// ```
#[macro_export]
macro_rules! statements {
    ($section:literal; $($name:ident $kind:ident $first:literal $($second:literal)?;)+) => {
        pub const STATEMENTS: &[$crate::statement::Statement] = &[
            $($crate::statements!(@row $section $name $kind $first $($second)?)),+
        ];

        #[cfg(test)]
        mod tests {
            $($crate::statements!(@test $name $kind $first);)+
        }
    };
    (@row $section:literal $name:ident na $reason:literal $text:literal) => {
        $crate::statement::Statement {
            number: $crate::statement::number(stringify!($name)),
            section: $section,
            text: $text,
            how: $crate::statement::How::NotYet,
            check: $crate::statement::Check::NotApplicable($reason),
        }
    };
    (@row $section:literal $name:ident boot $text:literal) => {
        $crate::statement::Statement {
            number: $crate::statement::number(stringify!($name)),
            section: $section,
            text: $text,
            how: $crate::statement::How::Kernel,
            check: $crate::statement::Check::Boot($name),
        }
    };
    (@row $section:literal $name:ident $how:ident $text:literal) => {
        $crate::statement::Statement {
            number: $crate::statement::number(stringify!($name)),
            section: $section,
            text: $text,
            how: $crate::statement::How::$how,
            check: $crate::statement::Check::Run($name),
        }
    };
    (@test $name:ident na $reason:literal) => {
        #[test]
        #[ignore = $reason]
        fn $name() {
            panic!($reason);
        }
    };
    (@test $name:ident boot $text:literal) => {
        #[test]
        #[ignore = "needs a kernel: mktme-emu conformance --kernel FILE"]
        fn $name() {
            let kernel = std::env::var_os("CONFORMANCE_KERNEL").expect("CONFORMANCE_KERNEL names a bzImage").into();
            $crate::statement::assert_holds(super::$name(&$crate::statement::Env { kernel: Some(kernel) }));
        }
    };
    (@test $name:ident $how:ident $text:literal) => {
        #[test]
        fn $name() {
            $crate::statement::assert_holds(super::$name(&$crate::statement::Env::default()));
        }
    };
}

/// For `#[test]` functions: prints the failure as users see it.
#[cfg(test)]
pub fn assert_holds(verdict: Verdict) {
    if let Err(failure) = verdict {
        panic!("{failure}");
    }
}
