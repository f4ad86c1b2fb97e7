//! How the command fails: what is printed and which exit code it gives. Prints nothing itself.

use std::process::ExitCode;

use engine::{error::EngineError, pipeline::LoadError};

/// Whose turn it is after a failure; the worse the later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FailureKind {
    /// The user can fix it: the command line, the pipeline file, a permission.
    User,
    /// Stored data are damaged.
    Integrity,
}

impl From<FailureKind> for ExitCode {
    fn from(kind: FailureKind) -> Self {
        ExitCode::from(match kind {
            FailureKind::User => 2,
            FailureKind::Integrity => 3,
        })
    }
}

/// A failure of the whole command.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) message: Message,
    /// A way out.
    pub(crate) hint: Option<String>,
}

/// What to print about a failure.
#[derive(Debug)]
pub(crate) enum Message {
    /// A sentence.
    Text(String),
    /// Places in a pipeline file.
    Load(Box<LoadError>),
}

impl Failure {
    /// A failure of `kind`.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: Message::Text(message.into()), hint: None }
    }

    /// One that the user can fix.
    pub(crate) fn user(message: impl Into<String>) -> Self {
        Self::new(FailureKind::User, message)
    }

    /// With a way out.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self { kind: FailureKind::User, message: Message::Load(Box::new(error)), hint: None }
    }
}

/// What a network, an engine or a machine cannot do is for the user to choose anew.
impl From<network::Error> for Failure {
    fn from(error: network::Error) -> Self {
        Self::user(error.to_string())
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let kind = if error.is_damage() { FailureKind::Integrity } else { FailureKind::User };
        Self { hint: error.hint(), ..Self::new(kind, error.to_string()) }
    }
}
