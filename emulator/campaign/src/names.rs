//! Symbols in triggers (`pc:SYMBOL`), as addresses.

use crate::error::{CampaignError, Result, refuse};
use crate::golden::{kernel, read};
use crate::plan::PlanFile;
use machine::inject::FaultSpec;
use symbols::SymbolFile;

/// Where the symbols of a guest are.
#[derive(Debug, Default)]
pub struct Symbols {
    file: Option<SymbolFile>,
    /// The guest moves itself to a random address.
    slides: bool,
}

impl Symbols {
    /// Those of a plan.
    ///
    /// # Errors
    /// A file that has none.
    pub fn of(file: &PlanFile) -> Result<Symbols> {
        let guest = &file.plan.guest;
        let slides = !guest.append.split_ascii_whitespace().any(|word| word == "nokaslr");
        let parse = |bytes: &[u8]| SymbolFile::parse(bytes);
        let found = match (&guest.symbols, &guest.kernel) {
            (Some(path), _) => {
                let path = file.directory.join(path);
                let parsed = parse(&read(&path, "guest.symbols")?);
                Some(parsed.map_err(|e| CampaignError::Input(format!("guest.symbols {}: {e}", path.display())))?)
            }
            // A kernel need not have any, and is not needed any more.
            (None, Some(path)) => kernel(&file.directory, path).ok().and_then(|bytes| parse(&bytes).ok()),
            (None, None) if guest.loadvm.is_none() => parse(guests::HELLO_MKTME).ok(),
            (None, None) => None,
        };
        Ok(Symbols { file: found, slides })
    }

    /// Puts addresses in the place of symbols.
    ///
    /// # Errors
    /// An unknown symbol, or one of a kernel that moves itself.
    pub fn resolve(&self, spec: &mut FaultSpec, stratum: &str) -> Result<()> {
        let mut moved = false;
        let resolved = spec.resolve(|name| {
            let file = self.file.as_ref()?;
            moved |= file.linux && self.slides;
            file.table.address(name)
        });
        if let Err(name) = resolved {
            return refuse(
                format_args!("stratum {stratum:?}: {spec}: nothing is known of the symbol `{name}`"),
                "a symbol of guest.symbols or guest.kernel, or an address",
            );
        }
        if moved {
            return refuse(
                format_args!("stratum {stratum:?}: {spec}: Linux moves itself to a random address"),
                "a symbol of Linux together with `nokaslr` in guest.append",
            );
        }
        Ok(())
    }
}
