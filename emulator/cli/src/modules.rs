//! `-initrd`: an initial RAM disk, or modules in QEMU's syntax `FILE ARGUMENTS,FILE ARGUMENTS`.

use crate::Result;
use crate::files;
use firmware::Module;
use std::ffi::OsStr;
use std::path::Path;

/// A file of `-initrd`.
pub struct InitrdFile {
    name: String,
    arguments: String,
    data: Vec<u8>,
}

impl InitrdFile {
    pub fn as_module(&self) -> Module<'_> {
        Module { name: &self.name, arguments: &self.arguments, data: &self.data }
    }
}

/// Reads the files. A value that names a file as it stands is that file, spaces and commas included.
pub fn read(value: &OsStr, limit: (u64, &str), accepted: &str) -> Result<Vec<InitrdFile>> {
    let read = |path: &Path| files::read_image("-initrd", path, limit, accepted);
    let list = match value.to_str() {
        Some(text) if !Path::new(text).exists() => split(text),
        _ => vec![(value.to_string_lossy().into_owned(), String::new())],
    };
    if let [(_, arguments)] = list.as_slice()
        && arguments.is_empty()
    {
        let data = read(Path::new(value))?;
        return Ok(vec![InitrdFile { name: value.to_string_lossy().into_owned(), arguments: String::new(), data }]);
    }
    let file = |(name, arguments): (String, String)| {
        let data = read(Path::new(&name))?;
        Ok(InitrdFile { name, arguments, data })
    };
    list.into_iter().map(file).collect()
}

/// (name, arguments) of each module. Two commas stand for one.
fn split(text: &str) -> Vec<(String, String)> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(c);
        }
    }
    let words = |part: &String| {
        let (name, arguments) = part.trim_start().split_once(' ').unwrap_or((part.trim_start(), ""));
        (name.to_owned(), arguments.to_owned())
    };
    parts.iter().map(words).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_separated_by_commas_and_names_by_spaces() {
        let owned = |list: &[(&str, &str)]| list.iter().map(|(n, a)| ((*n).into(), (*a).into())).collect::<Vec<_>>();
        assert_eq!(split("a.img"), owned(&[("a.img", "")]));
        assert_eq!(split("a.img x y=1,b.img"), owned(&[("a.img", "x y=1"), ("b.img", "")]));
        assert_eq!(split("a x,,y, b  z"), owned(&[("a", "x,y"), ("b", " z")]));
    }
}
