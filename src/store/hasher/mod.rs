//! Passwords: made and verified on threads of their own, so that a flood of sign-ins starves no request (invariant 3) and costs
//! bounded memory: what does not fit the queue is answered [`HashError::Busy`].

mod formats;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use argon2::{Algorithm, Argon2, Params, Version};
use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

pub use formats::{BadHash, StoredHash};

use crate::ports::{Entropy, HashError, Hasher};

/// Waiting sign-ins a thread: at some 25 ms each, the last waits for less than two seconds.
const QUEUE_A_THREAD: usize = 64;
/// Longest password looked at, so that hashing cannot be made slow by length.
const MOST_PASSWORD: usize = 1_024;
const SALT: usize = 16;
const OUTPUT: usize = 32;
/// OWASP's choice for argon2id: 19 MiB, two passes.
const MEMORY: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

type Job = Box<dyn FnOnce() + Send>;

/// The pool. Dropping it ends its threads.
pub struct HashPool {
    queue: SyncSender<Job>,
    entropy: Arc<dyn Entropy>,
}

impl HashPool {
    /// # Errors
    /// A thread could not be started.
    pub fn start(entropy: Arc<dyn Entropy>) -> std::io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        Self::with(threads, threads * QUEUE_A_THREAD, entropy)
    }

    fn with(threads: usize, queue: usize, entropy: Arc<dyn Entropy>) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel::<Job>(queue);
        let receiver = Arc::new(Mutex::new(receiver));
        for number in 0..threads {
            let receiver = receiver.clone();
            thread::Builder::new().name(format!("hasher-{number}")).spawn(move || work(&receiver))?;
        }
        Ok(Self { queue: sender, entropy })
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, HashError> + Send + 'static,
    ) -> Result<T, HashError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move || {
            // Whoever asked may have gone: then nothing is computed.
            if !reply.is_closed() {
                let _ = reply.send(job());
            }
        });
        self.queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => HashError::Busy,
            TrySendError::Disconnected(_) => HashError::Failed("the hasher's threads have ended".to_owned()),
        })?;
        answer.await.map_err(|_| HashError::Failed("the hasher gave no answer".to_owned()))?
    }
}

fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics must not take its thread with it; the caller sees its channel closed.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(job));
    }
}

#[async_trait]
impl Hasher for HashPool {
    async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        if password.expose_secret().len() > MOST_PASSWORD {
            return Err(HashError::Failed(format!("a password cannot be longer than {MOST_PASSWORD} bytes")));
        }
        let mut salt = [0; SALT];
        self.entropy.fill(&mut salt);
        self.run(move || {
            let digest = argon2id(password.expose_secret().as_bytes(), &salt)?;
            Ok(format!(
                "$argon2id$v=19$m={MEMORY},t={PASSES},p={LANES}${}${}",
                STANDARD_NO_PAD.encode(salt),
                STANDARD_NO_PAD.encode(digest)
            ))
        })
        .await
    }

    async fn verify(&self, password: SecretString, stored: Option<SecretString>) -> Result<bool, HashError> {
        self.run(move || {
            let password = password.expose_secret().as_bytes();
            let too_long = password.len() > MOST_PASSWORD;
            match stored {
                Some(stored) if !too_long => {
                    let stored = StoredHash::parse(stored.expose_secret())
                        .map_err(|bad| HashError::Failed(format!("the stored hash is of no use: {bad}")))?;
                    Ok(stored.matches(password))
                }
                // Nobody of that name: the same work, for nothing (THREATS 39).
                _ => argon2id(b"nobody", &[0; SALT]).map(|_| false),
            }
        })
        .await
    }
}

fn argon2id(password: &[u8], salt: &[u8]) -> Result<[u8; OUTPUT], HashError> {
    let failed = |error: argon2::Error| HashError::Failed(error.to_string());
    let params = Params::new(MEMORY, PASSES, LANES, Some(OUTPUT)).map_err(failed)?;
    let mut digest = [0; OUTPUT];
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut digest)
        .map_err(failed)?;
    Ok(digest)
}
