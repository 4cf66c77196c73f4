//! stub
use crate::results::Table;
pub fn text(t: &Table) -> String {
    let mut m = std::collections::BTreeMap::new();
    for r in &t.rows {
        *m.entry((r.stratum.clone(), r.outcome.name(), r.proof.name())).or_insert(0) += 1;
    }
    m.iter().map(|(k, v)| format!("{k:?} {v}\n")).collect()
}
pub fn html(_: &Table) -> String {
    String::new()
}
pub fn svgs(_: &Table) -> Vec<(String, String)> {
    vec![]
}
