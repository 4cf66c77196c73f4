//! Results for people: a page, its figures, and a text for terminals.
//!
//! Reading order: [`summary`] (what is counted and estimated), `text`, then `page` with its `tables`, `lists` and the figures
//! `bars`, `map` and `latency`, which `svg` draws. Everything that comes from a guest or a plan goes through
//! [`svg::escape`].

mod bars;
mod latency;
mod lists;
mod map;
mod number;
mod page;
mod summary;
mod svg;
mod tables;
mod text;

use crate::results::Table;
use summary::Summary;

/// The style of figures, on the page and alone.
const FIGURE_STYLE: &str = include_str!("figure.css");

/// A page that needs nothing but itself, nor a script.
pub fn html(table: &Table) -> String {
    page::page(&Summary::new(table))
}

/// The figures of the page as files: names without a suffix, and SVG documents.
pub fn svgs(table: &Table) -> Vec<(String, String)> {
    let summary = Summary::new(table);
    page::figures(&summary).into_iter().map(|figure| (figure.name.clone(), figure.document(FIGURE_STYLE))).collect()
}

/// A table for terminals of 80 columns, control characters of guests taken out.
pub fn text(table: &Table) -> String {
    text::text(&Summary::new(table))
}

#[cfg(test)]
mod tests;
