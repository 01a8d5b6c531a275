//! Text that YAML reads back as it was, whatever it holds. All that the import writes of Authelia's goes through here.

/// Words that some reader of YAML takes for something else than text.
const WORDS: &[&str] = &["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];

/// A scalar, fit for a block and for a list in brackets.
pub(super) fn scalar(text: &str) -> String {
    if is_plain(text) {
        text.to_owned()
    } else if text.chars().all(is_printable) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        escaped(text)
    }
}

/// As [`scalar`], where `${NAME}` would be taken for a variable of the environment.
pub(super) fn literal(text: &str) -> String {
    scalar(&text.replace("${", "$${"))
}

/// `[a, b]`, or below one another where that would be long.
pub(super) fn list(entries: &[String], indent: usize) -> String {
    const WIDE: usize = 100;
    let entries: Vec<String> = entries.iter().map(|entry| scalar(entry)).collect();
    let joined = entries.join(", ");
    if joined.chars().count() <= WIDE {
        return format!("[{joined}]");
    }
    let below = format!("\n{:indent$}- ", "");
    entries.iter().flat_map(|entry| [below.as_str(), entry.as_str()]).collect()
}

/// What a comment may hold of a file's name.
pub(super) fn comment(text: &str) -> String {
    text.chars().map(|letter| if is_printable(letter) { letter } else { '?' }).collect()
}

fn is_plain(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b' '))
        && !text.ends_with(' ')
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

/// Stays itself between single quotes.
fn is_printable(letter: char) -> bool {
    !letter.is_control() && !matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn escaped(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            _ if is_printable(letter) => quoted.push(letter),
            _ => quoted.push_str(&format!("\\U{:08X}", u32::from(letter))),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::config::source::{Kind, Node, parse};

    fn texts(node: &Node) -> Vec<String> {
        match &node.kind {
            Kind::Str(text) => vec![text.clone()],
            Kind::Seq(items) => items.iter().flat_map(texts).collect(),
            Kind::Map(entries) => entries.iter().flat_map(|entry| texts(&entry.value)).collect(),
            other => vec![format!("no text: {other:?}")],
        }
    }

    /// In all places where the import writes it.
    fn round_trips(text: &str) {
        let twice = [text.to_owned(), text.to_owned()];
        let file = format!(
            "block: {one}  # a comment\nlist: {list}  # a comment\nlong:\n  - {one}\n",
            one = scalar(text),
            list = list(&twice, 2)
        );
        let root = parse(Path::new("a.yaml"), &file).unwrap_or_else(|fault| panic!("{text:?} in {file}: {fault}"));
        assert!(texts(&root).iter().all(|read| read == text), "{text:?} in {file}");
        assert!(matches!(&root.kind, Kind::Map(entries) if entries.len() == 3), "{text:?} in {file}");
    }

    #[test]
    fn special_texts_come_back_as_they_were() {
        for text in [
            "",
            " ",
            "a ",
            "~",
            "null",
            "Yes",
            "off",
            "NaN",
            ".inf",
            "1",
            "0x10",
            "1e3",
            "1_000",
            "2001-01-01",
            "-",
            "- a",
            "--- a",
            "...",
            "a: b",
            "a:",
            ": a",
            "a #b",
            "#a",
            "{a: b}",
            "[a]",
            "a, b",
            "*a",
            "&a",
            "!a",
            "!!binary x",
            "|",
            ">",
            "%YAML",
            "@a",
            "`a`",
            "'",
            "''",
            "\"",
            "\\",
            "it's",
            "a\nb",
            "a\n\nb\n",
            "a\r\nb",
            "\ta",
            "a\u{0}b",
            "\u{7f}",
            "\u{85}",
            "\u{a0}",
            "\u{2028}",
            "\u{feff}",
            "🦀",
            "^(?P<User>\\w+)\\.example\\.com$",
            "x\npolicy: bypass",
            "x  # from nowhere",
            "<<",
            "=",
            "?",
            "? a",
            "http://a:80/",
        ] {
            round_trips(text);
        }
        assert_eq!(comment("a\nb: c"), "a?b: c");
    }

    #[test]
    fn a_long_list_stands_below_one_another() {
        let entries: Vec<String> = (0..30).map(|number| format!("host{number}.example.com")).collect();
        let root = parse(Path::new("a.yaml"), &format!("list:{}\n", list(&entries, 2))).unwrap();
        assert_eq!(texts(&root), entries);
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_it_was(text in "\\PC{0,40}|(?s).{0,40}|[-:#'\"\\[\\]{}&*!|>%@`,? \n\t\\\\a1~$]{0,20}") {
            round_trips(&text);
        }
    }
}
