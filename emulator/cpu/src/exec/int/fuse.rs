//! Two or three ops under one handler.
//!
//! A block runs on from one op to the next by an indirect jump. Where neighbours are a frequent sequence, the first
//! gets a handler that executes all and jumps once; the others keep their own, which the slow path of the first goes on
//! to. Each op keeps its fields, so faults, instruction counts and early ends are those of the ops one by one. What the
//! compiler sees of both it simplifies: a compare feeds its branch in registers, and flags that the second op replaces
//! are not written.
//!
//! Which: pairs of what is frequent in a boot and workload of Linux, and the triples listed in [`triples`]. What functions
//! begin and end with has handlers of its own, of any length: [`frame`].

pub mod frame;
mod triples;

use super::alu::{Add, AluM, AluR, AluRM, And, Cmp, Dec, Imm, Inc, Or, Reg, Sub, Test, UnaryM, UnaryR, Xor};
use super::branch::{self, End};
use super::mov::{CmovR, Lea, MovM, MovR, MovRM, MovxM, MovxR, SetR, Sign, Zero};
use super::mul::ImulRR;
use super::shift::{self, Rol, Ror, Sar, ShiftR, Shl, Shr};
use super::stack::{Pop, Push};
use super::{Base, Fast, Full, Slow, Step, run};
use crate::op::{At, Handler, next};
use crate::state::Cpu;
use hashbrown::HashMap;
use std::sync::LazyLock;

/// Two instructions.
fn pair<A: Step, B: Step>(cpu: &mut Cpu, op: At) {
    if !A::step::<Fast>(cpu, op) && A::MEMORY {
        return run::<A, Slow>(cpu, op);
    }
    let second = op.following();
    if !B::step::<Fast>(cpu, second) && B::MEMORY {
        return run::<B, Slow>(cpu, second);
    }
    next(cpu, second)
}

/// Three instructions.
fn triple<A: Step, B: Step, C: Step>(cpu: &mut Cpu, op: At) {
    if !A::step::<Fast>(cpu, op) && A::MEMORY {
        return run::<A, Slow>(cpu, op);
    }
    let second = op.following();
    if !B::step::<Fast>(cpu, second) && B::MEMORY {
        return run::<B, Slow>(cpu, second);
    }
    let third = second.following();
    if !C::step::<Fast>(cpu, third) && C::MEMORY {
        return run::<C, Slow>(cpu, third);
    }
    next(cpu, third)
}

/// Two instructions and the end of their block.
fn triple_end<A: Step, B: Step, E: End>(cpu: &mut Cpu, op: At) {
    if !A::step::<Fast>(cpu, op) && A::MEMORY {
        return run::<A, Slow>(cpu, op);
    }
    let second = op.following();
    if !B::step::<Fast>(cpu, second) && B::MEMORY {
        return run::<B, Slow>(cpu, second);
    }
    E::end(cpu, second.following())
}

/// An instruction and the end of its block.
fn ending<A: Step, E: End>(cpu: &mut Cpu, op: At) {
    if !A::step::<Fast>(cpu, op) && A::MEMORY {
        return run::<A, Slow>(cpu, op);
    }
    E::end(cpu, op.following())
}

/// Instructions that change data, addresses and flags in passing.
macro_rules! common {
    ($then:ident) => {
        $then!(
            MovR<u32, Reg>, MovR<u64, Reg>, MovR<u32, Imm>,
            MovR<u64, Imm>, MovRM<u64, Base>, MovRM<u64, Full>, MovRM<u32, Base>, MovRM<u32, Full>,
            MovM<u64, Reg, Base>, MovM<u32, Reg, Base>, MovM<u64, Imm, Base>, MovM<u32, Imm, Base>,
            MovxR<Sign, u32, u64>, MovxR<Zero, u8, u32>, MovxR<Zero, u32, u32>,
            MovxM<Zero, u8, u32, Base>, MovxM<Zero, u8, u32, Full>, MovxM<Zero, u16, u32, Base>,
            Lea<u64, Base>, Lea<u64, Full>, Lea<u32, Base>, Lea<u32, Full>,
            Push<Reg>, Pop,
            AluR<Add, u64, Reg>, AluR<Add, u64, Imm>, AluR<Add, u32, Reg>, AluR<Add, u32, Imm>,
            AluR<Sub, u64, Reg>, AluR<Sub, u64, Imm>,
            AluR<Xor, u32, Reg>, AluR<Xor, u64, Reg>, AluR<And, u64, Reg>, AluR<And, u32, Reg>, AluR<And, u32, Imm>, AluR<Or, u64, Reg>, AluR<Or, u32, Reg>,
            ImulRR<u64>, UnaryR<Inc, u64>,
            ShiftR<Shl, u64, shift::Imm>, ShiftR<Shr, u64, shift::Imm>, ShiftR<Shr, u32, shift::Imm>,
            ShiftR<Rol, u32, shift::Imm>, ShiftR<Ror, u32, shift::Imm>,
            AluR<And, u64, Imm>, MovR<u8, Imm>, MovM<u8, Imm, Base>, UnaryM<Inc, u32, Full>
        )
    };
}

/// Instructions that mostly serve a condition.
macro_rules! compares {
    ($then:ident) => {
        $then!(
            AluR<Cmp, u64, Reg>, AluR<Cmp, u64, Imm>, AluR<Cmp, u32, Reg>, AluR<Cmp, u32, Imm>,
            AluR<Test, u64, Reg>, AluR<Test, u32, Reg>, AluR<Test, u8, Reg>, AluR<Test, u8, Imm>,
            AluR<Cmp, u8, Reg>, AluR<Cmp, u8, Imm>, AluR<Cmp, u16, Reg>,
            SetR<2>, CmovR<2, u64>, CmovR<3, u64>, CmovR<2, u32>
        )
    };
}

/// Instructions whose flags a conditional jump reads.
macro_rules! deciding {
    ($then:ident) => {
        $then!(
            AluR<Cmp, u64, Reg>, AluR<Cmp, u64, Imm>, AluR<Cmp, u32, Reg>, AluR<Cmp, u32, Imm>,
            AluR<Cmp, u16, Reg>, AluR<Cmp, u16, Imm>, AluR<Cmp, u8, Reg>, AluR<Cmp, u8, Imm>,
            AluRM<Cmp, u64, Base>, AluRM<Cmp, u64, Full>, AluRM<Cmp, u32, Base>, AluRM<Cmp, u32, Full>,
            AluM<Cmp, u64, Reg, Base>, AluM<Cmp, u64, Reg, Full>, AluM<Cmp, u64, Imm, Base>, AluM<Cmp, u64, Imm, Full>,
            AluM<Cmp, u32, Reg, Base>, AluM<Cmp, u32, Reg, Full>, AluM<Cmp, u32, Imm, Base>, AluM<Cmp, u32, Imm, Full>,
            AluM<Cmp, u8, Reg, Base>, AluM<Cmp, u8, Reg, Full>, AluM<Cmp, u8, Imm, Base>, AluM<Cmp, u8, Imm, Full>,
            AluR<Test, u64, Reg>, AluR<Test, u32, Reg>, AluR<Test, u8, Reg>,
            AluR<Test, u64, Imm>, AluR<Test, u32, Imm>, AluR<Test, u8, Imm>,
            AluM<Test, u32, Imm, Base>, AluM<Test, u8, Imm, Base>,
            AluR<Add, u64, Imm>, AluR<Add, u32, Imm>, AluR<Sub, u64, Imm>, AluR<Sub, u32, Imm>,
            AluR<Add, u64, Reg>, AluR<Sub, u64, Reg>, AluR<Sub, u32, Reg>,
            AluR<And, u32, Imm>, AluR<And, u64, Reg>, AluR<And, u32, Reg>, AluR<Or, u64, Reg>, AluR<Or, u32, Reg>,
            AluRM<Sub, u64, Full>, AluM<Sub, u32, Imm, Base>, AluRM<Cmp, u8, Full>, UnaryM<Dec, u32, Full>,
            UnaryR<Dec, u32>, UnaryR<Dec, u64>, UnaryR<Inc, u64>, UnaryR<Inc, u32>,
            ShiftR<Shr, u64, shift::Imm>, ShiftR<Shr, u32, shift::Imm>, ShiftR<Sar, u32, shift::Imm>
        )
    };
}

/// What there is for two neighbours, by their handlers' addresses.
type Fusions = HashMap<(usize, usize), Fused>;

/// See [`fused`].
#[derive(Default)]
pub struct Fused {
    pair: Option<Handler>,
    /// By the address of the third's handler.
    triples: Vec<(usize, Handler)>,
}

impl Fused {
    /// The handler that does the work of both.
    pub fn pair(&self) -> Option<Handler> {
        self.pair
    }

    /// The handler that does the work of both and of the op after them.
    pub fn triple(&self, third: Handler) -> Option<Handler> {
        let third = address(third);
        self.triples.iter().find(|(other, _)| *other == third).map(|(_, handler)| *handler)
    }
}

fn address(f: Handler) -> usize {
    f as usize
}

/// The entry of two neighbours.
fn entry<A: Step>(fusions: &mut Fusions, second: Handler) -> &mut Fused {
    fusions.entry((address(run::<A, Fast>), address(second))).or_default()
}

fn add_pair<A: Step, B: Step>(fusions: &mut Fusions) {
    entry::<A>(fusions, run::<B, Fast>).pair = Some(pair::<A, B>);
}

fn add_ending<A: Step, E: End>(fusions: &mut Fusions) {
    entry::<A>(fusions, branch::ending::<E>).pair = Some(ending::<A, E>);
}

fn add_triple<A: Step, B: Step, C: Step>(fusions: &mut Fusions) {
    entry::<A>(fusions, run::<B, Fast>).triples.push((address(run::<C, Fast>), triple::<A, B, C>));
}

fn add_triple_end<A: Step, B: Step, E: End>(fusions: &mut Fusions) {
    entry::<A>(fusions, run::<B, Fast>).triples.push((address(branch::ending::<E>), triple_end::<A, B, E>));
}

/// Pairs that begin with a common instruction.
fn add_common<A: Step>(pairs: &mut Fusions) {
    macro_rules! seconds {
        ($($second:ty),*) => { $(add_pair::<A, $second>(pairs);)* };
    }
    common!(seconds);
    compares!(seconds);
    add_ending::<A, branch::Jmp<false>>(pairs);
    add_ending::<A, branch::Jmp<true>>(pairs);
    add_ending::<A, branch::Call<false>>(pairs);
    add_ending::<A, branch::Call<true>>(pairs);
    add_ending::<A, branch::Ret>(pairs);
    add_ending::<A, branch::Fall<false>>(pairs);
}

/// Pairs of an instruction and the jump that it decides.
fn add_deciding<A: Step>(pairs: &mut Fusions) {
    macro_rules! conditions {
        ($($cc:literal),*) => { $(add_ending::<A, branch::Jcc<$cc, false>>(pairs);)* };
    }
    // Without O, NO, P and NP (SDM Vol. 1, table B-1).
    conditions!(2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15);
    add_ending::<A, branch::Jcc<4, true>>(pairs);
    add_ending::<A, branch::Jcc<5, true>>(pairs);
}

static FUSIONS: LazyLock<Fusions> = LazyLock::new(|| {
    let mut pairs = Fusions::new();
    macro_rules! firsts {
        ($($first:ty),*) => { $(add_common::<$first>(&mut pairs);)* };
    }
    macro_rules! deciders {
        ($($first:ty),*) => { $(add_deciding::<$first>(&mut pairs);)* };
    }
    common!(firsts);
    deciding!(deciders);
    triples::add_steps(&mut pairs);
    triples::add_ends(&mut pairs);
    pairs
});

/// The handlers that do the work of two neighbours, or of them and the next, if there are some.
///
/// Handlers are told apart by their addresses: where the compiler has merged two, they do the same.
pub fn fused(first: Handler, second: Handler) -> Option<&'static Fused> {
    FUSIONS.get(&(address(first), address(second)))
}

#[cfg(test)]
mod tests {
    use super::super::alu::{Form, Handlers};
    use super::*;

    /// Each handler must have one address, or what the translator picks is not what the table knows.
    #[test]
    fn what_the_translator_picks_is_what_the_table_knows() {
        let test = Handlers::<Test>::alu(Form::RegReg, 8, false);
        let compare = Handlers::<Cmp>::alu(Form::MemImm, 1, false);
        let add = Handlers::<Add>::alu(Form::RegImm, 8, false);
        for cc in [2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 15] {
            for decides in [test, compare, add] {
                assert!(
                    fused(decides, branch::jcc_handler(cc, false)).is_some_and(|f| f.pair().is_some()),
                    "condition {cc}"
                );
            }
        }
        let ends = [
            branch::jmp_handler(false),
            branch::call_handler(false),
            branch::call_handler(true),
            branch::RET,
            branch::fall_handler(false),
        ];
        for (n, end) in ends.into_iter().enumerate() {
            assert!(fused(add, end).is_some_and(|f| f.pair().is_some()), "end {n}");
        }
        assert!(fused(add, test).is_some_and(|f| f.pair().is_some()));
        let pop = crate::exec::int::stack::POP_R;
        let pops = fused(pop, pop).expect("a frequent pair");
        assert!(pops.triple(pop).is_some() && pops.triple(branch::RET).is_some());
        assert!(fused(test, add).is_none());
    }
}
