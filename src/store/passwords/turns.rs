//! Whose turn it is to verify a name and password that many requests bring at once: the first's; the others wait for its word. Used by `passwords`.
//!
//! Nobody waits for a turn of their own: a word that was told is everybody's, whatever it is, so that a pile of requests is gone at once.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::ports::{Lead, Mark, PasswordKey, Told};

/// Requests that wait at once, at most; all of them together.
const MOST_WAITING: usize = 1_000;
/// The same of one source, so that nobody takes the places of all others.
const MOST_OF_SOURCE: usize = 250;

type Word = Option<(Told, Option<Mark>)>;

#[derive(Default)]
pub(super) struct Turns(Arc<Shared>);

/// Of whom it is known where they are, all pairs together; of others each pair for itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Bucket(IpAddr),
    Pair(PasswordKey),
}

#[derive(Default)]
struct Shared {
    under_way: Mutex<HashMap<PasswordKey, watch::Receiver<Word>>>,
    queue: Mutex<Queue>,
}

/// Who waits.
#[derive(Default)]
struct Queue {
    all: usize,
    by_source: HashMap<Source, usize>,
}

pub(super) enum Joined {
    Lead(Lead),
    Waiting(Waiting),
    TooMany,
}

impl Turns {
    /// `bucket`: where it comes from, if that is known.
    pub(super) fn join(&self, key: &PasswordKey, bucket: Option<IpAddr>) -> Joined {
        let mut under_way = self.0.under_way();
        if let Some(word) = under_way.get(key) {
            let source = bucket.map_or(Source::Pair(*key), Source::Bucket);
            return Waiting::of(&self.0, source, word).map_or(Joined::TooMany, Joined::Waiting);
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

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
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
    source: Source,
    word: watch::Receiver<Word>,
}

impl Waiting {
    fn of(shared: &Arc<Shared>, source: Source, word: &watch::Receiver<Word>) -> Option<Self> {
        let mut queue = shared.queue();
        let of_source = queue.by_source.get(&source).copied().unwrap_or(0);
        if queue.all >= MOST_WAITING || of_source >= MOST_OF_SOURCE {
            return None;
        }
        queue.all += 1;
        queue.by_source.insert(source, of_source + 1);
        Some(Self { shared: Arc::clone(shared), source, word: word.clone() })
    }

    /// `None`: whoever led went away without a word.
    pub(super) async fn heard(mut self) -> Word {
        self.word.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.all = queue.all.saturating_sub(1);
        match queue.by_source.get_mut(&self.source) {
            Some(more @ 2..) => *more -= 1,
            _ => _ = queue.by_source.remove(&self.source),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::Barred;

    const KEY: PasswordKey = PasswordKey([1; 32]);

    fn lead(turns: &Turns) -> Lead {
        let Joined::Lead(lead) = turns.join(&KEY, None) else { panic!("somebody leads") };
        lead
    }

    fn waiting(turns: &Turns) -> Waiting {
        let Joined::Waiting(waiting) = turns.join(&KEY, None) else { panic!("nobody to wait for") };
        waiting
    }

    #[tokio::test]
    async fn all_who_wait_hear_the_word_and_whoever_comes_later_leads() {
        let turns = Turns::default();
        let first = lead(&turns);
        let others = [waiting(&turns), waiting(&turns)];
        assert!(matches!(turns.join(&PasswordKey([2; 32]), None), Joined::Lead(_)), "another pair waits for nobody");
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

    fn key(source: u8, pair: usize) -> PasswordKey {
        let mut key = [source; 32];
        key[..8].copy_from_slice(&pair.to_le_bytes());
        PasswordKey(key)
    }

    /// As many as may wait, from one source, each key led by somebody.
    fn fill(turns: &Turns, source: u8, pairs: usize, bucket: Option<IpAddr>) -> Vec<Waiting> {
        let joined = (0..).map_while(|number| match turns.join(&key(source, number % pairs), bucket) {
            Joined::Waiting(waiting) => Some(waiting),
            Joined::TooMany => None,
            Joined::Lead(_) => panic!("nobody leads {source}"),
        });
        joined.collect()
    }

    fn led(turns: &Turns, source: u8, pairs: usize) -> Vec<Lead> {
        let lead = |pair| match turns.join(&key(source, pair), None) {
            Joined::Lead(lead) => lead,
            _ => panic!("somebody leads {source}"),
        };
        (0..pairs).map(lead).collect()
    }

    #[test]
    fn so_many_wait_and_no_more_and_no_source_takes_the_places_of_others() {
        let turns = Turns::default();
        let bucket = |last: u8| Some(IpAddr::from([192, 0, 2, last]));
        let _leads: Vec<_> = (1..=5).map(|source| led(&turns, source, 10)).collect();
        let of_one = fill(&turns, 1, 10, bucket(1));
        assert_eq!(of_one.len(), MOST_OF_SOURCE, "whatever the pair");
        let of_another = fill(&turns, 2, 10, bucket(2));
        assert_eq!(of_another.len(), MOST_OF_SOURCE);
        let of_nowhere = fill(&turns, 3, 1, None);
        assert_eq!(of_nowhere.len(), MOST_OF_SOURCE, "where nobody knows whence, by the pair");
        let rest = (fill(&turns, 4, 1, None), fill(&turns, 5, 1, bucket(5)));
        assert_eq!((rest.0.len(), rest.1.len()), (MOST_OF_SOURCE, 0), "all together");
        drop((of_another, of_nowhere, rest));
        assert!(fill(&turns, 1, 10, bucket(1)).is_empty(), "still full");
        drop(of_one);
        let queue = turns.0.queue();
        assert_eq!((queue.all, queue.by_source.len()), (0, 0));
    }
}
