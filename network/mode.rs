//! What a training changes: the paper's modes as switches over the groups of parameters. Knows
//! no values.

use std::{fmt, str::FromStr};

use crate::{
    Error, Result,
    arch::{Graph, Param, Role, Variant},
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
    /// All of them (shortcuts included), from a start that is zero but for one position of at most two
    /// filters of each: [`thin`](crate::init::thin).
    Thin,
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

    /// The same, and every gamma.
    #[must_use]
    pub fn with_gammas(self) -> Self {
        Self { gamma: true, shortcut_bn: true, ..self }
    }

    /// The same, where the shortcuts' BatchNorms train with the others, or do not; `None` changes nothing.
    #[must_use]
    pub fn with_shortcut_bn(self, on: Option<bool>) -> Self {
        Self { shortcut_bn: on.map_or(self.shortcut_bn, |on| on && (self.gamma || self.beta)), ..self }
    }
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
    /// `origin-random`: what the origin's code does under that name. Nearly all convolution weights are
    /// zero at the start and all of them train, nothing else does.
    OriginRandom,
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
    pub const NAMES: [(&'static str, Self); 10] = [
        ("all", Self::All),
        ("bn", Self::Bn),
        ("random", Self::Random),
        ("origin-random", Self::OriginRandom),
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
            Self::OriginRandom => TrainSet { convs: Convs::Thin, ..TrainSet::NONE },
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

impl Share {
    /// Number of elements of `param`.
    pub fn count(self, param: &Param) -> usize {
        match self {
            Self::Frozen => 0,
            Self::Full => param.count(),
            Self::PerFilter { k } => k * param.shape[0],
        }
    }
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
                Convs::Thin => Share::Full,
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
        self.share(param).count(param)
    }

    /// How many values of a network train.
    pub fn trained_of(&self, graph: &Graph) -> usize {
        graph.params().iter().map(|param| self.trained(param)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trained(arch: &str, variant: Variant, set: &TrainSet) -> usize {
        set.trained_of(&Graph::new(arch.parse().unwrap(), variant, 10))
    }

    #[test]
    fn each_mode_trains_as_many_values_as_its_groups_hold() {
        let count = |mode: Mode| trained("resnet14", Variant::Paper, &mode.train_set(Variant::Paper, 2));
        let (total, bn, output, shortcut) = (175_258, 1_120, 650, 2_560);
        let expected = [
            (Mode::All, total),
            (Mode::Bn, bn),
            (Mode::Random, bn),
            (Mode::OriginRandom, total - bn - output),
            (Mode::AllButBn, total - bn),
            (Mode::BnOutputShortcut, bn + output + shortcut),
            (Mode::OutputShortcut, output + shortcut),
            (Mode::Gamma, bn / 2),
            (Mode::Beta, bn / 2),
            (Mode::None, 0),
        ];
        assert_eq!(Mode::NAMES.map(|(_, mode)| (mode, count(mode))), expected);
    }

    #[test]
    fn the_origins_modes_have_its_counts() {
        for (arch, bn, random) in
            [("resnet32", 2_272, 464_048), ("resnet56", 4_064, 851_120), ("resnet110", 8_096, 1_722_032)]
        {
            let count = |mode: Mode| trained(arch, Variant::Origin, &mode.train_set(Variant::Origin, 2));
            assert_eq!((count(Mode::Bn), count(Mode::OriginRandom)), (bn, random), "{arch}");
        }
    }

    #[test]
    fn shortcut_batch_norms_train_or_not_with_the_others_alone() {
        let set = |mode: Mode, variant, on| mode.train_set(variant, 2).with_shortcut_bn(Some(on));
        assert_eq!(trained("resnet32", Variant::Paper, &set(Mode::Bn, Variant::Paper, false)), 2_464 - 192);
        assert_eq!(trained("resnet32", Variant::Origin, &set(Mode::Bn, Variant::Origin, true)), 2_272 + 224);
        assert_eq!(set(Mode::Bn, Variant::Paper, true), Mode::Bn.train_set(Variant::Paper, 2));
        assert_eq!(set(Mode::Random, Variant::Paper, true), Mode::Random.train_set(Variant::Paper, 2));
    }
}
