//! Parts of a campaign, joined.

use super::Table;
use crate::meta::{Campaign, Shard};
use crate::row::Row;
use std::path::{Path, PathBuf};

/// Why parts could not be joined. Each message names the files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MergeError(String);

/// Joins all parts of a campaign, in any order. The result is that of a run of the whole.
///
/// # Errors
/// Parts of different campaigns or of different divisions, a part twice or not at all, and a part whose rows are not exactly
/// those of its injections.
pub fn merge(tables: Vec<(PathBuf, Table)>) -> Result<Table, MergeError> {
    let fail = |what: String| Err(MergeError(what));
    let Some((first, table)) = tables.first() else {
        return fail("no results to merge; accepted: all parts of a campaign".into());
    };
    let (campaign, parts) = (table.campaign.clone(), table.shard.parts);
    for (path, table) in &tables {
        if table.campaign.identity != campaign.identity {
            return fail(format!(
                "{}: results of campaign {} ({}), but {} has those of {} ({}); accepted: parts of one campaign",
                path.display(),
                table.campaign.name,
                table.campaign.identity,
                first.display(),
                campaign.name,
                campaign.identity
            ));
        }
        if table.shard.parts != parts {
            return fail(format!(
                "{}: part {} of {}, but {} is one of {parts} parts; accepted: parts of one division",
                path.display(),
                table.shard.part,
                table.shard.parts,
                first.display()
            ));
        }
        if let Some(what) = difference(&table.campaign, &campaign) {
            return fail(format!(
                "{}: {what} is not that of {}, though the campaign is the same; accepted: parts of one campaign",
                path.display(),
                first.display()
            ));
        }
        check_rows(path, table)?;
    }
    let mut by_part: Vec<&(PathBuf, Table)> = tables.iter().collect();
    by_part.sort_by_key(|(_, table)| table.shard.part);
    if let Some(pair) = by_part.windows(2).find(|pair| pair[0].1.shard == pair[1].1.shard) {
        return fail(format!(
            "{} and {}: both are part {} of {parts}; accepted: each part once",
            pair[0].0.display(),
            pair[1].0.display(),
            pair[0].1.shard.part
        ));
    }
    let there: Vec<u64> = by_part.iter().map(|(_, table)| table.shard.part).collect();
    if there.len() as u64 != parts {
        return fail(format!(
            "{} of {parts} parts of {} are missing: {}; accepted: all parts",
            parts - there.len() as u64,
            campaign.name,
            missing(&there, parts)
        ));
    }
    let mut rows: Vec<Row> = tables.into_iter().flat_map(|(_, table)| table.rows).collect();
    rows.sort_by_key(|row| row.id);
    Ok(Table { campaign, shard: Shard::WHOLE, rows })
}

/// What of two campaigns of the same identity is different.
fn difference(a: &Campaign, b: &Campaign) -> Option<&'static str> {
    [
        (a.name != b.name, "the name"),
        (a.plan != b.plan, "the plan"),
        (a.golden != b.golden, "the golden run"),
        (a.strata != b.strata, "what was done of the strata"),
        (a != b, "the campaign"),
    ]
    .into_iter()
    .find_map(|(different, what)| different.then_some(what))
}

/// The parts that are not in `there`, which is sorted: at most eight by number.
fn missing(there: &[u64], parts: u64) -> String {
    const LISTED: usize = 8;
    let mut numbers: Vec<String> = (1..=parts)
        .filter(|part| there.binary_search(part).is_err())
        .take(LISTED + 1)
        .map(|part| part.to_string())
        .collect();
    if numbers.len() > LISTED {
        numbers[LISTED] = "...".into();
    }
    numbers.join(", ")
}

/// That a part has one row for each of its injections, and no other.
fn check_rows(path: &Path, table: &Table) -> Result<(), MergeError> {
    let shard = table.shard;
    let fail = |what: String| {
        let accepted = format!("exactly the rows of part {} of {}", shard.part, shard.parts);
        Err(MergeError(format!("{}: {what}; accepted: {accepted}", path.display())))
    };
    if shard.part == 0 || shard.part > shard.parts {
        return fail("there is no such part".into());
    }
    let mut ids: Vec<(u64, &Row)> = table.rows.iter().map(|row| (row.id, row)).collect();
    ids.sort_by_key(|(id, _)| *id);
    let mut ids = ids.into_iter().peekable();
    let mut last = None;
    for stratum in &table.campaign.strata {
        let done = stratum.stopped_after.map_or(stratum.injections, |after| after.min(stratum.injections));
        // The first number from the stratum's first on that leaves the part's remainder.
        let ahead = u128::from(shard.part - 1) + u128::from(shard.parts) - u128::from(stratum.first % shard.parts);
        let ahead = u64::try_from(ahead % u128::from(shard.parts)).unwrap_or(u64::MAX);
        let mut expected = stratum.first.saturating_add(ahead);
        let end = stratum.first.saturating_add(done);
        while expected < end {
            match ids.peek() {
                Some((id, _)) if last == Some(*id) => return fail(format!("injection {id} is there twice")),
                Some((id, row)) if *id == expected => {
                    if row.stratum != stratum.name {
                        let (is, should) = (&row.stratum, &stratum.name);
                        return fail(format!("injection {id} is of stratum {is}, not {should}"));
                    }
                    last = Some(*id);
                    ids.next();
                }
                Some((id, _)) if *id < expected => return fail(format!("injection {id} does not belong to it")),
                _ => return fail(format!("injection {expected} is missing")),
            }
            expected = expected.saturating_add(shard.parts);
        }
    }
    match ids.next() {
        Some((id, _)) if last == Some(id) => fail(format!("injection {id} is there twice")),
        Some((id, _)) => fail(format!("injection {id} does not belong to it")),
        None => Ok(()),
    }
}
