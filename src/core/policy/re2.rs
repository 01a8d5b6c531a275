//! RE2's spelling (Go's `regexp/syntax`, which Authelia has) in that of the regex crates. Called by `pattern` when rules are loaded; says
//! nothing of what a regex means.

use std::{iter::Peekable, str::Chars};

/// Classes that RE2 knows by `[:name:]`.
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// What stands before the next character of a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A character that may begin a range.
    One,
    /// The hyphen of a range that waits for its end.
    Range,
    /// Nothing, a whole range, or a class: a hyphen after it is one.
    Whole,
}

/// RE2's `\d \w \s \b` are ASCII, here they would be Unicode; and inside a class `[`, `&&` and `~~` are plain characters to RE2, but not here.
/// Characters stay characters, so switching Unicode off (where `.` is a byte) would not do. What RE2 refuses, or reads otherwise, is a fault.
pub(super) fn as_regex_syntax(written: &str) -> Result<String, String> {
    let mut source = String::with_capacity(written.len() + 16);
    let mut class: Option<Before> = None;
    let mut quantified = Quantified::No;
    let mut left = written.chars().peekable();
    while let Some(character) = left.next() {
        let Some(before) = class else {
            quantified = quantified.then(character, left.peek()).ok_or_else(|| {
                format!("the regex {written:?} repeats a repetition, which RE2 does not know: put brackets around the inner one")
            })?;
            match character {
                '\\' => {
                    let escaped = left.next();
                    push_escaped(written, &mut source, escaped, false)?;
                    if escaped.is_some_and(|escaped| "xpP".contains(escaped)) {
                        push_braced(&mut source, &mut left);
                    }
                }
                '[' => {
                    class = Some(Before::Whole);
                    source.push('[');
                    if left.next_if_eq(&'^').is_some() {
                        source.push('^');
                    }
                    if left.next_if_eq(&']').is_some() {
                        source.push_str("\\]");
                        class = Some(Before::One);
                    }
                }
                '(' => {
                    source.push('(');
                    check_flags(written, left.clone())?;
                }
                '{' => {
                    source.push('{');
                    check_count(written, left.clone())?;
                }
                _ => source.push(character),
            }
            continue;
        };
        let one = if before == Before::Range { Before::Whole } else { Before::One };
        let mut next = Some(one);
        match character {
            '\\' => {
                let escaped = left.next();
                if escaped.is_some_and(|escaped| "dDwWsSpP".contains(escaped)) {
                    no_end_of_range(written, before)?;
                    next = Some(Before::Whole);
                }
                push_escaped(written, &mut source, escaped, true)?;
                // `\pL` or `\p{Greek}`.
                if escaped.is_some_and(|escaped| "pP".contains(escaped)) && left.peek() != Some(&'{') {
                    source.extend(left.next());
                } else if escaped.is_some_and(|escaped| "xpP".contains(escaped)) {
                    push_braced(&mut source, &mut left);
                }
            }
            // `[:alpha:]` and its like, ASCII in both.
            '[' if left.peek() == Some(&':') => {
                no_end_of_range(written, before)?;
                let name = posix_class(left.clone()).ok_or_else(|| {
                    format!(
                        "the regex {written:?} has [: within [ ] and no class that RE2 knows: write one of [:{}:], or \\[ for a bracket",
                        POSIX_CLASSES.join(":], [:")
                    )
                })?;
                source.push('[');
                // With both colons and the bracket.
                source.extend(left.by_ref().take(name + 3));
                next = Some(Before::Whole);
            }
            '[' => source.push_str("\\["),
            ']' => {
                source.push(']');
                next = None;
            }
            '&' | '~' => {
                source.push('\\');
                source.push(character);
            }
            '-' if left.peek() == Some(&'-') => {
                return Err(format!("the regex {written:?} has -- within [ ]: write \\- for a hyphen there"));
            }
            '-' if before == Before::One && left.peek() != Some(&']') => {
                source.push('-');
                next = Some(Before::Range);
            }
            '-' => source.push_str("\\-"),
            _ => source.push(character),
        }
        class = next;
    }
    Ok(source)
}

/// Whether what was just read is repeated.
#[derive(Clone, Copy)]
enum Quantified {
    No,
    /// Within `{2,3}`.
    Counting,
    Yes,
    /// With its `?`.
    Lazily,
}

impl Quantified {
    /// `None`: a repetition of a repetition.
    fn then(self, character: char, next: Option<&char>) -> Option<Self> {
        let begins_count = character == '{' && next.is_some_and(char::is_ascii_digit);
        let repeats = begins_count || matches!(character, '*' | '+' | '?');
        match (self, character) {
            (Self::Counting, '}') => Some(Self::Yes),
            (Self::Counting, _) => Some(Self::Counting),
            (Self::Yes, '?') => Some(Self::Lazily),
            (Self::Yes | Self::Lazily, _) if repeats => None,
            _ if begins_count => Some(Self::Counting),
            _ if repeats => Some(Self::Yes),
            _ => Some(Self::No),
        }
    }
}

/// After `{`: a count with blanks in it, or without its first number, is plain text to RE2.
fn check_count(written: &str, left: impl Iterator<Item = char>) -> Result<(), String> {
    let count: String =
        left.take_while(|inner| inner.is_ascii_digit() || *inner == ',' || inner.is_whitespace()).collect();
    if count.starts_with(',') || count.contains(char::is_whitespace) {
        return Err(format!(
            "the regex {written:?} has a count that RE2 reads as text: write {{2}}, {{2,}} or {{2,3}}"
        ));
    }
    Ok(())
}

fn push_escaped(written: &str, source: &mut String, escaped: Option<char>, is_in_class: bool) -> Result<(), String> {
    let Some(escaped) = escaped else {
        return Err(format!("the regex {written:?} ends in a lone backslash"));
    };
    if matches!(escaped, 'u' | 'U') {
        return Err(format!("the regex {written:?} has \\{escaped}, which RE2 does not know: write \\x{{…}}"));
    }
    let ascii = match escaped {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\x0C\\r ]",
        'S' => "[^\\t\\n\\x0C\\r ]",
        'b' if !is_in_class => "(?-u:\\b)",
        'B' if !is_in_class => "(?-u:\\B)",
        // Characters to RE2, the edges of a word here.
        '<' => "<",
        '>' => ">",
        _ => {
            source.push('\\');
            source.push(escaped);
            return Ok(());
        }
    };
    source.push_str(ascii);
    Ok(())
}

/// The braces of `\x{41}` and `\p{Greek}`, which are no count.
fn push_braced(source: &mut String, left: &mut Peekable<Chars<'_>>) {
    if left.peek() == Some(&'{') {
        for inner in left.by_ref() {
            source.push(inner);
            if inner == '}' {
                break;
            }
        }
    }
}

fn no_end_of_range(written: &str, before: Before) -> Result<(), String> {
    if before == Before::Range {
        return Err(format!(
            "the regex {written:?} has a range within [ ] that ends in a class: write \\- for a hyphen there"
        ));
    }
    Ok(())
}

/// After `[`: how many characters stand between the colons.
fn posix_class(left: impl Iterator<Item = char>) -> Option<usize> {
    let text: String = left.take(12).collect();
    let (name, _) = text.strip_prefix(':')?.split_once(":]")?;
    POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)).then(|| name.chars().count())
}

/// After `(`. RE2 has `i m s U`; `x u R` mean something here alone.
fn check_flags(written: &str, mut left: impl Iterator<Item = char>) -> Result<(), String> {
    if left.next() != Some('?') {
        return Ok(());
    }
    let flags: String = left.take_while(|flag| flag.is_ascii_alphabetic() || *flag == '-').collect();
    // `(?P<name>` is no flag.
    match flags.chars().find(|flag| !"imsUP-".contains(*flag)) {
        Some(flag) => {
            Err(format!("the regex {written:?} has the flag {flag:?}, which RE2 does not know: write i, m, s or U"))
        }
        None => Ok(()),
    }
}
