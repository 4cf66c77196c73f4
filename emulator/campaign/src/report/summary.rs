//! What is counted and estimated from results.

use crate::results::Table;
use crate::row::{Outcome, Row};
use crate::stats::{Confidence, Estimate, Interval, Part, stratified, wilson_share};
use std::collections::{BTreeMap, BTreeSet};

/// Injections by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts([u64; Outcome::ALL.len()]);

impl Counts {
    pub fn add(&mut self, outcome: Outcome) {
        for (count, of) in self.0.iter_mut().zip(Outcome::ALL) {
            *count += u64::from(of == outcome);
        }
    }

    pub fn of(&self, outcome: Outcome) -> u64 {
        self.count(|of| of == outcome)
    }

    /// SDCs, crashes and hangs.
    pub fn failures(&self) -> u64 {
        self.count(Outcome::is_failure)
    }

    pub fn all(&self) -> u64 {
        self.0.iter().sum()
    }

    pub fn count(&self, counted: impl Fn(Outcome) -> bool) -> u64 {
        Outcome::ALL.into_iter().zip(self.0).filter(|(outcome, _)| counted(*outcome)).map(|(_, count)| count).sum()
    }
}

/// A share with its interval.
#[derive(Debug, Clone, Copy)]
pub(super) struct Share {
    pub share: f64,
    pub interval: Interval,
}

/// One stratum.
#[derive(Debug, Clone)]
pub(super) struct Stratum<'a> {
    pub name: &'a str,
    pub faults: &'a str,
    pub population: u64,
    /// Injections that it was to have in this part of the campaign.
    pub planned: u64,
    /// It was ended early because its intervals were narrow.
    pub stopped: bool,
    pub counts: Counts,
    /// A fault was drawn twice.
    replaced: bool,
}

impl Stratum<'_> {
    /// Its sample, if so many are counted.
    fn part(&self, successes: u64) -> Part {
        Part { population: self.population, n: self.counts.all(), successes, replaced: self.replaced }
    }

    pub fn share(&self, counted: impl Fn(Outcome) -> bool, confidence: Confidence) -> Share {
        let part = self.part(self.counts.count(counted));
        Share { share: part.share(), interval: part.interval(confidence) }
    }

    /// Faults of its space that are failures. `None` without injections.
    pub fn failures(&self, confidence: Confidence) -> Option<Estimate> {
        stratified(&[self.part(self.counts.failures())], confidence)
    }
}

/// Injections that have something in common, of any strata.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub name: String,
    pub counts: Counts,
    /// Of each stratum.
    by_stratum: Vec<Counts>,
}

/// Everything.
pub(super) struct Summary<'a> {
    pub table: &'a Table,
    pub confidence: Confidence,
    pub strata: Vec<Stratum<'a>>,
    pub counts: Counts,
    pub targets: Vec<Group>,
    pub keyids: Vec<Group>,
    pub phases: Vec<Group>,
}

/// What groups are called whose rows say nothing.
const NONE: &str = "none";

impl<'a> Summary<'a> {
    pub fn new(table: &'a Table) -> Summary<'a> {
        let campaign = &table.campaign;
        let mut strata: Vec<Stratum> = campaign
            .strata
            .iter()
            .map(|stratum| Stratum {
                name: &stratum.name,
                faults: &stratum.faults,
                population: stratum.population,
                planned: planned(stratum.first, stratum.stopped_after.unwrap_or(stratum.injections), table),
                stopped: stratum.stopped_after.is_some_and(|after| after < stratum.injections),
                counts: Counts::default(),
                replaced: false,
            })
            .collect();
        let mut counts = Counts::default();
        let mut drawn = vec![BTreeSet::new(); strata.len()];
        for row in &table.rows {
            counts.add(row.outcome);
            if let Some(index) = strata.iter().position(|stratum| stratum.name == row.stratum) {
                strata[index].counts.add(row.outcome);
                strata[index].replaced |= !drawn[index].insert(row.element);
            }
        }
        let order = |phase: &str| campaign.golden.phases.iter().position(|(_, name)| name == phase);
        let mut phases = groups(table, &strata, |row| row.phase.clone().map(|name| (order(&name), name)));
        let mut keyids =
            groups(table, &strata, |row| row.keyid.map(|keyid| (Some(usize::from(keyid)), keyid.to_string())));
        let mut targets = groups(table, &strata, |row| Some((None, row.target.clone())));
        for groups in [&mut phases, &mut keyids, &mut targets] {
            // Rows that say nothing come last.
            groups.sort_by_key(|group| group.name == NONE);
        }
        let confidence = Confidence::from_ppm(campaign.confidence_ppm).unwrap_or(Confidence::P95);
        Summary { table, confidence, strata, counts, targets, keyids, phases }
    }

    /// Injections that the part of the campaign has when it is done.
    pub fn planned(&self) -> u64 {
        self.strata.iter().map(|stratum| stratum.planned).sum()
    }

    /// Faults of all fault spaces.
    pub fn population(&self) -> u128 {
        self.strata.iter().map(|stratum| u128::from(stratum.population)).sum()
    }

    /// The share of all faults that have such an outcome. `None` if there are no injections.
    pub fn overall(&self, counted: impl Fn(Outcome) -> bool + Copy) -> Option<Estimate> {
        let parts: Vec<Part> = self.strata.iter().map(|stratum| stratum.part(stratum.counts.count(counted))).collect();
        stratified(&parts, self.confidence)
    }

    /// [`overall`](Self::overall), without an estimate if there is none.
    pub fn overall_share(&self, counted: impl Fn(Outcome) -> bool + Copy) -> Share {
        let estimate = self.overall(counted);
        estimate.map_or(Share { share: 0.0, interval: Interval::UNKNOWN }, |e| Share {
            share: e.share,
            interval: e.interval,
        })
    }

    /// The share of a group's faults that have such an outcome. Each injection stands for as many faults as its stratum has for
    /// each of its injections; so many unequal ones are worth (Σw)²/Σw² equal ones (Kish 1965).
    pub fn group_share(&self, group: &Group, counted: impl Fn(Outcome) -> bool) -> Share {
        let (mut weights, mut squares, mut successes) = (0.0, 0.0, 0.0);
        for (stratum, counts) in self.strata.iter().zip(&group.by_stratum) {
            let n = counts.all() as f64;
            if n > 0.0 && stratum.population > 0 {
                let weight = stratum.population as f64 / stratum.counts.all() as f64;
                weights += weight * n;
                squares += weight * weight * n;
                successes += weight * counts.count(&counted) as f64;
            }
        }
        if squares <= 0.0 {
            return Share { share: 0.0, interval: Interval::UNKNOWN };
        }
        let share = (successes / weights).clamp(0.0, 1.0);
        Share { share, interval: wilson_share(share, weights * weights / squares, self.confidence) }
    }

    /// Faults of a group that are failures.
    pub fn group_failures(&self, group: &Group) -> Option<Estimate> {
        let strata = self.strata.iter().zip(&group.by_stratum);
        // Strata that have nothing of the group have no failures in it either, and no uncertainty to add.
        let parts: Vec<Part> = strata
            .filter(|(_, counts)| counts.all() > 0)
            .map(|(stratum, counts)| stratum.part(counts.failures()))
            .collect();
        stratified(&parts, self.confidence)
    }

    /// Strata of which nothing is known.
    pub fn unsampled(&self) -> Vec<&str> {
        self.strata.iter().filter(|s| s.counts.all() == 0 && s.population > 0).map(|s| s.name).collect()
    }
}

/// Injections from `first` on, `count` of them, that belong to the part.
fn planned(first: u64, count: u64, table: &Table) -> u64 {
    let (part, parts) = (u128::from(table.shard.part), u128::from(table.shard.parts.max(1)));
    // Numbers below `limit` that belong to it.
    let below = |limit: u128| (limit + parts - part.clamp(1, parts)) / parts;
    let (first, count) = (u128::from(first), u128::from(count));
    u64::try_from(below(first + count) - below(first)).unwrap_or(u64::MAX)
}

/// Groups of rows, in the order of the key.
fn groups(table: &Table, strata: &[Stratum], key: impl Fn(&Row) -> Option<(Option<usize>, String)>) -> Vec<Group> {
    let mut groups: BTreeMap<(Option<usize>, String), Group> = BTreeMap::new();
    for row in &table.rows {
        let key = key(row).unwrap_or((None, NONE.into()));
        let group = groups.entry(key).or_insert_with_key(|(_, name)| Group {
            name: name.clone(),
            counts: Counts::default(),
            by_stratum: vec![Counts::default(); strata.len()],
        });
        group.counts.add(row.outcome);
        if let Some(index) = strata.iter().position(|stratum| stratum.name == row.stratum) {
            group.by_stratum[index].add(row.outcome);
        }
    }
    groups.into_values().collect()
}
