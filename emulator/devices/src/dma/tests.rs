use super::config::ConfigSpace;
use super::*;

/// 64 KiB of RAM at 0, and a record of the bursts.
#[derive(Default)]
struct Ram {
    bytes: Vec<u8>,
    bursts: Vec<(u64, usize)>,
}

impl Ram {
    const BYTES: usize = 0x1_0000;

    fn new() -> Ram {
        Ram { bytes: (0..Self::BYTES).map(|i| (i * 7) as u8).collect(), bursts: Vec::new() }
    }

    fn range(&mut self, address: u64, len: usize) -> Result<&mut [u8], MasterAbort> {
        assert!(address % 4096 + len as u64 <= 4096, "a transfer within one page");
        self.bursts.push((address, len));
        let at = usize::try_from(address).map_err(|_| MasterAbort)?;
        self.bytes.get_mut(at..).and_then(|b| b.get_mut(..len)).ok_or(MasterAbort)
    }
}

impl BusMemory for Ram {
    fn read(&mut self, address: u64, buf: &mut [u8]) -> Result<(), MasterAbort> {
        buf.copy_from_slice(self.range(address, buf.len())?);
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), MasterAbort> {
        self.range(address, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }
}

const COMMAND_STATUS: u8 = 0x04;
const BAR_0: u8 = 0x10;
const MEMORY_AND_MASTER: u32 = 0b110;

fn device() -> DmaDevice {
    let mut d = DmaDevice::new();
    d.write_config(COMMAND_STATUS, MEMORY_AND_MASTER, u32::MAX);
    d.write_config(BAR_0, 0xE000_0000, u32::MAX);
    d
}

/// Starts a command at time 0 and runs it. Returns STATUS.
fn perform(d: &mut DmaDevice, ram: &mut Ram, command: u32, source: u64, destination: u64, length: u32) -> u32 {
    d.write(0, SOURCE, 8, source);
    d.write(0, DESTINATION, 8, destination);
    d.write(0, LENGTH, 4, length.into());
    d.write(0, COMMAND, 4, command.into());
    if let Some(due) = d.due() {
        assert_eq!(d.read(STATUS, 4) as u32, STATUS_BUSY);
        d.run(due - 1, ram);
        assert!(d.due().is_some());
        d.run(due, ram);
    }
    assert_eq!(d.due(), None);
    d.read(STATUS, 4) as u32
}

fn error(reason: Reason) -> u32 {
    STATUS_ERROR | (reason as u32) << STATUS_REASON_SHIFT
}

#[test]
fn every_command_moves_its_bytes() {
    let (mut d, mut ram) = (device(), Ram::new());
    assert_eq!(perform(&mut d, &mut ram, COMMAND_READ, 0x0FF3, 5, 300), STATUS_DONE);
    assert_eq!(d.buffer[5..305], ram.bytes[0x0FF3..0x0FF3 + 300]);
    assert_eq!(perform(&mut d, &mut ram, COMMAND_WRITE, 5, 0x3001, 300), STATUS_DONE);
    assert_eq!(ram.bytes[0x3001..0x3001 + 300], d.buffer[5..305]);
    let before = ram.bytes.clone();
    assert_eq!(perform(&mut d, &mut ram, COMMAND_COPY, 0x1009, 0x5FFA, 5000), STATUS_DONE);
    assert_eq!(ram.bytes[0x5FFA..0x5FFA + 5000], before[0x1009..0x1009 + 5000]);
    d.write(0, PATTERN, 4, 0x4433_2211);
    assert_eq!(perform(&mut d, &mut ram, COMMAND_FILL, 0, 0x803F, 6), STATUS_DONE);
    assert_eq!(ram.bytes[0x803F..0x8045], [0x11, 0x22, 0x33, 0x44, 0x11, 0x22]);
    assert_eq!(d.read(COUNT, 4), 6);
}

#[test]
fn bursts_end_at_line_boundaries_of_both_sides() {
    let (mut d, mut ram) = (device(), Ram::new());
    perform(&mut d, &mut ram, COMMAND_COPY, 0x1020, 0x2030, 100);
    let lines = ram.bursts.iter().all(|(address, len)| address % 64 + *len as u64 <= 64);
    assert!(lines && ram.bursts.len() == 2 * 5, "{:?}", ram.bursts);
    ram.bursts.clear();
    perform(&mut d, &mut ram, COMMAND_FILL, 0, 0x4000, 256);
    assert_eq!(ram.bursts, [(0x4000, 64), (0x4040, 64), (0x4080, 64), (0x40C0, 64)]);
}

#[test]
fn data_move_when_the_latency_has_passed_and_with_the_registers_of_the_command() {
    let (mut d, mut ram) = (device(), Ram::new());
    d.write(0, LATENCY, 4, 500);
    d.write(0, LENGTH, 4, 4);
    d.write(100, COMMAND, 4, COMMAND_READ.into());
    d.write(100, SOURCE, 8, 0x2000);
    d.write(100, COMMAND, 4, COMMAND_FILL.into());
    assert_eq!(d.due(), Some(600));
    d.run(600, &mut ram);
    assert_eq!(d.read(BUFFER, 4), u64::from(u32::from_le_bytes([0, 7, 14, 21])), "from address 0, by READ");
}

#[test]
fn transfers_that_leave_ram_end_with_an_error_and_the_address() {
    let (mut d, mut ram) = (device(), Ram::new());
    let end = Ram::BYTES as u64;
    assert_eq!(perform(&mut d, &mut ram, COMMAND_FILL, 0, end - 128, 256), error(Reason::MasterAbort));
    assert_eq!((d.read(COUNT, 4), d.read(FAULT_ADDRESS, 8)), (128, end));
    for address in [end, 0xFEE0_0000, 1 << 45, u64::MAX, u64::MAX - 62] {
        assert_eq!(perform(&mut d, &mut ram, COMMAND_READ, address, 0, 64), error(Reason::MasterAbort));
        assert_eq!((d.read(COUNT, 4), d.read(FAULT_ADDRESS, 8)), (0, address));
    }
}

#[test]
fn nonsense_is_refused_at_once() {
    let (mut d, mut ram) = (device(), Ram::new());
    for (command, source, destination, length) in [
        (COMMAND_COPY, 0, 0, 0),
        (COMMAND_COPY, 0, 0, LENGTH_MAX + 1),
        (COMMAND_READ, 0, 0xFFF, 2),
        (COMMAND_READ, 0, u64::MAX, 1),
        (COMMAND_WRITE, 0x1001, 0, 1),
        (COMMAND_WRITE, 0, 0, u32::MAX),
    ] {
        assert_eq!(perform(&mut d, &mut ram, command, source, destination, length), error(Reason::Length));
    }
    for command in [0, 5, 0x81, u32::MAX] {
        assert_eq!(perform(&mut d, &mut ram, command, 0, 0, 1), error(Reason::Command));
    }
    assert!(ram.bursts.is_empty());
    d.write_config(COMMAND_STATUS, 0b010, u32::MAX);
    assert_eq!(perform(&mut d, &mut ram, COMMAND_READ, 0, 0, 1), error(Reason::NotMaster));
}

#[test]
fn an_aborted_command_moves_nothing() {
    let (mut d, mut ram) = (device(), Ram::new());
    d.write(0, LENGTH, 4, 64);
    d.write(0, COMMAND, 4, COMMAND_FILL.into());
    d.write(0, COMMAND, 4, COMMAND_ABORT.into());
    assert_eq!(d.read(STATUS, 4) as u32, error(Reason::Aborted));
    d.run(u64::MAX, &mut ram);
    assert!(ram.bursts.is_empty());
    d.write(0, STATUS, 4, STATUS_ERROR.into());
    d.write(0, COMMAND, 4, COMMAND_ABORT.into());
    assert_eq!(d.read(STATUS, 4), 0, "with nothing to abort");
}

#[test]
fn the_buffer_and_registers_take_every_access_size() {
    let mut d = device();
    d.write(0, BUFFER + 0xFF8, 8, 0x8877_6655_4433_2211);
    d.write(0, BUFFER + 0xFFF, 1, 0xAA);
    assert_eq!(d.read(BUFFER + 0xFF8, 8), 0xAA77_6655_4433_2211);
    assert_eq!((d.read(BUFFER + 0xFFA, 2), d.read(BUFFER + 0xFFC, 4)), (0x4433, 0xAA77_6655));
    d.write(0, SOURCE, 8, 0x8877_6655_4433_2211);
    d.write(0, SOURCE, 1, 0);
    d.write(0, SOURCE + 2, 4, 0);
    assert_eq!((d.read(SOURCE, 8), d.read(SOURCE + 6, 2)), (0x8877_6655_4433_2211, 0x8877));
    assert_eq!(d.read(ID, 4) as u32, u32::from_le_bytes(*b"MDMA"));
    for offset in (0..BAR_BYTES).step_by(8) {
        d.write(0, offset, 8, u64::MAX);
        d.read(offset, 8);
    }
}

#[test]
fn the_interrupt_is_a_level_until_its_cause_is_cleared() {
    let (mut d, mut ram) = (device(), Ram::new());
    d.write(0, INTERRUPT_ENABLE, 4, STATUS_DONE.into());
    perform(&mut d, &mut ram, COMMAND_READ, 0, 0, 0);
    assert!(!d.intx(), "only DONE is enabled");
    perform(&mut d, &mut ram, COMMAND_READ, 0, 0, 1);
    assert!(d.intx());
    assert_eq!(d.read_config(COMMAND_STATUS) & 1 << 19, 1 << 19, "Interrupt Status");
    d.write_config(COMMAND_STATUS, MEMORY_AND_MASTER | 1 << 10, u32::MAX);
    assert!(!d.intx(), "INTx Disable");
    d.write_config(COMMAND_STATUS, MEMORY_AND_MASTER, u32::MAX);
    d.write(0, STATUS, 4, STATUS_DONE.into());
    assert!(!d.intx());
}

#[test]
fn msi_sends_one_message_for_each_completion() {
    use crate::apic::{DeliveryMode, Destination};
    let (mut d, mut ram) = (device(), Ram::new());
    d.write(0, INTERRUPT_ENABLE, 4, (STATUS_DONE | STATUS_ERROR).into());
    for (register, value) in [(0x44, 0xFEE0_0000), (0x48, 0x0041), (0x40, 1 << 16)] {
        d.write_config(register, value, u32::MAX);
    }
    for command in [COMMAND_READ, COMMAND_READ, 0] {
        perform(&mut d, &mut ram, command, 0, 0, 1);
        assert!(!d.intx());
        let message = d.take_message().unwrap();
        assert_eq!((message.vector, message.mode, message.level), (0x41, DeliveryMode::Fixed, false));
        assert_eq!(message.destination, Destination::Physical(0));
        assert_eq!(d.take_message(), None);
    }
    d.write_config(0x44, 0x1000, u32::MAX);
    perform(&mut d, &mut ram, COMMAND_READ, 0, 0, 1);
    assert_eq!(d.take_message(), None, "not an address of local APICs");
}

#[test]
fn bar_0_reports_its_size_and_decodes_where_it_was_put() {
    let mut d = DmaDevice::new();
    assert_eq!(d.decode(0), None, "memory space is off");
    d.write_config(BAR_0, u32::MAX, u32::MAX);
    assert_eq!(d.read_config(BAR_0), 0xFFFF_E000);
    d.write_config(BAR_0, 0x00D0_0000, 0x00FF_0000);
    d.write_config(BAR_0, 0, 0x0000_FFFF);
    assert_eq!(d.read_config(BAR_0), 0xFFD0_0000, "byte enables");
    d.write_config(COMMAND_STATUS, u32::MAX, 0xFFFF);
    assert_eq!(d.read_config(COMMAND_STATUS), 0x0010_0406);
    assert_eq!((d.decode(0xFFD0_1FFF), d.decode(0xFFD0_2000), d.decode(0xFFCF_FFFF)), (Some(0x1FFF), None, None));
    assert_eq!(d.read_config(0), 0x10F0_1AF4);
    assert_eq!(ConfigSpace::default().read(0x3C, false), 0x1FF);
}
