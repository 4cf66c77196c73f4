//! Bus traces: what is in them, that they survive being written, and what a reader says of damaged ones.

use mem::bus_trace::{
    Cause, Ciphertext, Counts, Direction, Event, Header, Reader, Record, Stamp, TraceError, Transfer,
};
use mem::bus_trace::{What, Writer};
use mem::{Access, BusAddr, CipherLine, Config, KeyId, LineAddr, MemType, Memory, PhysAddr};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

fn header(ciphertext: Ciphertext) -> Header {
    Header {
        ram_bytes: 64 << 20,
        ips: 100_000_000,
        tsc_hz: 1_000_000_000,
        maxphyaddr: 46,
        keyid_bits_max: 6,
        ciphertext,
        machine: "memory = '64M'\n".into(),
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// Records as runs have them, and now and then numbers of any size.
fn records(count: usize, ciphertext: Ciphertext) -> Vec<Record> {
    let mut random = Random(count as u64);
    let (mut stamp, mut line) = (Stamp::default(), 0x8000u64);
    let mut one = || {
        stamp.icount =
            stamp.icount.wrapping_add([0, 0, 1, random.below(1000), random.next()][random.below(5) as usize]);
        stamp.skipped = stamp.skipped.wrapping_add([0, 0, 0, random.below(1 << 20)][random.below(4) as usize]);
        line = [line.wrapping_add(1), line.wrapping_sub(3), random.below(1 << 34), random.next()]
            [random.below(4) as usize];
        let what = match random.below(50) {
            0 => What::Event(Event::PowerLoss),
            1 => What::Event(Event::KeyidBits(random.below(16) as u8)),
            n => {
                let direction = if n % 3 == 0 { Direction::Write } else { Direction::Read };
                let byte = random.next() as u8;
                What::Transfer(Transfer {
                    line: LineAddr(line),
                    keyid: KeyId([0, 0, 1, random.below(1 << 15) as u16][random.below(4) as usize]),
                    direction,
                    cause: Cause::ALL[random.below(4) as usize],
                    encrypted: n % 7 != 0,
                    ciphertext: ciphertext.has(direction).then(|| {
                        CipherLine(std::array::from_fn(|_| if byte < 128 { random.next() as u8 } else { byte }))
                    }),
                })
            }
        };
        Record { stamp, what }
    };
    (0..count).map(|_| one()).collect()
}

fn written(records: &[Record], ciphertext: Ciphertext) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = Writer::new(&mut bytes, header(ciphertext)).unwrap();
    records.iter().for_each(|record| writer.push(record).unwrap());
    let counts = writer.finish().unwrap();
    assert_eq!(counts.reads + counts.writes + counts.events, records.len() as u64);
    bytes
}

/// Everything that can be read, and why not more.
fn read(bytes: &[u8]) -> (Vec<Record>, Option<TraceError>) {
    let mut records = Vec::new();
    let reader = match Reader::new(bytes) {
        Ok(reader) => reader,
        Err(e) => return (records, Some(e)),
    };
    for record in reader {
        match record {
            Ok(record) => records.push(record),
            Err(e) => return (records, Some(e)),
        }
    }
    (records, None)
}

#[test]
fn what_was_written_is_read_whatever_the_numbers() {
    for ciphertext in Ciphertext::ALL {
        for count in [0, 1, 2047, 2048, 2049, 10_000] {
            let records = records(count, ciphertext);
            let bytes = written(&records, ciphertext);
            assert_eq!(Reader::new(&bytes[..]).unwrap().header(), &header(ciphertext));
            let (back, ended) = read(&bytes);
            assert!(ended.is_none(), "{ended:?}");
            assert_eq!(back, records);
        }
    }
}

#[test]
fn a_trace_that_is_cut_anywhere_gives_whole_blocks_and_says_so() {
    let all = records(5000, Ciphertext::Off);
    let bytes = written(&all, Ciphertext::Off);
    for len in (0..bytes.len()).filter(|len| *len < 400 || len % 11 == 0 || len + 100 > bytes.len()) {
        let (back, ended) = read(&bytes[..len]);
        assert!([0, 2048, 4096, 5000].contains(&back.len()), "{len}: {}", back.len());
        assert_eq!(back[..], all[..back.len()]);
        match ended {
            Some(TraceError::NotATrace) if len < 8 => {}
            Some(TraceError::Cut { blocks, records }) => {
                assert_eq!((blocks, records), ((back.len() as u64).div_ceil(2048), back.len() as u64));
            }
            other => panic!("{len}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_the_blocks_before_it_are_good() {
    let all = records(3000, Ciphertext::Writes);
    let bytes = written(&all, Ciphertext::Writes);
    for at in (0..bytes.len()).filter(|at| *at < 400 || at % 13 == 0 || at + 100 > bytes.len()) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let (back, ended) = read(&damaged);
        assert!(ended.is_some(), "byte {at}");
        assert!([0, 2048, 3000].contains(&back.len()), "byte {at}: {}", back.len());
        assert_eq!(back[..], all[..back.len()], "byte {at}");
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let bytes = written(&records(3000, Ciphertext::Off), Ciphertext::Off);
    let text = |bytes: &[u8]| read(bytes).1.expect("an error").to_string();
    assert_eq!(text(b""), "not a bus trace: it does not start with MKTMEBUS");
    assert_eq!(text(&[b"\x7FELF".as_slice(), &[0; 100]].concat()), "not a bus trace: it does not start with MKTMEBUS");
    let mut other = bytes.clone();
    other[8] = 9;
    assert_eq!(text(&other), "a bus trace of version 9; this program reads version 1");
    let mut other = bytes.clone();
    other[20] ^= 1;
    assert_eq!(text(&other), "the header is damaged");
    assert_eq!(
        text(&bytes[..bytes.len() - 1]),
        "the trace is cut short: it has 2 whole blocks with 3000 records, but no end"
    );
    assert_eq!(text(&[&bytes[..], &[0]].concat()), "there is something after the end of the trace");
    let mut other = bytes.clone();
    let first_block = 48 + 15 + 8;
    other[first_block + 60] ^= 1;
    assert_eq!(text(&other), "block 1 is damaged");
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    assert_eq!(text(&other), "the end of the trace is damaged, or blocks before it are missing");
    // Without its first block, whose length the header's words say.
    let word = |at: usize| u32::from_le_bytes(bytes[first_block + at..][..4].try_into().unwrap()) as usize;
    let block = 40 + word(8) + word(20) + 8;
    let other = [&bytes[..first_block], &bytes[first_block + block..]].concat();
    assert_eq!(text(&other), "the end of the trace is damaged, or blocks before it are missing");
}

/// A file in memory, and one that is full after some bytes.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>, Option<usize>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut file = self.0.lock().unwrap();
        if self.1.is_some_and(|room| file.len() + bytes.len() > room) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn memory(sink: &Sink) -> Memory {
    let mut memory = Memory::new(Config { ram_bytes: 64 << 20, ..Config::default() }).unwrap();
    memory.trace_bus(Box::new(sink.clone()), header(Ciphertext::All)).unwrap();
    memory
}

/// Direction, cause, line and first byte of every transfer.
fn transfers(sink: &Sink) -> Vec<(Direction, Cause, u64, u8)> {
    let (records, ended) = read(&sink.0.lock().unwrap());
    assert!(ended.is_none(), "{ended:?}");
    let transfer = |record: Record| match record.what {
        What::Transfer(t) => Some((t.direction, t.cause, t.line.0, t.ciphertext.unwrap().0[0])),
        What::Event(_) => None,
    };
    records.into_iter().filter_map(transfer).collect()
}

#[test]
fn every_kind_of_access_is_recorded_with_its_cause() {
    use Cause::{Cache, Device, Loader, Processor};
    use Direction::{Read, Write};
    let sink = Sink::default();
    let mut memory = memory(&sink);
    let line = |n: u64| BusAddr(0x10_0000 + 64 * n);
    memory.touch(line(0), Access::Write, false).unwrap().frame.write(0, &[1]);
    memory.clflush(line(0));
    memory.write(line(1), MemType::Uc, false, &[2; 8]);
    memory.write_nontemporal(line(2), &[3; 64]);
    memory.dma_write(line(3), &[4; 128]);
    memory.load_image(PhysAddr(line(5).0), &[5; 64]);
    memory.dma_read(line(3), &mut [0; 128]);
    memory.read(line(5), MemType::Uc, false, &mut [0; 8]);
    memory.probe(line(3), &mut [0; 64]);
    memory.dma_read(BusAddr(0x40_0000_0000), &mut [0; 64]);
    assert_eq!(memory.end_bus_trace().unwrap().unwrap(), Counts { reads: 5, writes: 6, events: 0 });
    memory.touch(line(9), Access::Read, false);
    let at = |n: u64| line(n).0 >> 6;
    assert_eq!(
        transfers(&sink),
        [
            (Read, Cache, at(0), 0),
            (Write, Cache, at(0), 1),
            (Read, Processor, at(1), 0),
            (Write, Processor, at(1), 2),
            (Write, Processor, at(2), 3),
            (Write, Device, at(3), 4),
            (Write, Device, at(4), 4),
            (Write, Loader, at(5), 5),
            (Read, Device, at(3), 4),
            (Read, Device, at(4), 4),
            (Read, Processor, at(5), 5),
        ]
    );
}

#[test]
fn a_full_disk_is_an_error_that_stays_and_not_a_shorter_trace() {
    let sink = Sink(Arc::default(), Some(200));
    let mut memory = memory(&sink);
    assert!(memory.bus_trace_error().is_none());
    for n in 0..5000 {
        memory.touch(BusAddr(64 * n), Access::Read, false);
    }
    assert_eq!(memory.bus_trace_error().unwrap().kind(), io::ErrorKind::StorageFull);
    assert_eq!(memory.end_bus_trace().unwrap().unwrap_err().kind(), io::ErrorKind::StorageFull);
    let full = Sink(Arc::default(), Some(10));
    assert!(memory.trace_bus(Box::new(full), header(Ciphertext::All)).is_err());
    assert!(memory.end_bus_trace().is_none());
}
