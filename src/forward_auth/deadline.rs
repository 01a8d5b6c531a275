//! hyper's deadlines, by one timer a connection. Used by `listener` for HTTP/1.
//!
//! hyper asks for a timer with each request and throws it away with the request's head; to enter one among the runtime's timers and to take it out again costs
//! more than the rest of the deadline. Here it stays entered, and is set anew where it goes off before the deadline of the request that is waited for.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use hyper::rt::{Sleep, Timer};
use tokio::time;

/// Of one connection, which has one deadline at a time.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptTimer(Arc<Mutex<Option<Pin<Box<time::Sleep>>>>>);

struct Deadline {
    at: time::Instant,
    kept: KeptTimer,
}

impl Timer for KeptTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Deadline { at: deadline.into(), kept: self.clone() })
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the clock of the runtime's timers, by which hyper counts; tests pause it"
    )]
    fn now(&self) -> Instant {
        time::Instant::now().into()
    }
}

impl Future for Deadline {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let at = self.at;
        let mut kept = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        let timer = kept.get_or_insert_with(|| Box::pin(time::sleep_until(at)));
        if timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

impl Sleep for Deadline {}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_deadline_holds_whatever_the_timer_was_set_to() {
        let timer = KeptTimer::default();
        let begin = timer.now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let passed = || timer.now() - begin;
        let mut first = timer.sleep_until(at(75));
        assert!(timeout(Duration::from_secs(10), &mut first).await.is_err());
        drop(first);
        // A later one, over the time at which the timer goes off.
        let mut second = timer.sleep_until(at(85));
        assert!(timeout(Duration::from_secs(74), &mut second).await.is_err());
        second.await;
        assert!((Duration::from_secs(85)..Duration::from_secs(86)).contains(&passed()), "{:?}", passed());
        // One that begins when the timer has long gone off, and one that is sooner than the one before.
        advance(Duration::from_secs(100)).await;
        let mut third = timer.sleep(Duration::from_secs(75));
        assert!(timeout(Duration::from_secs(5), &mut third).await.is_err());
        drop(third);
        timer.sleep(Duration::from_secs(1)).await;
        assert!((Duration::from_secs(191)..Duration::from_secs(192)).contains(&passed()), "{:?}", passed());
        // Over already.
        timer.sleep_until(at(3)).await;
        assert!(passed() < Duration::from_secs(192));
    }
}
