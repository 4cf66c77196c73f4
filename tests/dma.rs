//! The DMA test device driven by guest code (docs/dma-device.md; MK-130, MK-131, MK-133).

mod common;

use devices::dma::spec::*;
use firmware::Images;
use iced_x86::IcedError;
use iced_x86::code_asm::*;
use machine::{Config, Exit, Machine};
use mem::{Algorithm, BusAddr, Event, KeyId, PhysAddr};
use x86::platform::VirtualTime;
use x86::segment::sreg;
use x86::tme::pconfig;

type Code = Result<(), IcedError>;

/// Where the guest puts the device's BAR: in the PCI window, which the MTRRs make uncacheable.
const BAR: u64 = 0xE000_0000;
/// The page that is moved about: physical, and mapped to itself by the entry state's tables.
const PAGE: u64 = 0x40_0000;
/// Page tables of the aliases.
const TABLES: u64 = 0x60_0000;
/// The entry state's PML4 (docs/boot.md).
const PML4: u64 = 0x9000;
const PRESENT_RW: u64 = 0b11;
const LARGE: u64 = 1 << 7;
const DEBUG_EXIT: i32 = 0xF4;
const KEYID_SHIFT: u32 = 40;

/// The linear address of `physical` (below 1 GiB, or in the device's 2 MiB) through a KeyID.
const fn via(keyid: u64, physical: u64) -> u64 {
    keyid << 39 | physical & 0x3FFF_FFFF
}

/// The full physical address.
const fn bus(keyid: u64, physical: u64) -> u64 {
    keyid << KEYID_SHIFT | physical
}

/// A machine with the device whose guest sees the 2 MiB around [`PAGE`], and the device, through KeyIDs 0 to 3, and ends
/// with the debug-exit port. KeyIDs 1 to 3 have different keys.
fn start(config: Config, code: impl FnOnce(&mut CodeAssembler) -> Code) -> Machine {
    let image = common::guest(|a| {
        pci(a)?;
        a.mov(rbx, BAR)?;
        code(a)?;
        a.out(DEBUG_EXIT, al)
    });
    let mut machine = Machine::new(Config { dma_device: true, ram_bytes: 64 << 20, ..config }).unwrap();
    let mut bios = machine.power_on().unwrap();
    machine.boot(&mut bios, &Images { kernel: &image, ..Images::default() }).unwrap();
    let memory = &mut machine.cpu.mem;
    for keyid in 1..=3u64 {
        let (key, tweak) = ([keyid as u8; 64], [0x80 | keyid as u8; 64]);
        let tme = memory.tme_mut();
        tme.program_key(KeyId(keyid as u16), pconfig::KEYID_SET_KEY_DIRECT, Algorithm::AesXts128, &key, &tweak)
            .unwrap();
        let tables = TABLES + keyid * 0x2000;
        for (at, entry) in [
            (PML4 + keyid * 8, tables | PRESENT_RW),
            (tables, (tables + 0x1000) | PRESENT_RW),
            (tables + 0x1000 + (PAGE >> 21) * 8, bus(keyid, PAGE) | LARGE | PRESENT_RW),
            (tables + 0x1000 + ((BAR & 0x3FFF_FFFF) >> 21) * 8, bus(keyid, BAR) | LARGE | PRESENT_RW),
        ] {
            memory.load_image(PhysAddr(at), &entry.to_le_bytes());
        }
    }
    machine
}

fn finish(machine: &mut Machine) {
    assert_eq!(machine.run(u64::MAX), Exit::DebugExit(0), "{}", machine.register_dump());
}

fn run(code: impl FnOnce(&mut CodeAssembler) -> Code) -> Machine {
    let mut machine = start(Config::default(), code);
    finish(&mut machine);
    machine
}

/// BAR 0, memory space and bus mastering by configuration mechanism #1.
fn pci(a: &mut CodeAssembler) -> Code {
    for (register, value) in [(0x10u32, BAR as u32), (0x04, 0b110)] {
        a.mov(edx, 0xCF8)?;
        a.mov(eax, (0x8000_0800 | register) as i32)?;
        a.out(dx, eax)?;
        a.mov(edx, 0xCFC)?;
        a.mov(eax, value as i32)?;
        a.out(dx, eax)?;
    }
    Ok(())
}

/// Writes the registers and the command.
fn command(a: &mut CodeAssembler, command: u32, source: u64, destination: u64, length: u32) -> Code {
    for (offset, value) in [(SOURCE, source), (DESTINATION, destination)] {
        a.mov(rax, value)?;
        a.mov(qword_ptr(rbx + offset as i32), rax)?;
    }
    a.mov(dword_ptr(rbx + LENGTH as i32), length as i32)?;
    a.mov(dword_ptr(rbx + COMMAND as i32), command as i32)
}

/// A command, then polling until it has ended; STATUS is in EAX.
fn transfer(a: &mut CodeAssembler, number: u32, source: u64, destination: u64, length: u32) -> Code {
    command(a, number, source, destination, length)?;
    let mut busy = a.create_label();
    a.set_label(&mut busy)?;
    a.mov(eax, dword_ptr(rbx + STATUS as i32))?;
    a.test(eax, STATUS_BUSY as i32)?;
    a.jnz(busy)
}

fn load(a: &mut CodeAssembler, to: AsmRegister64, address: u64) -> Code {
    a.mov(rax, address)?;
    a.mov(to, qword_ptr(rax))
}

fn store(a: &mut CodeAssembler, address: u64, value: u64) -> Code {
    a.mov(rax, address)?;
    a.mov(rcx, value)?;
    a.mov(qword_ptr(rax), rcx)
}

/// Status zero.
fn end(a: &mut CodeAssembler) -> Code {
    a.mov(eax, 0)
}

fn reg(machine: &Machine, number: usize) -> u64 {
    machine.cpu.regs[number]
}

const OLD: u64 = 0x0101_0101_0101_0101;
const NEW: u64 = 0x2222_3333_4444_5555;

/// Puts NEW into the first line of the buffer.
fn fill_buffer(a: &mut CodeAssembler) -> Code {
    a.mov(rcx, NEW)?;
    for i in 0..8 {
        a.mov(qword_ptr(rbx + BUFFER as i32 + 8 * i), rcx)?;
    }
    Ok(())
}

#[test]
fn mk_130_a_device_write_with_keyid_1_is_encrypted_with_key_1_and_coherent_with_its_lines_only() {
    let mut machine = run(|a| {
        // The line is cached under KeyID 1, dirty, and under KeyID 0, clean.
        store(a, via(1, PAGE), OLD)?;
        load(a, r8, PAGE)?;
        fill_buffer(a)?;
        transfer(a, COMMAND_WRITE, 0, bus(1, PAGE), 64)?;
        a.mov(r9d, eax)?;
        load(a, r10, via(1, PAGE))?;
        load(a, r11, PAGE)?;
        a.mov(rax, PAGE)?;
        a.clflush(byte_ptr(rax))?;
        load(a, r12, PAGE)?;
        end(a)
    });
    assert_eq!(reg(&machine, 9), u64::from(STATUS_DONE));
    assert_eq!(reg(&machine, 10), NEW, "KM(1) was invalidated");
    assert_eq!(reg(&machine, 11), reg(&machine, 8), "KM(0) is still cached");
    assert_ne!(reg(&machine, 12), reg(&machine, 8));
    assert_ne!(reg(&machine, 12), NEW, "what key 0 makes of key 1's ciphertext");
    // DRAM has exactly what key 1 makes of the data.
    let cells = machine.cpu.mem.dram_read_raw(PhysAddr(PAGE).line());
    let line: Vec<u8> = NEW.to_le_bytes().repeat(8);
    machine.cpu.mem.dma_write(BusAddr(bus(1, PAGE)), &line);
    assert!(machine.cpu.mem.dram_read_raw(PhysAddr(PAGE).line()) == cells);
    machine.cpu.mem.dma_write(BusAddr(bus(2, PAGE)), &line);
    assert!(machine.cpu.mem.dram_read_raw(PhysAddr(PAGE).line()) != cells);
}

#[test]
fn mk_131_a_device_read_with_keyid_0_of_a_line_of_key_1_is_garbage_without_an_error() {
    let machine = run(|a| {
        store(a, via(1, PAGE), NEW)?;
        a.clflush(byte_ptr(rax))?;
        a.mfence()?;
        transfer(a, COMMAND_READ, PAGE, 0, 64)?;
        a.mov(r9d, eax)?;
        a.mov(r10, qword_ptr(rbx + BUFFER as i32))?;
        transfer(a, COMMAND_READ, bus(1, PAGE), 64, 64)?;
        a.mov(r11, qword_ptr(rbx + (BUFFER + 64) as i32))?;
        end(a)
    });
    assert_eq!(reg(&machine, 9), u64::from(STATUS_DONE));
    assert_ne!(reg(&machine, 10), NEW);
    assert_eq!(reg(&machine, 11), NEW);
}

#[test]
fn a_device_read_sees_dirty_lines_of_its_own_keyid_only() {
    let machine = run(|a| {
        transfer(a, COMMAND_FILL, 0, bus(2, PAGE), 64)?;
        store(a, via(1, PAGE), OLD)?;
        transfer(a, COMMAND_READ, bus(1, PAGE), 0, 64)?;
        transfer(a, COMMAND_READ, bus(2, PAGE), 64, 64)?;
        a.mov(r8, qword_ptr(rbx + BUFFER as i32))?;
        a.mov(r9, qword_ptr(rbx + (BUFFER + 64) as i32))?;
        end(a)
    });
    assert_eq!((reg(&machine, 8), reg(&machine, 9)), (OLD, 0));
}

#[test]
fn dma_under_three_keyids_keeps_three_pages_apart() {
    let mut machine = run(|a| {
        for keyid in 1..=3u64 {
            a.mov(dword_ptr(rbx + PATTERN as i32), keyid as i32 * 0x1111)?;
            transfer(a, COMMAND_FILL, 0, bus(keyid, PAGE + keyid * 0x1000), 4096)?;
        }
        // From KeyID 1 to 3, through the device.
        transfer(a, COMMAND_COPY, bus(1, PAGE + 0x1000), bus(3, PAGE + 0x4000), 4096)?;
        for (keyid, to) in [(1, r8), (2, r9), (3, r10)] {
            load(a, to, via(keyid, PAGE + keyid * 0x1000 + 0xFF8))?;
        }
        load(a, r11, via(3, PAGE + 0x4000))?;
        load(a, r12, via(2, PAGE + 0x4000))?;
        end(a)
    });
    let pattern = |keyid: u64| keyid * 0x1111_0000_1111;
    assert_eq!([8, 9, 10, 11].map(|r| reg(&machine, r)), [pattern(1), pattern(2), pattern(3), pattern(1)]);
    assert_ne!(reg(&machine, 12), pattern(1));
    let rows: Vec<_> = (1..=4).map(|i| machine.cpu.mem.dram_read_raw(PhysAddr(PAGE + i * 0x1000).line())).collect();
    assert!(rows[0] != rows[3], "another key, another address");
    machine.cpu.mem.wbinvd();
}

/// `mov eax, n; ret`
fn routine(n: u8) -> u64 {
    u64::from_le_bytes([0xB8, n, 0, 0, 0, 0xC3, 0x90, 0x90])
}

#[test]
fn code_overwritten_by_dma_is_new_code_for_the_same_full_address_only() {
    for fast in [true, false] {
        let mut machine = start(Config { fast, ..Config::default() }, |a| {
            store(a, via(1, PAGE), routine(1))?;
            store(a, via(1, PAGE + 0x1000), routine(2))?;
            store(a, via(1, PAGE + 0x2000), routine(3))?;
            a.mov(r15, via(1, PAGE))?;
            a.call(r15)?;
            a.mov(r8, rax)?;
            transfer(a, COMMAND_COPY, bus(1, PAGE + 0x1000), bus(1, PAGE), 8)?;
            a.call(r15)?;
            a.mov(r9, rax)?;
            // Through KeyID 2: DRAM changes under the cached line of KeyID 1.
            transfer(a, COMMAND_COPY, bus(1, PAGE + 0x2000), bus(2, PAGE), 64)?;
            a.call(r15)?;
            a.mov(r10, rax)?;
            end(a)
        });
        finish(&mut machine);
        assert_eq!([8, 9, 10].map(|r| reg(&machine, r)), [1, 2, 2], "fast path {fast}");
    }
}

#[test]
fn the_loop_that_waits_can_be_overwritten_while_it_runs() {
    let machine = run(|a| {
        // `jmp $` under KeyID 1, and after 5 us `ret` in its place.
        store(a, via(1, PAGE), 0xFEEB)?;
        store(a, via(1, PAGE + 0x1000), 0xC3)?;
        a.mov(dword_ptr(rbx + LATENCY as i32), 5_000)?;
        command(a, COMMAND_COPY, bus(1, PAGE + 0x1000), bus(1, PAGE), 1)?;
        a.mov(r15, via(1, PAGE))?;
        a.call(r15)?;
        end(a)
    });
    assert!((500..550).contains(&machine.cpu.icount()), "{}", machine.cpu.icount());
}

#[test]
fn transfers_outside_ram_end_with_an_error_and_the_address() {
    let outside = [64 << 20, 0xFEE0_0000, bus(1, BAR), bus(63, 1 << 39), 1 << 46, u64::MAX - 63];
    for address in outside {
        let machine = run(|a| {
            transfer(a, COMMAND_READ, address, 0, 64)?;
            a.mov(r8d, eax)?;
            a.mov(r9, qword_ptr(rbx + FAULT_ADDRESS as i32))?;
            transfer(a, COMMAND_FILL, 0, address, 64)?;
            a.mov(r10d, eax)?;
            end(a)
        });
        let error = u64::from(STATUS_ERROR | 1 << STATUS_REASON_SHIFT);
        assert_eq!([8, 9, 10].map(|r| reg(&machine, r)), [error, address, error]);
    }
}

#[test]
fn mk_133_keyid_bits_reach_the_same_registers_and_are_reported() {
    let mut machine = start(Config::default(), |a| {
        store(a, via(2, BAR) + SOURCE, NEW)?;
        load(a, r8, via(3, BAR) + SOURCE)?;
        load(a, r9, BAR + SOURCE)?;
        end(a)
    });
    machine.cpu.mem.events_mut().enable(true);
    finish(&mut machine);
    assert_eq!([8, 9].map(|r| reg(&machine, r)), [NEW, NEW]);
    let mut seen = Vec::new();
    while let Some(event) = machine.cpu.mem.events_mut().take() {
        if let Event::KeyidOnMmio { address, keyid } = event {
            seen.push((address.0, keyid.0));
        }
    }
    assert_eq!(seen, [(bus(2, BAR) + SOURCE, 2), (bus(3, BAR) + SOURCE, 3)]);
}

/// Halts until the interrupt of a transfer; the handler puts 7 into R8.
fn interrupted() -> Machine {
    const VECTOR: u64 = 0x51;
    const IDT: u64 = 0x50_0000;
    const HANDLER: u64 = 0x50_1000;
    const IOAPIC: u64 = 0xFEC0_0000;
    let mut machine = start(Config::default(), |a| {
        a.mov(rdx, 0xFEE0_00F0u64)?;
        a.mov(dword_ptr(rdx), 0x1FF)?;
        a.mov(rdx, IOAPIC)?;
        for (index, value) in [(0x31, 0), (0x30, 0xA000 | VECTOR as i32)] {
            a.mov(dword_ptr(rdx), index)?;
            a.mov(dword_ptr(rdx + 0x10), value)?;
        }
        a.mov(dword_ptr(rbx + INTERRUPT_ENABLE as i32), STATUS_DONE as i32)?;
        a.mov(dword_ptr(rbx + LATENCY as i32), 1_000_000)?;
        command(a, COMMAND_FILL, 0, bus(1, PAGE), 4096)?;
        a.sti()?;
        a.hlt()?;
        a.cli()?;
        end(a)
    });
    let mut handler = CodeAssembler::new(64).unwrap();
    handler.mov(r8, 7u64).unwrap();
    handler.mov(dword_ptr(rbx + STATUS as i32), STATUS_DONE as i32).unwrap();
    handler.iretq().unwrap();
    let selector = u64::from(machine.cpu.segments[sreg::CS].selector);
    // A 64-bit interrupt gate (SDM Vol. 3A, figure 7-8).
    let gate = [HANDLER & 0xFFFF | selector << 16 | 0x8E00 << 32 | (HANDLER >> 16) << 48, 0];
    let memory = &mut machine.cpu.mem;
    memory.load_image(PhysAddr(HANDLER), &handler.assemble(HANDLER).unwrap());
    memory.load_image(PhysAddr(IDT + VECTOR * 16), &gate.map(u64::to_le_bytes).concat());
    machine.cpu.idtr.base = IDT;
    machine.cpu.idtr.limit = 0xFFF;
    machine
}

#[test]
fn a_transfer_wakes_the_halted_processor() {
    let mut machine = interrupted();
    finish(&mut machine);
    assert_eq!(reg(&machine, 8), 7);
    assert!((1_000_000..1_010_000).contains(&machine.cpu.now().0), "{:?}", machine.cpu.now());
}

#[test]
fn where_runs_are_cut_changes_nothing() {
    let mut whole = interrupted();
    finish(&mut whole);
    let mut cut = interrupted();
    let mut time = 0;
    loop {
        time += 137;
        let limit = cut.cpu.icount() + 3;
        match cut.run_until(limit, VirtualTime(time)) {
            Exit::Icount | Exit::Time => {}
            exit => break assert_eq!(exit, Exit::DebugExit(0)),
        }
    }
    assert_eq!(cut.cpu.icount(), whole.cpu.icount());
    assert_eq!(cut.state_hash(), whole.state_hash());
}
