//! Suppressions: reports that nobody wants. `KIND:FUNCTION` on each line, both may have `*` and `?`.

use super::report::Named;
use crate::Result;
use crate::files;
use crate::outcome::Failure;
use mem::HazardKind;
use std::path::Path;

/// No such file is larger.
const BYTES_MAX: u64 = 16 << 20;
const ACCEPTED: &str = "KIND:FUNCTION, for example stale-read:copy_page* or *:* [mktme_demo]";

/// A file's lines.
#[derive(Debug, Default)]
pub struct Suppressions {
    name: String,
    lines: Vec<Line>,
}

#[derive(Debug)]
struct Line {
    /// From 1.
    number: usize,
    text: String,
    kind: Vec<HazardKind>,
    function: String,
    used: bool,
}

impl Suppressions {
    /// Reads a file.
    ///
    /// # Errors
    /// `--sanitize-suppressions FILE:LINE: ...` for the first line that is no suppression.
    pub fn read(path: &Path) -> Result<Suppressions> {
        let bytes = files::read_image("--sanitize-suppressions", path, (BYTES_MAX, "any such file"), ACCEPTED)?;
        let name = path.display().to_string();
        let text = String::from_utf8(bytes).map_err(|_| {
            Failure::Usage(format!("--sanitize-suppressions {name}: not UTF-8; accepted: lines of {ACCEPTED}"))
        })?;
        Suppressions::parse(&name, &text)
            .map_err(|(line, why)| Failure::Usage(format!("--sanitize-suppressions {name}:{line}: {why}")))
    }

    fn parse(name: &str, text: &str) -> std::result::Result<Suppressions, (usize, String)> {
        let mut lines = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (kind, function) = line.split_once(':').ok_or((number, format!("no colon; accepted: {ACCEPTED}")))?;
            let (kind, function) = (kind.trim(), function.trim());
            let kinds: Vec<HazardKind> = HazardKind::ALL.into_iter().filter(|k| glob(kind, k.name())).collect();
            if kinds.is_empty() {
                let names = HazardKind::ALL.map(HazardKind::name).join(", ");
                return Err((number, format!("unknown kind `{kind}`; accepted: {names}, or a pattern such as *")));
            }
            if function.is_empty() {
                return Err((number, format!("no function after the colon; accepted: {ACCEPTED}")));
            }
            lines.push(Line { number, text: line.into(), kind: kinds, function: function.into(), used: false });
        }
        Ok(Suppressions { name: name.into(), lines })
    }

    /// True if a line is about this hazard: either of its sites counts. Every such line counts as used.
    pub fn matches(&mut self, kind: HazardKind, sites: [Option<&Named>; 2]) -> bool {
        let names: Vec<String> = sites.into_iter().flatten().flat_map(Named::names).flatten().collect();
        let mut any = false;
        for line in self.lines.iter_mut().filter(|line| line.kind.contains(&kind)) {
            if names.iter().any(|name| glob(&line.function, name)) {
                line.used = true;
                any = true;
            }
        }
        any
    }

    /// Lines that matched nothing, as `FILE:LINE: TEXT`.
    pub fn unused(&self) -> Vec<String> {
        let unused = self.lines.iter().filter(|line| !line.used);
        unused.map(|line| format!("{}:{}: {}", self.name, line.number, line.text)).collect()
    }
}

/// `*` is any text, `?` any character.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    // After the last star, and where its text ends so far.
    let mut retry = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                retry = Some((p, t));
            }
            Some(c) if *c == '?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match retry {
                Some((after, end)) => {
                    (p, t) = (after, end + 1);
                    retry = Some((after, end + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_stars_and_question_marks() {
        for (pattern, text) in
            [("*", ""), ("a*c", "abbc"), ("a*b*c", "aXbYbZc"), ("a?c", "abc"), ("*x", "xx"), ("", "")]
        {
            assert!(glob(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", ""), ("", "a"), ("a*c", "abcd"), ("a?c", "ac"), ("*b*", "aaa")] {
            assert!(!glob(pattern, text), "{pattern} {text}");
        }
        assert!(!glob(&"*a".repeat(50), &"a".repeat(49)), "and it ends soon");
    }

    #[test]
    fn bad_lines_are_named_with_what_is_accepted() {
        let error = |text: &str| Suppressions::parse("f", text).unwrap_err();
        assert_eq!(error("# c\n\nstale-read").0, 3);
        assert!(error("stale-reed:f").1.contains("unknown kind `stale-reed`; accepted: stale-read, lost-write"));
        assert!(error("stale-read:  ").1.contains("no function"));
        assert!(error(":f").1.contains("unknown kind"));
    }

    #[test]
    fn lines_that_match_nothing_are_listed() {
        let s = Suppressions::parse("f", "# comment\n  stale-read : copy_* \n*:*\n").unwrap();
        assert_eq!(s.unused(), ["f:2: stale-read : copy_*", "f:3: *:*"]);
    }
}
