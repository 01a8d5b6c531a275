//! A `User-Agent` in words that people know: "Firefox on Linux". A hint for people, never a decision: whoever asks can say what they like.
//! Read where sessions are listed and where a notice is written, never on the way of a request.
//!
//! By the library of the project ua-parser and its table `regexes.yaml` beside this file (github.com/ua-parser/uap-core 0.18.0, Apache-2.0,
//! Copyright 2009 Google Inc.): to take a newer table, replace the file. Its expressions are linear in the text, and the text is short, so
//! that a hostile one costs no more than an honest one. The table is compiled at the first look: some 30 ms and 13 MB.

use std::sync::LazyLock;

use ua_parser::{Regexes, device, os, user_agent};

/// How much of a `User-Agent` is kept and looked at, in characters: enough to name a device, not enough to fill a database.
pub const MAX_USER_AGENT: usize = 300;

/// Longest name that is told. Some expressions take it from the text itself.
const MAX_NAME: usize = 40;

static TABLE: &str = include_str!("regexes.yaml");

/// `None`: the table cannot be read, which a test would have told.
static KNOWN: LazyLock<Option<Known>> = LazyLock::new(|| Known::compiled(TABLE));

struct Known {
    browsers: user_agent::Extractor<'static>,
    systems: os::Extractor<'static>,
    devices: device::Extractor<'static>,
}

impl Known {
    fn compiled(table: &str) -> Option<Self> {
        let Regexes { user_agent_parsers, os_parsers, mut device_parsers } = serde_yaml::from_str(table).ok()?;
        // Browsers on Android no longer tell the model, and elsewhere there is none: what is left are Apple's, which all say which they are.
        device_parsers.retain(|parser| parser.brand_replacement.as_deref() == Some("Apple"));
        Some(Self {
            browsers: user_agent::Builder::new().push_all(user_agent_parsers).ok()?.build().ok()?,
            systems: os::Builder::new().push_all(os_parsers).ok()?.build().ok()?,
            devices: device::Builder::new().push_all(device_parsers).ok()?.build().ok()?,
        })
    }
}

/// What is known of a browser or a program. Names hold letters, digits, spaces and `.+-` alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// `Firefox`, `curl`.
    pub browser: Option<String>,
    /// `Windows`, `iOS`.
    pub system: Option<String>,
    /// `iPhone`; what runs on it where nothing says more.
    pub device: Option<String>,
}

impl Device {
    /// What is beyond [`MAX_USER_AGENT`] is not looked at.
    #[must_use]
    pub fn of(user_agent: &str) -> Self {
        let end = user_agent.char_indices().nth(MAX_USER_AGENT).map_or(user_agent.len(), |(end, _)| end);
        let (Some(text), Some(known)) = (user_agent.get(..end), &*KNOWN) else { return Self::default() };
        let browser = known.browsers.extract(text).and_then(|found| browser_name(&found.family));
        let system = known.systems.extract(text).and_then(|found| system_name(&found.os));
        let device = known.devices.extract(text).and_then(|found| named(&found.device));
        Self { browser, device: device.or_else(|| system.clone()), system }
    }

    /// In one line.
    #[must_use]
    pub fn words(&self) -> String {
        match (&self.browser, &self.device) {
            (Some(browser), Some(device)) => format!("{browser} on {device}"),
            (Some(one), None) | (None, Some(one)) => one.clone(),
            (None, None) => "Unknown device".to_owned(),
        }
    }
}

/// Of all its editions, the one name that people know.
fn browser_name(family: &str) -> Option<String> {
    let words: Vec<&str> = family.split(' ').filter(|word| !matches!(*word, "Mobile" | "iOS" | "WebView")).collect();
    named(&words.join(" "))
}

fn system_name(family: &str) -> Option<String> {
    match family {
        "Mac OS X" => Some("macOS".to_owned()),
        "Chrome OS" => Some("ChromeOS".to_owned()),
        other => named(other),
    }
}

/// A name from the text of whoever asks must not become a sentence, an address or a command in what others read.
fn named(name: &str) -> Option<String> {
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || matches!(letter, ' ' | '.' | '+' | '-');
    let name: String = name.chars().filter(is_plain).take(MAX_NAME).collect();
    let name = name.trim();
    (!name.is_empty() && name != "Other").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_people_know() {
        for (user_agent, said) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (iPad; CPU OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) CriOS/140.0 Mobile/15E148 Safari/604.1",
                "Chrome on iPad",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            (
                "Mozilla/5.0 (Linux; Android 14; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/25.0 Chrome/121.0.0.0 Mobile Safari/537.36",
                "Samsung Internet on Android",
            ),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.3 Safari/605.1.15",
                "Safari on Mac",
            ),
            (
                "Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36",
                "Chrome on ChromeOS",
            ),
            ("Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "Firefox on Android"),
            ("curl/8.14.1", "curl"),
            ("python-requests/2.32", "Python Requests"),
            ("", "Unknown device"),
            ("\u{202e}<script>alert(1)</script>", "Unknown device"),
        ] {
            assert_eq!(Device::of(user_agent).words(), said, "{user_agent}");
        }
        let phone =
            Device::of("Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Mobile Safari/604.1");
        let told = [phone.device, phone.browser, phone.system].map(Option::unwrap_or_default);
        assert_eq!(told, ["iPhone", "Safari", "iOS"]);
    }

    /// Whatever is sent: names stay names, and what is long is not looked at to its end.
    #[test]
    fn a_hostile_text_costs_no_more_and_says_no_more() {
        let every_mark = "iPhone Android Chrome/1 Firefox/ Safari Version/ Mobile Windows NT Mac OS X CrOS bot Opera ";
        let hostile = [
            "a".repeat(1 << 20),
            "(".repeat(1 << 20),
            "Mozilla/5.0 (".repeat(1 << 16),
            every_mark.repeat(1 << 14),
            "Your-account-is-locked:https://evil.example/\r\nBcc: x@y/1.0 ".repeat(1 << 14),
            "ä\u{202e}\u{1f600}/1.0 ".repeat(1 << 14),
        ];
        for text in hostile {
            let device = Device::of(&text);
            let beginning: String = text.chars().take(MAX_USER_AGENT).collect();
            assert_eq!(device, Device::of(&beginning), "{beginning}");
            for name in [device.browser, device.system, device.device].into_iter().flatten() {
                assert!(name.chars().count() <= MAX_NAME, "{name}");
                assert!(!name.contains([':', '/', '<', '\r', '\n', '@']), "{name}");
            }
        }
    }
}
