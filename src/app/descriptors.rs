//! How many connections there may be, by the configuration and by what the system lets a process open. Called at the start and at
//! each reload.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{config::ConnectionBounds, gate::connections::Connections};

/// Files that are none of a client's: databases, logs, listeners, what the runtime needs.
const OURS: u64 = 256;
/// A client's own and that to its upstream. HTTP/2 may need more, a portal's page less.
const PER_CONNECTION: u64 = 2;

/// Sets the bounds. Where the system allows fewer, those hold, with a warning: a flood that takes every descriptor would take
/// those of the databases too.
pub(crate) fn bound(connections: &Connections, bounds: ConnectionBounds) {
    let files = open_files();
    let held = files.map_or(bounds, |files| within(files, bounds));
    if let Some(files) = files.filter(|_| held != bounds) {
        tracing::warn!(
            "server.connections is {}, but this process may have {files} files open only, which do for {} connections: no more are held, and {} of one \
             source. Allow it {} files (LimitNOFILE= of the systemd unit, `ulimit -n`), or write a smaller number",
            bounds.all,
            held.all,
            held.per_source.unwrap_or(held.all),
            needed(bounds.all),
        );
    }
    let wide = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    connections.configure(wide(held.all), held.per_source.map(wide));
}

/// What the process may open at once, after it has asked for all that it may have: a shell gives 1024 to programs that do not ask. `None`: no limit.
fn open_files() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    if raised { maximum } else { current }
}

fn needed(connections: u32) -> u64 {
    u64::from(connections) * PER_CONNECTION + OURS
}

/// What of the bounds so many files do for. The share of one source is cut, to the same part, only where it would be more of them than it is by default.
fn within(files: u64, bounds: ConnectionBounds) -> ConnectionBounds {
    if needed(bounds.all) <= files {
        return bounds;
    }
    let room = u32::try_from(files.saturating_sub(OURS) / PER_CONNECTION).unwrap_or(u32::MAX).max(1);
    let part = |count: u32| u64::from(count) * u64::from(room) / u64::from(bounds.all.max(1));
    let cut = |count: u32| {
        let part = u32::try_from(part(count)).unwrap_or(u32::MAX);
        count.min(part.max(ConnectionBounds::share_of(room)))
    };
    ConnectionBounds { all: room, per_source: bounds.per_source.map(cut) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_connections_than_there_are_files_for() {
        let bounds = |all, per_source| ConnectionBounds { all, per_source };
        for (files, written, held) in [
            (1_048_576, bounds(16_384, Some(2048)), bounds(16_384, Some(2048))),
            (33_024, bounds(16_384, Some(2048)), bounds(16_384, Some(2048))),
            (33_022, bounds(16_384, Some(2048)), bounds(16_383, Some(2047))),
            (1024, bounds(16_384, Some(2048)), bounds(384, Some(48))),
            (1024, bounds(16_384, None), bounds(384, None)),
            (1024, bounds(384, Some(384)), bounds(384, Some(384))),
            (300, bounds(16_384, Some(10)), bounds(22, Some(2))),
            (20_000, bounds(16_384, Some(4)), bounds(9872, Some(4))),
            (20_000, bounds(16_384, Some(5000)), bounds(9872, Some(3012))),
            (100, bounds(u32::MAX, Some(u32::MAX)), bounds(1, Some(1))),
        ] {
            assert_eq!(within(files, written), held, "{files} files, {written:?}");
        }
    }

    #[test]
    fn all_that_the_system_gives_is_asked_for() {
        let files = open_files();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!((current, files), (maximum, maximum));
    }
}
