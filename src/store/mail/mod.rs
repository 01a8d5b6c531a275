//! Mails, by SMTP or into a folder (`notifier:`). A bounded queue and one task that sends: whoever hands a mail in never waits, and a server that is
//! down costs nobody anything but the mail's delay. What cannot be sent is tried again, and given up in the end, with a line in the log and a count.
//!
//! Mails in the queue are in memory: those that cannot be sent before the process ends are lost, and counted as such.

mod message;
mod queue;
mod way;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use lettre::message::Mailbox;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::{
    config::Notifier,
    observe::metrics::Metrics,
    ports::{Clock, Entropy, Mail, Mailer},
};
use queue::Counted;
use way::Way;

/// Mails that wait for the task that sends.
const QUEUE: usize = 256;

/// What is in force of `notifier:`.
struct Sending {
    sender: Mailbox,
    way: Way,
}

/// A way that mails may go from some moment on.
pub struct NextWay(Option<Arc<Sending>>);

pub struct MailQueue {
    sender: mpsc::Sender<Mail>,
    /// Until the task takes it.
    receiver: Mutex<Option<mpsc::Receiver<Mail>>>,
    sending: ArcSwapOption<Sending>,
    counted: Mutex<Counted>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl MailQueue {
    /// Sends nothing until it is configured and runs.
    pub fn new(metrics: Arc<Metrics>, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Self {
        let (sender, receiver) = mpsc::channel(QUEUE);
        Self {
            sender,
            receiver: Mutex::new(Some(receiver)),
            sending: ArcSwapOption::empty(),
            counted: Mutex::default(),
            metrics,
            clock,
            entropy,
        }
    }

    /// What [`MailQueue::adopt`] takes; nothing changes yet.
    ///
    /// # Errors
    /// What is wrong with the settings, by their key.
    pub fn prepare(notifier: &Notifier) -> Result<NextWay, String> {
        let Some(way) = &notifier.way else { return Ok(NextWay(None)) };
        let sender = notifier.sender.parse().map_err(|error| format!("notifier.sender: {error}"))?;
        Ok(NextWay(Some(Arc::new(Sending { sender, way: Way::open(way)? }))))
    }

    /// From now on, also for what waits already.
    pub fn adopt(&self, next: NextWay) {
        self.sending.store(next.0);
    }

    /// Both at once.
    ///
    /// # Errors
    /// As [`MailQueue::prepare`]: nothing changes.
    pub fn configure(&self, notifier: &Notifier) -> Result<(), String> {
        self.adopt(Self::prepare(notifier)?);
        Ok(())
    }

    /// Sends until it is told to stop; what waits then is tried once more, for a few seconds.
    pub fn run(self: Arc<Self>, shutdown: watch::Receiver<bool>) -> JoinHandle<()> {
        tokio::spawn(queue::work(self, shutdown))
    }

    fn take_receiver(&self) -> Option<mpsc::Receiver<Mail>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Mailer for MailQueue {
    fn send(&self, mail: Mail) {
        // Before the queue, which all share: nobody fills it with mails to themselves.
        let now = self.clock.monotonic();
        let why = if self.counted.lock().unwrap_or_else(PoisonError::into_inner).admits(&mail.user, now) {
            match self.sender.try_send(mail) {
                Ok(()) => return,
                Err(refused) => (refused.into_inner(), "too many wait to be sent"),
            }
        } else {
            (mail, "they got as many as anybody may get within an hour")
        };
        let (mail, why) = why;
        tracing::warn!(user = mail.user, subject = mail.subject, why, "a mail is dropped");
        self.metrics.mail("dropped");
    }
}
