//! Spontaneous evictions (`evict_rate`): which line leaves.
//!
//! Every cached line is as likely as any other. A stretch of RAM that nothing was cached of must not make the lines next to
//! it likelier, so a victim is not looked for from a random place on: random places are drawn until there is a line in one.
//! The choice depends on tags only, not on frames, which are the host's matter.

use super::pool::{FramePool, line_address, line_bit};
use super::sets::Sets;
use super::{Cache, Model, bits};
use crate::addr::LINES_PER_PAGE;
use crate::controller::{Controller, Place};
use crate::frame::FramePtr;
use crate::rate::below;
use rand_chacha::ChaCha20Rng;

/// Places drawn before the lines are counted instead, which takes long only where there are many.
const TRIES: u32 = 1024;

/// A cached line.
type Victim = (FramePtr, u32);

impl Cache {
    /// With probability `evict_rate`, a line leaves the cache. In `off` no line is in it.
    #[cold]
    pub(super) fn evict_at_random(&mut self, controller: &mut Controller) {
        if self.is_off() || !self.evict_rate.happens(&mut self.evictions) {
            return;
        }
        let rng = &mut self.evictions;
        let victim = match &self.model {
            Model::Exact(sets) => place_of_a_set(rng, sets, &self.pool),
            Model::Lazy => line_of_ram(rng, &self.pool, controller.map.pages() as u64),
            Model::Off => None,
        };
        if let Some((frame, line)) = victim {
            self.pool.write_back(controller, frame, line);
            self.drop_line(
                controller,
                Place { address: line_address(frame, line), page: frame.0.page_index.get() },
                frame,
            );
        }
    }
}

/// The first drawn place of a set that has a line; else the line of a drawn number, sets in order and oldest fills first.
fn place_of_a_set(rng: &mut ChaCha20Rng, sets: &Sets, pool: &FramePool) -> Option<Victim> {
    let places = (sets.iter().len() * sets.ways()) as u64;
    let drawn = (0..TRIES).find_map(|_| sets.at(below(rng, places) as usize));
    let id = drawn.or_else(|| {
        let count: usize = sets.iter().map(<[_]>::len).sum();
        let mut number = (count > 0).then(|| below(rng, count as u64) as usize)?;
        sets.iter().find_map(|lines| {
            let id = lines.get(number).copied();
            number = number.wrapping_sub(lines.len());
            id
        })
    })?;
    Some((pool.get(id.frame_index()), id.line()))
}

/// The first drawn line of RAM that is cached, and of its copies under several KeyIDs any; else the line of a drawn number, in
/// ascending order of full PA.
fn line_of_ram(rng: &mut ChaCha20Rng, pool: &FramePool, pages: u64) -> Option<Victim> {
    for _ in 0..TRIES {
        let place = below(rng, pages * LINES_PER_PAGE as u64);
        let (page, line) = ((place / LINES_PER_PAGE as u64) as u32, (place % LINES_PER_PAGE as u64) as u32);
        let copies = || pool.aliases(page).filter(move |frame| frame.resident() & line_bit(line) != 0);
        match copies().count() {
            0 => {}
            1 => return copies().next().map(|frame| (frame, line)),
            count => {
                let mut frames: Vec<FramePtr> = copies().collect();
                frames.sort_unstable_by_key(|frame| frame.bus_page());
                return Some((frames[below(rng, count as u64) as usize], line));
            }
        }
    }
    let mut frames: Vec<FramePtr> = pool.holders().filter(|frame| frame.resident() != 0).collect();
    let count: u64 = frames.iter().map(|frame| u64::from(frame.resident().count_ones())).sum();
    let number = (count > 0).then(|| below(rng, count) as usize)?;
    frames.sort_unstable_by_key(|frame| frame.bus_page());
    frames.into_iter().flat_map(|frame| bits(frame.resident()).map(move |line| (frame, line))).nth(number)
}
