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
    let mut searched = 0;
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
        searched = bytes.len();
    }
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
/// of it says that a body comes, and the connection ends.
fn cut(bytes: &[u8]) -> BytesMut {
    const TOLD: [&[u8]; 6] =
        [b"host", b"accept", b"accept-language", b"sec-fetch-mode", b"sec-fetch-dest", b"x-requested-with"];
    let mut short = BytesMut::with_capacity(FIRST_READ);
    let mut rest = bytes;
    let mut take_line = || {
        let (line, after) = rest.split_at_checked(memchr(b'\n', rest)? + 1)?;
        rest = after;
        Some(line)
    };
    match take_line() {
        Some(line) if line.len() <= MAX_BYTES => short.extend_from_slice(line),
        // The target alone is too long: nobody needs to see it.
        _ => return BytesMut::from("GET / HTTP/1.1\r\nConnection: close\r\n\r\n"),
    }
    let mut left = MAX_FIELDS;
    while let Some(line) = take_line() {
        if left == 0 || line.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
            break;
        }
        left -= 1;
        if TOLD.iter().any(|name| is_field(line, name)) && line.len() < FIRST_READ {
            short.extend_from_slice(line);
        }
    }
    short.extend_from_slice(b"Connection: close\r\n\r\n");
    short
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
        let hosted: &[u8] = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        for (head, rest) in [
            (with_fields(MAX_FIELDS + 1), hosted),
            (with_fields(257), hosted),
            (with_fields(5_000), hosted),
            (with_fields(100_000), hosted),
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
                assert!(got.bytes.capacity() <= 2 * HELD, "{}", got.bytes.capacity());
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
                assert_eq!(got.bytes.as_ref(), b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            }
        }
        let like = "POST /a HTTP/1.1\r\nContent-Length: 5\r\nX: Transfer-Encoding: chunked\r\nTransfer-Encodin: a\r\nTransfer-Encoding2: b\r\n\r\n";
        assert_eq!(sent(like.as_bytes(), 100_000).await.unwrap().fault, None);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_read_alike(bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..80), piece in 1_usize..9) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let (whole, parts) = runtime.block_on(async { (sent(&bytes, 1000).await, sent(&bytes, piece).await) });
            prop_assert_eq!(whole.is_some(), parts.is_some());
            let (Some(whole), Some(parts)) = (whole, parts) else { return Ok(()) };
            // What comes in one piece may bring a part of the body along.
            prop_assert!(whole.bytes.starts_with(&parts.bytes));
        }
    }
}
