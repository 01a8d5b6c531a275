//! Logs by `tracing`, as JSON lines or for people. Called once a process, by `app` and `cli`. Logs and the access log both go to
//! standard output, for whatever runs the program to collect.

use tracing_subscriber::EnvFilter;

#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("`log.level` is not a level or a filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    #[error("the log cannot be set up: {0}")]
    Install(Box<dyn std::error::Error + Send + Sync>),
}

/// Sends logs of `level` and above (or by a filter such as `info,postern::gate=debug`) to standard output, records of the
/// crate `log` included.
///
/// # Errors
/// The filter cannot be read, or logs were set up already.
pub fn init(json: bool, level: &str) -> Result<(), LogError> {
    let logs = tracing_subscriber::fmt().with_env_filter(filter(level)?);
    if json { logs.json().flatten_event(true).try_init() } else { logs.try_init() }.map_err(LogError::Install)
}

/// pingora warns of each client that hangs up or speaks no HTTP: anybody could fill the log. A filter that names pingora
/// comes later and so wins.
fn filter(level: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(level)?;
    EnvFilter::try_new(format!("pingora=error,pingora_core=off,pingora_proxy=off,{level}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters_are_read_and_nonsense_is_an_error() {
        for good in ["info", "warn,postern::gate=debug", "pingora=debug"] {
            assert!(filter(good).is_ok(), "{good}");
        }
        for bad in ["info,=", "postern=loudest"] {
            assert!(filter(bad).is_err(), "{bad}");
        }
    }
}
