//! x87 and the state-save instructions.
