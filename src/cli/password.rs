//! Reading a password: asked twice on a terminal, or one line of standard input. Never from the command line itself, where every
//! process of the machine could read it.

use std::io::{BufRead, IsTerminal};

use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use crate::app::Entropy;

/// As NIST SP 800-63B asks at least.
const SHORTEST: usize = 8;

/// A new password.
pub(super) fn read_new(from_stdin: bool) -> anyhow::Result<SecretString> {
    let password = if from_stdin {
        read_line()?
    } else if std::io::stdin().is_terminal() {
        ask_twice()?
    } else {
        bail!("there is no terminal to ask for the password on: add --password-stdin and pipe it in");
    };
    if password.expose_secret().chars().count() < SHORTEST {
        bail!("the password is too short: take at least {SHORTEST} characters");
    }
    Ok(password)
}

/// A password for a person to copy once: 120 bits in letters and digits that cannot be taken for each other.
pub(super) fn random(entropy: &dyn Entropy) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = Zeroizing::new([0_u8; 24]);
    entropy.fill(&mut *bytes);
    bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte % 32))).map(|letter| char::from(*letter)).collect()
}

fn ask_twice() -> anyhow::Result<SecretString> {
    let ask = |prompt| rpassword::prompt_password(prompt).map(Zeroizing::new).context("the terminal cannot be asked");
    let first = ask("Password: ")?;
    let second = ask("Once more: ")?;
    if *first != *second {
        bail!("the two passwords differ: nothing was changed, try again");
    }
    Ok(SecretString::from(first.as_str()))
}

fn read_line() -> anyhow::Result<SecretString> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line).context("standard input cannot be read")?;
    Ok(SecretString::from(line.trim_end_matches(['\r', '\n'])))
}
