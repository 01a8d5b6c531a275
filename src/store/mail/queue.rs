//! The task that sends mails: one at a time, each again and again at growing distances until it is sent, refused or too old. A mail that has to wait
//! lets others pass.

use std::{
    collections::{HashMap, VecDeque},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time,
};

use super::{MailQueue, message::message, way::Undelivered};
use crate::{core::time::Timestamp, ports::Mail};

/// Before a mail is tried again; twice as long each time, up to [`AGAIN_AT_MOST`].
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(60);
/// A mail that could not be sent for so long is given up.
const GIVEN_UP: Duration = Duration::from_secs(15 * 60);
/// Mails that were tried before, beside those in the queue; beyond them the oldest are given up.
const MOST_WAITING: usize = 256;
/// For a mail that is on its way when the process ends, and then for all that wait. Together shorter than lifecycle's patience with a task.
const LAST_ONE: Duration = Duration::from_secs(2);
const LAST_TRY: Duration = Duration::from_secs(2);
/// For one mail, however slowly a server answers, step by step: others wait meanwhile.
const LONGEST: Duration = Duration::from_secs(30);
/// Mails to one person in [`PERIOD`]: a program that signs in again and again without a cookie must not fill a mailbox.
const MOST_TO_ONE: u32 = 20;
const PERIOD: Duration = Duration::from_secs(3_600);
/// People whose mails are counted at once.
const MOST_COUNTED: usize = 10_000;

struct Waiting {
    mail: Mail,
    /// When it was handed in; its date.
    at: Timestamp,
    /// Of the clock that never goes back.
    since: Duration,
    due: Duration,
    pause: Duration,
}

impl Waiting {
    fn new(queue: &MailQueue, mail: Mail) -> Self {
        let now = queue.clock.monotonic();
        Self { mail, at: queue.clock.now(), since: now, due: now, pause: AGAIN }
    }
}

pub(super) async fn work(queue: Arc<MailQueue>, mut shutdown: watch::Receiver<bool>) {
    let Some(mut receiver) = queue.take_receiver() else { return };
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    loop {
        let now = queue.clock.monotonic();
        let next = waiting.iter().map(|mail| mail.due.saturating_sub(now)).min();
        let next = tokio::select! {
            () = stopped(&mut shutdown) => break,
            mail = receiver.recv() => match mail {
                Some(mail) => Some(Waiting::new(&queue, mail)),
                None => break,
            },
            () = time::sleep(next.unwrap_or(PERIOD)), if next.is_some() => {
                let now = queue.clock.monotonic();
                let place = waiting.iter().position(|mail| mail.due <= now);
                place.and_then(|place| waiting.remove(place))
            }
        };
        if let Some(mail) = next
            && attempt(&queue, mail, &mut waiting, &mut shutdown).await
        {
            break;
        }
    }
    end(&queue, receiver, waiting).await;
}

/// Also where the sender is gone: nobody could stop the work any more.
async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Whether the process ends meanwhile. What is on its way then is not taken back: the server may have it already, and would get it twice.
async fn attempt(
    queue: &MailQueue,
    mail: Waiting,
    waiting: &mut VecDeque<Waiting>,
    shutdown: &mut watch::Receiver<bool>,
) -> bool {
    let (sent, ends) = {
        let mut sending = pin!(time::timeout(LONGEST, send(queue, &mail)));
        tokio::select! {
            sent = &mut sending => (sent, false),
            () = stopped(shutdown) => (time::timeout(LAST_ONE, sending).await.flatten(), true),
        }
    };
    match sent.unwrap_or_else(|_| Err(Undelivered::NotNow("the server takes too long".to_owned()))) {
        Ok(()) => told_sent(queue, &mail),
        Err(Undelivered::NotNow(why)) if queue.clock.monotonic().saturating_sub(mail.since) < GIVEN_UP => {
            put_off(queue, mail, &why, waiting);
        }
        Err(error) => give_up(queue, &mail, &error.to_string(), "failed"),
    }
    ends
}

async fn send(queue: &MailQueue, waiting: &Waiting) -> Result<(), Undelivered> {
    let Some(sending) = queue.sending.load_full() else {
        return Err(Undelivered::Refused("no way to send mails is configured any more (notifier)".to_owned()));
    };
    let message = message(&waiting.mail, &sending.sender, waiting.at, &*queue.entropy).map_err(Undelivered::Refused)?;
    sending.way.send(message).await
}

fn put_off(queue: &MailQueue, mut mail: Waiting, why: &str, waiting: &mut VecDeque<Waiting>) {
    if mail.pause == AGAIN {
        tracing::warn!(user = mail.mail.user, why, "a mail cannot be sent now: trying again for {GIVEN_UP:?}");
    }
    queue.metrics.mail("retried");
    mail.due = queue.clock.monotonic() + mail.pause;
    mail.pause = (mail.pause * 2).min(AGAIN_AT_MOST);
    if waiting.len() >= MOST_WAITING
        && let Some(oldest) = waiting.pop_front()
    {
        give_up(queue, &oldest, "too many wait to be sent", "dropped");
    }
    waiting.push_back(mail);
}

fn told_sent(queue: &MailQueue, mail: &Waiting) {
    tracing::info!(user = mail.mail.user, subject = mail.mail.subject, "mail sent");
    queue.metrics.mail("sent");
}

fn give_up(queue: &MailQueue, mail: &Waiting, why: &str, status: &'static str) {
    tracing::error!(user = mail.mail.user, subject = mail.mail.subject, why, "a mail is lost");
    queue.metrics.mail(status);
}

/// Each once more, all within [`LAST_TRY`].
async fn end(queue: &MailQueue, mut receiver: mpsc::Receiver<Mail>, mut waiting: VecDeque<Waiting>) {
    receiver.close();
    while let Ok(mail) = receiver.try_recv() {
        waiting.push_back(Waiting::new(queue, mail));
    }
    // What is cut short stays in the list, and is told to be lost.
    let last = async {
        while let Some(mail) = waiting.front() {
            match send(queue, mail).await {
                Ok(()) => told_sent(queue, mail),
                Err(error) => give_up(queue, mail, &error.to_string(), "dropped"),
            }
            waiting.pop_front();
        }
    };
    if time::timeout(LAST_TRY, last).await.is_err() {
        for mail in &waiting {
            give_up(queue, mail, "the process ends", "dropped");
        }
    }
}

/// How many mails were handed in for somebody since when.
#[derive(Default)]
pub(super) struct Counted(HashMap<String, (Duration, u32)>);

impl Counted {
    pub(super) fn admits(&mut self, user: &str, now: Duration) -> bool {
        let is_over = |since: Duration| now.saturating_sub(since) >= PERIOD;
        if self.0.len() >= MOST_COUNTED {
            self.0.retain(|_, (since, _)| !is_over(*since));
        }
        let (since, count) = self.0.entry(user.to_owned()).or_insert((now, 0));
        if is_over(*since) {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= MOST_TO_ONE
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::{
        config::{MailWay, Notifier},
        observe::metrics::Metrics,
        ports::{Clock, Mailer as _},
        store::system::SystemEntropy,
    };

    /// Seconds, as a test moves them.
    #[derive(Default)]
    struct Hands(AtomicU64);

    impl Clock for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::default()
        }
        fn monotonic(&self) -> Duration {
            Duration::from_secs(self.0.load(Ordering::SeqCst))
        }
    }

    fn queue() -> (Arc<MailQueue>, Arc<Hands>) {
        let hands = Arc::new(Hands::default());
        let metrics = Arc::new(Metrics::new().unwrap());
        (Arc::new(MailQueue::new(metrics, hands.clone(), Arc::new(SystemEntropy))), hands)
    }

    fn mail(user: &str) -> Mail {
        let to = format!("{user}@example.com");
        Mail { user: user.to_owned(), to, subject: String::new(), text: String::new(), html: String::new() }
    }

    fn counted(queue: &MailQueue, status: &str) -> u64 {
        let label = format!("postern_mails_total{{status=\"{status}\"}} ");
        let text = queue.metrics.render();
        text.lines().find_map(|line| line.strip_prefix(&label)?.parse().ok()).unwrap_or_default()
    }

    fn into_folder(folder: &std::path::Path) -> Notifier {
        let way = Some(MailWay::Folder(folder.to_owned()));
        Notifier { sender: "postern@example.com".to_owned(), way, new_device: true }
    }

    #[test]
    fn a_full_queue_drops_and_never_waits() {
        let (queue, _) = queue();
        for number in 0..super::super::QUEUE + 3 {
            queue.send(mail(&number.to_string()));
        }
        assert_eq!(counted(&queue, "dropped"), 3);
    }

    #[test]
    fn nobody_gets_more_than_so_many_an_hour() {
        let mut counts = Counted::default();
        let mut admits = |user: &str, second: u64| counts.admits(user, Duration::from_secs(second));
        assert_eq!((0..30).filter(|_| admits("ann", 0)).count(), 20);
        assert!(admits("bob", 0), "nobody else is concerned");
        assert!(!admits("ann", 3_599));
        assert!(admits("ann", 3_600));
    }

    #[test]
    fn nobody_fills_the_queue_with_mails_to_themselves() {
        let (queue, _) = queue();
        for _ in 0..super::super::QUEUE + 3 {
            queue.send(mail("ann"));
        }
        let dropped = u64::try_from(super::super::QUEUE + 3).unwrap() - u64::from(MOST_TO_ONE);
        assert_eq!(counted(&queue, "dropped"), dropped);
        queue.send(mail("bob"));
        assert_eq!(counted(&queue, "dropped"), dropped, "there is room for others");
    }

    #[tokio::test]
    async fn a_mail_is_tried_again_and_given_up_in_the_end() {
        let (queue, hands) = queue();
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("blocked");
        std::fs::write(&blocked, "").unwrap();
        queue.configure(&into_folder(&blocked)).unwrap();
        let (_stop, mut shutdown) = watch::channel(false);
        let mut waiting = VecDeque::new();
        let first = Waiting::new(&queue, mail("ann"));
        assert!(!attempt(&queue, first, &mut waiting, &mut shutdown).await);
        let mut pauses = Vec::new();
        while let Some(again) = waiting.pop_front() {
            pauses.push(again.due.as_secs() - hands.0.load(Ordering::SeqCst));
            hands.0.store(again.due.as_secs(), Ordering::SeqCst);
            attempt(&queue, again, &mut waiting, &mut shutdown).await;
        }
        assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pauses.iter().sum::<u64>().div_ceil(60), 16, "for a quarter of an hour");
        assert_eq!((counted(&queue, "retried"), counted(&queue, "failed")), (pauses.len() as u64, 1));

        // Another way, which the next reload brings.
        queue.configure(&into_folder(&folder.path().join("mail"))).unwrap();
        let next = Waiting::new(&queue, mail("ann"));
        attempt(&queue, next, &mut waiting, &mut shutdown).await;
        assert_eq!((counted(&queue, "sent"), waiting.len()), (1, 0));
    }

    #[tokio::test]
    async fn what_waits_at_the_end_is_tried_once_more() {
        let (queue, _) = queue();
        let folder = tempfile::tempdir().unwrap();
        queue.configure(&into_folder(folder.path())).unwrap();
        queue.send(mail("ann"));
        queue.send(Mail { to: "no address".to_owned(), ..mail("bob") });
        let (stop, shutdown) = watch::channel(true);
        Arc::clone(&queue).run(shutdown).await.unwrap();
        drop(stop);
        assert_eq!((counted(&queue, "sent"), counted(&queue, "dropped")), (1, 1));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
