//! A guest in miniature: its accesses are told and performed as a processor does it, on the fast path where that is
//! allowed.

use crate::common::*;
use mem::{
    Access, Agent, Algorithm, BusAddr, Config, FramePtr, Hazard, HazardKind, KeyId, MemType, Memory, Operation, Site,
};
use x86::tme::pconfig;

pub struct Guest {
    pub mem: Memory,
    pub icount: u64,
    /// All hazards so far.
    pub hazards: Vec<Hazard>,
    /// Accesses that took the fast path.
    pub fast: u64,
}

/// What tests look at: kind, and the KeyIDs of the access and the other one.
pub type Brief = (HazardKind, u16, Option<u16>);

impl Guest {
    /// KeyIDs 1, 2 and 3 have different keys; the sanitizer is on.
    pub fn new(config: Config) -> Self {
        Self::plain(config, true)
    }

    pub fn plain(config: Config, sanitize: bool) -> Self {
        let mut mem = Memory::new(config).unwrap();
        mem.sanitize(sanitize);
        assert!(activate(&mut mem, ACTIVATE_K6));
        for kid in 1..=3 {
            let key = kid as u8 * 0x20;
            direct(&mut mem, kid, Algorithm::AesXts128, &ascending(key), &ascending(key + 0x10));
        }
        Self { mem, icount: 0, hazards: Vec::new(), fast: 0 }
    }

    pub fn site(&self, operation: Operation, kid: u16) -> Site {
        Site {
            agent: Agent::Cpu(0),
            operation,
            rip: 0x1000 + self.icount,
            icount: self.icount,
            keyid: KeyId(kid),
            cpl: 0,
        }
    }

    fn tell(&mut self, at: BusAddr, len: usize, ty: MemType, operation: Operation) {
        if self.mem.observed() {
            self.mem.observe(at, len, ty, false, &self.site(operation, 0));
        }
    }

    /// After an operation: collects.
    fn done(&mut self) {
        self.icount += 1;
        self.hazards.append(&mut self.mem.take_hazards());
        while self.mem.take_retired().is_some() {}
        while self.mem.take_code_hit().is_some() {}
    }

    fn frame(&self, at: BusAddr) -> Option<FramePtr> {
        self.mem.frame_lookup(at.page())
    }

    pub fn load(&mut self, pa: u64, kid: u16, len: usize) -> Vec<u8> {
        let at = via(&self.mem, pa, kid);
        let mut buf = vec![0; len];
        match self.frame(at) {
            Some(frame) if frame.fast_r() >> at.line_in_page() & 1 != 0 => {
                self.fast += 1;
                frame.read(at.page_offset(), &mut buf);
            }
            _ => {
                self.tell(at, len, MemType::Wb, Operation::Load);
                self.mem.read(at, MemType::Wb, false, &mut buf);
            }
        }
        self.done();
        buf
    }

    pub fn store(&mut self, pa: u64, kid: u16, bytes: &[u8]) {
        let at = via(&self.mem, pa, kid);
        match self.frame(at) {
            Some(frame) if frame.fast_w() >> at.line_in_page() & 1 != 0 => {
                self.fast += 1;
                frame.write(at.page_offset(), bytes);
            }
            _ => {
                self.tell(at, bytes.len(), MemType::Wb, Operation::Store);
                self.mem.write(at, MemType::Wb, false, bytes);
            }
        }
        self.done();
    }

    pub fn fetch(&mut self, pa: u64, kid: u16) {
        let at = via(&self.mem, pa, kid);
        match self.frame(at) {
            Some(frame) if frame.exec_ok() >> at.line_in_page() & 1 != 0 => self.fast += 1,
            _ => {
                self.tell(at, 1, MemType::Wb, Operation::Fetch);
                let touched = self.mem.touch(at, Access::Fetch, false).unwrap();
                self.mem.set_code(touched.frame, at.line_in_page());
            }
        }
        self.done();
    }

    pub fn walk(&mut self, pa: u64, kid: u16) {
        let at = via(&self.mem, pa, kid);
        self.tell(at, 8, MemType::Wb, Operation::PageWalk);
        self.mem.read(at, MemType::Wb, false, &mut [0; 8]);
        self.done();
    }

    pub fn load_uncached(&mut self, pa: u64, kid: u16, len: usize) -> Vec<u8> {
        let at = via(&self.mem, pa, kid);
        let mut buf = vec![0; len];
        self.tell(at, len, MemType::Uc, Operation::Load);
        self.mem.read(at, MemType::Uc, false, &mut buf);
        self.done();
        buf
    }

    pub fn store_typed(&mut self, pa: u64, kid: u16, ty: MemType, bytes: &[u8]) {
        let at = via(&self.mem, pa, kid);
        self.tell(at, bytes.len(), ty, Operation::Store);
        self.mem.write(at, ty, false, bytes);
        self.done();
    }

    pub fn store_nontemporal(&mut self, pa: u64, kid: u16, bytes: &[u8]) {
        let at = via(&self.mem, pa, kid);
        self.tell(at, bytes.len(), MemType::Wb, Operation::NonTemporalStore);
        self.mem.write_nontemporal(at, bytes);
        self.done();
    }

    pub fn flush(&mut self, pa: u64, kid: u16) {
        let at = via(&self.mem, pa, kid);
        self.tell(at, 1, MemType::Wb, Operation::Flush);
        self.mem.clflush(at);
        self.done();
    }

    pub fn clwb(&mut self, pa: u64, kid: u16) {
        let at = via(&self.mem, pa, kid);
        self.tell(at, 1, MemType::Wb, Operation::WriteBack);
        self.mem.clwb(at);
        self.done();
    }

    pub fn whole_cache(&mut self, operation: Operation) {
        self.tell(BusAddr(0), 0, MemType::Wb, operation);
        match operation {
            Operation::WriteBackAll => self.mem.wbnoinvd(),
            Operation::Invalidate => self.mem.invd(),
            _ => self.mem.wbinvd(),
        }
        self.done();
    }

    pub fn dma_read(&mut self, pa: u64, kid: u16, len: usize) -> Vec<u8> {
        let at = via(&self.mem, pa, kid);
        let mut buf = vec![0; len];
        self.tell(at, len, MemType::Wb, Operation::DmaRead);
        self.mem.dma_read(at, &mut buf);
        self.done();
        buf
    }

    pub fn dma_write(&mut self, pa: u64, kid: u16, bytes: &[u8]) {
        let at = via(&self.mem, pa, kid);
        self.tell(at, bytes.len(), MemType::Wb, Operation::DmaWrite);
        self.mem.dma_write(at, bytes);
        self.done();
    }

    /// Gives a KeyID key number `key`.
    pub fn program(&mut self, kid: u16, key: u8) {
        direct(&mut self.mem, kid, Algorithm::AesXts128, &ascending(key), &ascending(key.wrapping_add(0x10)));
        self.programmed(kid);
    }

    /// KEYID_CLEAR_KEY, KEYID_NO_ENCRYPT.
    pub fn command(&mut self, kid: u16, command: u8) {
        crate::common::command(&mut self.mem, kid, command);
        self.programmed(kid);
    }

    pub fn clear_key(&mut self, kid: u16) {
        self.command(kid, pconfig::KEYID_CLEAR_KEY);
    }

    fn programmed(&mut self, kid: u16) {
        if self.mem.observed() {
            self.mem.observe_pconfig(&self.site(Operation::Pconfig, kid));
        }
        self.done();
    }

    /// What was found since the last call.
    pub fn briefs(&mut self) -> Vec<Brief> {
        let brief = |hazard: &Hazard| (hazard.kind, hazard.access.keyid.0, hazard.other.map(|other| other.keyid.0));
        std::mem::take(&mut self.hazards).iter().map(brief).collect()
    }
}
