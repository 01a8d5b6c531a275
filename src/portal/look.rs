//! How pages look: the one style sheet, the accent colour of the configuration made readable, our mark. Pure; used for the
//! portal's own pages and for those that the edge shows on an application's host, so everything is inline.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

const STYLE: &str = include_str!("assets/portal.css");
const MARK: &str = include_str!("assets/mark.svg");

/// Grounds of the style sheet, light and dark, that links must be readable on.
const LIGHT: Colour = Colour([0xff, 0xff, 0xff]);
const DARK: Colour = Colour([0x1a, 0x1e, 0x24]);
const BLACK: Colour = Colour([0x10, 0x12, 0x15]);
const FALLBACK: Colour = Colour([0x1f, 0x4f, 0x8f]);

/// Least contrast of text (WCAG 2.2, 1.4.3).
const READABLE: f64 = 4.5;

/// The parts of a page's head.
pub(super) struct Shell {
    pub(super) brand: String,
    pub(super) style: Arc<str>,
    pub(super) mark: Arc<str>,
    style_source: Arc<str>,
    /// URL of the icon; none on pages shown on an application's host.
    pub(super) icon: Option<String>,
}

impl Shell {
    pub(super) fn new(title: &str, accent: &str, icon: Option<String>) -> Self {
        let Dress { style, style_source, mark, .. } = &*Dress::of(Colour::parse(accent).unwrap_or(FALLBACK));
        Self {
            brand: title.to_owned(),
            style: Arc::clone(style),
            mark: Arc::clone(mark),
            style_source: Arc::clone(style_source),
            icon,
        }
    }

    /// `'sha256-…'` of the inline style (CSP3 §6.7.3).
    pub(super) fn style_source(&self) -> Arc<str> {
        Arc::clone(&self.style_source)
    }
}

/// What an accent makes of the style sheet and the mark. Worked out when it is first asked for, since it is the same on every page, and a flood of page
/// loads that are told to slow down must not cost more than to let them pass.
struct Dress {
    accent: Colour,
    style: Arc<str>,
    style_source: Arc<str>,
    mark: Arc<str>,
}

/// There is one accent, until a reload brings another.
static LAST: ArcSwapOption<Dress> = ArcSwapOption::const_empty();

impl Dress {
    fn of(accent: Colour) -> Arc<Self> {
        if let Some(last) = LAST.load_full().filter(|last| last.accent == accent) {
            return last;
        }
        let made = Arc::new(Self::make(accent));
        LAST.store(Some(Arc::clone(&made)));
        made
    }

    fn make(accent: Colour) -> Self {
        let style = format!(
            ":root{{--accent:{};--on-accent:{};--link-light:{};--link-dark:{}}}{}",
            accent.css(),
            accent.ink().css(),
            accent.readable_on(LIGHT).css(),
            accent.readable_on(DARK).css(),
            STYLE.trim()
        );
        let style_source = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(style.as_bytes())));
        Self { accent, style: style.into(), style_source: style_source.into(), mark: drawn(accent, true).into() }
    }
}

/// The mark as a file of its own.
pub(super) fn icon(accent: &str) -> String {
    drawn(Colour::parse(accent).unwrap_or(FALLBACK), false)
}

fn drawn(accent: Colour, is_inline: bool) -> String {
    let mark = MARK.trim().replace("ACCENT", &accent.css()).replace("INK", &accent.ink().css());
    if is_inline { mark.replacen("<svg ", "<svg aria-hidden=\"true\" focusable=\"false\" ", 1) } else { mark }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Colour([u8; 3]);

impl Colour {
    /// `#rrggbb`, and nothing else: what comes out of here stands in a style sheet.
    fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix('#').filter(|digits| digits.len() == 6)?;
        let value = u32::from_str_radix(digits, 16).ok()?;
        let [_, red, green, blue] = value.to_be_bytes();
        Some(Self([red, green, blue]))
    }

    fn css(self) -> String {
        let Self([red, green, blue]) = self;
        format!("#{red:02x}{green:02x}{blue:02x}")
    }

    /// White or black, whichever is easier to read on this colour.
    fn ink(self) -> Self {
        if self.contrast(LIGHT) >= self.contrast(BLACK) { LIGHT } else { BLACK }
    }

    /// This colour, as far towards black or white as text on `ground` needs.
    fn readable_on(self, ground: Self) -> Self {
        let towards = if ground.luminance() > 0.5 { 0.0 } else { 255.0 };
        let steps = (0..=20).map(|step| self.mixed(towards, f64::from(step) / 20.0));
        let mut last = self;
        for colour in steps {
            last = colour;
            if colour.contrast(ground) >= READABLE {
                break;
            }
        }
        last
    }

    fn mixed(self, towards: f64, share: f64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of two values in 0..=255")]
        let mix = |channel: u8| (f64::from(channel) * (1.0 - share) + towards * share).round() as u8;
        Self(self.0.map(mix))
    }

    /// WCAG 2.2, "contrast ratio".
    fn contrast(self, other: Self) -> f64 {
        let (one, two) = (self.luminance(), other.luminance());
        (one.max(two) + 0.05) / (one.min(two) + 0.05)
    }

    /// WCAG 2.2, "relative luminance".
    fn luminance(self) -> f64 {
        let [red, green, blue] = self.0.map(|channel| {
            let value = f64::from(channel) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * red + 0.7152 * green + 0.0722 * blue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_accent_stays_readable() {
        for accent in ["#000000", "#ffffff", "#ffcc00", "#1f4f8f", "#777777", "#00ff00", "#ff0000"] {
            let colour = Colour::parse(accent).unwrap();
            assert!(colour.contrast(colour.ink()) >= 4.4, "{accent}");
            assert!(colour.readable_on(LIGHT).contrast(LIGHT) >= READABLE, "{accent}");
            assert!(colour.readable_on(DARK).contrast(DARK) >= READABLE, "{accent}");
        }
    }

    #[test]
    fn each_accent_has_its_own_style_and_the_hash_of_that() {
        for accent in ["#000000", "#1f4f8f", "#1f4f8f", "#000000"] {
            let shell = Shell::new("x", accent, None);
            assert!(shell.style.contains(&format!("--accent:{accent};")) && shell.mark.contains(accent), "{accent}");
            let hash = STANDARD.encode(Sha256::digest(shell.style.as_bytes()));
            assert_eq!(*shell.style_source(), *format!("'sha256-{hash}'"), "{accent}");
        }
    }

    #[test]
    fn nothing_but_a_colour_gets_into_the_style_sheet() {
        for bad in ["", "red", "#12345", "#1234567", "#12345g", "#+12345", "}*{"] {
            assert!(Shell::new("x", bad, None).style.contains("--accent:#"), "{bad}");
        }
    }

    /// Text 4.5:1, edges of fields and the focus ring 3:1 (WCAG 2.2, 1.4.3 and 1.4.11), in both schemes.
    #[test]
    fn the_style_sheets_own_colours_can_be_read() {
        let (light, dark) = STYLE.split_once("prefers-color-scheme:dark").unwrap();
        for (scheme, style) in [("light", light), ("dark", dark)] {
            let colour = |name: &str| {
                let value = style.split_once(&format!("--{name}:")).unwrap().1.split([';', '}']).next().unwrap();
                let value = if value == "#fff" { "#ffffff" } else { value };
                Colour::parse(value).unwrap()
            };
            for (ink, grounds, least) in [
                ("ink", ["ground", "card", "note"], READABLE),
                ("soft", ["ground", "card", "card"], READABLE),
                ("bad", ["card", "bad-ground", "bad-ground"], READABLE),
                ("field", ["card", "card", "card"], 3.0),
            ] {
                for ground in grounds {
                    let contrast = colour(ink).contrast(colour(ground));
                    assert!(contrast >= least, "{scheme}: {ink} on {ground} is {contrast:.2}");
                }
            }
            let card = if scheme == "light" { LIGHT } else { DARK };
            assert_eq!(colour("card"), card, "{scheme}: what links are made readable on");
        }
    }
}
