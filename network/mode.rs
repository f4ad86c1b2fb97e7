//! What a training changes: the paper's modes as switches over the groups of parameters. Knows
//! no values.

use std::{fmt, str::FromStr};

use crate::{
    Error, Result,
    arch::{Param, Role, Variant},
};

/// What the name of the k trained values per filter adds to the name of their tensor.
pub const VALUES: &str = ".values";

/// Which convolution weights train.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convs {
    /// None: they stay as the seed drew them.
    Frozen,
    /// All of them.
    All,
    /// `k` weights of each filter, drawn once without replacement (shortcuts included).
    Random {
        /// Trained weights per filter.
        k: usize,
    },
}

/// The switches behind the modes: what is trained. Everything else stays at its initial value;
/// BatchNorm's running statistics are kept up in every mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrainSet {
    /// BatchNorm scales train.
    pub gamma: bool,
    /// BatchNorm shifts train.
    pub beta: bool,
    /// ... those of the shortcuts too (the origin leaves them frozen).
    pub shortcut_bn: bool,
    /// The output layer trains.
    pub output: bool,
    /// The 1x1 projections train (in full).
    pub shortcut: bool,
    /// The other convolutions.
    pub convs: Convs,
}

impl TrainSet {
    /// Nothing trains.
    pub const NONE: Self = Self {
        gamma: false,
        beta: false,
        shortcut_bn: false,
        output: false,
        shortcut: false,
        convs: Convs::Frozen,
    };
}

/// A mode by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `all`: everything.
    All,
    /// `bn`: all gammas and betas, nothing else.
    Bn,
    /// `random`: k weights per filter of every convolution, nothing else.
    Random,
    /// `all-but-bn`
    AllButBn,
    /// `bn+output+shortcut`
    BnOutputShortcut,
    /// `output+shortcut`
    OutputShortcut,
    /// `gamma`: scales only.
    Gamma,
    /// `beta`: shifts only.
    Beta,
    /// `none`: nothing (the running statistics still move).
    None,
}

impl Mode {
    /// Every mode and its name.
    pub const NAMES: [(&'static str, Self); 9] = [
        ("all", Self::All),
        ("bn", Self::Bn),
        ("random", Self::Random),
        ("all-but-bn", Self::AllButBn),
        ("bn+output+shortcut", Self::BnOutputShortcut),
        ("output+shortcut", Self::OutputShortcut),
        ("gamma", Self::Gamma),
        ("beta", Self::Beta),
        ("none", Self::None),
    ];

    /// The switches of this mode. `k` counts in [`Mode::Random`] only. The origin's BN-only mode
    /// leaves the shortcuts' BatchNorms frozen; the paper's trains them.
    pub fn train_set(self, variant: Variant, k: usize) -> TrainSet {
        let bn =
            TrainSet { gamma: true, beta: true, shortcut_bn: variant == Variant::Paper, ..TrainSet::NONE };
        match self {
            Self::None => TrainSet::NONE,
            Self::Bn => bn,
            Self::Gamma => TrainSet { beta: false, ..bn },
            Self::Beta => TrainSet { gamma: false, ..bn },
            Self::Random => TrainSet { convs: Convs::Random { k }, ..TrainSet::NONE },
            Self::OutputShortcut => TrainSet { output: true, shortcut: true, ..TrainSet::NONE },
            Self::BnOutputShortcut => TrainSet { output: true, shortcut: true, shortcut_bn: true, ..bn },
            Self::AllButBn => TrainSet { output: true, shortcut: true, convs: Convs::All, ..TrainSet::NONE },
            Self::All => {
                TrainSet { output: true, shortcut: true, shortcut_bn: true, convs: Convs::All, ..bn }
            }
        }
    }
}

impl FromStr for Mode {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        let known = || Self::NAMES.map(|(name, _)| name).join(", ");
        let found = Self::NAMES.iter().find(|(name, _)| *name == s);
        found.map(|(_, mode)| *mode).ok_or_else(|| Error::Unknown {
            what: "mode",
            name: s.into(),
            known: known(),
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, mode)| mode == self).map_or("?", |(name, _)| name);
        f.write_str(name)
    }
}

/// How much of one parameter tensor trains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Nothing.
    Frozen,
    /// All elements.
    Full,
    /// `k` elements of each of the `K` filters.
    PerFilter {
        /// Elements per filter.
        k: usize,
    },
}

impl TrainSet {
    /// How much of `param` trains.
    pub fn share(&self, param: &Param) -> Share {
        let full = |on: bool| if on { Share::Full } else { Share::Frozen };
        let bn = !param.shortcut || self.shortcut_bn;
        match param.role {
            Role::Gamma => full(self.gamma && bn),
            Role::Beta => full(self.beta && bn),
            Role::OutputWeight | Role::OutputBias => full(self.output),
            Role::ConvBias => full(self.convs == Convs::All),
            Role::Conv | Role::Shortcut => match self.convs {
                Convs::Random { k } => Share::PerFilter { k },
                Convs::All if param.role == Role::Conv => Share::Full,
                _ if param.role == Role::Shortcut => full(self.shortcut),
                _ => Share::Frozen,
            },
        }
    }

    /// Name and shape of what trains of `param`, as in [`State`](crate::trainer::State).
    pub fn slot(&self, param: &Param) -> Option<(String, Vec<usize>)> {
        match self.share(param) {
            Share::Frozen => None,
            Share::Full => Some((param.name.clone(), param.shape.clone())),
            Share::PerFilter { k } => Some((format!("{}{VALUES}", param.name), vec![param.shape[0], k])),
        }
    }

    /// Number of elements of `param` that train.
    pub fn trained(&self, param: &Param) -> usize {
        match self.share(param) {
            Share::Frozen => 0,
            Share::Full => param.len(),
            Share::PerFilter { k } => k * param.shape[0],
        }
    }
}
