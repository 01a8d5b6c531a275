//! `log:`: what the program writes about itself and about requests.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::{
        Log, LogFormat,
        error::{Report, Trail},
    },
    observe::access_log::Sink,
};

const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// What the program writes about itself and about requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawLog {
    /// `json` (default): a JSON object a line; `text`: for people.
    format: RawFormat,
    /// `off`, `error`, `warn`, `info` (default), `debug` or `trace`, also by module: `info,postern=debug`.
    #[schemars(example = &"info")]
    level: Option<String>,
    /// The access log: `stdout` (default), `off`, or the path of a file.
    #[schemars(example = &"stdout")]
    access: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawFormat {
    #[default]
    Json,
    Text,
}

pub(in crate::config) fn log(report: &mut Report, raw: &RawLog) -> Log {
    let at = Trail::root().key("log");
    let level = raw.level.clone().unwrap_or_else(|| "info".to_owned());
    if !level.split(',').all(is_directive) {
        report.fault(
            &at.key("level"),
            format!("`{level}` is no log level; write off, error, warn, info, debug or trace, or by module: `info,postern=debug`"),
        );
    }
    let access = match raw.access.as_deref() {
        None | Some("stdout") => Sink::Stdout,
        Some("off") => Sink::Off,
        Some("") => {
            report.fault(&at.key("access"), "`log.access` is empty; write `stdout`, `off`, or the path of a file");
            Sink::Off
        }
        Some(path) => Sink::File(PathBuf::from(path)),
    };
    let format = match raw.format {
        RawFormat::Json => LogFormat::Json,
        RawFormat::Text => LogFormat::Text,
    };
    Log { format, level, access }
}

fn is_directive(text: &str) -> bool {
    let (module, level) = match text.trim().split_once('=') {
        Some((module, level)) => (module, level),
        None => ("postern", text.trim()),
    };
    let is_module = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    !module.is_empty() && module.bytes().all(is_module) && LEVELS.contains(&level)
}
