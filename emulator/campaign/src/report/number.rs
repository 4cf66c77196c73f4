//! Numbers as people read them.

use crate::stats::Interval;

/// `12,582,912`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A number that is an estimate: whole up to a million, three significant digits from there on.
pub(super) fn estimate(number: f64) -> String {
    if number < 999_999.5 {
        if number != 0.0 && number < 9.95 { format!("{number:.1}") } else { grouped(number.round() as u64) }
    } else {
        let text = format!("{number:.2e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: String =
            exponent.chars().filter_map(|c| "⁰¹²³⁴⁵⁶⁷⁸⁹".chars().nth(c.to_digit(10)? as usize)).collect();
        format!("{digits}×10{exponent}")
    }
}

/// `2.5 M`: for axes.
pub(super) fn short(number: f64) -> String {
    let (scaled, unit) = match number.abs() {
        n if n >= 1e9 => (number / 1e9, " G"),
        n if n >= 1e6 => (number / 1e6, " M"),
        n if n >= 1e4 => (number / 1e3, " k"),
        _ => (number, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

/// Digits after the point that a percentage with such an interval deserves.
fn places(interval: Interval) -> usize {
    match interval.half_width() {
        w if w >= 0.005 || w <= 0.0 => 1,
        w if w >= 0.0005 => 2,
        w if w >= 0.00005 => 3,
        _ => 4,
    }
}

/// `36.2`, to as many places as the interval is worth.
pub(super) fn percent(share: f64, interval: Interval) -> String {
    format!("{:.*}", places(interval), share * 100.0)
}

/// `34.1–38.3`.
pub(super) fn percents(interval: Interval) -> String {
    let places = places(interval);
    format!("{:.places$}–{:.places$}", interval.low * 100.0, interval.high * 100.0)
}

/// A step for about `count` ticks up to `limit`: 1, 2 or 5 times a power of ten. 1 if there is nothing.
pub(super) fn step(limit: f64, count: f64) -> f64 {
    let rough = limit / count;
    if !rough.is_finite() || rough <= 0.0 {
        return 1.0;
    }
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * power >= rough * 0.999).unwrap_or(10.0);
    factor * power
}
