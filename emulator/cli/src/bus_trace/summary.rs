//! What the records of a trace add up to.

use super::table::nanoseconds;
use crate::summary::grouped;
use mem::bus_trace::{Cause, Direction, Event, Header, Record, Transfer, What};
use mem::{KeyId, LINE_BYTES, LineAddr, StateHasher};
use std::collections::{BTreeMap, HashSet};
use std::fmt;

/// Transfers of one KeyID.
#[derive(Debug, Default)]
struct Key {
    /// By cause: reads and writes.
    causes: [[u64; 2]; Cause::ALL.len()],
    /// Of all, those that DRAM has in clear.
    plaintext: u64,
    /// Writes of 64 bytes that the line has had before, and the lines where that happened.
    repeats: u64,
    repeated: HashSet<LineAddr>,
}

/// Sums of a trace.
pub struct Summary {
    header: Header,
    keys: BTreeMap<KeyId, Key>,
    lines: HashSet<LineAddr>,
    /// Hashes of a line's number and what was written to it.
    written: HashSet<u128>,
    power_losses: u64,
    keyid_bits: Option<u8>,
    /// Of the first and the last record: nanoseconds and instructions.
    span: Option<[(u64, u64); 2]>,
}

impl Summary {
    pub fn new(header: Header) -> Summary {
        Summary {
            header,
            keys: BTreeMap::new(),
            lines: HashSet::new(),
            written: HashSet::new(),
            power_losses: 0,
            keyid_bits: None,
            span: None,
        }
    }

    pub fn add(&mut self, record: &Record) {
        let at = (nanoseconds(&self.header, record), record.stamp.icount);
        self.span.get_or_insert([at, at])[1] = at;
        let transfer = match &record.what {
            What::Transfer(transfer) => transfer,
            What::Event(Event::PowerLoss) => return self.power_losses += 1,
            What::Event(Event::KeyidBits(bits)) => return self.keyid_bits = Some(*bits),
        };
        let &Transfer { line, keyid, direction, cause, encrypted, ref ciphertext } = transfer;
        let key = self.keys.entry(keyid).or_default();
        key.causes[cause as usize][usize::from(direction == Direction::Write)] += 1;
        key.plaintext += u64::from(!encrypted);
        self.lines.insert(line);
        if direction == Direction::Write
            && let Some(bytes) = ciphertext
        {
            let mut hasher = StateHasher::new();
            hasher.u64(line.0);
            hasher.bytes(&bytes.0);
            if !self.written.insert(hasher.finish()) {
                key.repeats += 1;
                key.repeated.insert(line);
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = |key: &Key| key.causes.iter().flatten().sum::<u64>();
        let transfers: u64 = self.keys.values().map(total).sum();
        let writes: u64 = self.keys.values().flat_map(|key| &key.causes).map(|[_, writes]| writes).sum();
        let Header { ram_bytes, maxphyaddr, ciphertext, .. } = self.header;
        writeln!(
            f,
            "machine     {} MiB of RAM, {maxphyaddr} physical address bits, {} of them for KeyIDs",
            ram_bytes >> 20,
            self.keyid_bits.unwrap_or(0)
        )?;
        if let Some([(first_ns, first), (last_ns, last)]) = self.span {
            writeln!(f, "time        {} to {} ns", grouped(first_ns), grouped(last_ns))?;
            writeln!(f, "instruction {} to {}", grouped(first), grouped(last))?;
        }
        if self.power_losses > 0 {
            writeln!(f, "power       lost {} times", self.power_losses)?;
        }
        let reads = transfers - writes;
        let bytes = transfers * LINE_BYTES as u64;
        writeln!(f, "transfers   {}: {} reads, {} writes", grouped(transfers), grouped(reads), grouped(writes))?;
        let ns = self.span.map_or(0, |[(first, _), (last, _)]| last.saturating_sub(first));
        // Bytes in a nanosecond are thousands of megabytes in a second.
        let rate = if ns > 0 { bytes as f64 * 1e3 / ns as f64 } else { 0.0 };
        writeln!(f, "bandwidth   {} bytes, {rate:.1} MB a second of the guest's time", grouped(bytes))?;
        writeln!(f, "lines       {} different ones", grouped(self.lines.len() as u64))?;
        writeln!(f)?;
        writeln!(f, "KeyID  {:<10} {:>14} {:>14}", "cause", "reads", "writes")?;
        for (keyid, key) in &self.keys {
            for (cause, [reads, writes]) in Cause::ALL.into_iter().zip(key.causes) {
                if reads + writes > 0 {
                    let (reads, writes) = (grouped(reads), grouped(writes));
                    writeln!(f, "{:>5}  {:<10} {reads:>14} {writes:>14}", keyid.0, cause.name())?;
                }
            }
        }
        writeln!(f)?;
        if !ciphertext.has(Direction::Write) {
            return writeln!(f, "Repeated contents: unknown, the trace has none (--bus-trace-ciphertext off).");
        }
        writeln!(f, "KeyID  {:>14} {:>17} {:>17}", "in clear", "repeated writes", "on lines")?;
        for (keyid, key) in &self.keys {
            let [clear, repeats, lines] = [key.plaintext, key.repeats, key.repeated.len() as u64].map(grouped);
            writeln!(f, "{:>5}  {clear:>14} {repeats:>17} {lines:>17}", keyid.0)?;
        }
        Ok(())
    }
}
