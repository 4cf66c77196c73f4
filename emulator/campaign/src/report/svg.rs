//! Figures, as text.

use crate::row::Outcome;
use std::fmt::{self, Write};

/// Text for HTML and SVG, inside elements and attributes. Characters that neither allows become U+FFFD, and so do those that
/// would change the direction of the text around them.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\t' => out.push(c),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{fffe}' | '\u{ffff}' => {
                out.push('\u{fffd}');
            }
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// At most so many characters, and `…` if there were more.
pub(super) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Height of a figure of nothing.
const EMPTY: f64 = 24.0;
/// Around a figure in a file.
const MARGIN: f64 = 12.0;

/// A figure with a name for files, a title and a description for those who do not see it.
pub(super) struct Figure {
    pub name: String,
    pub title: String,
    pub description: String,
    pub width: f64,
    pub height: f64,
    body: String,
}

impl Figure {
    pub fn new(name: impl Into<String>, title: impl Into<String>, width: f64) -> Figure {
        let (name, title) = (name.into(), title.into());
        Figure { name, title, description: String::new(), width, height: 0.0, body: String::new() }
    }

    /// Shows the description: there is nothing else.
    pub fn say_empty(&mut self) {
        self.text(0.0, 16.0, "start muted", &self.description.clone());
        self.height = EMPTY;
    }

    /// True after [`say_empty`](Self::say_empty).
    pub fn is_empty(&self) -> bool {
        self.height <= EMPTY
    }

    /// An element for a page.
    pub fn element(&self) -> String {
        self.svg(0.0, "")
    }

    /// A file.
    pub fn document(&self, style: &str) -> String {
        let (x, width, height) = (-MARGIN, self.width + 2.0 * MARGIN, self.height + 2.0 * MARGIN);
        let paper = format!("<rect class=\"paper\" x=\"{x}\" y=\"{x}\" width=\"{width}\" height=\"{height}\"/>");
        let svg = self.svg(MARGIN, &format!("<style>{style}</style>{paper}"));
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{svg}\n")
    }

    fn svg(&self, margin: f64, head: &str) -> String {
        let Figure { name, title, description, body, .. } = self;
        let (width, height) = (self.width + 2.0 * margin, self.height + 2.0 * margin);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"figure {name}\" role=\"img\" aria-labelledby=\"{name}-title {name}-desc\" \
             viewBox=\"{} {} {width} {height}\" width=\"{width}\" height=\"{height}\">\
             <title id=\"{name}-title\">{}</title><desc id=\"{name}-desc\">{}</desc>{head}{body}</svg>",
            -margin,
            -margin,
            escape(title),
            escape(description)
        )
    }

    /// Adds elements.
    pub fn put(&mut self, elements: fmt::Arguments) {
        // A string takes everything.
        let _ = self.body.write_fmt(elements);
    }

    /// Adds a text; `class` is one of the style's, `start`, `middle` and `end` among them.
    pub fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.put(format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{}</text>", escape(text)));
    }

    pub fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), class: &str) {
        self.put(format_args!("<path class=\"{class}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>"));
    }

    /// Adds the names of outcomes with their colours, and their marks if there are any in the figure, in rows that fit.
    /// Returns where they end.
    pub fn legend(&mut self, outcomes: &[Outcome], marks: bool, left: f64, top: f64) -> f64 {
        let (mut x, mut y) = (left, top);
        for outcome in outcomes {
            let width = 38.0 + width(outcome.name());
            if x + width > self.width {
                (x, y) = (left, y + 20.0);
            }
            if marks {
                let mark = mark(*outcome, x + 6.0, y - 4.0);
                self.put(format_args!("<path class=\"o-{outcome}\" d=\"{mark}\"/>"));
            } else {
                let top = y - 10.0;
                self.put(format_args!(
                    "<rect class=\"o-{outcome}\" x=\"{x:.1}\" y=\"{top:.1}\" width=\"12\" height=\"12\"/>"
                ));
            }
            self.text(x + 17.0, y, "start", outcome.name());
            x += width;
        }
        y + 10.0
    }
}

/// About how wide a text of 13 pixels is.
pub(super) fn width(text: &str) -> f64 {
    let of = |c| match c {
        'i' | 'j' | 'l' | 't' | 'f' | 'r' | '-' | ' ' | '.' | ',' => 4.8,
        'm' | 'w' | 'M' | 'W' => 12.0,
        _ => 8.2,
    };
    text.chars().map(of).sum()
}

/// The `d` of a mark around a point. Outcomes differ in shape as well as in colour.
pub(super) fn mark(outcome: Outcome, x: f64, y: f64) -> String {
    match outcome {
        Outcome::Masked => format!("M{:.1} {y:.1}a2 2 0 1 0 4 0a2 2 0 1 0-4 0z", x - 2.0),
        Outcome::NotActivated => format!("M{:.1} {y:.1}a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0-5 0z", x - 2.5),
        Outcome::Latent => format!("M{:.1} {:.1}h4v4h-4z", x - 2.0, y - 2.0),
        Outcome::Detected => format!("M{x:.1} {:.1}l3 5h-6z", y - 3.0),
        Outcome::Sdc => format!("M{x:.1} {:.1}l3.5 3.5l-3.5 3.5l-3.5-3.5z", y - 3.5),
        Outcome::Crash => format!("M{x:.1} {:.1}l-3-5h6z", y + 3.0),
        Outcome::Hang => format!("M{:.1} {:.1}h6v2h-6zm2-2h2v6h-2z", x - 3.0, y - 1.0),
        Outcome::ToolError => format!("M{:.1} {:.1}h7v7h-7z", x - 3.5, y - 3.5),
    }
}
