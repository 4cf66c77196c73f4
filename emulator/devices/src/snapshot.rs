//! Whether a board that was read from a file can be taken over. Types say the most of it; this is the rest.

use crate::chipset::Chipset;

impl Chipset {
    /// True if the state is one of a board like `fresh`, so that nothing in it leads a chip out of its registers.
    pub fn fits(&self, fresh: &Chipset) -> bool {
        self.same_size(fresh)
            && self.pit.is_valid()
            && self.rtc.is_valid()
            && self.dma.is_some() == fresh.dma.is_some()
            && self.dma.as_ref().is_none_or(|dma| dma.is_valid())
    }
}
