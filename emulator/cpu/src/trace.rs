//! A record of what happens between instructions: deliveries and TLB flushes. For logs; off unless somebody asks, and then
//! nothing that the guest sees changes.

use crate::state::Cpu;
use x86::Exception;

/// One thing that happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traced {
    /// Instructions retired before it.
    pub icount: u64,
    /// RIP of the instruction that it happened at: faulting, or next.
    pub rip: u64,
    pub what: What,
}

/// Kinds of events. `handler` is where execution goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The exception that was raised; after a failed delivery the handler is that of a double fault.
    Exception {
        exception: Exception,
        handler: u64,
    },
    /// An external interrupt.
    Interrupt {
        vector: u8,
        handler: u64,
    },
    /// INT n, INT3, INTO, INT1.
    Software {
        vector: u8,
        handler: u64,
    },
    Flush(Flush),
}

/// What left the TLBs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    All,
    NonGlobal,
    Pcid(u16),
    Page { linear: u64, pcid: u16 },
}

/// Events beyond this many wait for nobody.
const LIMIT: usize = 1 << 20;

/// Events since somebody last looked.
#[derive(Debug, Default)]
pub struct Trace {
    events: Vec<Traced>,
}

impl Trace {
    /// Takes the events, oldest first.
    pub fn take(&mut self) -> Vec<Traced> {
        std::mem::take(&mut self.events)
    }
}

impl Cpu {
    /// Records an event at `rip` if anybody wants to know.
    #[inline]
    pub fn note(&mut self, rip: u64, what: What) {
        if self.trace.is_some() {
            self.note_traced(rip, what);
        }
    }

    #[cold]
    fn note_traced(&mut self, rip: u64, what: What) {
        let icount = self.icount();
        if let Some(trace) = &mut self.trace
            && trace.events.len() < LIMIT
        {
            trace.events.push(Traced { icount, rip, what });
        }
    }
}
