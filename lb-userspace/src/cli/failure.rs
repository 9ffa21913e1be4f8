//! Why a subcommand failed: what is printed, and the exit code.

use std::io;
use std::process::ExitCode;

use lb_userspace::api::client;
use lb_userspace::api::types::CONFIGURATION_REFUSED;
use lb_userspace::{agent, config, dataplane};

/// Why a subcommand failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A file on this host was refused. Printed with place and caret, one block per problem.
    Configuration(config::Refused),
    /// The running agent refused, or there is none.
    Client(client::Error),
    /// The agent could not start, or not go on.
    Agent(agent::Error),
    /// Anything else, with its causes.
    Other {
        error: anyhow::Error,
        hint: Option<String>,
    },
    /// Everything has been said on stdout already.
    Silent,
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Configuration(_) => ExitCode::from(3),
            Self::Client(client::Error::Refused(problem))
                if problem.reason == CONFIGURATION_REFUSED =>
            {
                ExitCode::from(3)
            }
            // Whoever read our output has seen enough: `weir stats | head`.
            Self::Other { error, .. } if is_broken_pipe(error) => ExitCode::SUCCESS,
            Self::Agent(agent::Error::Refused(_)) => ExitCode::from(3),
            Self::Client(_) | Self::Agent(_) | Self::Other { .. } | Self::Silent => {
                ExitCode::FAILURE
            }
        }
    }

    /// What goes to stderr; `None` for nothing.
    pub(crate) fn message(&self) -> Option<String> {
        let (message, hint) = match self {
            Self::Configuration(refused) => return Some(each_an_error(refused)),
            Self::Client(error) => (chain(error), error.hint()),
            Self::Agent(error) => (chain(error), error.hint().map(str::to_owned)),
            Self::Other { error, .. } if is_broken_pipe(error) => return None,
            Self::Other { error, hint } => (format!("{error:#}"), hint.clone()),
            Self::Silent => return None,
        };
        Some(match hint {
            Some(hint) => format!("{message}\n\nhint: {hint}"),
            None => message,
        })
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The problems of a configuration, marked as an error each (the printer marks the first).
fn each_an_error(refused: &config::Refused) -> String {
    let mut blocks: Vec<String> = refused.problems().iter().map(ToString::to_string).collect();
    if refused.more() > 0 {
        blocks.push(format!("and {} more problems", refused.more()));
    }
    blocks.join("\n\nerror: ")
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        message.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    message
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        Self::Client(error)
    }
}

impl From<agent::Error> for Failure {
    fn from(error: agent::Error) -> Self {
        Self::Agent(error)
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Self {
        match error {
            config::Error::Refused(refused) => Self::Configuration(refused),
            config::Error::Read { .. } => Self::Other {
                error: error.into(),
                hint: Some("is the path right, and may this user read the file?".to_owned()),
            },
            config::Error::TooLong { .. } => Self::Other {
                error: error.into(),
                hint: None,
            },
        }
    }
}

impl From<dataplane::Error> for Failure {
    fn from(error: dataplane::Error) -> Self {
        Self::Other {
            hint: error.hint().map(str::to_owned),
            error: error.into(),
        }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other { error, hint: None }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Other {
            error: error.into(),
            hint: None,
        }
    }
}
