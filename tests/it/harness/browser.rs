//! A real Chromium, driven by chromedriver. Names below `localhost` it resolves to this machine by itself.

use std::{
    fs,
    io::{Read, Write},
    process::Command,
    time::Duration,
};

use fantoccini::{Client, ClientBuilder, Locator, cookies::Cookie, elements::Element};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{DEADLINE, eventually, port::Port, program::Program, repository, tool};

pub(crate) struct Browser {
    client: Client,
    _driver: Program,
    port: Port,
    _folder: TempDir,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        Self::start_with(&[], &json!({})).await
    }

    /// With more arguments and preferences than every test has.
    pub(crate) async fn start_with(arguments: &[&str], preferences: &Value) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = Port::free();
        let mut command = Command::new(tool("chromedriver"));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", folder.path())
            .arg(format!("--port={}", port.number()));
        let mut driver = Program::start("chromedriver", folder.path(), &mut command);
        driver.answers(port.number(), "/status").await;
        let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
        let own = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--window-size=1280,900",
            &profile,
        ];
        let options = json!({
            "binary": browser(),
            "args": own.iter().chain(arguments).collect::<Vec<_>>(),
            "prefs": preferences,
        });
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", port.number()))
            .await
            .expect("a browser session");
        Self { client, _driver: driver, port, _folder: folder }
    }

    pub(crate) async fn open(&self, url: &str) {
        self.client.goto(url).await.unwrap_or_else(|fault| panic!("{url}: {fault}"));
    }

    pub(crate) async fn url(&self) -> String {
        self.client.current_url().await.expect("a URL").to_string()
    }

    /// What a person reads.
    pub(crate) async fn text(&self) -> String {
        self.find("body").await.text().await.expect("the page's text")
    }

    pub(crate) async fn find(&self, css: &str) -> Element {
        self.find_within(DEADLINE, css).await
    }

    pub(crate) async fn find_within(&self, limit: Duration, css: &str) -> Element {
        let found = self.client.wait().at_most(limit).for_element(Locator::Css(css)).await;
        found.unwrap_or_else(|fault| panic!("nothing on the page is {css}: {fault}"))
    }

    /// Given in the first frame that is drawn, which may come after the load. `:focus` says more: that the window has it too.
    pub(crate) async fn waits_for_focus(&self, id: &str) {
        eventually(&format!("{id} has the focus"), || async {
            let focused = self.client.active_element().await.ok()?;
            (focused.attr("id").await.ok()? == Some(id.to_owned())).then_some(())
        })
        .await;
    }

    pub(crate) async fn count(&self, css: &str) -> usize {
        self.client.find_all(Locator::Css(css)).await.expect("a look at the page").len()
    }

    pub(crate) async fn waits_for_count(&self, css: &str, wanted: usize) {
        eventually(&format!("{wanted} of {css}"), || async { (self.count(css).await == wanted).then_some(()) }).await;
    }

    /// A page in the middle of a load has no words.
    pub(crate) async fn waits_for_text(&self, wanted: &str) {
        eventually(&format!("a page that says {wanted:?}"), || async {
            let body = self.client.find(Locator::Css("body")).await.ok()?;
            body.text().await.ok()?.contains(wanted).then_some(())
        })
        .await;
    }

    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.expect("an empty field");
        field.send_keys(text).await.expect("a filled field");
    }

    pub(crate) async fn click(&self, css: &str) {
        self.find(css).await.click().await.unwrap_or_else(|fault| panic!("{css} cannot be clicked: {fault}"));
    }

    pub(crate) async fn waits_for_url(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        eventually(what, || async {
            let is_there = wanted(&self.url().await);
            // An address stands before its page does.
            let state = self.client.execute("return document.readyState", Vec::new()).await.ok()?;
            (is_there && state == "complete").then_some(())
        })
        .await;
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap_or_else(|fault| panic!("{script}: {fault}"))
    }

    /// A script that tells its result by calling its last argument.
    pub(crate) async fn run_until_told(&self, script: &str) -> Value {
        self.client.execute_async(script, Vec::new()).await.unwrap_or_else(|fault| panic!("{script}: {fault}"))
    }

    /// Those that the page at hand would send, also the ones that its scripts cannot see.
    pub(crate) async fn cookies(&self) -> Vec<Cookie<'static>> {
        self.client.get_all_cookies().await.expect("cookies")
    }

    /// The words of one element.
    pub(crate) async fn text_of(&self, css: &str) -> String {
        self.find(css).await.text().await.expect("the element's text")
    }

    /// Follows the link of these words.
    pub(crate) async fn follow(&self, words: &str) {
        let link = self.client.find(Locator::LinkText(words)).await;
        link.unwrap_or_else(|fault| panic!("no link {words:?}: {fault}")).click().await.expect("a link to follow");
    }

    /// As a phone shows it.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        self.client.set_window_size(width, height).await.expect("a window size");
    }

    /// To `target/screenshots`, for people to look at.
    pub(crate) async fn screenshot(&self, name: &str) {
        let folder = repository("target/screenshots");
        fs::create_dir_all(&folder).expect("a folder");
        let picture = self.client.screenshot().await.expect("a screenshot");
        fs::write(folder.join(format!("{name}.png")), picture).expect("a file");
    }
}

impl Drop for Browser {
    /// chromedriver, killed, would leave the browser behind: it is asked to end both.
    fn drop(&mut self) {
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", self.port.number())) else { return };
        let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
        let _ = stream.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }
}

fn browser() -> std::path::PathBuf {
    let debian = std::path::Path::new("/usr/bin/chromium");
    if debian.exists() { debian.to_owned() } else { tool("chromium-browser") }
}
