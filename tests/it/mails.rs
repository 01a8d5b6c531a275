//! Mails of sign-ins from new devices by a real mail server, and countries by a database that is replaced: the real program.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use mail_parser::MessageParser;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{
        eventually,
        server::{Server, Setup},
        smtp::{PASSWORD, Smtp, USER},
        wire::Request,
    },
    mmdb,
};

const FIREFOX: (&str, &str) = ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
const LOGIN: &str = ", username: postern, password_file: smtp-password";

/// Nothing is asked of the upstream.
fn setup(smtp: &Smtp, more: &str) -> Setup {
    let mut setup = Setup::with_upstream_at(9);
    setup.more = smtp.setting(more);
    setup.files = vec![
        ("tls/smtp.pem".to_owned(), smtp.identity.certificate.clone()),
        ("smtp-password".to_owned(), format!("{PASSWORD}\n")),
    ];
    setup
}

async fn counted(server: &Server, status: &str) -> f64 {
    server.metric("postern_mails_total", &[&format!("status=\"{status}\"")]).await
}

#[tokio::test]
async fn a_new_device_is_told_by_smtp_over_starttls_with_a_password() {
    let mut smtp = Smtp::new();
    smtp.start().await;
    let mut server = setup(&smtp, LOGIN).start().await;
    server.sign_in_with("alice", &[FIREFOX, ("X-Forwarded-For", "192.0.2.7")]).await;
    let [taken] = smtp.taken(1).await.try_into().unwrap_or_else(|_| panic!("one mail"));
    assert_eq!(
        taken.about,
        serde_json::json!({ "from": "postern@example.com", "to": ["alice@example.com"], "tls": true, "user": USER })
    );
    let mail = MessageParser::default().parse(&taken.bytes).expect("a mail");
    assert_eq!(mail.subject(), Some("New sign-in to Postern: Firefox on Linux"));
    let text = mail.body_text(0).expect("text").into_owned();
    let account = format!("http://{}/account", server.auth());
    for told in ["Hello Alice Ä.,", "as alice", "Firefox on Linux", "192.0.2.7", account.as_str()] {
        assert!(text.contains(told), "no {told:?} in {text}");
    }
    assert!(mail.body_html(0).expect("HTML").contains(&account));
    eventually("the mail is counted", || async { (counted(&server, "sent").await == 1.0).then_some(()) }).await;

    // A server that refuses a mailbox refuses one mail, and the next goes on.
    server.run(&["user", "set", "bob", "--email", "nobody@example.com"]);
    server.sign_in("bob").await;
    eventually("refused", || async { (counted(&server, "failed").await == 1.0).then_some(()) }).await;
    server.sign_in("alice").await;
    smtp.taken(2).await;
    server.stop().await;
    assert!(!server.log().contains(PASSWORD));
}

#[tokio::test]
async fn a_mail_server_that_is_down_delays_nobody_and_gets_the_mail_later() {
    let mut smtp = Smtp::new();
    let mut server = setup(&smtp, LOGIN).start().await;
    server.sign_in("alice").await;
    eventually("tried", || async { (counted(&server, "retried").await >= 1.0).then_some(()) }).await;
    assert_eq!(counted(&server, "sent").await, 0.0);
    smtp.start().await;
    let taken = smtp.taken(1).await;
    assert_eq!(taken[0].about["to"][0], "alice@example.com");

    // What waits when the process ends is tried once more.
    server.sign_in("bob").await;
    server.stop().await;
    let taken = smtp.taken(2).await;
    assert_eq!(taken[1].about["to"][0], "bob@example.com");
}

#[tokio::test]
async fn nothing_goes_to_a_server_that_cannot_be_trusted() {
    // Another authority than the server's, and a wrong password.
    for (certificate, password) in
        [(Some(crate::harness::tls::certificate_for(&["localhost"])), PASSWORD), (None, "wrong")]
    {
        let mut smtp = Smtp::new();
        smtp.start().await;
        let mut setup = setup(&smtp, LOGIN);
        setup.files[1].1 = password.to_owned();
        if let Some(other) = certificate {
            setup.files[0].1 = other.certificate;
        }
        let mut server = setup.start().await;
        server.sign_in("alice").await;
        eventually("tried", || async {
            let tried = counted(&server, "retried").await + counted(&server, "failed").await;
            (tried >= 1.0).then_some(())
        })
        .await;
        server.stop().await;
        smtp.taken(0).await;
    }
}

/// Says yes to all but TLS, and writes down what it is told.
async fn without_tls(
    connection: TcpStream,
    offer: &'static str,
    heard: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut connection = BufReader::new(connection);
    connection.write_all(b"220 mail.test ESMTP\r\n").await?;
    let mut line = String::new();
    while connection.read_line(&mut line).await? > 0 {
        let answer = match line.split_whitespace().next().unwrap_or_default() {
            "EHLO" => offer,
            "AUTH" => "235 2.7.0 welcome\r\n",
            "STARTTLS" => "454 4.7.0 not now\r\n",
            "DATA" => {
                connection.write_all(b"354 go on\r\n").await?;
                while line != ".\r\n" {
                    heard.lock().expect("a lock").push(std::mem::take(&mut line));
                    connection.read_line(&mut line).await?;
                }
                "250 taken\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "250 OK\r\n",
        };
        heard.lock().expect("a lock").push(std::mem::take(&mut line));
        connection.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

const NO_TLS: &str = "250-mail.test\r\n250 AUTH PLAIN LOGIN\r\n";
/// Offered, and refused when it is asked for.
const TLS_LATER: &str = "250-mail.test\r\n250-STARTTLS\r\n250 AUTH PLAIN LOGIN\r\n";

/// All that such a server is told until mails are counted so, and what Postern wrote into its log.
async fn told_to(offer: &'static str, more: &str, (status, count): (&str, f64)) -> (Vec<String>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let written = Arc::clone(&heard);
    let serving = tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.expect("a connection");
            tokio::spawn(without_tls(connection, offer, Arc::clone(&written)));
        }
    });
    let mut setup = Setup::with_upstream_at(9);
    setup.more = format!(
        "notifier: {{ new_device: true, smtp: {{ address: \"submission://localhost:{port}\"{LOGIN}{more} }} }}\n"
    );
    setup.files = vec![("smtp-password".to_owned(), format!("{PASSWORD}\n"))];
    let mut server = setup.start().await;
    server.sign_in("alice").await;
    eventually(status, || async { (counted(&server, status).await >= count).then_some(()) }).await;
    server.stop().await;
    serving.abort();
    (heard.lock().expect("a lock").clone(), server.log())
}

/// As somebody in between makes it look who strips STARTTLS from what a server offers, or refuses it.
#[tokio::test]
async fn nothing_goes_to_a_server_without_starttls() {
    let is_told = |heard: &[String], word: &str| heard.iter().any(|line| line.starts_with(word));
    let plain = BASE64_STANDARD.encode(format!("\0{USER}\0{PASSWORD}"));
    for offer in [NO_TLS, TLS_LATER] {
        let (heard, log) = told_to(offer, "", ("retried", 2.0)).await;
        assert!(is_told(&heard, "EHLO"));
        assert!(
            heard.iter().all(|line| ["EHLO", "STARTTLS", "QUIT"].iter().any(|word| line.starts_with(word))),
            "{heard:?}"
        );
        assert!(log.contains("a mail cannot be sent now") && log.contains("a mail is lost"), "{log}");
        for secret in [PASSWORD, &BASE64_STANDARD.encode(PASSWORD), &plain] {
            assert!(!heard.concat().contains(secret) && !log.contains(secret), "{heard:?} {log}");
        }
    }
    // Where it is not required, and the server is this machine, all of it goes: the server is no deaf one.
    let (heard, log) = told_to(NO_TLS, ", disable_require_tls: true", ("sent", 1.0)).await;
    assert!(["AUTH", "MAIL", "RCPT", "DATA"].iter().all(|word| is_told(&heard, word)), "{heard:?}");
    assert!(heard.concat().contains(&plain) && !log.contains(&plain), "{heard:?} {log}");
}

#[tokio::test]
async fn mails_go_into_a_folder() {
    let mut setup = Setup::with_upstream_at(9);
    setup.more = "notifier: { new_device: true, filesystem: { folder: data/mail } }\n".to_owned();
    let server = setup.start().await;
    server.sign_in_with("bob", &[FIREFOX]).await;
    let file = eventually("a mail", || async {
        let mut files = fs::read_dir(server.folder().join("data/mail")).ok()?.flatten().map(|entry| entry.path());
        files.find(|path| path.extension().is_some_and(|extension| extension == "eml"))
    })
    .await;
    let bytes = fs::read(file).expect("a mail");
    let mail = MessageParser::default().parse(&bytes).expect("a mail");
    let to = mail.to().and_then(|to| to.first()).and_then(|to| to.address());
    assert_eq!(to, Some("bob@example.com"));
}

async fn country(server: &Server, cookies: &str) -> serde_json::Value {
    let request = Request::get("/auth/sessions").cookie(cookies.to_owned());
    server.portal(request).await.json()["sessions"][0]["country"].clone()
}

#[tokio::test]
async fn a_database_of_addresses_is_read_again_and_a_broken_one_keeps_the_old() {
    let mut setup = Setup::with_upstream_at(9);
    setup.more = "geo: { database: countries.mmdb }\n".to_owned();
    // So that addresses can be chosen.
    setup.forward_auth = ", trusted_proxies: [127.0.0.1/32]".to_owned();
    let mut server = setup.prepare_without_users();
    let file = server.folder().join("countries.mmdb");
    let fault = |server: &Server| {
        let output = server.command(&["check"]).output().expect("the program");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    assert!(
        fault(&server).contains("postern.yaml:14:18: the file `countries.mmdb` cannot be read"),
        "{}",
        fault(&server)
    );
    fs::write(&file, "half of it").expect("a file");
    assert!(fault(&server).contains("no database in MaxMind's format"), "{}", fault(&server));
    mmdb::networks(&file);
    assert!(fault(&server).contains("names no countries"), "{}", fault(&server));

    mmdb::countries(&file);
    server.add_user("alice", &[]);
    server.launch().await;
    let from = |address: &'static str| [("X-Forwarded-For", address)];
    let germany = server.sign_in_with("alice", &from("192.0.2.7")).await;
    assert_eq!(country(&server, &germany.both()).await, "DE");
    let told = server.run(&["session", "list"]);
    assert!(told.contains("192.0.2.7        DE "), "{told}");
    let told: serde_json::Value =
        serde_json::from_str(&server.run(&["session", "list", "--format", "json"])).expect("JSON");
    assert_eq!((&told[0]["country"], &told[0]["place"]), (&"DE".into(), &"Germany".into()));

    // A damaged one comes in its place.
    let failed = || async { server.metric("postern_config_reload_total", &["status=\"failure\""]).await };
    replace(&file, b"damaged");
    eventually("the fault is told", || async { (failed().await >= 1.0).then_some(()) }).await;
    assert_eq!(country(&server, &germany.both()).await, "DE", "the old one stays");
    // And a sound one again: no restart.
    mmdb::countries_with(&file, "FR", "France");
    eventually("read again", || async { (country(&server, &germany.both()).await == "FR").then_some(()) }).await;
    server.stop().await;
}

fn replace(file: &Path, content: &[u8]) {
    let new = file.with_extension("new");
    fs::write(&new, content).expect("a file");
    fs::rename(new, file).expect("a file");
}
