//! The metrics of CONTRACT 9 that exist so far, in one registry a process. Every layer counts here; `admin` renders them.
//! Label values must be bounded: names of the configuration, words of ours, numbers; never a path, a user or an address.

use std::{collections::HashMap, hash::Hash, time::Duration};

use arc_swap::ArcSwap;
use http::StatusCode;
use prometheus::{
    Encoder, Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

use super::limits::LimitMetrics;
use crate::core::{policy::Ruling, request::Role, verdict::Verdict};

/// Seconds, 10 µs to 10 s: a cached decision and a slow sign-in are both told apart.
const BUCKETS: [f64; 16] = [
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 2.5,
    10.0,
];

/// Values of `session_cache_total{result}`.
const CACHE_RESULTS: [&str; 3] = ["hit", "miss", "unsure"];

/// One registry a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_duration: HistogramVec,
    /// What `request` has counted before, so that it asks the two families above but once.
    requests_seen: Seen<(Role, &'static str, StatusCode), (IntCounter, Histogram)>,
    decisions: IntCounterVec,
    decisions_seen: Seen<&'static str, IntCounter>,
    decision_duration: Histogram,
    rule_reports: IntCounterVec,
    rule_errors: IntCounterVec,
    logins: IntCounterVec,
    logins_delayed: IntCounterVec,
    token_refreshes: IntCounterVec,
    tokens_revoked: IntCounter,
    sessions_revoked: IntCounter,
    sessions_active: IntGauge,
    streams_ended: IntCounterVec,
    session_cache: [IntCounter; 3],
    cookie_conflicts: IntCounter,
    store_up: IntGaugeVec,
    store_duration: HistogramVec,
    connections_open: IntGauge,
    connections_refused: IntCounterVec,
    upstream_requests: IntCounterVec,
    headers_stripped: IntCounter,
    reloads: IntCounterVec,
    last_reload: Gauge,
    restart_needed: IntGaugeVec,
    mails: IntCounterVec,
    audit_events: IntCounterVec,
    pub limits: LimitMetrics,
    limit_keys: IntGauge,
    limit_keys_shared: IntCounter,
    limit_by_share: IntGauge,
}

impl Metrics {
    /// # Errors
    /// Two metrics of one name: a fault of ours, found at the start.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let to = &registry;
        let build = IntGaugeVec::new(opts("build_info", "What is running; always 1."), &["version", "commit"])?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), option_env!("POSTERN_COMMIT").unwrap_or("unknown")])
            .set(1);
        registered(to, build)?;
        Ok(Self {
            requests: counters(
                to,
                "http_requests_total",
                "Requests answered.",
                &["role", "route", "method", "status"],
            )?,
            request_duration: histograms(
                to,
                "http_request_duration_seconds",
                "From the head of a request to its answer.",
                &["role", "route"],
            )?,
            requests_seen: Seen::default(),
            decisions: counters(to, "decisions_total", "Verdicts of the gate.", &["verdict", "rule"])?,
            decisions_seen: Seen::default(),
            decision_duration: registered(
                to,
                Histogram::with_opts(histogram_opts(
                    "decision_duration_seconds",
                    "Time the gate takes for a verdict.",
                ))?,
            )?,
            rule_reports: counters(
                to,
                "rule_reports_total",
                "What rules in `mode: report` would have said.",
                &["verdict", "rule"],
            )?,
            rule_errors: counters(
                to,
                "rule_errors_total",
                "Requests refused since the `when` of a rule could not be worked out.",
                &["rule"],
            )?,
            logins: counters(to, "auth_login_total", "Sign-ins tried.", &["provider", "status"])?,
            logins_delayed: counters(
                to,
                "auth_login_delayed_total",
                "Sign-ins that regulation kept waiting, by what it counts by.",
                &["by"],
            )?,
            token_refreshes: counters(to, "auth_token_refresh_total", "Refreshes of tokens asked for.", &["status"])?,
            tokens_revoked: counter(to, "auth_token_revoked_total", "Tokens revoked before their time.")?,
            sessions_revoked: counter(to, "auth_session_revoked_total", "Sessions ended before their time.")?,
            sessions_active: registered(to, IntGauge::with_opts(opts("sessions_active", "Sessions that are live."))?)?,
            streams_ended: counters(
                to,
                "streams_ended_total",
                "Open streams ended by the edge, by what was over.",
                &["reason"],
            )?,
            session_cache: {
                let family = counters(to, "session_cache_total", "Looks into the session cache.", &["result"])?;
                CACHE_RESULTS.map(|result| family.with_label_values(&[result]))
            },
            cookie_conflicts: counter(
                to,
                "session_cookie_conflicts_total",
                "Requests whose cookies named two live sessions and so counted as nobody's.",
            )?,
            store_up: registered(to, IntGaugeVec::new(opts("store_up", "Whether a store answers."), &["store"])?)?,
            store_duration: histograms(
                to,
                "store_operation_duration_seconds",
                "Time a store takes to answer.",
                &["store", "operation"],
            )?,
            connections_open: registered(
                to,
                IntGauge::with_opts(opts(
                    "connections_open",
                    "Connections that clients hold, at all listeners but admin.",
                ))?,
            )?,
            connections_refused: counters(
                to,
                "connections_refused_total",
                "Connections closed at once, by what was full.",
                &["why"],
            )?,
            upstream_requests: counters(
                to,
                "upstream_requests_total",
                "Requests passed on, by the upstream's answer.",
                &["upstream", "server", "status"],
            )?,
            headers_stripped: counter(to, "headers_stripped_total", "Forged headers taken out or refused.")?,
            reloads: counters(to, "config_reload_total", "Reloads of the configuration.", &["status"])?,
            last_reload: registered(
                to,
                Gauge::with_opts(opts(
                    "config_last_reload_success_timestamp_seconds",
                    "When the last good reload was.",
                ))?,
            )?,
            restart_needed: registered(
                to,
                IntGaugeVec::new(
                    opts("config_restart_needed", "1: the setting changed in the files, and a restart is needed."),
                    &["setting"],
                )?,
            )?,
            mails: counters(to, "mails_total", "Mails to people, by what became of them.", &["status"])?,
            audit_events: counters(to, "audit_events_total", "Events of the audit log.", &["event"])?,
            limits: LimitMetrics::new(to)?,
            limit_keys: registered(
                to,
                IntGauge::with_opts(opts("rate_limit_keys", "Keys of limits held in memory."))?,
            )?,
            limit_keys_shared: counter(
                to,
                "rate_limit_keys_shared_total",
                "Requests counted in a bucket that keys share, since memory holds as many keys as it may.",
            )?,
            limit_by_share: registered(
                to,
                IntGauge::with_opts(opts(
                    "rate_limit_by_share",
                    "1: Redis is away, and this node counts its own share.",
                ))?,
            )?,
            registry,
        })
    }

    /// Takes a counter in that counted before there was a registry, such as the lines that the access log dropped.
    ///
    /// # Errors
    /// A metric of that name is there already.
    pub fn adopt(&self, counter: IntCounter) -> Result<(), Error> {
        self.registry.register(Box::new(counter))
    }

    /// `http_requests_total` and `http_request_duration_seconds`. `route`: the route's name, `portal`, `forward_auth`, or `none`.
    pub fn request(&self, role: Role, route: &str, method: &str, status: StatusCode, took: Duration) {
        let method = bounded_method(method);
        let child = || {
            let role = role.as_str();
            (
                self.requests.with_label_values(&[role, route, method, status.as_str()]),
                self.request_duration.with_label_values(&[role, route]),
            )
        };
        self.requests_seen.with((role, method, status), route, child, |(count, duration)| {
            count.inc();
            duration.observe(took.as_secs_f64());
        });
    }

    /// `decisions_total{verdict,rule}` and `decision_duration_seconds`. Rules are names of the configuration; `none` where
    /// no rule was asked.
    pub fn decision(&self, verdict: &Verdict, rule: Option<&str>, took: Duration) {
        let (verdict, rule) = (verdict.as_str(), rule.unwrap_or("none"));
        let child = || self.decisions.with_label_values(&[verdict, rule]);
        self.decisions_seen.with(verdict, rule, child, IntCounter::inc);
        self.decision_duration.observe(took.as_secs_f64());
    }

    /// `rule_reports_total{verdict,rule}`.
    pub fn rule_report(&self, rule: &str, ruling: Ruling) {
        self.rule_reports.with_label_values(&[ruling.as_str(), rule]).inc();
    }

    /// `rule_errors_total{rule}`.
    pub fn rule_error(&self, rule: &str) {
        self.rule_errors.with_label_values(&[rule]).inc();
    }

    /// `auth_login_total{provider,status}`; status: `success`, `failure`, `slow_down`, `busy`, `unavailable`.
    pub fn login(&self, provider: &'static str, status: &'static str) {
        self.logins.with_label_values(&[provider, status]).inc();
    }

    /// `auth_login_delayed_total{by}`; by: `name`, `address`, `address_and_name`, `device`.
    pub fn login_delayed(&self, by: &'static str) {
        self.logins_delayed.with_label_values(&[by]).inc();
    }

    /// `auth_token_refresh_total{status}`; status: `success`, `repeated` (the answer was lost), `reused`, `failure`, `slow_down`, `unavailable`.
    pub fn token_refresh(&self, status: &'static str) {
        self.token_refreshes.with_label_values(&[status]).inc();
    }

    pub fn token_revoked(&self) {
        self.tokens_revoked.inc();
    }

    pub fn sessions_revoked(&self, count: u64) {
        self.sessions_revoked.inc_by(count);
    }

    pub fn sessions_active(&self, count: u64) {
        self.sessions_active.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// `streams_ended_total{reason}`; reason: `session`, `lifetime`, `person`, `unsure`.
    pub fn stream_ended(&self, reason: &'static str) {
        self.streams_ended.with_label_values(&[reason]).inc();
    }

    /// `session_cache_total{result}`: `hit`, `miss`, `unsure`.
    pub fn session_cache(&self, result: &'static str) {
        if let Some((_, counter)) = CACHE_RESULTS.iter().zip(&self.session_cache).find(|(known, _)| **known == result) {
            counter.inc();
        }
    }

    pub fn store_up(&self, store: &'static str, up: bool) {
        self.store_up.with_label_values(&[store]).set(i64::from(up));
    }

    pub fn store_operation(&self, store: &'static str, operation: &'static str, took: Duration) {
        self.store_duration.with_label_values(&[store, operation]).observe(took.as_secs_f64());
    }

    pub fn connection_opened(&self) {
        self.connections_open.inc();
    }

    pub fn connection_closed(&self) {
        self.connections_open.dec();
    }

    /// `connections_refused_total{why}`; why: `source`, `all`.
    pub fn connection_refused(&self, why: &'static str) {
        self.connections_refused.with_label_values(&[why]).inc();
    }

    pub fn upstream_request(&self, upstream: &str, server: &str, status: StatusCode) {
        self.upstream_requests.with_label_values(&[upstream, server, status.as_str()]).inc();
    }

    pub fn headers_stripped(&self, count: u64) {
        self.headers_stripped.inc_by(count);
    }

    /// The time of the last success stays where a reload failed.
    pub fn config_reload(&self, succeeded: bool, at_unix_seconds: i64) {
        self.reloads.with_label_values(&[if succeeded { "success" } else { "failure" }]).inc();
        if succeeded {
            self.config_in_force(at_unix_seconds);
        }
    }

    /// Also at the start, which is no reload: before it, the files in force would seem to be from 1970.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
    pub fn config_in_force(&self, at_unix_seconds: i64) {
        self.last_reload.set(at_unix_seconds as f64);
    }

    /// Settings that differ from what the program was started with.
    pub fn restart_needed(&self, settings: &[&'static str]) {
        self.restart_needed.reset();
        for setting in settings {
            self.restart_needed.with_label_values(&[setting]).set(1);
        }
    }

    /// `mails_total{status}`; status: `sent`, `retried`, `failed` (refused, or given up in the end), `dropped` (too many, or the process ended).
    pub fn mail(&self, status: &'static str) {
        self.mails.with_label_values(&[status]).inc();
    }

    pub fn audit_event(&self, event: &'static str) {
        self.audit_events.with_label_values(&[event]).inc();
    }

    pub fn limit_keys(&self, count: usize) {
        self.limit_keys.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    pub fn limit_key_shared(&self) {
        self.limit_keys_shared.inc();
    }

    pub fn limit_by_share(&self, is_away: bool) {
        self.limit_by_share.set(i64::from(is_away));
    }

    /// Session cookies that named two live sessions (THREATS 33).
    pub fn ambiguous_cookies(&self) {
        self.cookie_conflicts.inc();
    }

    /// The text exposition format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "the metrics cannot be rendered");
        }
        String::from_utf8(text).unwrap_or_default()
    }
}

/// Children of a metric's family that were asked for before, by a key and a name of the configuration. Reading takes no lock and
/// no allocation; the first of each kind copies the map, which is as bounded as the labels are.
#[derive(Debug)]
pub(super) struct Seen<K, C>(ArcSwap<HashMap<K, HashMap<String, C>>>);

impl<K, C> Default for Seen<K, C> {
    fn default() -> Self {
        Self(ArcSwap::default())
    }
}

impl<K: Copy + Eq + Hash, C: Clone> Seen<K, C> {
    pub(super) fn with(&self, key: K, name: &str, child: impl Fn() -> C, count: impl Fn(&C)) {
        if let Some(child) = self.0.load().get(&key).and_then(|names| names.get(name)) {
            return count(child);
        }
        let child = child();
        self.0.rcu(|seen| {
            let mut seen = HashMap::clone(seen);
            seen.entry(key).or_default().insert(name.to_owned(), child.clone());
            seen
        });
        count(&child);
    }

    /// Which were forgotten.
    pub(super) fn forget(&self, is_gone: impl Fn(&str) -> bool) -> Vec<(K, String)> {
        let seen = self.0.load();
        let names = seen.iter().flat_map(|(key, names)| names.keys().map(|name| (*key, name)));
        let gone = names.filter(|(_, name)| is_gone(name)).map(|(key, name)| (key, name.clone())).collect();
        self.0.rcu(|seen| {
            let mut seen = HashMap::clone(seen);
            seen.values_mut().for_each(|names| names.retain(|name, _| !is_gone(name)));
            seen
        });
        gone
    }
}

/// A client may invent methods without end.
fn bounded_method(method: &str) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|known| *known == method).unwrap_or("other")
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("postern")
}

fn histogram_opts(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).namespace("postern").buckets(BUCKETS.to_vec())
}

fn registered<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> Result<C, Error> {
    registry.register(Box::new(collector.clone()))?;
    Ok(collector)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, Error> {
    registered(registry, IntCounter::with_opts(opts(name, help))?)
}

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
    registered(registry, IntCounterVec::new(opts(name, help), labels)?)
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<HistogramVec, Error> {
    registered(registry, HistogramVec::new(histogram_opts(name, help), labels)?)
}

#[cfg(test)]
mod tests;
