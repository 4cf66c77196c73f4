//! Local APIC in xAPIC and x2APIC mode (SDM Vol. 3A chapter 11).

use super::registers::*;
use super::timer::{ApicTimer, TimerMode};
use super::{DeliveryMode, Destination, Message};
use crate::layout::LAPIC_BASE;
use x86::msr::{IA32_APIC_BASE, IA32_TSC_DEADLINE};

const LVT_ENTRIES: usize = 6;
const LVT_WRITABLE: [u32; LVT_ENTRIES] = [
    LVT_TIMER_WRITABLE,
    LVT_EVENT_WRITABLE,
    LVT_EVENT_WRITABLE,
    LVT_LINT_WRITABLE,
    LVT_LINT_WRITABLE,
    LVT_ERROR_WRITABLE,
];
const LINT0: usize = (LVT_LINT0 - LVT_TIMER) as usize;
const LINT1: usize = (LVT_LINT1 - LVT_TIMER) as usize;
const TIMER: usize = 0;
const ERROR: usize = (LVT_ERROR - LVT_TIMER) as usize;

/// A set of vectors: ISR, TMR or IRR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
struct Vectors([u64; 4]);

impl Vectors {
    fn set(&mut self, vector: u8, value: bool) {
        let (word, bit) = (usize::from(vector >> 6), 1 << (vector & 63));
        if value {
            self.0[word] |= bit;
        } else {
            self.0[word] &= !bit;
        }
    }

    fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector >> 6)] & 1 << (vector & 63) != 0
    }

    fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|word| *word != 0)?;
        Some((word * 64) as u8 + 63 - self.0[word].leading_zeros() as u8)
    }

    /// 32-bit register `index` (0 to 7).
    fn register(&self, index: u16) -> u32 {
        (self.0[usize::from(index >> 1 & 3)] >> (32 * (index & 1))) as u32
    }
}

/// Who receives an interprocessor interrupt (ICR destination shorthand).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recipients {
    Addressed,
    SelfOnly,
    All,
    Others,
}

/// What a register write asks of the system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    None,
    /// EOI of a level-triggered interrupt, for the I/O APIC.
    BroadcastEoi(u8),
    Send(Message, Recipients),
}

/// One processor's local APIC.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct LocalApic {
    initial_id: u32,
    physical_bits: u8,
    base: u64,
    /// xAPIC ID register, writable by software.
    xapic_id: u8,
    tpr: u8,
    ldr: u32,
    dfr: u32,
    svr: u32,
    isr: Vectors,
    tmr: Vectors,
    irr: Vectors,
    esr: u32,
    /// Errors since the last write to ESR, which shows them.
    errors: u32,
    icr: u64,
    lvt: [u32; LVT_ENTRIES],
    timer: ApicTimer,
    lint: [bool; 2],
    nmi: bool,
    extint_message: bool,
    init: bool,
    start_up: Option<u8>,
}

impl LocalApic {
    /// State after power-up (11.4.7.1). `initial_id` comes from CPUID; processor 0 is the bootstrap processor.
    pub fn new(initial_id: u32, physical_bits: u8) -> Self {
        let bsp = if initial_id == 0 { APIC_BASE_BSP } else { 0 };
        LocalApic {
            initial_id,
            physical_bits,
            base: LAPIC_BASE | APIC_BASE_EN | bsp,
            xapic_id: initial_id as u8,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: SVR_RESET,
            isr: Vectors::default(),
            tmr: Vectors::default(),
            irr: Vectors::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt: [LVT_MASK; LVT_ENTRIES],
            timer: ApicTimer::new(),
            lint: [false; 2],
            nmi: false,
            extint_message: false,
            init: false,
            start_up: None,
        }
    }

    /// Power-up or hardware reset. The LINT wires are driven from outside and stay.
    pub fn reset(&mut self) {
        *self = LocalApic { lint: self.lint, ..LocalApic::new(self.initial_id, self.physical_bits) };
    }

    /// INIT (11.4.7.3): as a reset, but the APIC ID and IA32_APIC_BASE are kept.
    pub fn init(&mut self) {
        let (base, xapic_id) = (self.base, self.xapic_id);
        self.reset();
        (self.base, self.xapic_id) = (base, xapic_id);
    }

    pub fn enabled(&self) -> bool {
        self.base & APIC_BASE_EN != 0
    }

    pub fn x2apic(&self) -> bool {
        self.base & APIC_BASE_EXTD != 0
    }

    /// Physical address of the 4 KiB register page, while it is decoded.
    pub fn window(&self) -> Option<u64> {
        (self.enabled() && !self.x2apic()).then_some(self.base >> APIC_BASE_ADDRESS_SHIFT << APIC_BASE_ADDRESS_SHIFT)
    }

    /// RDMSR; `None` is #GP(0).
    pub fn read_msr(&mut self, now: u64, msr: u32) -> Option<u64> {
        match msr {
            IA32_APIC_BASE => Some(self.base),
            IA32_TSC_DEADLINE => Some(self.timer.deadline(now)),
            _ => {
                let register = self.x2apic_register(msr)?;
                match register {
                    ICR_LOW => Some(self.icr),
                    APR | EOI | RRD | DFR | ICR_HIGH | SELF_IPI => None,
                    _ => self.read_register(now, register).map(u64::from),
                }
            }
        }
    }

    /// WRMSR; `None` is #GP(0).
    pub fn write_msr(&mut self, now: u64, msr: u32, value: u64, tsc_offset: u64) -> Option<Effect> {
        match msr {
            IA32_APIC_BASE => self.write_base(value).map(|()| Effect::None),
            IA32_TSC_DEADLINE => {
                self.timer.set_deadline(now, value, tsc_offset);
                Some(Effect::None)
            }
            _ => {
                let register = self.x2apic_register(msr)?;
                if value & !Self::x2apic_writable(register)? != 0 {
                    return None;
                }
                if register == ICR_LOW {
                    self.icr = value;
                    return Some(self.send());
                }
                self.write_register(now, register, value as u32)
            }
        }
    }

    /// Load from the register page.
    pub fn read_mmio(&mut self, now: u64, offset: u64, size: u8) -> u64 {
        // Registers are 32 bits wide on 16-byte boundaries; the rest of each 16 bytes is undefined (11.4.1).
        if offset & 0xC != 0 {
            return 0;
        }
        let value = self.read_register(now, (offset >> 4) as u16).unwrap_or_else(|| {
            self.signal_error(ESR_ILLEGAL_REGISTER);
            0
        });
        let mask = if size >= 4 { 0xFFFF_FFFF } else { (1 << (8 * u32::from(size))) - 1 };
        u64::from(value >> (8 * (offset & 3))) & mask
    }

    /// Store to the register page. Anything but an aligned 32-bit store is undefined (11.4.1) and ignored.
    pub fn write_mmio(&mut self, now: u64, offset: u64, size: u8, value: u64) -> Effect {
        if offset & 0xF != 0 || size < 4 {
            return Effect::None;
        }
        let register = (offset >> 4) as u16;
        match register {
            // MSR only.
            SELF_IPI => {}
            _ => {
                if let Some(effect) = self.write_register(now, register, value as u32) {
                    return effect;
                }
            }
        }
        self.signal_error(ESR_ILLEGAL_REGISTER);
        Effect::None
    }

    /// TPR bits 7:4.
    pub fn cr8(&self) -> u8 {
        self.tpr >> 4
    }

    pub fn set_cr8(&mut self, value: u8) {
        self.tpr = value << 4;
    }

    /// The vector that the priority check lets through (11.8.3), if any.
    pub fn deliverable(&self) -> Option<u8> {
        if !self.enabled() {
            return None;
        }
        self.irr.highest().filter(|vector| vector >> 4 > self.ppr() >> 4)
    }

    /// Interrupt acknowledge of a local vector: moves it from IRR to ISR.
    pub fn acknowledge(&mut self) -> Option<u8> {
        let vector = self.deliverable()?;
        self.irr.set(vector, false);
        self.isr.set(vector, true);
        Some(vector)
    }

    /// True when the 8259A pair's request, `int`, reaches this processor's core.
    pub fn takes_extint(&self, int: bool) -> bool {
        if !int {
            return false;
        }
        if !self.enabled() {
            // LINT0 is the INTR pin (11.4.3).
            return self.lint[0];
        }
        let lint0 = self.lvt[LINT0];
        let through_lint0 =
            self.lint[0] && lint0 & LVT_MASK == 0 && Self::lvt_mode(lint0) == Some(DeliveryMode::ExtInt);
        through_lint0 || self.extint_message
    }

    /// The core acknowledged the external interrupt.
    pub fn acknowledge_extint(&mut self) {
        self.extint_message = false;
    }

    /// True when a message for `destination` is for this APIC (11.6.2).
    pub fn matches(&self, destination: Destination) -> bool {
        if !self.enabled() {
            return false;
        }
        match destination {
            Destination::Everyone => true,
            Destination::Physical(id) if self.x2apic() => id == self.initial_id,
            Destination::Physical(id) => id == u32::from(self.xapic_id),
            Destination::Logical(address) if self.x2apic() => {
                let ldr = self.ldr();
                address >> 16 == ldr >> 16 && address & ldr & 0xFFFF != 0
            }
            Destination::Logical(address) => {
                let logical_id = self.ldr >> 24;
                if self.dfr >> DFR_MODEL_SHIFT == DFR_FLAT {
                    logical_id & address != 0
                } else {
                    let cluster_matches = address >> 4 == 0xF || address >> 4 == logical_id >> 4;
                    cluster_matches && address & logical_id & 0xF != 0
                }
            }
        }
    }

    /// Processor priority register.
    pub fn ppr(&self) -> u8 {
        let in_service = self.isr.highest().unwrap_or(0);
        if self.tpr >> 4 >= in_service >> 4 { self.tpr } else { in_service & 0xF0 }
    }

    /// Takes a message that [`LocalApic::matches`]. False if it is refused.
    pub fn accept(&mut self, message: &Message) -> bool {
        match message.mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority => {
                // A software-disabled APIC answers only INIT, NMI, SMI and SIPI (11.4.7.2).
                if self.svr & SVR_ENABLE == 0 {
                    return false;
                }
                self.accept_vector(message.vector, message.level);
            }
            DeliveryMode::Nmi => self.nmi = true,
            DeliveryMode::Init => self.init = true,
            DeliveryMode::StartUp => self.start_up = Some(message.vector),
            DeliveryMode::ExtInt => self.extint_message = true,
            // There is no system management mode behind this APIC.
            DeliveryMode::Smi => {}
        }
        true
    }

    /// Drives LINT0 or LINT1.
    pub fn set_lint(&mut self, pin: usize, level: bool) {
        let rising = level && !self.lint[pin & 1];
        self.lint[pin & 1] = level;
        if !self.enabled() {
            // LINT1 is the NMI pin (11.4.3).
            self.nmi |= rising && pin == 1;
            return;
        }
        let index = if pin == 0 { LINT0 } else { LINT1 };
        let level_triggered =
            self.lvt[index] & LVT_LEVEL != 0 && Self::lvt_mode(self.lvt[index]) == Some(DeliveryMode::Fixed);
        if level_triggered {
            self.request_lint_level(index);
        } else if rising {
            self.fire_lvt(index);
        }
    }

    /// Runs the timer to `now`; an expiry interrupts through the LVT.
    pub fn run_timer(&mut self, now: u64) {
        if self.timer.expire(now) {
            self.fire_lvt(TIMER);
        }
    }

    /// Nanosecond of the next timer interrupt, if it would reach anybody.
    pub fn next_event(&self) -> Option<u64> {
        if self.lvt[TIMER] & LVT_MASK != 0 || !self.enabled() { None } else { self.timer.expiry() }
    }

    /// The TSC was written: its offset from virtual time is now `tsc_offset`.
    pub fn tsc_changed(&mut self, now: u64, tsc_offset: u64) {
        self.timer.tsc_changed(now, tsc_offset);
    }

    pub fn nmi_pending(&self) -> bool {
        self.nmi
    }

    pub fn take_nmi(&mut self) -> bool {
        std::mem::take(&mut self.nmi)
    }

    /// Takes a received INIT.
    pub fn take_init(&mut self) -> bool {
        std::mem::take(&mut self.init)
    }

    /// Takes a received start-up interrupt's vector (the page number of the start address).
    pub fn take_start_up(&mut self) -> Option<u8> {
        self.start_up.take()
    }

    /// True while an INIT or a start-up interrupt waits.
    pub fn wakeup_pending(&self) -> bool {
        self.init || self.start_up.is_some()
    }

    fn x2apic_register(&self, msr: u32) -> Option<u16> {
        let number = msr.checked_sub(X2APIC_MSR)?;
        (self.x2apic() && self.enabled() && number <= 0xFF).then_some(number as u16)
    }

    /// The bits a WRMSR may carry; `None` for registers that cannot be written (11.12.1.2).
    fn x2apic_writable(register: u16) -> Option<u64> {
        Some(match register {
            TPR => 0xFF,
            EOI | ESR => 0,
            SVR => SVR_WRITABLE.into(),
            ICR_LOW => 0xFFFF_FFFF_0000_0000 | ICR_LOW_WRITABLE,
            LVT_TIMER..=LVT_ERROR => {
                let index = usize::from(register - LVT_TIMER);
                let read_only = if matches!(index, LINT0 | LINT1) { LVT_LINT_READ_ONLY } else { LVT_READ_ONLY };
                (LVT_WRITABLE[index] | read_only).into()
            }
            INITIAL_COUNT => 0xFFFF_FFFF,
            DIVIDE_CONFIGURATION => DIVIDE_WRITABLE.into(),
            SELF_IPI => 0xFF,
            _ => return None,
        })
    }

    /// IA32_APIC_BASE with the transitions of figure 11-27; `None` is #GP(0).
    fn write_base(&mut self, value: u64) -> Option<()> {
        let address = (1u64 << self.physical_bits.clamp(32, 52)) - (1 << APIC_BASE_ADDRESS_SHIFT);
        if value & !(address | APIC_BASE_BSP | APIC_BASE_EXTD | APIC_BASE_EN) != 0 {
            return None;
        }
        let state = |base: u64| (base & APIC_BASE_EN != 0, base & APIC_BASE_EXTD != 0);
        match (state(self.base), state(value)) {
            // EXTD without EN does not exist; x2APIC is entered from xAPIC only and left to disabled only.
            (_, (false, true)) | ((false, _), (true, true)) | ((true, true), (true, false)) => return None,
            ((true, _), (false, false)) => {
                // "May return to the state after power-up" (11.4.3), and does here.
                self.reset();
            }
            ((true, false), (true, true)) => {
                // ICR's upper half is not preserved (11.12.5.1).
                self.icr &= 0xFFFF_FFFF;
            }
            _ => {}
        }
        self.base = value;
        Some(())
    }

    fn ldr(&self) -> u32 {
        if self.x2apic() { (self.initial_id >> 4) << 16 | 1 << (self.initial_id & 0xF) } else { self.ldr }
    }

    /// `None` where no register is.
    fn read_register(&mut self, now: u64, register: u16) -> Option<u32> {
        self.run_timer(now);
        Some(match register {
            ID if self.x2apic() => self.initial_id,
            ID => u32::from(self.xapic_id) << 24,
            VERSION => VERSION_VALUE,
            TPR => self.tpr.into(),
            PPR => self.ppr().into(),
            // Not used by processors since the Pentium 4; EOI is write-only.
            APR | RRD | EOI => 0,
            LDR => self.ldr(),
            DFR => self.dfr,
            SVR => self.svr,
            ISR..TMR => self.isr.register(register - ISR),
            TMR..IRR => self.tmr.register(register - TMR),
            IRR..ESR => self.irr.register(register - IRR),
            ESR => self.esr,
            ICR_LOW => self.icr as u32,
            ICR_HIGH => (self.icr >> 32) as u32,
            LVT_TIMER..=LVT_ERROR => self.lvt[usize::from(register - LVT_TIMER)],
            INITIAL_COUNT => self.timer.initial_count(),
            CURRENT_COUNT => self.timer.current_count(now),
            DIVIDE_CONFIGURATION => self.timer.divide_configuration(),
            _ => return None,
        })
    }

    /// `None` where no register is. Writes to read-only registers do nothing.
    fn write_register(&mut self, now: u64, register: u16, value: u32) -> Option<Effect> {
        self.run_timer(now);
        match register {
            ID => self.xapic_id = (value >> 24) as u8,
            VERSION | APR | PPR | RRD | ISR..ESR | CURRENT_COUNT => {}
            TPR => self.tpr = value as u8,
            EOI => return Some(self.end_of_interrupt()),
            LDR => self.ldr = value & 0xFF00_0000,
            DFR => self.dfr = value | DFR_ONES,
            SVR => self.write_svr(value),
            ESR => self.esr = std::mem::take(&mut self.errors),
            ICR_LOW => {
                self.icr = self.icr & !0xFFFF_FFFF | u64::from(value) & ICR_LOW_WRITABLE;
                return Some(self.send());
            }
            ICR_HIGH => self.icr = self.icr & 0xFFFF_FFFF | u64::from(value & 0xFF00_0000) << 32,
            LVT_TIMER..=LVT_ERROR => self.write_lvt(usize::from(register - LVT_TIMER), value),
            INITIAL_COUNT => self.timer.set_initial_count(now, value),
            DIVIDE_CONFIGURATION => self.timer.set_divide_configuration(now, value & DIVIDE_WRITABLE),
            SELF_IPI => {
                let vector = value as u8;
                if vector < FIRST_LEGAL_VECTOR {
                    self.signal_error(ESR_SEND_ILLEGAL_VECTOR);
                } else if self.svr & SVR_ENABLE != 0 {
                    self.accept_vector(vector, false);
                }
            }
            _ => return None,
        }
        Some(Effect::None)
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_WRITABLE;
        if self.svr & SVR_ENABLE == 0 {
            // "The mask bits for all the LVT entries are set. Attempts to reset these bits will be ignored."
            for entry in &mut self.lvt {
                *entry |= LVT_MASK;
            }
        }
    }

    fn write_lvt(&mut self, index: usize, value: u32) {
        let mut entry = value & LVT_WRITABLE[index] | self.lvt[index] & LVT_REMOTE_IRR;
        if self.svr & SVR_ENABLE == 0 {
            entry |= LVT_MASK;
        }
        if index == TIMER {
            self.timer.set_mode(TimerMode::from_bits(entry >> LVT_TIMER_MODE_SHIFT));
        }
        let level_triggered = entry & LVT_LEVEL != 0 && Self::lvt_mode(entry) == Some(DeliveryMode::Fixed);
        if !level_triggered {
            entry &= !LVT_REMOTE_IRR;
        }
        self.lvt[index] = entry;
        if level_triggered {
            self.request_lint_level(index);
        }
    }

    fn lvt_mode(entry: u32) -> Option<DeliveryMode> {
        DeliveryMode::from_bits(entry >> LVT_DELIVERY_MODE_SHIFT)
    }

    /// Level-triggered LINT pin: interrupts while the pin is active and no EOI is outstanding. The pins are active
    /// high whatever bit 13 says; only PCI-era boards wired them low.
    fn request_lint_level(&mut self, index: usize) {
        let ready = self.lvt[index] & (LVT_MASK | LVT_REMOTE_IRR) == 0;
        if ready && self.lint[usize::from(index == LINT1)] {
            self.lvt[index] |= LVT_REMOTE_IRR;
            self.accept_vector((self.lvt[index] & LVT_VECTOR) as u8, true);
        }
    }

    fn fire_lvt(&mut self, index: usize) {
        let entry = self.lvt[index];
        if entry & LVT_MASK != 0 {
            return;
        }
        // Timer and error entries have no delivery mode: their bits are zero, which is Fixed.
        match Self::lvt_mode(entry) {
            Some(DeliveryMode::Fixed) => self.accept_vector((entry & LVT_VECTOR) as u8, false),
            Some(DeliveryMode::Nmi) => self.nmi = true,
            Some(DeliveryMode::Init) => self.init = true,
            // ExtINT follows the wire (see takes_extint); SMI and the reserved modes do nothing.
            _ => {}
        }
    }

    fn accept_vector(&mut self, vector: u8, level: bool) {
        if vector < FIRST_LEGAL_VECTOR {
            self.signal_error(ESR_RECEIVE_ILLEGAL_VECTOR);
            return;
        }
        self.irr.set(vector, true);
        self.tmr.set(vector, level);
    }

    fn signal_error(&mut self, error: u32) {
        self.errors |= error;
        let entry = self.lvt[ERROR];
        let vector = (entry & LVT_VECTOR) as u8;
        if entry & LVT_MASK != 0 {
            return;
        }
        if vector < FIRST_LEGAL_VECTOR {
            self.errors |= ESR_RECEIVE_ILLEGAL_VECTOR;
        } else {
            self.irr.set(vector, true);
            self.tmr.set(vector, false);
        }
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else { return Effect::None };
        self.isr.set(vector, false);
        if !self.tmr.contains(vector) {
            return Effect::None;
        }
        for index in [LINT0, LINT1] {
            if self.lvt[index] & LVT_REMOTE_IRR != 0 && self.lvt[index] & LVT_VECTOR == u32::from(vector) {
                self.lvt[index] &= !LVT_REMOTE_IRR;
                self.request_lint_level(index);
            }
        }
        Effect::BroadcastEoi(vector)
    }

    /// Sends what ICR says.
    fn send(&mut self) -> Effect {
        let Some(mode) = DeliveryMode::from_bits((self.icr >> ICR_DELIVERY_MODE_SHIFT) as u32) else {
            return Effect::None;
        };
        let vector = (self.icr & ICR_VECTOR) as u8;
        match mode {
            DeliveryMode::Fixed | DeliveryMode::LowestPriority if vector < FIRST_LEGAL_VECTOR => {
                self.signal_error(ESR_SEND_ILLEGAL_VECTOR);
                return Effect::None;
            }
            // INIT level de-assert only synchronises arbitration IDs, and not since the Pentium 4.
            DeliveryMode::Init if self.icr & (ICR_LEVEL | ICR_ASSERT) == ICR_LEVEL => return Effect::None,
            // Not a message an ICR can send.
            DeliveryMode::ExtInt => return Effect::None,
            _ => {}
        }
        let (address, everyone) =
            if self.x2apic() { ((self.icr >> 32) as u32, u32::MAX) } else { ((self.icr >> 56) as u32, 0xFF) };
        let destination = if address == everyone {
            Destination::Everyone
        } else if self.icr & ICR_LOGICAL != 0 {
            Destination::Logical(address)
        } else {
            Destination::Physical(address)
        };
        let recipients = match self.icr >> ICR_SHORTHAND_SHIFT & 3 {
            0 => Recipients::Addressed,
            1 => Recipients::SelfOnly,
            2 => Recipients::All,
            _ => Recipients::Others,
        };
        // Interprocessor interrupts are edge-triggered since the Pentium 4, whatever the trigger mode bit says.
        Effect::Send(Message { destination, mode, vector, level: false }, recipients)
    }
}

#[cfg(test)]
mod tests;
