//! What can go wrong in the mathematics, as sentences. Knows no files and no line numbers.

/// An error of the `network` crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name (architecture, mode, initialisation, ...) that nothing answers to.
    #[error("unknown {what} `{name}`; known: {known}")]
    Unknown {
        /// What kind of name was looked up, in the singular.
        what: &'static str,
        /// The name that was given.
        name: String,
        /// The names that exist, ready to print.
        known: String,
    },
    /// A value outside what its place allows.
    #[error("{0}")]
    Invalid(String),
    /// The numbers of a training have left the finite ones.
    #[error("{0}")]
    Diverged(String),
    /// Bytes that do not hold what they should (a damaged or foreign file).
    #[error("{0}")]
    Malformed(String),
    /// An engine cannot do what is asked; the caller may fall back to the reference.
    #[error("{engine} engine: {reason}")]
    Unsupported {
        /// The engine that declined.
        engine: &'static str,
        /// Why, as a clause.
        reason: String,
    },
    /// A card, its driver or its compiler cannot be used or has failed: a sentence with a way out.
    #[error("{0}")]
    Device(String),
    /// The reference engine's tensor library failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
