//! The program `mktme-emu`. All of it is in the library beside this file.

use std::process::ExitCode;

fn main() -> ExitCode {
    mktme_emu::main(std::env::args_os())
}
