//! Whose turn it is to verify a name and password that many requests bring at once: the first's; the others wait for its word. Used by `passwords`.
//!
//! Nobody waits for a turn of their own: a word that was told is everybody's, whatever it is, so that a pile of requests is gone at once.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::ports::{Lead, Mark, PasswordKey, Told};

/// Requests that wait at once, at most; all of them together.
const MOST_WAITING: usize = 1_000;

type Word = Option<(Told, Option<Mark>)>;

#[derive(Default)]
pub(super) struct Turns(Arc<Shared>);

#[derive(Default)]
struct Shared {
    under_way: Mutex<HashMap<PasswordKey, watch::Receiver<Word>>>,
    waiting: AtomicUsize,
}

pub(super) enum Joined {
    Lead(Lead),
    Waiting(Waiting),
    TooMany,
}

impl Turns {
    pub(super) fn join(&self, key: &PasswordKey) -> Joined {
        let mut under_way = self.0.under_way();
        if let Some(word) = under_way.get(key) {
            return Waiting::of(&self.0, word).map_or(Joined::TooMany, Joined::Waiting);
        }
        let (tell, word) = watch::channel(None);
        under_way.insert(*key, word);
        drop(under_way);
        let mut turn = UnderWay { shared: Arc::clone(&self.0), key: *key, tell: Some(tell) };
        Joined::Lead(Lead(Box::new(move |told, mark| {
            let tell = turn.tell.take();
            // Whoever comes from here on has a turn of their own.
            drop(turn);
            tell.map(|tell| tell.send_replace(Some((told, mark))));
        })))
    }
}

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, HashMap<PasswordKey, watch::Receiver<Word>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Over when it is dropped, told or not.
struct UnderWay {
    shared: Arc<Shared>,
    key: PasswordKey,
    tell: Option<watch::Sender<Word>>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        // Before those who wait hear that nobody will tell them: one of them is next.
        self.shared.under_way().remove(&self.key);
    }
}

/// A place among those who wait; free again when it is dropped.
pub(super) struct Waiting {
    shared: Arc<Shared>,
    word: watch::Receiver<Word>,
}

impl Waiting {
    fn of(shared: &Arc<Shared>, word: &watch::Receiver<Word>) -> Option<Self> {
        let before = shared.waiting.fetch_add(1, Ordering::AcqRel);
        let waiting = Self { shared: Arc::clone(shared), word: word.clone() };
        (before < MOST_WAITING).then_some(waiting)
    }

    /// `None`: whoever led went away without a word.
    pub(super) async fn heard(mut self) -> Word {
        self.word.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Barred;

    const KEY: PasswordKey = PasswordKey([1; 32]);

    fn lead(turns: &Turns) -> Lead {
        let Joined::Lead(lead) = turns.join(&KEY) else { panic!("somebody leads") };
        lead
    }

    fn waiting(turns: &Turns) -> Waiting {
        let Joined::Waiting(waiting) = turns.join(&KEY) else { panic!("nobody to wait for") };
        waiting
    }

    #[tokio::test]
    async fn all_who_wait_hear_the_word_and_whoever_comes_later_leads() {
        let turns = Turns::default();
        let first = lead(&turns);
        let others = [waiting(&turns), waiting(&turns)];
        assert!(matches!(turns.join(&PasswordKey([2; 32])), Joined::Lead(_)), "another pair waits for nobody");
        first.tell(Err(Barred::Busy), None);
        let _next = lead(&turns);
        for other in others {
            assert!(matches!(other.heard().await, Some((Err(Barred::Busy), None))));
        }
    }

    #[tokio::test]
    async fn one_of_those_who_wait_is_next_where_the_first_goes_away() {
        let turns = Turns::default();
        let first = lead(&turns);
        let other = waiting(&turns);
        drop(first);
        assert!(other.heard().await.is_none());
        drop(lead(&turns));
        assert!(turns.0.under_way().is_empty());
    }

    #[test]
    fn so_many_wait_and_no_more() {
        let turns = Turns::default();
        let _first = lead(&turns);
        let all: Vec<Waiting> = (0..MOST_WAITING).map(|_| waiting(&turns)).collect();
        assert!(matches!(turns.join(&KEY), Joined::TooMany) && matches!(turns.join(&KEY), Joined::TooMany));
        drop(all);
        assert_eq!(turns.0.waiting.load(Ordering::Acquire), 0);
        drop(waiting(&turns));
    }
}
