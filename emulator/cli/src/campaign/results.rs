//! `campaign merge` and `campaign report`.

use super::{MergeArgs, ReportArgs, print};
use crate::Result;
use crate::files::{WholeFile, reason};
use crate::outcome::{Failure, status};
use ::campaign::directory::Directory;
use ::campaign::experiment::Ready;
use ::campaign::journal;
use ::campaign::meta::Shard;
use ::campaign::report;
use ::campaign::results::{self, Table};
use std::path::{Path, PathBuf};

pub fn merge(args: &MergeArgs) -> Result<u8> {
    let mut tables = Vec::new();
    for path in args.parts.iter().map(|part| parquet_files(part)).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
        let table = results::read(&path).map_err(Failure::usage)?;
        tables.push((path, table));
    }
    let table = results::merge(tables).map_err(Failure::usage)?;
    results::write(&args.out, &table.campaign, table.shard, &table.rows).map_err(|e| Failure::Host(e.to_string()))?;
    print(&format!("{}: {} injections\n", args.out.display(), table.rows.len()))?;
    Ok(status::SUCCESS)
}

/// The file, or the parts in a directory.
fn parquet_files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let wrong =
        |why: String| Failure::Usage(format!("{}: {why}; accepted: results of shards (*.parquet)", path.display()));
    let entries = std::fs::read_dir(path).map_err(|e| wrong(reason(&e)))?;
    let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "parquet"));
    files.sort();
    if files.is_empty() {
        return Err(wrong("there are none in this directory".into()));
    }
    Ok(files)
}

pub fn report(args: &ReportArgs) -> Result<u8> {
    let page = args.html.as_deref().map(|path| WholeFile::create("--html", path)).transpose()?;
    let table = rows(&args.results)?;
    print(&report::text(&table))?;
    if let Some(page) = page {
        page.finish(|out| out.write_all(report::html(&table).as_bytes()))?;
    }
    if let Some(directory) = &args.svg {
        let host = |e: &std::io::Error| Failure::Host(format!("--svg {}: {}", directory.display(), reason(e)));
        std::fs::create_dir_all(directory).map_err(|e| host(&e))?;
        for (name, svg) in report::svgs(&table) {
            std::fs::write(directory.join(format!("{name}.svg")), svg).map_err(|e| host(&e))?;
        }
    }
    Ok(status::SUCCESS)
}

/// Results: of a file, of the directory of a campaign, or what a campaign under way has so far.
///
/// # Errors
/// There are none.
pub fn rows(path: &Path) -> Result<Table> {
    if !path.is_dir() {
        return results::read(path).map_err(Failure::usage);
    }
    let directory = Directory::new(path);
    let whole = directory.results(Shard::WHOLE);
    if whole.exists() {
        return results::read(&whole).map_err(Failure::usage);
    }
    let under_way = directory.journal(Shard::WHOLE);
    if !under_way.exists() {
        return Err(Failure::Usage(format!(
            "{}: no results.parquet and no results.journal; accepted: the directory of a campaign; results of shards after \
             campaign merge",
            path.display()
        )));
    }
    let rows = journal::rows(&under_way)?;
    let ready = Ready::prepare(directory.plan()?, &directory.kept_start()?, &mut |_| {})?;
    Ok(Table { campaign: ready.campaign, shard: Shard::WHOLE, rows })
}
