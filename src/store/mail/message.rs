//! A mail as it goes out (RFC 5322). lettre encodes every header, so that no text of a person can begin another one.

use std::time::{Duration, UNIX_EPOCH};

use lettre::{
    Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
};

use crate::{
    core::time::Timestamp,
    ports::{Entropy, Mail},
};

/// RFC 3834: machines do not answer it.
#[derive(Clone)]
struct AutoSubmitted;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

/// # Errors
/// What is wrong with the recipient's address.
pub(super) fn message(mail: &Mail, sender: &Mailbox, at: Timestamp, entropy: &dyn Entropy) -> Result<Message, String> {
    let to = mail.to.parse().map_err(|error| format!("no address that mails can be sent to ({error})"))?;
    let mut random = [0_u8; 16];
    entropy.fill(&mut random);
    let id: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let since = Duration::from_millis(u64::try_from(at.unix_millis()).unwrap_or_default());
    // What a header cannot hold is no part of a subject either.
    let subject: String = mail.subject.chars().filter(|letter| !letter.is_control()).collect();
    Message::builder()
        .from(sender.clone())
        .to(Mailbox::new(None, to))
        .subject(subject)
        .date(UNIX_EPOCH + since)
        .message_id(Some(format!("<{id}@{}>", sender.email.domain())))
        .header(AutoSubmitted)
        .multipart(MultiPart::alternative_plain_html(mail.text.clone(), mail.html.clone()))
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use mail_parser::MessageParser;

    use super::*;
    use crate::store::system::SystemEntropy;

    fn mail() -> Mail {
        Mail {
            user: "zoe".to_owned(),
            to: "zoe@example.com".to_owned(),
            subject: "New sign-in to Exämple: Firefox".to_owned(),
            text: "Hello Zoë,\n\nit was 🦀.\n.\nNot the end.\n".to_owned(),
            html: "<p>Hello Zoë</p>".to_owned(),
        }
    }

    fn formatted(mail: &Mail) -> Vec<u8> {
        let sender = "Pöstern <postern@example.com>".parse().unwrap();
        message(mail, &sender, Timestamp::from_unix_millis(1_795_305_600_000), &SystemEntropy).unwrap().formatted()
    }

    #[test]
    fn is_read_by_others_as_it_was_meant() {
        let bytes = formatted(&mail());
        let read = MessageParser::default().parse(&bytes).unwrap();
        assert_eq!(read.subject(), Some("New sign-in to Exämple: Firefox"));
        let (from, to) = (read.from().unwrap().first().unwrap(), read.to().unwrap().first().unwrap());
        assert_eq!((from.name(), from.address()), (Some("Pöstern"), Some("postern@example.com")));
        assert_eq!((to.name(), to.address()), (None, Some("zoe@example.com")));
        assert_eq!(read.date().unwrap().to_timestamp(), 1_795_305_600);
        assert!(read.message_id().unwrap().ends_with("@example.com"), "{:?}", read.message_id());
        assert_eq!(read.header("Auto-Submitted").and_then(|value| value.as_text()), Some("auto-generated"));
        assert_eq!(read.body_text(0).unwrap().replace("\r\n", "\n"), mail().text);
        assert_eq!(read.body_html(0).unwrap().trim_end(), mail().html);
        assert!(bytes.is_ascii(), "it passes servers that know no 8 bits");
    }

    #[test]
    fn no_text_begins_another_header() {
        for evil in ["x\r\nBcc: evil@example.net", "x\nBcc: evil@example.net", "x\r\n\r\nbody", "x\0\u{85}\u{2028}y"] {
            let bytes = formatted(&Mail { subject: evil.to_owned(), ..mail() });
            let read = MessageParser::default().parse(&bytes).unwrap();
            let names: Vec<&str> = read.headers().iter().map(|header| header.name()).collect();
            let usual =
                ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
            assert_eq!(names, usual, "{evil:?}");
            assert!(read.subject().unwrap().starts_with('x'), "{evil:?}");
        }
        let sender = "postern@example.com".parse().unwrap();
        for evil in ["a@b\r\nBcc: c@d", "a@b, c@d", "a", "<a@b>\n", "a b@c"] {
            let mail = Mail { to: evil.to_owned(), ..mail() };
            assert!(message(&mail, &sender, Timestamp::default(), &SystemEntropy).is_err(), "{evil:?}");
        }
    }
}
