//! The columns of a results file: their names, their types, and how a row is taken apart and put together.

use crate::row::{Outcome, Proof, Row};
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::errors::ParquetError;
use parquet::schema::types::Type;
use std::sync::Arc;

/// How the values of a column are read from a row and put into one. What puts a text is false if the text is none of those
/// accepted.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Number(fn(&Row) -> u64, fn(&mut Row, u64)),
    Numbers(fn(&Row) -> Option<u64>, fn(&mut Row, Option<u64>)),
    /// Unsigned, of so many bits: 16 or 32.
    Small(i8, fn(&Row) -> Option<u32>, fn(&mut Row, Option<u32>) -> bool),
    Text(fn(&Row) -> &str, fn(&mut Row, String) -> bool),
    Texts(fn(&Row) -> Option<&str>, fn(&mut Row, Option<String>)),
}

/// One column.
#[derive(Clone, Copy)]
pub(super) struct Column {
    pub name: &'static str,
    pub access: Access,
    /// Values repeat: kept once in a dictionary.
    pub dictionary: bool,
}

const fn column(name: &'static str, dictionary: bool, access: Access) -> Column {
    Column { name, access, dictionary }
}

macro_rules! number {
    ($field:ident) => {
        column(stringify!($field), false, Access::Number(|row| row.$field, |row, value| row.$field = value))
    };
}

macro_rules! numbers {
    ($field:ident) => {
        column(stringify!($field), true, Access::Numbers(|row| row.$field, |row, value| row.$field = value))
    };
}

macro_rules! text {
    ($field:ident, $dictionary:literal) => {
        column(
            stringify!($field),
            $dictionary,
            Access::Text(
                |row| &row.$field,
                |row, value| {
                    row.$field = value;
                    true
                },
            ),
        )
    };
}

macro_rules! texts {
    ($field:ident) => {
        column(stringify!($field), true, Access::Texts(|row| row.$field.as_deref(), |row, value| row.$field = value))
    };
}

/// Every column, in the order of the file. docs/campaign-results.md lists them.
pub(super) const COLUMNS: [Column; 22] = [
    number!(id),
    text!(stratum, true),
    text!(fault, false),
    text!(target, true),
    number!(element),
    texts!(phase),
    numbers!(line),
    column(
        "bit",
        true,
        Access::Small(
            32,
            |row| row.bit,
            |row, value| {
                row.bit = value;
                true
            },
        ),
    ),
    column("keyid", true, Access::Small(16, |row| row.keyid.map(u32::from), put_keyid)),
    numbers!(triggered),
    numbers!(effect),
    numbers!(rip),
    column("outcome", true, Access::Text(|row| row.outcome.name(), put_outcome)),
    text!(detail, true),
    column("proof", true, Access::Text(|row| row.proof.name(), put_proof)),
    number!(end),
    numbers!(latency),
    numbers!(console_line),
    texts!(console_text),
    numbers!(first_wrong_line),
    numbers!(wrong_lines),
    text!(state_hash, true),
];

fn put_keyid(row: &mut Row, value: Option<u32>) -> bool {
    row.keyid = value.and_then(|value| u16::try_from(value).ok());
    row.keyid.is_some() == value.is_some()
}

fn put_outcome(row: &mut Row, name: String) -> bool {
    let outcome = Outcome::from_name(&name);
    row.outcome = outcome.unwrap_or(Outcome::ToolError);
    outcome.is_some()
}

fn put_proof(row: &mut Row, name: String) -> bool {
    let proof = Proof::from_name(&name);
    row.proof = proof.unwrap_or(Proof::Run);
    proof.is_some()
}

/// A row that every column is put into.
pub(super) fn blank() -> Row {
    Row {
        id: 0,
        stratum: String::new(),
        fault: String::new(),
        target: String::new(),
        element: 0,
        phase: None,
        line: None,
        bit: None,
        keyid: None,
        triggered: None,
        effect: None,
        rip: None,
        outcome: Outcome::ToolError,
        detail: String::new(),
        proof: Proof::Run,
        end: 0,
        latency: None,
        console_line: None,
        console_text: None,
        first_wrong_line: None,
        wrong_lines: None,
        state_hash: String::new(),
    }
}

impl Column {
    /// True if a row may be without.
    pub fn is_optional(&self) -> bool {
        matches!(self.access, Access::Numbers(..) | Access::Small(..) | Access::Texts(..))
    }

    /// The type in words of docs/campaign-results.md.
    #[cfg(test)]
    pub fn type_name(&self) -> &'static str {
        match self.access {
            Access::Number(..) | Access::Numbers(..) => "uint64",
            Access::Small(16, ..) => "uint16",
            Access::Small(..) => "uint32",
            Access::Text(..) | Access::Texts(..) => "string",
        }
    }

    fn schema(&self) -> Result<Type, ParquetError> {
        let (physical, logical) = match self.access {
            Access::Number(..) | Access::Numbers(..) => (Physical::INT64, LogicalType::integer(64, false)),
            Access::Small(bits, ..) => (Physical::INT32, LogicalType::integer(bits, false)),
            Access::Text(..) | Access::Texts(..) => (Physical::BYTE_ARRAY, LogicalType::String),
        };
        let repetition = if self.is_optional() { Repetition::OPTIONAL } else { Repetition::REQUIRED };
        Type::primitive_type_builder(self.name, physical)
            .with_logical_type(Some(logical))
            .with_repetition(repetition)
            .build()
    }
}

/// The schema of the file.
pub(super) fn schema() -> Result<Arc<Type>, ParquetError> {
    let fields = COLUMNS.iter().map(|column| column.schema().map(Arc::new)).collect::<Result<_, _>>()?;
    Type::group_type_builder("injection").with_fields(fields).build().map(Arc::new)
}
