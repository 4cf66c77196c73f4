//! The command line: words `name=value`. Other words are ignored: some loaders put the kernel's name first.

use core::fmt::{self, Write};

pub const ACCEPTED: &str =
    "story=ciphertext|alias|rowhammer|upset, nonce=none|other|same, check=on|off, integrity=on|off";

#[derive(Clone, Copy)]
pub enum Story {
    Ciphertext,
    Alias,
    Rowhammer,
    Upset,
}

impl Story {
    const ALL: [Story; 4] = [Story::Ciphertext, Story::Alias, Story::Rowhammer, Story::Upset];

    pub fn name(self) -> &'static str {
        match self {
            Story::Ciphertext => "ciphertext",
            Story::Alias => "alias",
            Story::Rowhammer => "rowhammer",
            Story::Upset => "upset",
        }
    }
}

/// Where a number that never comes twice is stored with the state of the ladder.
#[derive(Clone, Copy)]
pub enum Nonce {
    None,
    /// In the same line, in another block of 16 bytes.
    OtherBlock,
    /// In each block that has a part of the state.
    SameBlock,
}

impl Nonce {
    const ALL: [Nonce; 3] = [Nonce::None, Nonce::OtherBlock, Nonce::SameBlock];

    pub fn name(self) -> &'static str {
        match self {
            Nonce::None => "none",
            Nonce::OtherBlock => "other",
            Nonce::SameBlock => "same",
        }
    }
}

pub struct Options {
    pub story: Story,
    pub nonce: Nonce,
    /// The firmware's check for aliases.
    pub check: bool,
    /// Keys with integrity, where the processor has them.
    pub integrity: bool,
}

impl Options {
    pub fn new(command_line: &impl fmt::Display) -> Result<Self, &'static str> {
        let mut text = Text { bytes: [0; 256], used: 0 };
        write!(text, "{command_line}").map_err(|_| "longer than 256 bytes")?;
        let text = core::str::from_utf8(&text.bytes[..text.used]).map_err(|_| "not UTF-8")?;
        let mut options = Options { story: Story::Upset, nonce: Nonce::None, check: true, integrity: true };
        let mut told = false;
        for (name, value) in text.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            match name {
                "story" => {
                    let story = Story::ALL.into_iter().find(|story| story.name() == value);
                    options.story = story.ok_or("no such story")?;
                    told = true;
                }
                "nonce" => {
                    let nonce = Nonce::ALL.into_iter().find(|nonce| nonce.name() == value);
                    options.nonce = nonce.ok_or("no such nonce")?;
                }
                "check" => options.check = switch(value)?,
                "integrity" => options.integrity = switch(value)?,
                _ => return Err("unknown option"),
            }
        }
        if told { Ok(options) } else { Err("no story") }
    }
}

fn switch(value: &str) -> Result<bool, &'static str> {
    match value {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("neither on nor off"),
    }
}

struct Text {
    bytes: [u8; 256],
    used: usize,
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.used..self.used + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.used += text.len();
        Ok(())
    }
}
