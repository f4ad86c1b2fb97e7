//! How the command fails: what is printed and which exit code it gives. Prints nothing itself.

use std::process::ExitCode;

use engine::pipeline::LoadError;

/// Whose turn it is after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// The user can fix it: the command line, the pipeline file, a permission.
    User,
}

impl From<FailureKind> for ExitCode {
    fn from(kind: FailureKind) -> Self {
        ExitCode::from(match kind {
            FailureKind::User => 2,
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
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        Self { kind: FailureKind::User, message: Message::Load(Box::new(error)), hint: None }
    }
}
