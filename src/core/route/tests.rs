use proptest::prelude::*;

use super::*;

fn table(routes: &[(&str, &str)]) -> RouteTable {
    let second = Duration::from_secs(1);
    let upstream = Arc::new(Upstream {
        name: "app".to_owned(),
        servers: Vec::new(),
        timeouts: UpstreamTimeouts { connect: second, read: second, write: second },
    });
    RouteTable::new(
        routes
            .iter()
            .map(|(host, prefix)| Route {
                name: format!("{host}{prefix}"),
                host: if host.is_empty() { HostPattern::Any } else { HostPattern::parse(host).unwrap() },
                prefix: (*prefix).to_owned(),
                upstream: Arc::clone(&upstream),
                headers: Vec::new(),
                authorization_is_apps: false,
                encoded_slashes: EncodedSlashes::Reject,
                origins: Vec::new(),
            })
            .collect(),
    )
}

#[test]
fn most_specific_host_then_longest_prefix() {
    let table = table(&[
        ("", "/any"),
        ("*.example.com", "/"),
        ("*.example.com", "/api"),
        ("*.deep.example.com", "/api"),
        ("app.example.com", "/api"),
        ("app.example.com", "/api/v2"),
        ("192.0.2.1", "/"),
        ("[::1]", "/"),
    ]);
    for (host, path, route) in [
        ("app.example.com", "/api", Some("app.example.com/api")),
        ("app.example.com", "/api/", Some("app.example.com/api")),
        ("app.example.com", "/api/v1", Some("app.example.com/api")),
        ("app.example.com", "/api/v2", Some("app.example.com/api/v2")),
        ("app.example.com", "/api/v2/x", Some("app.example.com/api/v2")),
        ("app.example.com", "/api/v20", Some("app.example.com/api")),
        // No prefix of the exact host fits: the next less specific host is asked.
        ("app.example.com", "/apiary", Some("*.example.com/")),
        ("app.example.com", "/", Some("*.example.com/")),
        ("app.example.com", "/API", Some("*.example.com/")),
        ("other.example.com", "/api/x", Some("*.example.com/api")),
        ("a.deep.example.com", "/api/x", Some("*.deep.example.com/api")),
        ("a.b.deep.example.com", "/api", Some("*.deep.example.com/api")),
        ("a.deep.example.com", "/x", Some("*.example.com/")),
        ("deep.example.com", "/api", Some("*.example.com/api")),
        // The name itself is not below itself.
        ("example.com", "/", None),
        ("example.com", "/any/x", Some("/any")),
        ("evilexample.com", "/", None),
        ("192.0.2.1", "/", Some("192.0.2.1/")),
        ("[::1]", "/x", Some("[::1]/")),
        ("elsewhere.test", "/any", Some("/any")),
        ("elsewhere.test", "/anything", None),
        ("elsewhere.test", "/", None),
    ] {
        assert_eq!(table.find(host, path).map(|route| route.name.as_str()), route, "{host}{path}");
    }
    assert_eq!(table.all().len(), 8);
    assert!(RouteTable::default().find("app.example.com", "/").is_none());
}

#[test]
fn host_patterns() {
    for (text, pattern) in [
        ("App.Example.com.", Some(HostPattern::Exact("app.example.com".to_owned()))),
        ("*.Example.com", Some(HostPattern::Below("example.com".to_owned()))),
        ("192.0.2.1", Some(HostPattern::Exact("192.0.2.1".to_owned()))),
        ("[0:0::1]", Some(HostPattern::Exact("[::1]".to_owned()))),
        ("", None),
        ("*", None),
        ("*.", None),
        ("**.example.com", None),
        ("a.*.example.com", None),
        ("*.*.example.com", None),
        ("*.[::1]", None),
        ("app.example.com:443", None),
        ("https://app.example.com", None),
    ] {
        assert_eq!(HostPattern::parse(text), pattern, "{text:?}");
    }
}

#[test]
fn prefixes() {
    for (text, prefix) in [
        ("/", Some("/")),
        ("", Some("/")),
        ("/a", Some("/a")),
        ("/a/", Some("/a")),
        ("/a//b//", Some("/a/b")),
        ("//", Some("/")),
        ("/A", Some("/A")),
        ("a", None),
        ("/a/../b", None),
        ("/a?b", None),
        ("/a#b", None),
        ("/a;b", None),
        ("/%61", None),
        ("/a\\b", None),
        ("/a b", None),
    ] {
        assert_eq!(canonical_prefix(text).as_deref(), prefix, "{text:?}");
    }
}

#[test]
fn templates() {
    let text = |text: &str| TemplatePart::Text(text.to_owned());
    for (template, parts) in [
        ("", vec![]),
        ("fixed", vec![text("fixed")]),
        ("größe", vec![text("größe")]),
        ("{user.name}", vec![TemplatePart::UserName]),
        ("{user.email}{user.groups}", vec![TemplatePart::UserEmail, TemplatePart::UserGroups]),
        ("a {user.display_name} b", vec![text("a "), TemplatePart::UserDisplayName, text(" b")]),
    ] {
        assert_eq!(HeaderTemplate::parse("X-App", template).unwrap().parts, parts, "{template:?}");
    }
    for (name, template, says) in [
        ("X-App", "{user.nam}", "write {user.name}"),
        ("X-App", "{}", "is not known"),
        ("X-App", "{User.Name}", "is not known"),
        ("X-App", "{{user.name}}", "is not known"),
        ("X-App", "{user.name", "without its }"),
        ("X-App", "a{", "without its }"),
        ("X-App", "user.name}", "without its {"),
        ("X-App", "{user.name}}", "without its {"),
        ("X-App", "a\nb", "cannot stand in a header"),
        ("X-App", "a\0", "cannot stand in a header"),
        ("X App", "a", "is not the name of a header"),
        ("", "a", "is not the name of a header"),
    ] {
        let fault = HeaderTemplate::parse(name, template).unwrap_err();
        assert!(fault.contains(says), "{template:?} says {fault:?}");
    }
}

proptest! {
    /// The table finds what a plain search through all routes finds.
    #[test]
    fn the_table_agrees_with_a_plain_search(
        routes in proptest::collection::btree_set(("(\\*\\.)?(a|b)(\\.(a|b)){0,2}|", "(/(a|b)){1,3}|/"), 0..12),
        host in "(a|b)(\\.(a|b)){0,3}",
        path in "(/(a|b|ab)){1,4}/?",
    ) {
        let routes: Vec<_> = routes.iter().map(|(host, prefix)| (host.as_str(), prefix.as_str())).collect();
        let table = table(&routes);
        let specificity = |pattern: &HostPattern| match pattern {
            HostPattern::Exact(name) if *name == host => Some((2, 0)),
            HostPattern::Below(name) if host.ends_with(&format!(".{name}")) => Some((1, name.len())),
            HostPattern::Any => Some((0, 0)),
            _ => None,
        };
        let segments = |path: &str| path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let best = table
            .all()
            .iter()
            .filter(|route| segments(&path).starts_with(&segments(&route.prefix)))
            .filter_map(|route| Some((specificity(&route.host)?, route.prefix.len(), &route.name)))
            .max();
        prop_assert_eq!(table.find(&host, &path).map(|route| &route.name), best.map(|(_, _, name)| name));
    }
}
