//! The transcendental instructions on the register stack.

use super::f80;
use super::host::Outcome;
use super::spec::sw;
use super::transcendental::{cosine, f2xm1, fpatan, fyl2x, fyl2xp1, sine, tangent};
use crate::state::X87;

impl X87 {
    /// ST(0) = f(ST(0)).
    fn function(&mut self, f: fn(u16, u128) -> Outcome) {
        if self.is_empty(0) {
            self.complete_underflow(0);
        } else {
            self.complete(0, f(self.fcw, self.st(0)));
        }
    }

    /// ST(1) = f(ST(1), ST(0)), then a pop.
    fn function_pop(&mut self, f: fn(u16, u128, u128) -> Outcome) {
        let done = if self.is_empty(0) || self.is_empty(1) {
            self.complete_underflow(1)
        } else {
            self.complete(1, f(self.fcw, self.st(1), self.st(0)))
        };
        if done {
            self.pop(1);
        }
    }

    /// FSIN, FCOS: C2 tells an argument out of range, which stays as it is.
    fn trigonometric(&mut self, f: fn(u16, u128) -> Outcome) {
        self.set_codes(sw::C2, 0);
        if self.is_empty(0) {
            self.complete_underflow(0);
            return;
        }
        let outcome = f(self.fcw, self.st(0));
        self.set_codes(sw::C2, outcome.status);
        self.complete(0, outcome);
    }

    /// FPTAN, FSINCOS: `f` gives ST(0) and the value to push.
    fn trigonometric_push(&mut self, f: fn(u16, u128) -> (Outcome, Outcome)) {
        self.set_codes(sw::C2, 0);
        if self.is_empty(0) || !self.is_empty(7) {
            let masked = if self.is_empty(0) { self.underflow() } else { self.overflow() };
            if masked {
                self.set_st(0, f80::INDEFINITE);
                self.push(f80::INDEFINITE);
            }
            return;
        }
        let (first, second) = f(self.fcw, self.st(0));
        self.set_codes(sw::C2, first.status);
        if first.status & sw::C2 != 0 {
            self.set_codes(sw::C1, 0);
            return;
        }
        // C1 is that of the value pushed, which is rounded last.
        let status = (first.status | second.status) & !sw::C1 | second.status & sw::C1;
        if self.complete(0, Outcome::new(first.value, status)) {
            self.push(second.value);
        }
    }
}

pub(super) fn exp2_minus_1(x87: &mut X87) {
    x87.function(f2xm1);
}

pub(super) fn log2(x87: &mut X87) {
    x87.function_pop(fyl2x);
}

pub(super) fn log2_plus_1(x87: &mut X87) {
    x87.function_pop(fyl2xp1);
}

pub(super) fn arctangent(x87: &mut X87) {
    x87.function_pop(fpatan);
}

pub(super) fn sin(x87: &mut X87) {
    x87.trigonometric(sine);
}

pub(super) fn cos(x87: &mut X87) {
    x87.trigonometric(cosine);
}

pub(super) fn sin_cos(x87: &mut X87) {
    x87.trigonometric_push(|fcw, x| (sine(fcw, x), cosine(fcw, x)));
}

/// FPTAN pushes 1.0, or the NaN that the operand gave.
pub(super) fn tan(x87: &mut X87) {
    x87.trigonometric_push(|fcw, x| {
        let tan = tangent(fcw, x);
        let nan = f80::exponent(tan.value) == f80::EXPONENT_MAX;
        let pushed = if nan { tan.value } else { f80::ONE };
        (tan, Outcome::new(pushed, tan.status & sw::C1))
    });
}
