//! Between rows and the bytes of a Parquet file.

use super::columns::{Access, COLUMNS, Column, blank, schema};
use super::{FORMAT, Table, checksum};
use crate::meta::{Campaign, Shard};
use crate::row::Row;
use ::bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

/// Keys of the metadata.
const CAMPAIGN: &str = "mktme-emu.campaign";
const SHARD: &str = "mktme-emu.shard";
const FORMAT_KEY: &str = "mktme-emu.format";

/// Rows that are compressed together.
const GROUP_ROWS: usize = 1 << 20;

/// The file of these rows, which are in the order of their numbers.
pub(super) fn pack(campaign: &Campaign, shard: Shard, rows: &[&Row]) -> Result<Vec<u8>, ParquetError> {
    let json = |e: serde_json::Error| ParquetError::General(e.to_string());
    let entry = |key: &str, value: String| KeyValue { key: key.into(), value: Some(value) };
    let metadata = vec![
        entry(FORMAT_KEY, FORMAT.to_string()),
        entry(CAMPAIGN, serde_json::to_string(campaign).map_err(json)?),
        entry(SHARD, serde_json::to_string(&shard).map_err(json)?),
        entry(checksum::KEY, checksum::ZEROS.into()),
    ];
    let mut properties = WriterProperties::builder()
        .set_created_by(concat!("mktme-emu version ", env!("CARGO_PKG_VERSION")).into())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_key_value_metadata(Some(metadata));
    for column in COLUMNS {
        properties = properties.set_column_dictionary_enabled(ColumnPath::from(column.name), column.dictionary);
    }
    let mut file = SerializedFileWriter::new(Vec::new(), schema()?, Arc::new(properties.build()))?;
    for rows in rows.chunks(GROUP_ROWS) {
        let mut group = file.next_row_group()?;
        let mut columns = COLUMNS.iter();
        while let Some(mut out) = group.next_column()? {
            if let Some(column) = columns.next() {
                column.write(rows, &mut out)?;
            }
            out.close()?;
        }
        group.close()?;
    }
    let mut bytes = file.into_inner()?;
    if !checksum::put(&mut bytes) {
        return Err(ParquetError::General("no place for the checksum".into()));
    }
    Ok(bytes)
}

impl Column {
    fn write(&self, rows: &[&Row], out: &mut SerializedColumnWriter) -> Result<(), ParquetError> {
        match self.access {
            Access::Number(get, _) => {
                let values: Vec<i64> = rows.iter().map(|row| get(row).cast_signed()).collect();
                out.typed::<Int64Type>().write_batch(&values, None, None)?;
            }
            Access::Numbers(get, _) => {
                let (values, levels) = present(rows, |row| get(row).map(u64::cast_signed));
                out.typed::<Int64Type>().write_batch(&values, Some(&levels), None)?;
            }
            Access::Small(_, get, _) => {
                let (values, levels) = present(rows, |row| get(row).map(u32::cast_signed));
                out.typed::<Int32Type>().write_batch(&values, Some(&levels), None)?;
            }
            Access::Text(get, _) => {
                let values: Vec<ByteArray> = rows.iter().map(|row| get(row).into()).collect();
                out.typed::<ByteArrayType>().write_batch(&values, None, None)?;
            }
            Access::Texts(get, _) => {
                let (values, levels) = present(rows, |row| get(row).map(ByteArray::from));
                out.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)?;
            }
        }
        Ok(())
    }

    /// Puts a column of a group into its rows.
    fn read(&self, reader: ColumnReader, rows: &mut [Row]) -> Result<(), String> {
        let optional = self.is_optional();
        match (self.access, reader) {
            (Access::Number(_, put), ColumnReader::Int64ColumnReader(reader)) => {
                let put = |row: &mut Row, value: Option<i64>| {
                    put(row, value.unwrap_or(0).cast_unsigned());
                    true
                };
                fill(reader, optional, rows, put)
            }
            (Access::Numbers(_, put), ColumnReader::Int64ColumnReader(reader)) => {
                let put = |row: &mut Row, value: Option<i64>| {
                    put(row, value.map(i64::cast_unsigned));
                    true
                };
                fill(reader, optional, rows, put)
            }
            (Access::Small(_, _, put), ColumnReader::Int32ColumnReader(reader)) => {
                fill(reader, optional, rows, |row, value| put(row, value.map(i32::cast_unsigned)))
            }
            (Access::Text(_, put), ColumnReader::ByteArrayColumnReader(reader)) => {
                fill(reader, optional, rows, |row, value| text(value).flatten().is_some_and(|text| put(row, text)))
            }
            (Access::Texts(_, put), ColumnReader::ByteArrayColumnReader(reader)) => {
                let put = |row: &mut Row, value| text(value).map(|text| put(row, text)).is_some();
                fill(reader, optional, rows, put)
            }
            _ => Err("has another type".into()),
        }
    }
}

/// `None`: bytes that are not text.
fn text(value: Option<ByteArray>) -> Option<Option<String>> {
    value.map(|bytes| String::from_utf8(bytes.data().to_vec())).transpose().ok()
}

/// The values that are there, and for each row whether it has one.
fn present<T>(rows: &[&Row], get: impl Fn(&Row) -> Option<T>) -> (Vec<T>, Vec<i16>) {
    let values: Vec<Option<T>> = rows.iter().map(|row| get(row)).collect();
    let levels = values.iter().map(|value| i16::from(value.is_some())).collect();
    (values.into_iter().flatten().collect(), levels)
}

/// Reads a column of a group, and calls `put` with each row and its value.
fn fill<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    optional: bool,
    rows: &mut [Row],
    put: impl Fn(&mut Row, Option<T::T>) -> bool,
) -> Result<(), String> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < rows.len() {
        let (records, _, _) = reader
            .read_records(rows.len() - done, optional.then_some(&mut levels), None, &mut values)
            .map_err(words)?;
        if records == 0 {
            break;
        }
        done += records;
    }
    let mut values = values.into_iter();
    for (index, row) in rows.iter_mut().enumerate() {
        let there = !optional || levels.get(index).is_some_and(|level| *level == 1);
        let value = if there { Some(values.next().ok_or("is short")?) } else { None };
        if !put(row, value) {
            return Err("has a value that is none of those accepted".into());
        }
    }
    if values.next().is_some() { Err("is long".into()) } else { Ok(()) }
}

#[allow(clippy::needless_pass_by_value)]
fn words(e: ParquetError) -> String {
    e.to_string()
}

/// What [`pack`] packed.
pub(super) fn unpack(file: Vec<u8>) -> Result<Table, String> {
    match checksum::check(&file) {
        checksum::Check::Good => {}
        checksum::Check::Bad => return Err("its checksum is wrong: it is damaged".into()),
        checksum::Check::None if !file.starts_with(b"PAR1") => return Err("it is not a Parquet file".into()),
        checksum::Check::None if !file.ends_with(b"PAR1") => return Err("its end is missing".into()),
        checksum::Check::None => return Err(format!("it has no {}", checksum::KEY)),
    }
    let file = SerializedFileReader::new(Bytes::from(file)).map_err(words)?;
    let metadata = file.metadata().file_metadata();
    let entry = |key: &str| {
        let entries = metadata.key_value_metadata().map_or(&[][..], |entries| entries);
        let found = entries.iter().find(|entry| entry.key == key).and_then(|entry| entry.value.as_deref());
        found.ok_or(format!("it has no {key}"))
    };
    let format = entry(FORMAT_KEY)?;
    if format != FORMAT.to_string() {
        return Err(format!("it is of format {format}, this program reads {FORMAT}"));
    }
    let campaign: Campaign = serde_json::from_str(entry(CAMPAIGN)?).map_err(|e| format!("{CAMPAIGN}: {e}"))?;
    let shard: Shard = serde_json::from_str(entry(SHARD)?).map_err(|e| format!("{SHARD}: {e}"))?;
    if shard.part == 0 || shard.part > shard.parts {
        return Err(format!("{SHARD}: part {} of {}", shard.part, shard.parts));
    }
    if metadata.schema() != &*schema().map_err(words)? {
        return Err("its columns are others".into());
    }
    let mut rows = Vec::new();
    for index in 0..file.num_row_groups() {
        let group = file.get_row_group(index).map_err(words)?;
        let first = rows.len();
        rows.resize(first + usize::try_from(group.metadata().num_rows()).map_err(|e| e.to_string())?, blank());
        for (index, column) in COLUMNS.iter().enumerate() {
            let reader = group.get_column_reader(index).map_err(words)?;
            let put = column.read(reader, &mut rows[first..]);
            put.map_err(|why| format!("column {} {why}", column.name))?;
        }
    }
    if let Some(pair) = rows.windows(2).find(|pair| pair[0].id >= pair[1].id) {
        return Err(format!("row {} comes before row {}", pair[0].id, pair[1].id));
    }
    Ok(Table { campaign, shard, rows })
}
