//! Messages for people, on standard error.

/// Writes to standard error. `eprint!` would panic if nobody reads it any more, which is no failure of the run.
macro_rules! say {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = write!(std::io::stderr(), $($text)*);
    }};
}

/// [`say!`], and the end of the line.
macro_rules! sayln {
    ($($text:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($text)*);
    }};
}
