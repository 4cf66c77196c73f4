//! Runs taken apart at their markers, and pairs of runs compared item by item.

use super::child::Run;
use std::collections::BTreeMap;

/// What comes before the first marker.
const BOOT: &str = "boot";
/// The whole process.
pub const TOTAL: &str = "total";

/// CPU seconds of one item in one run.
pub type Item = (String, f64);

/// From the start to the first marker, from marker to marker, and from the last one until the process ended. An item has
/// the name of the marker that begins it; further ones of a name are numbered. Without markers there is no item.
pub fn items(run: &Run) -> Vec<Item> {
    if run.marks.is_empty() {
        return Vec::new();
    }
    let begins = std::iter::once((BOOT, 0.0)).chain(run.marks.iter().map(|mark| (mark.name.as_str(), mark.cpu)));
    let ends = run.marks.iter().map(|mark| mark.cpu).chain([run.cpu()]);
    let mut seen = BTreeMap::new();
    let item = |((name, begin), end): ((&str, f64), f64)| {
        let count = seen.entry(name.to_owned()).and_modify(|n| *n += 1).or_insert(1);
        let name = if *count == 1 { name.to_owned() } else { format!("{name} {count}") };
        // The console is read a little before the end, so that what is left may be nothing.
        (name, f64::max(end - begin, 0.0))
    };
    begins.zip(ends).map(item).collect()
}

/// An item over all pairs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub name: String,
    /// Medians of the CPU seconds, ours and the other's.
    pub seconds: [f64; 2],
    /// Ours to the other's: the median of the pairs' ratios, the least and the largest.
    pub ratio: f64,
    pub least: f64,
    pub largest: f64,
}

impl Row {
    fn new(name: &str, pairs: &[[f64; 2]]) -> Row {
        let side = |i: usize| median(pairs.iter().map(|pair| pair[i]).collect());
        let ratios: Vec<f64> = pairs.iter().map(|[a, b]| a / b.max(1e-9)).collect();
        Row {
            name: name.to_owned(),
            seconds: [side(0), side(1)],
            least: ratios.iter().copied().fold(f64::INFINITY, f64::min),
            largest: ratios.iter().copied().fold(0.0, f64::max),
            ratio: median(ratios),
        }
    }
}

/// The items of every run, in the order of the first, and the total. Then the names that only some runs have: if there is
/// one, items of the same name need not be the same work, and only the total is compared.
pub fn compare(pairs: &[[Run; 2]]) -> (Vec<Row>, Vec<String>) {
    let taken: Vec<[BTreeMap<String, f64>; 2]> =
        pairs.iter().map(|pair| [0, 1].map(|i| items(&pair[i]).into_iter().collect())).collect();
    let (mut rows, mut missing) = (Vec::new(), Vec::new());
    let mut names: Vec<String> = Vec::new();
    for (name, _) in pairs.iter().flatten().flat_map(items) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let of_pair = |pair: &[BTreeMap<String, f64>; 2]| Some([*pair[0].get(&name)?, *pair[1].get(&name)?]);
        match taken.iter().map(of_pair).collect::<Option<Vec<_>>>() {
            Some(values) => rows.push(Row::new(&name, &values)),
            // Without any marker there is none of this either, which says nothing.
            None if name == BOOT => {}
            None => missing.push(name),
        }
    }
    if !missing.is_empty() {
        rows.clear();
    }
    let totals: Vec<[f64; 2]> = pairs.iter().map(|[a, b]| [a.cpu(), b.cpu()]).collect();
    rows.push(Row::new(TOTAL, &totals));
    (rows, missing)
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    match (values.get(n / 2), n % 2) {
        (None, _) => 0.0,
        (Some(upper), 1) => *upper,
        (Some(upper), _) => (values[n / 2 - 1] + upper) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::child::Mark;
    use super::*;

    fn run(marks: &[(&str, f64)], cpu: f64) -> Run {
        let marks = marks.iter().map(|(name, cpu)| Mark { name: (*name).to_owned(), cpu: *cpu }).collect();
        Run { marks, user: cpu, ..Run::default() }
    }

    #[test]
    fn items_reach_from_marker_to_marker_and_add_up_to_the_whole() {
        let run = run(&[("A", 1.0), ("B", 3.0), ("A", 6.0)], 10.0);
        let items = items(&run);
        let names: Vec<&str> = items.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["boot", "A", "B", "A 2"]);
        assert_eq!(items.iter().map(|(_, cpu)| cpu).collect::<Vec<_>>(), [&1.0, &2.0, &3.0, &4.0]);
    }

    #[test]
    fn the_ratio_is_the_median_of_the_pairs_and_not_of_the_sides() {
        // A host that slows down during the third pair slows both.
        let pairs = [(2.0, 1.0), (3.0, 1.0), (40.0, 10.0)];
        let pairs = pairs.map(|(a, b)| [run(&[("A", a / 2.0)], a), run(&[("A", b / 2.0)], b)]);
        let (rows, missing) = compare(&pairs);
        assert!(missing.is_empty());
        let names: Vec<&str> = rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(names, ["boot", "A", "total"]);
        for row in rows {
            assert_eq!((row.ratio, row.least, row.largest), (3.0, 2.0, 4.0));
        }
    }

    #[test]
    fn if_one_side_lacks_an_item_it_is_named_and_only_the_total_compared() {
        let (rows, missing) = compare(&[[run(&[("A", 1.0), ("B", 2.0)], 3.0), run(&[("A", 1.0)], 3.0)]]);
        assert_eq!((missing, rows.len()), (vec!["B".to_owned()], 1));
        let (rows, missing) = compare(&[[run(&[], 3.0), run(&[], 1.5)]]);
        assert_eq!((rows.len(), rows[0].ratio, missing.len()), (1, 2.0, 0));
    }

    #[test]
    fn a_median_of_an_even_number_is_the_mean_of_the_middle() {
        assert_eq!(median(vec![4.0, 1.0, 2.0, 9.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
