//! What injected faults may be about: looked at where lines and accesses are by the million.

use super::disturb::{Disturbance, Occasion};
use crate::addr::{LINES_PER_PAGE, LineAddr};

/// A superset of what the injector waits for or disturbs. It grows until everything is disarmed.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct About {
    /// Bit `n`: some line that is line `n` of its page.
    lines: u64,
    /// Some load, store or walk.
    accesses: bool,
}

impl About {
    /// True when line `line` of a page may need a look.
    #[inline(always)]
    pub(crate) fn line(&self, line: u32) -> bool {
        self.lines >> line & 1 == 1
    }

    /// True when some line may.
    #[inline(always)]
    pub(crate) fn any_line(&self) -> bool {
        self.lines != 0
    }

    /// True when accesses may be waited for.
    #[inline(always)]
    pub(crate) fn accesses(&self) -> bool {
        self.accesses
    }

    pub(crate) fn note_occasion(&mut self, occasion: &Occasion) {
        self.accesses |= matches!(occasion, Occasion::Linear { .. } | Occasion::Physical { .. });
        if let Some(line) = occasion.line() {
            self.note_line(line);
        }
    }

    pub(crate) fn note_disturbance(&mut self, disturbance: &Disturbance) {
        match (disturbance.line(), disturbance) {
            (Some(line), _) => self.note_line(line),
            (None, Disturbance::Alias { .. } | Disturbance::Tweak { .. } | Disturbance::Rowhammer(_)) => {
                self.lines = u64::MAX;
            }
            (None, _) => {}
        }
    }

    fn note_line(&mut self, line: LineAddr) {
        self.lines |= 1 << (line.0 % LINES_PER_PAGE as u64);
    }
}
