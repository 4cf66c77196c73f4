//! The documentation's transcripts, replayed.
//!
//! A fenced block marked `console` is a session: lines that start with `$ ` are shell commands (`\` at the end continues, and
//! `<<'END'` up to END), the lines after each are what it prints, standard error included. A line `...` stands for any lines, `...` inside a line
//! for any text. Pages with a command that names `guests/linux/work/` are replayed with the Linux kit, in a directory that has
//! the repository's `guests`.

mod common;

use common::Scratch;
use common::linux::module_initrd;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

/// What a command has that needs the Linux kit.
const KIT: &str = "guests/linux/work/";

/// The last line of a here-document.
const HERE_END: &str = "END";

struct Session {
    /// First line of the block, from 1.
    line: usize,
    /// Command and expected lines.
    commands: Vec<(String, Vec<String>)>,
}

fn sessions(text: &str) -> Vec<Session> {
    let mut sessions = Vec::new();
    let mut current: Option<Session> = None;
    let mut continued = false;
    let mut here_document = false;
    for (index, line) in text.lines().enumerate() {
        let Some(session) = &mut current else {
            if line == "```console" {
                current = Some(Session { line: index + 2, commands: Vec::new() });
            }
            continue;
        };
        if here_document {
            let (command, _) = session.commands.last_mut().expect("a command was begun");
            command.push('\n');
            command.push_str(line);
            here_document = line != HERE_END;
        } else if line == "```" {
            sessions.extend(current.take());
        } else if continued || line.starts_with("$ ") {
            if !continued {
                session.commands.push((String::new(), Vec::new()));
            }
            let (command, _) = session.commands.last_mut().expect("a command was begun");
            let part = if continued { line.trim_start() } else { &line[2..] };
            continued = part.ends_with('\\');
            command.push_str(part.trim_end_matches('\\'));
            here_document = command.ends_with(&format!("<<'{HERE_END}'"));
        } else if let Some((_, expected)) = session.commands.last_mut() {
            expected.push(line.to_owned());
        }
    }
    sessions
}

fn line_matches(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split("...");
    let Some(mut rest) = parts.next().and_then(|first| line.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

fn lines_match(pattern: &[String], lines: &[&str]) -> bool {
    match pattern.split_first() {
        None => lines.is_empty(),
        Some((first, rest)) if first == "..." => (0..=lines.len()).any(|skip| lines_match(rest, &lines[skip..])),
        Some((first, rest)) => {
            lines.split_first().is_some_and(|(line, others)| line_matches(first, line) && lines_match(rest, others))
        }
    }
}

fn replay(session: &Session, dir: &Path) -> Result<(), String> {
    let program = Path::new(env!("CARGO_BIN_EXE_mktme-emu"));
    let bin = program.parent().expect("a program is in a directory").display().to_string();
    let path = format!("{bin}:{}", std::env::var("PATH").unwrap_or_default());
    for (command, expected) in &session.commands {
        let output = dir.join("output");
        let file = File::create(&output).expect("the temporary directory is writable");
        let both = file.try_clone().expect("a descriptor");
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(dir).env("PATH", &path);
        shell.stdin(Stdio::null()).stdout(file).stderr(both).status().expect("there is a shell");
        let printed = fs::read(&output).expect("it was written");
        fs::remove_file(&output).expect("it was written");
        let printed = String::from_utf8_lossy(&printed).replace('\r', "");
        let lines: Vec<&str> = printed.lines().collect();
        if !lines_match(expected, &lines) {
            let line = session.line;
            return Err(format!("line {line}: $ {command}\nexpected:\n{}\nprinted:\n{printed}", expected.join("\n")));
        }
    }
    Ok(())
}

/// Replays each page whose transcripts use the Linux kit, or each that does not. Returns how many transcripts there were.
fn replay_pages(with_kit: bool) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).expect("there are docs").map(|e| e.expect("an entry").path());
    let mut files: Vec<_> = docs.filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    files.sort();
    files.push(root.join("README.md"));
    let (mut count, mut failures) = (0, Vec::new());
    for file in files {
        let sessions = sessions(&fs::read_to_string(&file).expect("a text"));
        if with_kit != sessions.iter().flat_map(|s| &s.commands).any(|(command, _)| command.contains(KIT)) {
            continue;
        }
        let scratch = Scratch::new();
        if with_kit {
            symlink(root.join("guests"), scratch.path("guests")).expect("the temporary directory is writable");
        }
        for session in sessions {
            count += 1;
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            failures.extend(replay(&session, scratch.dir()).err().map(|e| format!("{name}, {e}")));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    count
}

#[test]
fn transcripts_in_the_documentation_are_what_the_program_prints() {
    let count = replay_pages(false);
    assert!(count >= 5, "only {count} transcripts found");
}

/// Skipped without the kit, as `tests/linux.rs` is.
#[test]
fn transcripts_that_boot_linux_are_what_the_program_prints() {
    if module_initrd().is_some() {
        assert!(replay_pages(true) >= 1, "no transcripts found");
    }
}

#[test]
fn ellipses_stand_for_any_text_and_any_lines() {
    let owned = |lines: &[&str]| lines.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>();
    assert!(line_matches("a ... c ... e", "a b c d e"));
    assert!(!line_matches("a ... c", "a b c d"));
    assert!(!line_matches("ab", "abc"));
    assert!(lines_match(&owned(&["a", "...", "z"]), &["a", "b", "c", "z"]));
    assert!(lines_match(&owned(&["...", "a"]), &["a"]));
    assert!(!lines_match(&owned(&["a", "..."]), &["b"]));
}
