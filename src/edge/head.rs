//! Reads the head of an HTTP/1 request off its connection, before pingora parses it. Called by `listener` once a request.
//!
//! Pingora gives up on a head of more than 256 fields or 1 MiB with a bare 400, takes `Content-Length` out where
//! `Transfer-Encoding` stands beside it, and has one deadline a read instead of one over the whole. So a head is read here; one
//! that is refused goes on cut short, with the reason beside it, and is answered, logged and counted like any other request.

use bytes::{Buf, BytesMut};
use memchr::{memchr, memchr_iter};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::core::verdict::Rejection;

/// Names and values of all header fields, as HTTP/2 counts them (RFC 9113 §6.5.2, less its 32 a field). More is 431.
pub(super) const MAX_BYTES: usize = 64 * 1024;
/// Fields of one request. More is 431.
pub(super) const MAX_FIELDS: usize = 200;
/// The most of one head that is held in memory: what `MAX_BYTES` allows, and room for what lies between fields.
const HELD: usize = MAX_BYTES + 4 * MAX_FIELDS + 64;
/// The most of an oversized head that is read and thrown away, so that its sender hears the answer: a connection that is closed with
/// bytes unread is reset, and the answer lost.
const DRAINED: usize = 1024 * 1024;
/// In place of a head of which nothing is to be seen.
const NOTHING: &[u8] = b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n";
/// Fits most heads.
const FIRST_READ: usize = 4096;

#[derive(Debug)]
pub(super) struct Head {
    /// For the parser, with whatever of the body came along.
    pub(super) bytes: BytesMut,
    pub(super) fault: Option<Rejection>,
}

/// Reads one head. `None` where the connection ended or failed before its first byte or within it.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin + ?Sized)) -> Option<Head> {
    let mut bytes = BytesMut::with_capacity(FIRST_READ);
    let (mut searched, mut checked) = (0, 0);
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        skip_empty_lines(&mut bytes, &mut searched);
        if let Some(end) = end(&bytes, searched) {
            let fault = bytes.get(..end).and_then(fault);
            let bytes = if fault.is_some() { cut(&bytes) } else { bytes };
            return Some(Head { bytes, fault });
        }
        if bytes.len() > HELD {
            let bytes_of_it = cut(&bytes);
            drain(stream, bytes).await;
            return Some(Head { bytes: bytes_of_it, fault: Some(Rejection::HeadersTooLarge) });
        }
        if is_hopeless(&bytes, &mut checked) {
            return Some(Head { bytes: BytesMut::from(NOTHING), fault: Some(Rejection::Malformed) });
        }
        searched = bytes.len();
    }
}

/// Whether what has come of a head will never be one: TLS on a plain port, another protocol. Its sender hears so at once and not after
/// the deadline. A line is looked at once.
fn is_hopeless(bytes: &[u8], checked: &mut usize) -> bool {
    if !bytes.first().copied().is_none_or(is_token) {
        return true;
    }
    while let Some((line, after)) = bytes.get(*checked..).and_then(line) {
        let is_first = *checked == 0;
        *checked += after;
        let is_good = if is_first {
            line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
        } else {
            let name = memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
            !name.is_empty() && name.iter().copied().all(is_token)
        };
        if !is_good {
            return true;
        }
    }
    false
}

/// The first line without its end, and where the next one begins.
fn line(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr(b'\n', bytes)?;
    let line = bytes.get(..end)?;
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Empty lines before a request are no part of it (RFC 9112 §2.2).
fn skip_empty_lines(bytes: &mut BytesMut, searched: &mut usize) {
    if *searched == 0 {
        let empty = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
        bytes.advance(empty);
    }
}

/// Where the empty line after the fields ends. Lines may end in LF alone, as the parser behind allows.
fn end(bytes: &[u8], searched: usize) -> Option<usize> {
    // The end may have come in parts.
    let from = searched.saturating_sub(3);
    memchr_iter(b'\n', bytes.get(from..)?).find_map(|at| {
        let after = from + at + 1;
        match bytes.get(after..)? {
            [b'\n', ..] => Some(after + 1),
            [b'\r', b'\n', ..] => Some(after + 2),
            _ => None,
        }
    })
}

/// Why a whole head is refused before anybody parses it.
fn fault(head: &[u8]) -> Option<Rejection> {
    if head.len() > HELD {
        return Some(Rejection::HeadersTooLarge);
    }
    let (mut fields, mut has_length, mut has_encoding) = (0_usize, false, false);
    let mut line_starts = 0;
    for line_ends in memchr_iter(b'\n', head) {
        let line = head.get(line_starts..line_ends).unwrap_or_default();
        line_starts = line_ends + 1;
        match line.first() {
            // The first letter tells most fields apart from the two that are looked for.
            Some(b'c' | b'C') => has_length |= is_field(line, b"content-length"),
            Some(b't' | b'T') => has_encoding |= is_field(line, b"transfer-encoding"),
            _ => {}
        }
        fields += 1;
    }
    // The request's own line, and the empty one.
    if fields.saturating_sub(2) > MAX_FIELDS {
        Some(Rejection::HeadersTooLarge)
    } else if has_length && has_encoding {
        Some(Rejection::Framing)
    } else {
        None
    }
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    let (found, rest) = line.split_at_checked(name.len()).unwrap_or_default();
    found.eq_ignore_ascii_case(name) && rest.first() == Some(&b':')
}

/// What of a refused head goes on to be answered: its own line and the fields that say how the answer should look. Nothing
/// of it says that a body comes, or is a fault of its own, and the connection ends.
fn cut(bytes: &[u8]) -> BytesMut {
    const TOLD: [&[u8]; 5] = [b"accept", b"accept-language", b"sec-fetch-mode", b"sec-fetch-dest", b"x-requested-with"];
    let Some((first, mut place)) =
        line(bytes).filter(|(first, _)| first.len() <= MAX_BYTES && is_in_origin_form(first))
    else {
        return BytesMut::from(NOTHING);
    };
    let mut short = BytesMut::with_capacity(FIRST_READ);
    short.extend_from_slice(first);
    let mut told = [false; TOLD.len()];
    for _ in 0..MAX_FIELDS {
        let Some((field, after)) = bytes.get(place..).and_then(line).filter(|(field, _)| !field.is_empty()) else {
            break;
        };
        place += after;
        let known = TOLD.iter().zip(&mut told).find(|(name, _)| is_field(field, name));
        if let Some((_, is_told)) = known
            && !std::mem::replace(is_told, true)
            && field.len() < FIRST_READ
        {
            short.extend_from_slice(b"\r\n");
            short.extend_from_slice(field);
        }
    }
    short.extend_from_slice(b"\r\nConnection: close\r\n\r\n");
    short
}

/// `GET /a HTTP/1.1`.
fn is_in_origin_form(line: &[u8]) -> bool {
    let mut words = line.split(|byte| *byte == b' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    method.is_some_and(|method| !method.is_empty() && method.iter().all(u8::is_ascii_uppercase))
        && target.is_some_and(|target| target.starts_with(b"/") && target.iter().all(u8::is_ascii_graphic))
        && matches!(version, Some(b"HTTP/1.1" | b"HTTP/1.0"))
        && words.next().is_none()
}

/// Reads the rest of an oversized head and throws it away, up to a limit; the caller's deadline bounds the time.
async fn drain(stream: &mut (impl AsyncRead + Unpin + ?Sized), mut last: BytesMut) {
    let mut drained = last.len();
    let mut tail = last.split_off(last.len().saturating_sub(3));
    drop(last);
    while drained < DRAINED {
        let searched = tail.len();
        match stream.read_buf(&mut tail).await {
            Ok(read) if read > 0 => drained += read,
            _ => return,
        }
        if end(&tail, searched).is_some() {
            return;
        }
        tail.advance(tail.len().saturating_sub(3));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// What is read when the client sends `sent` in pieces of `piece` bytes and goes away.
    async fn sent(sent: &[u8], piece: usize) -> Option<Head> {
        let (mut client, mut server) = tokio::io::duplex(piece);
        let (_, head) = tokio::join!(
            async {
                // The reader may have seen enough.
                let _ = client.write_all(sent).await;
                drop(client);
            },
            async {
                let head = read(&mut server).await;
                drop(server);
                head
            }
        );
        head
    }

    fn with_fields(fields: usize) -> String {
        format!("GET /a HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(fields - 1))
    }

    #[tokio::test]
    async fn a_head_is_read_whole_however_it_comes() {
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\n\n",
            "GET / HTTP/1.1\r\nHost: a\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n",
            &with_fields(MAX_FIELDS),
        ] {
            for piece in [1, 2, 3, 7, 100_000] {
                let got = sent(head.as_bytes(), piece).await.unwrap();
                assert_eq!((got.bytes.as_ref(), got.fault), (head.as_bytes(), None), "{piece}");
            }
            let before_and_after = format!("\r\n\n{head}abc\n\n");
            let got = sent(before_and_after.as_bytes(), 100_000).await.unwrap();
            assert_eq!((got.bytes.as_ref(), got.fault), (format!("{head}abc\n\n").as_bytes(), None));
        }
    }

    #[tokio::test]
    async fn what_ends_within_a_head_is_no_request() {
        for part in ["", "\r\n\r\n", "GET", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n", "\r"] {
            assert!(sent(part.as_bytes(), 5).await.is_none(), "{part:?}");
        }
    }

    #[tokio::test]
    async fn what_is_too_large_is_cut_short_and_says_so() {
        let large = |size: usize| {
            format!("GET /a HTTP/1.1\r\nAccept: b\r\nX: {}\r\nTransfer-Encoding: chunked\r\n\r\n", "x".repeat(size))
        };
        let accepted: &[u8] = b"GET /a HTTP/1.1\r\nAccept: b\r\nConnection: close\r\n\r\n";
        let bare: &[u8] = b"GET /a HTTP/1.1\r\nConnection: close\r\n\r\n";
        for (head, rest) in [
            (with_fields(MAX_FIELDS + 1), bare),
            (with_fields(257), bare),
            (with_fields(5_000), bare),
            (with_fields(100_000), bare),
            (large(70_000), accepted),
            (large(900_000), accepted),
            (large(3_000_000), accepted),
            (
                format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000)),
                b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            ),
        ] {
            for piece in [1_000, 100_000] {
                let got = sent(head.as_bytes(), piece).await.unwrap();
                assert_eq!(got.fault, Some(Rejection::HeadersTooLarge), "{}", head.len());
                assert_eq!(String::from_utf8_lossy(&got.bytes), String::from_utf8_lossy(rest), "{}", head.len());
            }
        }
    }

    #[tokio::test]
    async fn threat_51_two_words_about_one_body_are_refused_and_the_body_is_never_read() {
        for (length, encoding) in
            [("Content-Length: 5", "Transfer-Encoding: chunked"), ("content-length:5", "TRANSFER-ENCODING:identity")]
        {
            for both in [[length, encoding], [encoding, length]] {
                let head = format!(
                    "POST /a HTTP/1.1\r\nHost: a\r\n{}\r\n\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
                    both.join("\r\n")
                );
                let got = sent(head.as_bytes(), 100_000).await.unwrap();
                assert_eq!(got.fault, Some(Rejection::Framing));
                assert_eq!(got.bytes.as_ref(), b"POST /a HTTP/1.1\r\nConnection: close\r\n\r\n");
            }
        }
        let like = "POST /a HTTP/1.1\r\nContent-Length: 5\r\nX: Transfer-Encoding: chunked\r\nTransfer-Encodin: a\r\nTransfer-Encoding2: b\r\n\r\n";
        assert_eq!(sent(like.as_bytes(), 100_000).await.unwrap().fault, None);
    }

    /// Its sender would wait for an answer until the deadline.
    #[tokio::test]
    async fn what_will_never_be_a_head_is_refused_at_once() {
        for begin in [
            &b"\x16\x03\x01\x02\x00\x01\x00"[..],
            b"SSH-2.0-x\r\n",
            b"GET /\r\n",
            b"GET / HTTP/2.0\r\n",
            b"GET / HTTP/1.1\r\nBad Header\r\n",
            b"GET / HTTP/1.1\r\nBad Header: a\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n",
            b"GET / HTTP/1.1\r\n: a\r\n",
            b"GET / HTTP/1.1\r\nHost : a\r\n",
        ] {
            for piece in [3, 100] {
                let told = sent(begin, piece).await.unwrap();
                assert_eq!((told.fault, &*told.bytes), (Some(Rejection::Malformed), NOTHING), "{begin:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_refused_head_brings_no_fault_of_its_own() {
        let both = "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n";
        for (line, expected) in [
            ("POST http://b/x HTTP/1.1", "GET / HTTP/1.1\r\n"),
            ("CONNECT a:443 HTTP/1.1", "GET / HTTP/1.1\r\n"),
            ("get /a HTTP/1.1", "GET / HTTP/1.1\r\n"),
            ("GET /a b HTTP/1.1", "GET / HTTP/1.1\r\n"),
            ("PUT /a HTTP/1.0", "PUT /a HTTP/1.0\r\n"),
        ] {
            let head = format!("{line}\r\nHost: a\r\nHost: b\r\nAccept: x\r\nAccept: y\r\n{both}\r\n");
            let got = sent(head.as_bytes(), 10_000).await.unwrap();
            assert_eq!(got.fault, Some(Rejection::Framing));
            let text = String::from_utf8(got.bytes.to_vec()).unwrap();
            assert!(text.starts_with(expected) && text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
            assert!(!text.contains("Host") && text.matches("Accept").count() <= 1, "{text}");
        }
    }

    proptest! {
        /// Where the parser behind sees the end of a head, there it is.
        #[test]
        fn the_end_is_where_the_parser_sees_it(
            lines in vec(prop_oneof![
                Just("GET / HTTP/1.1\r\n"), Just("GET / HTTP/1.1\n"), Just("A: b\r\n"), Just("C:\n"), Just("\r\n"), Just("\n"), Just("D: e\r"), Just(" f\r\n"),
            ], 1..8),
        ) {
            let mut bytes = BytesMut::from(lines.concat().as_bytes());
            skip_empty_lines(&mut bytes, &mut 0);
            let mut fields = [httparse::EMPTY_HEADER; 16];
            let mut request = httparse::Request::new(&mut fields);
            match request.parse(&bytes) {
                Ok(httparse::Status::Complete(length)) => prop_assert_eq!(end(&bytes, 0), Some(length)),
                Ok(httparse::Status::Partial) => {
                    prop_assert_eq!(end(&bytes, 0), None);
                    prop_assert!(bytes.is_empty() || !is_hopeless(&bytes, &mut 0), "{bytes:?}");
                }
                Err(_) => {}
            }
        }

        #[test]
        fn any_bytes_in_any_pieces_are_read_alike(bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..80), piece in 1_usize..9) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, parts) = runtime.block_on(async { (sent(&bytes, 1000).await, sent(&bytes, piece).await) });
            // What comes in pieces may be refused before it is whole.
            let (Some(whole), Some(parts)) = (whole, parts) else { return Ok(()) };
            if (whole.fault, parts.fault) == (None, None) {
                // What comes in one piece may bring a part of the body along.
                prop_assert!(whole.bytes.starts_with(&parts.bytes));
            }
        }
    }
}
