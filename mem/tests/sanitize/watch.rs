//! Watched lines: the last writer before an instruction count.

use crate::common::*;
use crate::guest::Guest;
use mem::{CacheModel, Config, LineAddr, Operation, WatchedLine};

const PA: u64 = 0x1000;

#[test]
fn the_last_store_and_flush_before_a_count_are_found_for_each_keyid() {
    for cache in CacheModel::ALL {
        for sanitize in [false, true] {
            let mut g = Guest::plain(Config { cache, ..config() }, sanitize);
            let watched = |before| WatchedLine { line: LineAddr(PA >> 6), before };
            g.mem.watch_lines(&[watched(4), watched(u64::MAX)]);
            (0..3).for_each(|_| g.store(PA + 8, 1, &[1; 8])); // 0, 1, 2
            g.store(PA + 64, 1, &[1; 8]); // 3, another line
            g.store(PA, 1, &[1; 8]); // 4
            g.load(PA, 1, 8);
            g.store_nontemporal(PA, 2, &[1; 64]); // 6
            g.flush(PA + 63, 1); // 7
            g.dma_write(PA - 64, 1, &[1; 128]); // 8
            let found: Vec<_> = g.mem.take_watched();
            let found: Vec<_> = found
                .iter()
                .map(|found| (found.watched.before, found.site.keyid.0, found.site.icount, found.site.operation))
                .collect();
            let expected = [
                (4, 1, 2, Operation::Store),
                (u64::MAX, 1, 7, Operation::Flush),
                (u64::MAX, 1, 8, Operation::DmaWrite),
                (u64::MAX, 2, 6, Operation::NonTemporalStore),
            ];
            assert_eq!(found, expected);
            assert_eq!(g.mem.take_watched(), []);
            g.mem.watch_lines(&[]);
            assert_eq!(g.mem.observed(), sanitize);
        }
    }
}
