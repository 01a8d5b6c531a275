//! By which one who serves a request is told to stop in its middle. `listener` serves under one, `streams` ends by it.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Waker},
};

use crate::gate::hold::Over;

tokio::task_local! {
    /// Of the request that is being served.
    static LINE: Arc<Line>;
}

/// One a connection on HTTP/1.1, one a stream on HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// A request is under way that may be ended; without one nothing is locked.
    is_entered: AtomicBool,
    state: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    over: Option<Over>,
    waker: Option<Waker>,
}

impl Line {
    /// `None`: what runs is served under none.
    pub(super) fn of_this_request() -> Option<Arc<Self>> {
        LINE.try_with(Arc::clone).ok()
    }

    /// From here on it may be ended.
    pub(super) fn enter(&self) {
        self.is_entered.store(true, Ordering::Release);
    }

    /// From here on it is the next request's. Why this one was ended, if it was.
    pub(super) fn leave(&self) -> Option<Over> {
        self.is_entered.store(false, Ordering::Release);
        std::mem::take(&mut *self.state()).over
    }

    fn state(&self) -> MutexGuard<'_, Told> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end(&self, over: Over) {
        let waker = {
            let mut state = self.state();
            state.over.get_or_insert(over);
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What `serving` answers; `None`: it was ended before. Dropped then, with all that it holds.
pub(super) async fn until_ended<T>(line: &Arc<Line>, serving: impl Future<Output = T>) -> Option<T> {
    let mut serving = pin!(LINE.scope(Arc::clone(line), serving));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(served) = serving.as_mut().poll(cx) {
            return Poll::Ready(Some(served));
        }
        if !line.is_entered.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        let mut state = line.state();
        if state.over.is_some() {
            return Poll::Ready(None);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        Poll::Pending
    })
    .await
}
