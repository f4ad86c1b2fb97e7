//! Which memory a kernel reads and writes as which map: the Rust side of `maps.cu`. Knows no sizes.

use super::device::Address;

/// What a map is made of while it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Image,
    Rectified,
    Pooled,
    Gradient,
    Unpooled,
}

impl Kind {
    /// Its name in the kernels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "IMAGE",
            Self::Rectified => "RECTIFIED",
            Self::Pooled => "POOLED",
            Self::Gradient => "GRADIENT",
            Self::Unpooled => "UNPOOLED",
        }
    }
}

/// What becomes of values that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Keep,
    Rectifier,
    Maximum,
    Plain,
}

impl Target {
    /// Its name in the kernels.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Keep => "KEEP",
            Self::Rectifier => "RECTIFIER",
            Self::Maximum => "MAXIMUM",
            Self::Plain => "PLAIN",
        }
    }
}

/// A map that is read; `maps.cu` says what the four parts of each kind are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) kind: Kind,
    pub(super) parts: [Address; 4],
    /// Where the result is kept.
    pub(super) kept: Address,
    /// Where its signs are kept.
    pub(super) signs: Address,
}

impl Read {
    pub(super) fn new(kind: Kind, parts: [Address; 4]) -> Self {
        Self { kind, parts, kept: Address::NONE, signs: Address::NONE }
    }

    /// The same, keeping nothing.
    pub(super) fn again(self) -> Self {
        Self::new(self.kind, self.parts)
    }
}

/// A map that is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) target: Target,
    pub(super) out: Address,
    /// What BatchNorm normalised, and a projection's.
    pub(super) z: [Address; 2],
    /// The BatchNorm's line.
    pub(super) line: Address,
    /// Signs that pass, where the line does not tell.
    pub(super) pass: Address,
    /// Add what `out` holds.
    pub(super) add: bool,
}

impl Write {
    /// Values as they are, or (as [`Target::Keep`]) with their sums.
    pub(super) fn new(target: Target, out: Address) -> Self {
        let none = Address::NONE;
        Self { target, out, z: [none; 2], line: none, pass: none, add: false }
    }
}
