//! Names for the addresses of a running guest: `vunmap_demo+0x1b/0x40 [mktme_demo]`.
//!
//! Nothing is asked of the guest and nothing in it changes: tables are read from its memory as a debugger with a probe would
//! read them. A guest may have garbage there, by accident or on purpose, so every read is bounded and every table is checked
//! before it is believed; what cannot be named is an address.
//!
//! Reading order: [`guest`] (memory, through the kernel's page tables), [`table`] (addresses to names), the sources
//! [`kallsyms`] (the kernel's own table), [`file`] (System.map, ELF), [`btf`] with [`modules`] (loaded modules), and
//! [`resolver`], which finds out what the guest is and asks them.

pub mod btf;
pub mod file;
pub mod guest;
pub mod kallsyms;
pub mod modules;
pub mod resolver;
pub mod table;

pub use file::{FileError, SymbolFile};
pub use resolver::{Location, Symbols};
