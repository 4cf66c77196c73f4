//! Grammar: what is written is read back, and what is wrong is told.

use super::spec::{CodeAddress, FaultSpec, Lasts, LineEvent, Target, Trigger};
use super::text::number;
use mem::{Bits, Disturbance, KeyField, KeyId, LateWriteBack, LineAddr, Rate, Rowhammer, Way};

/// A generator of test cases: xorshift64*.
struct Cases(u64);

impl Cases {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % end
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.flag() { Some(make(self)) } else { None }
    }

    fn line(&mut self) -> LineAddr {
        LineAddr(self.below(1 << 40))
    }

    fn keyid(&mut self) -> KeyId {
        KeyId(self.below(1 << 15) as u16)
    }

    fn bits(&mut self) -> Bits {
        let count = 1 + self.below(4);
        Bits::new((0..count).map(|_| self.below(512) as u16).collect::<Vec<_>>()).expect("bits of a line")
    }

    fn way(&mut self) -> Way {
        [Way::Read, Way::Write, Way::Both][self.below(3) as usize]
    }

    fn rate(&mut self) -> Rate {
        Rate::from_ppm(1 + self.below(1_000_000) as u32).expect("at most a million")
    }

    fn disturbance(&mut self) -> Disturbance {
        let line = self.line();
        match self.below(20) {
            0 => Disturbance::Flip { line, bits: self.bits() },
            1 => Disturbance::Stuck { line, bits: self.bits(), value: self.flag() },
            2 => Disturbance::Intermittent { line, bits: self.bits(), rate: self.rate() },
            3 => Disturbance::Bus { line, bits: self.bits(), way: self.way() },
            4 => Disturbance::Decay { rate: self.rate() },
            5 => Disturbance::Splice { line, from: self.line(), block: self.maybe(|c| c.below(4) as u8) },
            6 => Disturbance::Alias { mask: self.below(1 << 46) },
            7 => Disturbance::Tweak { xor: 1 + self.below(1 << 40), ignore: self.below(1 << 40), way: self.way() },
            8 => {
                let k = [KeyField::K1, KeyField::K2][self.below(2) as usize];
                Disturbance::Key {
                    package: self.below(8) as usize,
                    keyid: self.keyid(),
                    field: k,
                    bit: self.below(256) as u32,
                }
            }
            9 => Disturbance::Key { package: 0, keyid: self.keyid(), field: KeyField::Mode, bit: 0 },
            10 => Disturbance::Exclude { base: self.flag(), bit: self.below(64) as u32 },
            11 => {
                let how = match self.below(3) {
                    0 => LateWriteBack::Drop,
                    1 => LateWriteBack::Duplicate,
                    _ => LateWriteBack::Delay(1 + self.below(1 << 40)),
                };
                Disturbance::WriteBack { line, keyid: self.maybe(Self::keyid), how }
            }
            12 => Disturbance::Flush { line, keyid: self.maybe(Self::keyid) },
            13 => Disturbance::Cache { line, keyid: self.keyid(), bits: self.bits() },
            14 => Disturbance::KeyidWire { bit: self.below(15) as u8, value: self.flag() },
            15 => Disturbance::PconfigBusy { count: 1 + self.below(1000) as u32 },
            17 => Disturbance::Mac {
                line,
                bits: Bits::new([self.below(28) as u16, self.below(28) as u16]).expect("bits of a MAC"),
            },
            18 => Disturbance::Rowhammer(Rowhammer {
                threshold: 1 + self.below(1 << 40),
                rate: self.rate(),
                row_bytes: 64 << self.below(15),
                banks: 1 + self.below(1000) as u16,
                window: 1 + self.below(1 << 50),
            }),
            16 => Disturbance::PconfigEntropy { count: 1 + self.below(1000) as u32 },
            _ => Disturbance::Random { count: 1 + self.below(1000) as u32 },
        }
    }

    fn trigger(&mut self) -> Trigger {
        let nth = 1 + self.below(5);
        match self.below(10) {
            8 => Trigger::Exec { physical: self.flag(), address: self.below(u64::MAX), nth },
            0 => Trigger::Icount(self.below(u64::MAX)),
            1 => {
                let from = self.below(1 << 60);
                Trigger::Random { from, to: from + 1 + self.below(1 << 60) }
            }
            2 => Trigger::Pc { place: CodeAddress::Linear(self.below(u64::MAX)), nth },
            3 => Trigger::Pc { place: CodeAddress::Symbol("a::b<c>+e".into()), nth },
            4 => {
                let (read, write) = [(true, false), (false, true), (true, true)][self.below(3) as usize];
                Trigger::Access { physical: self.flag(), address: self.below(u64::MAX), read, write, nth }
            }
            5 => {
                let event = [LineEvent::Fill, LineEvent::WriteBack, LineEvent::Flush][self.below(3) as usize];
                Trigger::Line { event, line: self.line(), keyid: self.maybe(Self::keyid), nth }
            }
            6 => Trigger::Wrmsr { msr: self.below(1 << 32) as u32, nth },
            7 => Trigger::Pconfig { nth },
            _ => Trigger::Marker { value: self.maybe(|c| c.below(1 << 32) as u32), nth },
        }
    }

    fn spec(&mut self) -> FaultSpec {
        let target = match self.below(12) {
            0 => Target::Replay { line: self.line(), since: self.trigger() },
            1 => Target::Gpr { register: self.below(16) as u8, bit: self.below(64) as u8 },
            2 => Target::Rip { bit: self.below(64) as u8 },
            3 => Target::Flags { bit: self.below(64) as u8 },
            4 => Target::Msr { msr: self.below(1 << 32) as u32, bit: self.below(64) as u8 },
            5 => Target::Tlb { address: self.below(u64::MAX), bit: self.below(15) as u8 },
            6 => {
                Target::Pte { address: self.below(u64::MAX), level: 1 + self.below(4) as u8, bit: self.below(64) as u8 }
            }
            _ => Target::Memory(self.disturbance()),
        };
        let lasts = self.maybe(|c| match c.below(3) {
            0 => Lasts::Times(1 + c.below(1 << 50)),
            1 => Lasts::Instructions(1 + c.below(1 << 50)),
            _ => Lasts::Ever,
        });
        FaultSpec { target, at: self.trigger(), lasts, draw: self.maybe(|c| c.below(1 << 32) as u32) }
    }
}

#[test]
fn every_fault_is_read_back_as_it_was_written() {
    let mut cases = Cases(0x9E37_79B9_7F4A_7C15);
    for _ in 0..20_000 {
        let spec = cases.spec();
        let text = spec.to_string();
        assert_eq!(text.parse(), Ok(spec.clone()), "{text}");
        let json = serde_json::to_string(&spec).expect("a string");
        assert_eq!(serde_json::from_str::<FaultSpec>(&json).expect("the same"), spec, "{json}");
    }
}

#[test]
fn numbers_are_whole_in_every_notation() {
    for (text, value) in [
        ("0", 0),
        ("0x1F", 31),
        ("1.2e9", 1_200_000_000),
        ("3M", 3_000_000),
        ("1.5k", 1500),
        ("2e0", 2),
        ("1.50e1", 15),
    ] {
        assert_eq!(number(text), Some(value), "{text}");
    }
    for text in ["", "-1", "+1", "0x", "0xG", "1.5", "1.25e1", "1e20", "e5", "1e", ".5e1", "1e+5", "é", "K", "1.2.3e5"]
    {
        assert_eq!(number(text), None, "{text}");
    }
}

#[test]
fn what_is_wrong_is_told_with_what_is_accepted() {
    for (text, part) in [
        ("", "nothing is given"),
        ("dram line=0 at=icount:1", "unknown target `dram`; accepted: dram-flip, "),
        ("dram-flip line=0 bit=1", "at= is missing; accepted: line=, bit=, at=, [for=]"),
        (
            "dram-flip line=0x10 bit=1 at=icount:1",
            "line=0x10; accepted: the physical address of a line, a multiple of 64",
        ),
        ("dram-flip line=0 bit=512 at=icount:1", "bit=512; accepted: bits of a line, 0 to 511"),
        ("dram-flip line=0 bit= at=icount:1", "bit=; accepted"),
        ("dram-flip line=0 bit=1 bit=2 at=icount:1", "bit= is given twice"),
        ("dram-flip line=0 bit=1 colour=2 at=icount:1", "unknown key `colour=2`"),
        ("dram-flip line=0 bit=1 now at=icount:1", "unknown key `now`"),
        ("dram-flip line=0 bit=1 at=icount:x", "at=icount:x; accepted: icount: and a number"),
        ("dram-flip line=0 bit=1 at=icount:1,nth=2", "accepted: icount:N"),
        ("dram-flip line=0 bit=1 at=random:5..5", "the second larger"),
        ("dram-flip line=0 bit=1 at=pc:9a", "the name of a symbol"),
        ("dram-flip line=0 bit=1 at=fill:0x41", "a multiple of 64"),
        ("dram-flip line=0 bit=1 at=fill:0x40,keyid=99999", "keyid=0 to 32767"),
        ("dram-flip line=0 bit=1 at=pconfig,nth=0", "nth=1 and up"),
        ("dram-flip line=0 bit=1 at=noon", "accepted: icount:N"),
        ("dram-flip line=0 bit=1 at=icount:1 for=0", "for=0; accepted: a number of effects"),
        ("mac-flip line=0 bit=28 at=icount:1", "bit=28; accepted: bits of a MAC, 0 to 27"),
        ("rowhammer rate=1 at=icount:1", "threshold= is missing"),
        ("rowhammer threshold=0 rate=1 at=icount:1", "threshold=0; accepted: 1 to"),
        ("rowhammer threshold=9 rate=1 row-bytes=96 at=icount:1", "a power of two, 64 to 1048576"),
        ("dram-flip line=0 bit=1 at=phys-exec:main", "an address, for example exec:0x1000"),
        ("dram-stuck line=0 bit=1 value=2 at=icount:1", "value=2; accepted: 0 or 1"),
        ("dram-intermittent line=0 bit=1 rate=0 at=icount:1", "a probability"),
        ("tweak dir=read at=icount:1", "changes nothing"),
        ("key-flip keyid=1 field=k3 bit=0 at=icount:1", "accepted: k1, k2, alg, mode"),
        ("key-flip keyid=1 field=mode bit=1 at=icount:1", "accepted: 0 to 0"),
        ("write-back-delay line=0 by=0 at=icount:1", "a number of instructions"),
        ("gpr-flip reg=eax bit=0 at=icount:1", "accepted: rax, "),
        ("pte-flip address=0 level=0 bit=0 at=icount:1", "1 (page table) to 4"),
    ] {
        let message = text.parse::<FaultSpec>().expect_err(text).to_string();
        assert!(message.contains(part), "{text}: {message}");
    }
}
