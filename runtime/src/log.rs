//! Process-wide logging. In: a format and a filter such as `info,qscaler_controller=debug`. Out: lines on standard error. Left to others: what
//! is logged; secrets never are, which is the business of whoever holds one, and of this file where a library would tell them.

use std::fmt;
use std::str::FromStr;
use tracing::{Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The filter of a process that was given none.
pub const FILTER_DEFAULT: &str = "info";

/// Libraries that log as errors what the caller handles and tells in its own words; a filter that names them is obeyed.
const QUIET: &[&str] = &["lapin"];
/// Libraries that at their finest level write what they log in with: the frame that carries a password, the whole URL. No filter makes them.
const TELL_SECRETS: &[&str] = &["amq_protocol", "lapin"];

/// How a log line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line, for collectors.
    #[default]
    Json,
    /// One readable line, for people.
    Text,
}

impl FromStr for Format {
    type Err = LogError;

    fn from_str(text: &str) -> Result<Self, LogError> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err(LogError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Json => "json",
            Self::Text => "text",
        })
    }
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Not a format.
    #[error("log format {0:?} is unknown; valid: json, text")]
    Format(String),
    /// Not a filter.
    #[error(
        "log filter {text:?} does not parse ({problem}); valid: a level (error, warn, info, debug, trace), then target=level pairs, comma-separated"
    )]
    Filter {
        /// The text as given.
        text: String,
        /// The parser's words.
        problem: String,
    },
    /// A second call in one process.
    #[error("logging is set up already")]
    Twice,
}

fn targets(filter: &str) -> Result<Targets, LogError> {
    let targets = Targets::from_str(filter).map_err(|e| LogError::Filter { text: filter.to_owned(), problem: e.to_string() })?;
    Ok(QUIET.iter().filter(|library| !filter.contains(*library)).fold(targets, |targets, library| targets.with_target(*library, LevelFilter::OFF)))
}

/// Whether such a line may tell a secret.
fn tells_secrets(target: &str, level: &Level) -> bool {
    *level > Level::DEBUG && TELL_SECRETS.iter().any(|library| target.starts_with(library))
}

/// What [`init`] sets, for lines that go elsewhere.
///
/// # Errors
/// When the filter does not parse.
pub fn subscriber<W>(format: Format, filter: &str, writer: W) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let targets = targets(filter)?;
    let without_secrets = filter_fn(|line| !tells_secrets(line.target(), line.level()));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match format {
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(false);
            Box::new(tracing_subscriber::registry().with(lines).with(targets).with(without_secrets))
        }
        Format::Text => Box::new(tracing_subscriber::registry().with(lines.with_ansi(false)).with(targets).with(without_secrets)),
    })
}

/// Sets the process's logger; to be called once, first thing in `main`.
///
/// # Errors
/// When the filter does not parse, or a logger is set already.
pub fn init(format: Format, filter: &str) -> Result<(), LogError> {
    subscriber(format, filter, std::io::stderr)?.try_init().map_err(|_| LogError::Twice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_format_is_read_back_from_its_name() {
        for format in [Format::Json, Format::Text] {
            assert_eq!(format.to_string().parse::<Format>().unwrap(), format);
        }
        assert!("yaml".parse::<Format>().unwrap_err().to_string().contains("json, text"));
    }

    #[test]
    fn libraries_whose_errors_are_told_by_the_caller_are_quiet_unless_they_are_named() {
        let quiet = targets("info").unwrap();
        assert!(quiet.would_enable("qscaler_controller", &tracing::Level::INFO));
        assert!(!quiet.would_enable("lapin::channel", &tracing::Level::ERROR));
        assert!(targets("info,lapin=error").unwrap().would_enable("lapin::channel", &tracing::Level::ERROR));
    }

    #[test]
    fn a_bad_filter_is_refused_by_name_before_anything_is_set() {
        let error = init(Format::Json, "qscaler=loud").unwrap_err().to_string();
        assert!(error.contains("qscaler=loud") && error.contains("debug"), "{error}");
    }
}
