//! The cheap limit per source address that stands before every look-up, by governor. Asked by `gate` for every request.
//!
//! Memory is bounded: buckets that have filled up again are forgotten regularly, and a flood of more sources than
//! [`MOST_SOURCES`] starts the table anew rather than grow it.

use std::{
    net::IpAddr,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use governor::{Quota, RateLimiter, clock, middleware::NoOpMiddleware, state::keyed::DashMapStateStore};

use crate::{
    config::SourceRate,
    core::client_ip::bucket_of,
    ports::{Clock, SourceLimit},
};

const MOST_SOURCES: usize = 500_000;
/// New buckets cannot be more than calls, so this bounds growth between two cleanings.
const CALLS_BETWEEN_CLEANINGS: u32 = 100_000;

#[derive(Clone)]
struct PortClock(Arc<dyn Clock>);

impl clock::Clock for PortClock {
    type Instant = Duration;
    fn now(&self) -> Duration {
        self.0.monotonic()
    }
}

type Buckets = RateLimiter<IpAddr, DashMapStateStore<IpAddr>, PortClock, NoOpMiddleware<Duration>>;

struct Limiter {
    rate: SourceRate,
    buckets: Buckets,
    calls: AtomicU32,
}

/// `server.source_limit`; can be set anew at a reload.
pub struct GovernorLimit {
    clock: Arc<dyn Clock>,
    limiter: ArcSwapOption<Limiter>,
}

impl GovernorLimit {
    pub(super) fn new(clock: Arc<dyn Clock>, rate: Option<SourceRate>) -> Self {
        let limit = Self { clock, limiter: ArcSwapOption::empty() };
        limit.configure(rate);
        limit
    }

    /// Takes effect for the next request. An unchanged rate keeps its buckets: a reload forgives nobody.
    pub fn configure(&self, rate: Option<SourceRate>) {
        if self.limiter.load().as_ref().map(|limiter| limiter.rate) == rate {
            return;
        }
        self.limiter.store(rate.and_then(|rate| self.limiter_of(rate)));
    }

    fn limiter_of(&self, rate: SourceRate) -> Option<Arc<Limiter>> {
        let count = rate.count.max(1);
        let period = (rate.per / count).max(Duration::from_nanos(1));
        let burst = NonZeroU32::new(rate.burst.max(1))?;
        let quota = Quota::with_period(period)?.allow_burst(burst);
        let buckets = RateLimiter::dashmap_with_clock(quota, PortClock(self.clock.clone()));
        Some(Arc::new(Limiter { rate, buckets, calls: AtomicU32::new(0) }))
    }

    fn clean(&self, limiter: &Limiter) {
        limiter.calls.store(0, Ordering::Relaxed);
        limiter.buckets.retain_recent();
        limiter.buckets.shrink_to_fit();
        if limiter.buckets.len() > MOST_SOURCES {
            tracing::warn!("more than {MOST_SOURCES} source addresses are limited at once: counting starts anew");
            self.limiter.store(self.limiter_of(limiter.rate));
        }
    }
}

impl SourceLimit for GovernorLimit {
    fn take(&self, source: IpAddr) -> Result<(), Duration> {
        let limiter = self.limiter.load();
        let Some(limiter) = limiter.as_ref() else { return Ok(()) };
        if limiter.calls.fetch_add(1, Ordering::Relaxed) == CALLS_BETWEEN_CLEANINGS {
            self.clean(limiter);
        }
        limiter
            .buckets
            .check_key(&bucket_of(source))
            .map_err(|refused| refused.wait_time_from(self.clock.monotonic()).max(Duration::from_millis(1)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::core::time::Timestamp;

    #[derive(Default)]
    struct FakeClock(AtomicU64);

    impl Clock for FakeClock {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
        fn monotonic(&self) -> Duration {
            Duration::from_millis(self.0.load(Ordering::Relaxed))
        }
    }

    const RATE: SourceRate = SourceRate { count: 2, per: Duration::from_secs(1), burst: 3 };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_burst_is_let_through_then_the_rate_holds() {
        let clock = Arc::new(FakeClock::default());
        let limit = GovernorLimit::new(clock.clone(), Some(RATE));
        let source = address("192.0.2.1");
        for _ in 0..3 {
            assert_eq!(limit.take(source), Ok(()));
        }
        let wait = limit.take(source).unwrap_err();
        assert!(wait > Duration::ZERO && wait <= Duration::from_millis(500), "{wait:?}");
        assert_eq!(limit.take(address("192.0.2.2")), Ok(()), "another source has its own bucket");
        clock.0.store(501, Ordering::Relaxed);
        assert_eq!(limit.take(source), Ok(()));
        assert!(limit.take(source).is_err());
    }

    #[test]
    fn threat_57_one_bucket_for_a_64_and_for_a_mapped_address() {
        let limit = GovernorLimit::new(Arc::new(FakeClock::default()), Some(RATE));
        for last in ["2001:db8:0:1::1", "2001:db8:0:1::2", "2001:db8:0:1:ffff::1"] {
            assert_eq!(limit.take(address(last)), Ok(()));
        }
        assert!(limit.take(address("2001:db8:0:1::4")).is_err());
        assert_eq!(limit.take(address("2001:db8:0:2::1")), Ok(()));
        assert_eq!(bucket_of(address("::ffff:192.0.2.1")), address("192.0.2.1"));
    }

    #[test]
    fn a_reload_sets_the_rate_anew_but_forgives_nobody() {
        let limit = GovernorLimit::new(Arc::new(FakeClock::default()), Some(RATE));
        let source = address("192.0.2.1");
        while limit.take(source).is_ok() {}
        limit.configure(Some(RATE));
        assert!(limit.take(source).is_err());
        limit.configure(None);
        assert_eq!(limit.take(source), Ok(()));
    }

    #[test]
    fn memory_is_bounded_under_a_flood_of_sources() {
        let clock = Arc::new(FakeClock::default());
        let limit = GovernorLimit::new(clock.clone(), Some(RATE));
        for number in 0..250_000_u32 {
            clock.0.store(u64::from(number) / 10, Ordering::Relaxed);
            let _ = limit.take(IpAddr::V4(number.into()));
        }
        let kept = limit.limiter.load().as_ref().unwrap().buckets.len();
        assert!(kept < 130_000, "{kept}");
    }
}
