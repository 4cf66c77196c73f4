use super::*;

fn apic() -> LocalApic {
    let mut a = LocalApic::new(0, 46);
    a.write_mmio(0, 0xF0, 4, 0x1FF);
    a
}

fn fixed(vector: u8, level: bool) -> Message {
    Message { destination: Destination::Physical(0), mode: DeliveryMode::Fixed, vector, level }
}

fn write(a: &mut LocalApic, register: u16, value: u32) -> Effect {
    a.write_mmio(0, u64::from(register) << 4, 4, value.into())
}

fn read(a: &mut LocalApic, register: u16) -> u32 {
    a.read_mmio(0, u64::from(register) << 4, 4) as u32
}

#[test]
fn state_after_reset_is_the_manuals() {
    let mut a = LocalApic::new(3, 46);
    assert_eq!(a.read_msr(0, IA32_APIC_BASE), Some(0xFEE0_0800));
    assert_eq!(read(&mut a, ID), 0x0300_0000);
    assert_eq!(read(&mut a, VERSION), 0x0005_0014);
    assert_eq!(read(&mut a, SVR), 0xFF);
    assert_eq!(read(&mut a, DFR), 0xFFFF_FFFF);
    for lvt in LVT_TIMER..=LVT_ERROR {
        assert_eq!(read(&mut a, lvt), LVT_MASK);
    }
    assert_eq!(LocalApic::new(0, 46).base, 0xFEE0_0900);
}

#[test]
fn software_disable_masks_lvt_and_refuses_fixed_interrupts() {
    let mut a = LocalApic::new(0, 46);
    write(&mut a, LVT_TIMER, 0x40);
    assert_eq!(read(&mut a, LVT_TIMER), LVT_MASK | 0x40);
    assert!(!a.accept(&fixed(0x40, false)));
    write(&mut a, SVR, 0x1FF);
    write(&mut a, LVT_TIMER, 0x40);
    assert_eq!(read(&mut a, LVT_TIMER), 0x40);
    assert!(a.accept(&fixed(0x40, false)));
    write(&mut a, SVR, 0xFF);
    assert_eq!(read(&mut a, LVT_TIMER), LVT_MASK | 0x40);
    assert_eq!(a.deliverable(), Some(0x40), "pending interrupts are held");
}

#[test]
fn higher_classes_preempt_and_equal_classes_wait() {
    let mut a = apic();
    a.accept(&fixed(0x51, false));
    a.accept(&fixed(0x42, false));
    assert_eq!(a.acknowledge(), Some(0x51));
    assert_eq!(a.deliverable(), None);
    assert_eq!(read(&mut a, PPR), 0x50);
    a.accept(&fixed(0x5F, false));
    assert_eq!(a.deliverable(), None, "same class");
    a.accept(&fixed(0x60, false));
    assert_eq!(a.acknowledge(), Some(0x60));
    assert_eq!(read(&mut a, ISR + 2), 1 << 0x11);
    assert_eq!(read(&mut a, ISR + 3), 1);
    write(&mut a, EOI, 0);
    assert_eq!(a.deliverable(), None);
    write(&mut a, EOI, 0);
    assert_eq!(a.acknowledge(), Some(0x5F));
    write(&mut a, EOI, 0);
    assert_eq!(a.acknowledge(), Some(0x42));
}

#[test]
fn task_priority_holds_back_its_class_and_below() {
    let mut a = apic();
    a.accept(&fixed(0x4F, false));
    a.set_cr8(4);
    assert_eq!(read(&mut a, TPR), 0x40);
    assert_eq!(a.deliverable(), None);
    write(&mut a, TPR, 0x3F);
    assert_eq!(a.cr8(), 3);
    assert_eq!(a.deliverable(), Some(0x4F));
    assert_eq!(read(&mut a, PPR), 0x3F);
}

#[test]
fn only_level_interrupts_broadcast_their_eoi() {
    let mut a = apic();
    a.accept(&fixed(0x41, true));
    assert_eq!(read(&mut a, TMR + 2), 2);
    a.acknowledge();
    assert_eq!(write(&mut a, EOI, 0), Effect::BroadcastEoi(0x41));
    a.accept(&fixed(0x41, false));
    a.acknowledge();
    assert_eq!(write(&mut a, EOI, 0), Effect::None);
    assert_eq!(write(&mut a, EOI, 0), Effect::None, "nothing in service");
}

#[test]
fn timer_interrupts_through_its_lvt_entry() {
    let mut a = apic();
    write(&mut a, DIVIDE_CONFIGURATION, 0b1011);
    write(&mut a, LVT_TIMER, 0xEF | LVT_MASK);
    write(&mut a, INITIAL_COUNT, 100);
    assert_eq!(a.next_event(), None, "masked");
    write(&mut a, LVT_TIMER, 0xEF);
    assert_eq!(a.next_event(), Some(4000));
    a.run_timer(4000);
    assert_eq!(a.acknowledge(), Some(0xEF));
    assert_eq!(a.next_event(), None);
}

#[test]
fn tsc_deadline_is_armed_by_its_msr() {
    let mut a = apic();
    write(&mut a, LVT_TIMER, 0xEC | 2 << LVT_TIMER_MODE_SHIFT);
    a.write_msr(0, IA32_TSC_DEADLINE, 9000, 0);
    assert_eq!(a.next_event(), Some(9000));
    assert_eq!(a.read_msr(100, IA32_TSC_DEADLINE), Some(9000));
    a.run_timer(9000);
    assert_eq!(a.read_msr(9000, IA32_TSC_DEADLINE), Some(0));
    assert_eq!(a.deliverable(), Some(0xEC));
}

#[test]
fn illegal_vectors_and_registers_show_in_esr_after_a_write() {
    let mut a = apic();
    write(&mut a, LVT_ERROR, 0xFE);
    a.accept(&fixed(3, false));
    assert_eq!(read(&mut a, ESR), 0);
    write(&mut a, ESR, 0);
    assert_eq!(read(&mut a, ESR), ESR_RECEIVE_ILLEGAL_VECTOR);
    assert_eq!(a.acknowledge(), Some(0xFE));
    read(&mut a, 0x3B);
    write(&mut a, ICR_LOW, 5);
    write(&mut a, ESR, 0);
    assert_eq!(read(&mut a, ESR), ESR_ILLEGAL_REGISTER | ESR_SEND_ILLEGAL_VECTOR);
    write(&mut a, ESR, 0);
    assert_eq!(read(&mut a, ESR), 0);
    write(&mut a, LVT_ERROR, 2);
    read(&mut a, 0x00);
    write(&mut a, ESR, 0);
    assert_eq!(read(&mut a, ESR), ESR_ILLEGAL_REGISTER | ESR_RECEIVE_ILLEGAL_VECTOR);
}

#[test]
fn apic_base_follows_the_state_machine() {
    let mut a = LocalApic::new(0, 46);
    let base = 0xFEE0_0000 | APIC_BASE_BSP;
    let (en, extd) = (APIC_BASE_EN, APIC_BASE_EXTD);
    let mut set = |value| a.write_msr(0, IA32_APIC_BASE, value, 0).is_some();
    assert!(!set(base | extd), "EXTD without EN");
    assert!(set(base));
    assert!(!set(base | en | extd), "disabled to x2APIC");
    assert!(set(base | en));
    assert!(set(base | en | extd));
    assert!(!set(base | en), "x2APIC to xAPIC");
    assert!(!set(base | extd));
    assert!(set(base));
    assert!(!set(base | 1), "reserved bit");
    assert!(!set(base | 1 << 9));
    assert!(!set(base | 1 << 46), "beyond the physical width");
    assert!(set(base | en | 1 << 45));
    assert_eq!(a.window(), Some(1 << 45 | 0xFEE0_0000));
}

#[test]
fn x2apic_msrs_fault_outside_x2apic_mode_and_on_reserved_bits() {
    let mut a = apic();
    let msr = |register: u16| X2APIC_MSR + u32::from(register);
    assert_eq!(a.read_msr(0, msr(ID)), None);
    a.write_msr(0, IA32_APIC_BASE, a.base | APIC_BASE_EXTD, 0).unwrap();
    assert_eq!(a.window(), None);
    assert_eq!(a.read_msr(0, msr(ID)), Some(0));
    assert_eq!(a.read_msr(0, msr(LDR)), Some(1));
    assert_eq!(a.read_msr(0, msr(SVR)), Some(0x1FF), "kept from xAPIC mode");
    for register in [0, APR, EOI, RRD, DFR, ICR_HIGH, SELF_IPI, 0x2F, 0x3A, 0x40, 0xFF] {
        assert_eq!(a.read_msr(0, msr(register)), None, "{register:#x}");
    }
    for (register, value) in [
        (ID, 0),
        (VERSION, 0),
        (PPR, 0),
        (LDR, 0),
        (ISR, 0),
        (IRR, 0),
        (CURRENT_COUNT, 0),
        (DFR, 0),
        (TPR, 0x100),
        (EOI, 1),
        (ESR, 1),
        (SVR, 1 << 12),
        (ICR_LOW, 1 << 13),
        (LVT_TIMER, 1 << 19),
        (LVT_LINT0, 1 << 17),
        (DIVIDE_CONFIGURATION, 4),
        (INITIAL_COUNT, 1 << 32),
        (SELF_IPI, 0x100),
    ] {
        assert_eq!(a.write_msr(0, msr(register), value, 0), None, "{register:#x}");
    }
    assert_eq!(a.write_msr(0, msr(SELF_IPI), 0x77, 0), Some(Effect::None));
    assert_eq!(a.deliverable(), Some(0x77));
    assert_eq!(LocalApic { initial_id: 0x25, ..a.clone() }.ldr(), 0x0002_0020);
    let sent = a.write_msr(0, msr(ICR_LOW), 0x0000_0007_0000_0433, 0);
    let nmi = Message { destination: Destination::Physical(7), mode: DeliveryMode::Nmi, vector: 0x33, level: false };
    assert_eq!(sent, Some(Effect::Send(nmi, Recipients::Addressed)));
    assert_eq!(a.read_msr(0, msr(ICR_LOW)), Some(0x0000_0007_0000_0433));
}

#[test]
fn logical_destinations_in_flat_and_cluster_model() {
    let mut a = apic();
    write(&mut a, LDR, 0x0400_0000);
    assert!(a.matches(Destination::Logical(0x06)));
    assert!(!a.matches(Destination::Logical(0x03)));
    write(&mut a, DFR, 0);
    write(&mut a, LDR, 0x2100_0000);
    assert!(a.matches(Destination::Logical(0x21)));
    assert!(a.matches(Destination::Logical(0xF1)));
    assert!(!a.matches(Destination::Logical(0x31)));
    assert!(!a.matches(Destination::Logical(0x22)));
    assert!(a.matches(Destination::Physical(0)) && !a.matches(Destination::Physical(1)));
}

#[test]
fn lint0_passes_the_8259_as_extint_or_as_a_vector() {
    let mut a = apic();
    a.set_lint(0, true);
    assert!(!a.takes_extint(true), "masked after reset");
    write(&mut a, LVT_LINT0, 0x700);
    assert!(a.takes_extint(true) && !a.takes_extint(false));
    write(&mut a, LVT_LINT0, 0x45);
    a.set_lint(0, false);
    a.set_lint(0, true);
    assert!(!a.takes_extint(true));
    assert_eq!(a.acknowledge(), Some(0x45));
    a.write_msr(0, IA32_APIC_BASE, 0xFEE0_0100, 0).unwrap();
    assert!(a.takes_extint(true), "with the APIC disabled, LINT0 is INTR");
}

#[test]
fn level_lint_repeats_until_the_wire_falls() {
    let mut a = apic();
    write(&mut a, LVT_LINT0, 0x45 | LVT_LEVEL);
    a.set_lint(0, true);
    assert_eq!(read(&mut a, LVT_LINT0) & LVT_REMOTE_IRR, LVT_REMOTE_IRR);
    assert_eq!(a.acknowledge(), Some(0x45));
    write(&mut a, EOI, 0);
    assert_eq!(a.acknowledge(), Some(0x45));
    a.set_lint(0, false);
    write(&mut a, EOI, 0);
    assert_eq!(a.deliverable(), None);
}

#[test]
fn lint1_as_nmi_latches_once_per_edge() {
    let mut a = apic();
    a.set_lint(1, true);
    assert!(!a.take_nmi(), "masked");
    a.set_lint(1, false);
    write(&mut a, LVT_LINT1, 0x400);
    a.set_lint(1, true);
    assert!(a.nmi_pending() && a.take_nmi() && !a.take_nmi());
}

#[test]
fn init_keeps_the_id_and_the_base_register() {
    let mut a = apic();
    write(&mut a, ID, 0x0900_0000);
    a.accept(&fixed(0x40, false));
    a.init();
    assert_eq!(read(&mut a, ID), 0x0900_0000);
    assert_eq!((read(&mut a, SVR), a.deliverable()), (0xFF, None));
}

#[test]
fn narrow_and_unaligned_accesses_do_not_reach_registers() {
    let mut a = apic();
    a.write_mmio(0, 0x80, 1, 0x50);
    a.write_mmio(0, 0x84, 4, 0x50);
    assert_eq!(read(&mut a, TPR), 0);
    assert_eq!(a.read_mmio(0, 0x31, 1), 0x00);
    assert_eq!(a.read_mmio(0, 0x30, 1), 0x14);
    assert_eq!(a.read_mmio(0, 0x34, 4), 0);
}
