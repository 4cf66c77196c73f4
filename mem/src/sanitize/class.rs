//! Cipher classes: KeyIDs that encrypt alike are of one class, and so is one KeyID before and after it is programmed
//! with the key it had.

use std::collections::BTreeMap;

use crate::addr::{BusAddr, KeyId};
use crate::packages::Packages;
use crate::tme::DataKey;

/// A class: a number that stands for algorithm and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(pub(super) u32);

impl Class {
    /// Nobody has written the line since power-on.
    pub(super) const UNWRITTEN: Self = Self(0);
    /// DRAM holds the bytes as they are.
    pub(super) const PLAINTEXT: Self = Self(1);
    const FIRST_KEY: u32 = 2;

    /// True when what was written with this class can be read with `other`.
    pub(super) fn readable_as(self, other: Self) -> bool {
        self == Self::UNWRITTEN || self == other
    }
}

impl Default for Class {
    fn default() -> Self {
        Self::UNWRITTEN
    }
}

/// The classes of all KeyIDs of all packages.
#[derive(Default)]
pub(super) struct Classes {
    numbers: BTreeMap<[u8; DataKey::MATERIAL_BYTES], u32>,
    /// By package and KeyID; the last entry of each is that of the KeyIDs beyond the key table (MC-01).
    table: Vec<Vec<Class>>,
    /// False when keys may have changed since the table was made.
    valid: bool,
}

impl Classes {
    /// Brings the table up to date.
    #[inline]
    pub(super) fn update(&mut self, packages: &Packages) {
        if !self.valid {
            self.rebuild(packages);
        }
    }

    #[cold]
    fn rebuild(&mut self, packages: &Packages) {
        let mut table = std::mem::take(&mut self.table);
        table.clear();
        for package in (0..packages.count()).filter_map(|number| packages.get(number)) {
            let keyids = 0..=package.max_keys().saturating_add(1);
            table.push(keyids.map(|keyid| self.number(package.data_key(KeyId(keyid)))).collect());
        }
        self.table = table;
        self.valid = true;
    }

    fn number(&mut self, key: Option<&DataKey>) -> Class {
        let Some(key) = key else { return Class::PLAINTEXT };
        let next = self.numbers.len() as u32 + Class::FIRST_KEY;
        Class(*self.numbers.entry(key.material()).or_insert(next))
    }

    /// Keys may change from now on. The table is what it was until [`update`](Self::update).
    pub(super) fn expire(&mut self) {
        self.valid = false;
    }

    /// The class of a KeyID in a package, without regard to the exclusion range.
    pub(super) fn of_key(&self, package: usize, keyid: KeyId) -> Class {
        let classes = self.table.get(package).map_or(&[][..], Vec::as_slice);
        let beyond = classes.len().saturating_sub(1);
        classes.get(usize::from(keyid.0).min(beyond)).copied().unwrap_or(Class::PLAINTEXT)
    }

    /// The class with which the line at `address` of RAM page `page` is encrypted.
    pub(super) fn of(&self, packages: &Packages, page: u32, address: BusAddr, keyid: KeyId) -> Class {
        if keyid == KeyId(0) && packages.engine(page).excludes(address) {
            return Class::PLAINTEXT;
        }
        self.of_key(packages.home(page), keyid)
    }
}
