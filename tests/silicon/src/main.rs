//! `cargo run --release -p silicon -- [--cases N] [--seed S] [--only MNEMONIC] [--bits 64|32] [--case INDEX]`
//!
//! Exit status: 0 all cases agree, 1 mismatches, 2 bad arguments, 3 this host cannot run cases, 4 a hang or a crash.

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn main() -> std::process::ExitCode {
    use std::process::ExitCode;
    let options = match arguments() {
        Ok(options) => options,
        Err(message) => {
            eprintln!("silicon: {message}");
            return ExitCode::from(2);
        }
    };
    match silicon::run(&options) {
        Ok(report) => {
            println!("{report}");
            if report.agreed() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(message) => {
            eprintln!("silicon: {message}");
            ExitCode::from(3)
        }
    }
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn arguments() -> Result<silicon::Options, String> {
    let mut options = silicon::Options { cases: 100_000, seed: 1, only: None, index: None, bits: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or(format!("{name} needs a value"))?;
        let number = || value.parse().map_err(|_| format!("{name} {value}: expected a number"));
        match name.as_str() {
            "--cases" => options.cases = number()?,
            "--seed" => options.seed = number()?,
            "--case" => options.index = Some(number()?),
            "--bits" => match value.as_str() {
                "64" => options.bits = Some(64),
                "32" => options.bits = Some(32),
                _ => return Err(format!("--bits {value}: expected 64 or 32")),
            },
            "--only" => options.only = Some(value),
            _ => return Err(format!("{name}: expected --cases, --seed, --only, --bits or --case")),
        }
    }
    Ok(options)
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn main() {
    eprintln!("silicon: skipped, cases need an x86-64 Linux host");
}
