//! `encoded_slashes: strictest`.

use super::*;

/// Where `strictest` holds, such a path is read as a character and as a slash, and every reading is told.
#[test]
fn threat_03_encoded_slashes_have_every_reading() {
    let readings = |raw: &str| {
        Target::parse_with(Scheme::Https, "app.example.com", raw, EncodedSlashes::Strictest).map(|target| {
            let all: Vec<String> = target.readings().map(str::to_owned).collect();
            assert_eq!(target.raw(), raw, "what goes on is what came");
            assert_eq!(target.has_encoded_slash(), all.len() > 1 && !(all.len() == 2 && raw.contains(';')), "{raw}");
            all
        })
    };
    for (raw, expected) in [
        ("/a/b", &["/a/b"] as &[&str]),
        ("/api/group%2Fproject/x", &["/api/group%2Fproject/x", "/api/group/project/x"]),
        ("/api/group%2fproject", &["/api/group%2Fproject", "/api/group/project"]),
        ("/vhost/%2F", &["/vhost/%2F", "/vhost/"]),
        ("/%2f", &["/%2F", "/"]),
        ("/%2fadmin", &["/%2Fadmin", "/admin"]),
        ("/a%5cb", &["/a%5Cb", "/a/b"]),
        ("/public%2f..%2fadmin", &["/public%2F..%2Fadmin", "/admin"]),
        ("/public/..%2fadmin", &["/public/..%2Fadmin", "/admin"]),
        ("/public/x%2f%2e%2e%2f../admin2", &["/public/x%2F..%2F../admin2", "/admin2"]),
        ("/public/x%2f..%2f..%2fadmin/y", &["/public/x%2F..%2F..%2Fadmin/y", "/admin/y"]),
        ("/a%2f..%2f..%2f..%2fb", &["/a%2F..%2F..%2F..%2Fb", "/b"]),
        ("/a%2f%2fb", &["/a%2F%2Fb", "/a/b"]),
        ("/a%2f.", &["/a%2F.", "/a/"]),
        ("/a%2fb%2f..", &["/a%2Fb%2F..", "/a/"]),
        ("/a;v%2fb", &["/a;v%2Fb", "/a", "/a/b", "/a;v/b"]),
        // Whoever takes parameters off first takes an encoded slash behind the `;` for a part of them, those before it not.
        ("/x%2f..;a%2fadmin", &["/x%2F..;a%2Fadmin", "/x%2F..", "/admin", "/", "/x/..;a/admin"]),
        ("/x%2f..%2fsecret;%2fy", &["/x%2F..%2Fsecret;%2Fy", "/x%2F..%2Fsecret", "/secret/y", "/secret", "/secret;/y"]),
        (
            "/x%2fsecret;a%2fy/z",
            &["/x%2Fsecret;a%2Fy/z", "/x%2Fsecret/z", "/x/secret/y/z", "/x/secret/z", "/x/secret;a/y/z"],
        ),
        ("/x%2fsecret%3b%2fy", &["/x%2Fsecret;%2Fy", "/x%2Fsecret", "/x/secret/y", "/x/secret;/y"]),
        ("/a%252fb", &["/a%2fb"]),
        ("/a?x=%2f", &["/a"]),
        // Two slashes may be one before the dots count, or after.
        ("/a%2f..%2fadmin%2f%2f..%2fb", &[]),
        ("/a%2f..%2fadmin%2f/..%2fb", &[]),
        ("/a%2f;x%2f..", &[]),
        ("/a%2f/b%2f..;c", &[]),
        ("/a%2f%2f.", &[]),
        ("/a//b%2fc", &["/a/b%2Fc", "/a/b/c"]),
        // Whoever takes one of the two for a slash may take the other for a character; and what was refused still is.
        ("/a%2fb%5cc", &[]),
        ("/a\\b", &[]),
        ("/a/../b%2fc", &[]),
        ("/a/%2e%2e/b%2fc", &[]),
        ("/a%2fb%00", &[]),
        ("/a%2fb%0a", &[]),
        ("/a%2fb%zz", &[]),
        ("/public/..;%2fadmin", &[]),
    ] {
        let expected: Option<Vec<String>> =
            (!expected.is_empty()).then(|| expected.iter().map(ToString::to_string).collect());
        assert_eq!(readings(raw).ok(), expected, "{raw}");
    }
}
