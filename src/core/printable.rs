//! Text of a file or of a client, fit to be shown to a person. Used where a command or a log line quotes what others wrote.

/// The text, with U+FFFD in place of what a terminal takes for a command and of what turns the order of letters around.
#[must_use]
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if is_printable(letter) { letter } else { char::REPLACEMENT_CHARACTER }).collect()
}

fn is_printable(letter: char) -> bool {
    let turns = matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    !letter.is_control() && !turns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_a_terminal_are_no_text() {
        assert_eq!(printable("a\u{1b}[2Jb\u{7}\u{9b}\n"), "a\u{fffd}[2Jb\u{fffd}\u{fffd}\u{fffd}");
        assert_eq!(printable("a\u{202e}b\u{2066}"), "a\u{fffd}b\u{fffd}");
        assert_eq!(printable("Zoë 🦀 {}"), "Zoë 🦀 {}");
    }
}
