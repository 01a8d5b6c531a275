//! Signals, reload, drain, readiness: what happens to a server between its start and its end.

mod watch;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{SignalKind, signal},
    time,
};

use crate::{
    app::{Fixed, Server},
    config::{Faults, Listener},
    observe::readiness::Phase,
    ports::Entropy,
    store::{Countries, MailQueue, UsersFileError},
};
use watch::{Files, at_rest_after};

/// How soon a reload that failed for want of the database is tried again: a user whom the file disables must not stay because nobody
/// touches the file once more. Somewhat later on each node, so that not all of a fleet ask for the lock on the users at once.
const AGAIN: Duration = Duration::from_secs(1);
/// Twice as long each time, up to this: so long may whoever the file disabled stay once the database is back.
const AGAIN_AT_MOST: Duration = Duration::from_secs(4);
const ONCE_MORE: &str = "once more, since the database did not answer";

/// Up to a second later.
fn about(pause: Duration, entropy: &dyn Entropy) -> Duration {
    let mut random = [0];
    entropy.fill(&mut random);
    pause + Duration::from_millis(4) * u32::from(random[0])
}

/// Serves until SIGTERM or SIGINT, then drains.
///
/// # Errors
/// Signals cannot be set up.
pub async fn run(mut server: Server) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen to SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen to SIGINT")?;
    let mut hang_up = signal(SignalKind::hangup()).context("cannot listen to SIGHUP")?;
    let mut files = Files::watch(&server.sources);
    server.readiness.change(|report| report.status = Phase::Ready);
    tracing::info!(pid = std::process::id(), "ready");
    // A reload that failed for want of the database, and how long until it is tried again.
    let mut unfinished: Option<Duration> = None;
    loop {
        let trigger = tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => {
                server.access_log.reopen();
                "SIGHUP"
            }
            () = files.changed() => "file change",
            () = at_rest_after(about(unfinished.unwrap_or_default(), &*server.stores.entropy), &server.sources),
                if unfinished.is_some() => ONCE_MORE,
        };
        let ended;
        (files, ended) = server.reload_watched(trigger).await;
        unfinished = match (ended, unfinished) {
            (Ended::Taken, _) => None,
            (Ended::Unfinished, None) => Some(AGAIN),
            // Files that have a fault as well, or cannot be read now, finish nothing.
            (Ended::Unfinished | Ended::Faulty, waited) => waited.map(|waited| (waited * 2).min(AGAIN_AT_MOST)),
        };
    }
    server.drain(&mut terminate, &mut interrupt).await;
    Ok(())
}

/// How a reload ended.
#[derive(Clone, Copy)]
enum Ended {
    Taken,
    /// The files are sound: only the database could not take them.
    Unfinished,
    Faulty,
}

/// Why everything stays as it was.
struct Unloaded {
    faults: Vec<String>,
    /// The files are sound: only the database could not take them.
    is_passing: bool,
}

impl From<Vec<String>> for Unloaded {
    fn from(faults: Vec<String>) -> Self {
        Self { faults, is_passing: false }
    }
}

impl Server {
    /// Reloads, and watches from before the reading on: a change that comes while files are read is the next reload's. Where
    /// files are named that were not watched yet, they are read once more now that they are.
    async fn reload_watched(&mut self, mut trigger: &'static str) -> (Files, Ended) {
        loop {
            let files = Files::watch(&self.sources);
            let ended = self.reload(trigger).await;
            if files.watches(&self.sources) {
                return (files, ended);
            }
            trigger = "other files are named";
        }
    }

    /// Reads everything again and swaps it whole, or keeps everything old.
    async fn reload(&mut self, trigger: &'static str) -> Ended {
        let result = self.try_reload().await;
        let now = self.stores.clock.now().unix_seconds();
        self.metrics.config_reload(result.is_ok(), now);
        match result {
            Ok(needs_restart) => {
                self.metrics.restart_needed(&needs_restart);
                if needs_restart.is_empty() {
                    tracing::info!(trigger, "configuration reloaded");
                } else {
                    tracing::warn!(trigger, ?needs_restart, "configuration reloaded; these changes need a restart");
                }
                self.readiness.change(|report| {
                    report.reload_faults.clear();
                    report.needs_restart = needs_restart.into_iter().map(str::to_owned).collect();
                });
                Ended::Taken
            }
            Err(Unloaded { faults, is_passing }) => {
                // What is tried again and again is told once; whoever changes a file, or asks, is answered.
                if trigger != ONCE_MORE || self.readiness.report().reload_faults != faults {
                    for fault in &faults {
                        tracing::error!(trigger, "the old configuration stays: {fault}");
                    }
                }
                self.readiness.change(|report| report.reload_faults = faults);
                if is_passing { Ended::Unfinished } else { Ended::Faulty }
            }
        }
    }

    /// Names of changed keys that need a restart.
    async fn try_reload(&mut self) -> Result<Vec<&'static str>, Unloaded> {
        let file = self.file.clone();
        let loaded = tokio::task::spawn_blocking(move || crate::app::load(&file))
            .await
            .map_err(|error| vec![format!("reading the configuration failed: {error}")])?
            .map_err(|Faults(faults)| {
                // A new file that was never read well is watched as well: it is where somebody will mend it.
                for fault in &faults {
                    if !self.sources.contains(&fault.file) {
                        self.sources.push(fault.file.clone());
                    }
                }
                faults.iter().map(ToString::to_string).collect::<Vec<_>>()
            })?;
        let mut settings = loaded.settings;
        let fixed = Fixed::of(&settings);
        let needs_restart = self.started_with.changed(&fixed);

        // Listeners come and go with a restart only; what runs takes its settings from wherever it stands in the new list.
        let mut keys = Vec::new();
        let mut running = Vec::new();
        let before = self.site.load();
        let listening = self.listening.iter().zip(&before.listeners).zip(&self.certificates);
        for (index, ((listener, site), current)) in listening.enumerate() {
            let place = place_of(index, listener, &settings.server.listeners);
            let site = place.and_then(|place| settings.site.listeners.get(place)).unwrap_or(site);
            running.push(site.clone());
            let files = place.and_then(|place| settings.server.listeners.get(place)?.tls.as_ref());
            if let (Some(files), Some(current)) = (files, current) {
                let read = crate::app::load_keys(files).map_err(|error| vec![format!("{error:#}")])?;
                keys.push((Arc::clone(current), read));
            }
        }
        drop(before);
        settings.site.listeners = running;
        let path = settings.geo.clone();
        let countries = tokio::task::spawn_blocking(move || Countries::configured(path.as_deref()))
            .await
            .map_err(|error| vec![format!("reading geo.database failed: {error}")])?
            .map_err(|fault| vec![format!("{fault} (geo.database)")])?;
        let mails = MailQueue::prepare(&settings.notifier).map_err(|fault| vec![fault])?;
        // A key that is made changes nothing until it signs: it may stay where what follows fails.
        crate::app::adopt_algorithm(&self.stores, &settings.site.tokens)
            .await
            .map_err(|error| Unloaded { faults: vec![error.to_string()], is_passing: true })?;
        // The last thing that can fail, since it takes effect at once.
        if let Some(users) = &self.stores.users_file {
            users.reload().await.map_err(|error| Unloaded {
                faults: error.to_string().lines().map(str::to_owned).collect(),
                is_passing: matches!(error, UsersFileError::Unavailable(_)),
            })?;
        }

        self.stores.mail.adopt(mails);
        for (current, keys) in keys {
            current.swap(keys);
        }
        self.stores.geo.swap(countries);
        self.stores.configure(&settings);
        crate::app::bound(&self.connections, settings.server.connections);
        self.drain = settings.server.drain;
        self.drain_delay = settings.server.drain_delay;
        self.sources = loaded.sources;
        let site = Arc::new(settings.site);
        self.site.store(Arc::clone(&site));
        self.metrics.limits.keep(site.rules.limit_names().map(|name| &**name));
        Ok(needs_restart)
    }

    /// Unready, then deaf, then waits for what is under way. A second signal ends it at once.
    async fn drain(mut self, terminate: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal) {
        tracing::info!(drain = ?self.drain, delay = ?self.drain_delay, in_flight = self.in_flight.count(), "draining");
        self.readiness.change(|report| report.status = Phase::Draining);
        tokio::select! {
            () = self.end_requests() => {}
            _ = terminate.recv() => tracing::warn!("stopped at once by a second signal"),
            _ = interrupt.recv() => tracing::warn!("stopped at once by a second signal"),
        }
        self.stop_all.send_replace(true);
        for task in std::mem::take(&mut self.background) {
            if time::timeout(Duration::from_secs(5), task).await.is_err() {
                tracing::warn!("a background task did not end within 5 s");
            }
        }
        tracing::info!("stopped");
    }

    async fn end_requests(&mut self) {
        time::sleep(self.drain_delay).await;
        self.stop_listening.send_replace(true);
        let listeners = std::mem::take(&mut self.listeners);
        let in_flight = self.in_flight.clone();
        let ended = async move {
            for listener in listeners {
                // A listener that panicked has ended as well.
                drop(listener.await);
            }
            while in_flight.count() > 0 {
                time::sleep(Duration::from_millis(10)).await;
            }
        };
        if time::timeout(self.drain, ended).await.is_err() {
            tracing::warn!(in_flight = self.in_flight.count(), "requests cut: they did not end within server.drain");
        }
    }
}

/// Where a listener that runs, the `index`th, stands in a new configuration: there as well, or elsewhere.
fn place_of(index: usize, running: &Listener, new: &[Listener]) -> Option<usize> {
    let is_same = |listener: &Listener| {
        listener.address == running.address
            && listener.role == running.role
            && listener.tls.is_some() == running.tls.is_some()
    };
    if new.get(index).is_some_and(is_same) { Some(index) } else { new.iter().position(is_same) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_known_by_its_address_and_what_it_does() {
        use crate::core::request::Role::{Edge, ForwardAuth};
        let listener =
            |port: u16, role| Listener { address: std::net::SocketAddr::from(([127, 0, 0, 1], port)), role, tls: None };
        let new = [listener(9, ForwardAuth), listener(8, Edge)];
        assert_eq!(place_of(0, &listener(8, Edge), &new), Some(1), "its settings follow it to another place");
        assert_eq!(place_of(0, &listener(9, Edge), &new), None, "another role is another listener");
        assert_eq!(place_of(0, &listener(7, Edge), &new), None);
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let fixed = |text: &str| Fixed(vec![("server.listeners", text.to_owned()), ("storage", "same".to_owned())]);
        assert!(fixed("a").changed(&fixed("a")).is_empty());
        assert_eq!(fixed("a").changed(&fixed("b")), ["server.listeners"]);
    }
}
