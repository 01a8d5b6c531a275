//! Scripts that Redis runs: asked for by their hash, and sent whole where a server does not know them (it was started anew, or is another one).

use redis::{Cmd, ErrorKind, FromRedisValue, RedisResult, ServerErrorKind, cmd};

use super::{Redis, Way};
use crate::ports::Unavailable;

pub(in crate::store) struct Script {
    text: &'static str,
    hash: String,
}

impl Script {
    pub(in crate::store) fn new(text: &'static str) -> Self {
        Self { text, hash: redis::Script::new(text).get_hash().to_owned() }
    }
}

/// One run of a script.
pub(in crate::store) struct Call<'s> {
    pub(in crate::store) script: &'s Script,
    /// In a cluster of one slot.
    pub(in crate::store) keys: Vec<String>,
    pub(in crate::store) arguments: Vec<String>,
}

impl Call<'_> {
    fn command(&self, is_whole: bool) -> Cmd {
        let mut command = if is_whole { cmd("EVAL") } else { cmd("EVALSHA") };
        command.arg(if is_whole { self.script.text } else { &self.script.hash });
        command.arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }
}

impl Redis {
    /// The answers in the order of the calls, sent together. A call may be carried out twice, where a connection is lost or a server does not know some script.
    pub(in crate::store) async fn run_each<T: FromRedisValue>(
        &self,
        store: &'static str,
        operation: &'static str,
        calls: &[Call<'_>],
    ) -> Result<Vec<T>, Unavailable> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        self.in_time(store, operation, self.run(calls)).await
    }

    async fn run<T: FromRedisValue>(&self, calls: &[Call<'_>]) -> RedisResult<Vec<T>> {
        let commands = |is_whole| calls.iter().map(|call| call.command(is_whole)).collect::<Vec<_>>();
        match self.attempts(&commands(false)).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.attempts(&commands(true)).await
            }
            done => done,
        }
    }

    /// Whether keys lie on different servers.
    pub(in crate::store) fn is_cluster(&self) -> bool {
        matches!(self.way, Way::Cluster(_))
    }
}
