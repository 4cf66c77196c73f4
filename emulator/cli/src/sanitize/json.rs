//! Reports as JSON lines. The schema is in docs/sanitizer.md.

use super::Reported;
use super::origins::Origin;
use super::report::{Named, Totals};
use crate::Result;
use crate::files;
use crate::outcome::Failure;
use mem::{Agent, Operation};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Of the schema. Members may be added without a new version.
const VERSION: u32 = 1;

/// The open file.
pub struct Json {
    file: File,
    path: PathBuf,
}

impl Json {
    /// `--sanitize-json`
    pub fn create(path: &Path) -> Result<Json> {
        Ok(Json { file: files::create_stream("--sanitize-json", path)?, path: path.into() })
    }

    /// A line, at once: the run may not end well.
    fn line(&mut self, object: Object) -> Result<()> {
        let line = object.finish() + "\n";
        self.file
            .write_all(line.as_bytes())
            .map_err(|e| Failure::Host(format!("--sanitize-json {}: {}", self.path.display(), files::reason(&e))))
    }

    pub fn hazard(&mut self, reported: &Reported) -> Result<()> {
        let Reported { id, hazard, access, other, .. } = reported;
        let mut o = Object::record("hazard");
        o.number("id", *id as u64);
        o.string("kind", hazard.kind.name());
        o.string("line", &format!("{:#x}", hazard.line.start().0));
        o.number("offset", hazard.offset.into());
        o.number("lines", hazard.lines);
        o.raw("access", &site(access));
        o.raw("other", &optional(other.as_ref()));
        o.string("missing", &hazard.action.to_string());
        self.line(o)
    }

    pub fn origin(&mut self, id: usize, origin: &Origin) -> Result<()> {
        let mut o = Object::record("origin");
        o.number("id", id as u64);
        o.raw("last_store", &optional(origin.last_store.as_ref()));
        o.raw("last_flush", &optional(origin.last_flush.as_ref()));
        self.line(o)
    }

    pub fn end(&mut self, reported: &[&Reported], totals: &Totals) -> Result<()> {
        let counts = reported.iter().map(|r| {
            let mut o = Object::default();
            o.number("id", r.id as u64);
            o.number("count", r.count);
            o.finish()
        });
        let mut o = Object::record("end");
        o.number("hazards", totals.hazards);
        o.number("suppressed", totals.suppressed);
        o.number("dropped", totals.dropped);
        o.raw("counts", &array(counts));
        o.raw("unused_suppressions", &array(totals.unused.iter().map(|text| quoted(text))));
        self.line(o)
    }
}

fn optional(named: Option<&Named>) -> String {
    named.map_or_else(|| "null".into(), site)
}

fn site(named: &Named) -> String {
    let s = &named.site;
    let mut o = Object::default();
    match s.agent {
        Agent::Cpu(number) => {
            o.string("agent", "cpu");
            o.number("cpu", number.into());
        }
        Agent::Device => o.string("agent", "device"),
        Agent::Loader => o.string("agent", "loader"),
    }
    o.string("operation", operation(s.operation));
    o.number("keyid", s.keyid.0.into());
    o.number("cpl", s.cpl.into());
    o.number("icount", s.icount);
    o.string("rip", &format!("{:#x}", s.rip));
    if let Some(symbol) = &named.location.symbol {
        o.string("symbol", &symbol.name);
        o.number("symbol_offset", symbol.offset);
        o.number("symbol_size", symbol.size);
        if let Some(module) = &symbol.module {
            o.string("module", module);
        }
    }
    o.finish()
}

/// Names for programs.
fn operation(operation: Operation) -> &'static str {
    match operation {
        Operation::Load => "load",
        Operation::Store => "store",
        Operation::Fetch => "fetch",
        Operation::PageWalk => "page-walk",
        Operation::PageWalkUpdate => "page-walk-update",
        Operation::Flush => "clflush",
        Operation::WriteBack => "clwb",
        Operation::WriteBackInvalidate => "wbinvd",
        Operation::WriteBackAll => "wbnoinvd",
        Operation::Invalidate => "invd",
        Operation::NonTemporalStore => "non-temporal-store",
        Operation::Pconfig => "pconfig",
        Operation::DmaRead => "dma-read",
        Operation::DmaWrite => "dma-write",
    }
}

/// An object (RFC 8259) under construction.
#[derive(Debug, Default)]
pub struct Object(String);

impl Object {
    fn record(ty: &str) -> Object {
        let mut o = Object::default();
        o.number("version", VERSION.into());
        o.string("type", ty);
        o
    }

    /// A member whose value is JSON already.
    pub fn raw(&mut self, name: &str, value: &str) {
        let comma = if self.0.is_empty() { "" } else { "," };
        let _ = write!(self.0, "{comma}{}:{value}", quoted(name));
    }

    pub fn number(&mut self, name: &str, value: u64) {
        self.raw(name, &value.to_string());
    }

    pub fn string(&mut self, name: &str, value: &str) {
        self.raw(name, &quoted(value));
    }

    pub fn finish(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// An array of JSON values.
pub fn array(values: impl IntoIterator<Item = String>) -> String {
    format!("[{}]", values.into_iter().collect::<Vec<_>>().join(","))
}

/// A string (RFC 8259, section 7).
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' || c == '\u{7F}' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_json() {
        let mut o = Object::record("x");
        o.string("text", "a\"b\\c\n\u{1}é");
        o.raw("list", &array(["1".into(), "2".into()]));
        assert_eq!(o.finish(), r#"{"version":1,"type":"x","text":"a\"b\\c\u000a\u0001é","list":[1,2]}"#);
        assert_eq!(Object::default().finish(), "{}");
    }
}
