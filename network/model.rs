//! A network as it is before training: a few words from which every weight can be drawn again, its
//! parameter table, and the digest that proves it. Knows no training.

use serde::{Deserialize, Serialize};

use crate::{
    Error, Result,
    arch::{Arch, Graph, Param, Role, Variant},
    init::{BnInit, Init, WeightInit, digest, initial},
    tensor::Tensors,
};

/// Recipe of the initial weights, and their digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The network.
    #[serde(with = "as_text")]
    pub arch: Arch,
    /// Which reading of it.
    #[serde(with = "as_text")]
    pub variant: Variant,
    /// Of the initial weights.
    pub seed: u64,
    /// How convolution and output weights are drawn.
    pub init: WeightInit,
    /// How gamma and beta are drawn.
    pub bn_init: BnInit,
    /// Outputs of the last layer.
    pub classes: usize,
    /// [`digest`] of all initial weights.
    pub initial: String,
}

/// How many parameters a network has, and of which groups (they overlap: shortcut BatchNorms are
/// BatchNorms).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// All of them.
    pub total: usize,
    /// Every gamma and beta.
    pub batch_norm: usize,
    /// ... those of the shortcuts.
    pub shortcut_batch_norm: usize,
    /// Weight and bias of the output layer.
    pub output: usize,
    /// 1x1 projections.
    pub shortcut: usize,
}

const FORMAT: &str = "repro model 1";

/// What `model.json` says.
#[derive(Serialize, Deserialize)]
struct Description {
    format: String,
    #[serde(flatten)]
    model: Model,
    parameters: Counts,
}

impl Model {
    /// Describes a network; draws all its weights once, for the digest.
    pub fn new(arch: Arch, variant: Variant, seed: u64, init: Init, classes: usize) -> Self {
        let weights = initial(&Graph::new(arch, variant, classes), seed, init);
        let (initial, Init { weights: init, bn: bn_init }) = (digest(&weights), init);
        Self { arch, variant, seed, init, bn_init, classes, initial }
    }

    /// The description with its parameter table, as JSON for people and programs.
    pub fn to_json(&self) -> Result<String> {
        let description =
            Description { format: FORMAT.into(), model: self.clone(), parameters: self.counts() };
        let json = serde_json::to_string_pretty(&description);
        json.map(|text| text + "\n").map_err(|e| Error::Invalid(format!("model description: {e}")))
    }

    /// Reads what [`Model::to_json`] wrote.
    pub fn from_json(text: &[u8]) -> Result<Self> {
        let description: Description =
            serde_json::from_slice(text).map_err(|e| Error::Malformed(format!("model description: {e}")))?;
        if description.format != FORMAT {
            return Err(Error::Malformed(format!(
                "model description: its format is `{}`; this program reads `{FORMAT}`",
                description.format
            )));
        }
        Ok(description.model)
    }

    /// The operations.
    pub fn graph(&self) -> Graph {
        Graph::new(self.arch, self.variant, self.classes)
    }

    /// Both initialisations.
    pub fn init(&self) -> Init {
        Init { weights: self.init, bn: self.bn_init }
    }

    /// Draws every parameter again; an error when the digest is not the one that is written.
    pub fn draw(&self) -> Result<Tensors> {
        match self.classes {
            0 => return Err(Error::Malformed("a network of no classes has nothing to tell".into())),
            classes if classes > usize::from(u16::MAX) => {
                return Err(Error::Malformed(format!("{classes} classes are more than labels can tell")));
            }
            _ => {}
        }
        let weights = initial(&self.graph(), self.seed, self.init());
        let drawn = digest(&weights);
        if drawn != self.initial {
            return Err(Error::Malformed(format!(
                "the initial weights of {} with seed {} have the digest {drawn}, not {} as written: either what \
                 is written was changed, or this version of the program draws weights differently; make the model \
                 again",
                self.arch, self.seed, self.initial
            )));
        }
        Ok(weights)
    }

    /// Bytes of every parameter and running statistic.
    pub fn weights_bytes(&self) -> usize {
        let running: usize = self.graph().batch_norms().map(|(_, channels)| 2 * channels).sum();
        4 * (self.counts().total + running)
    }

    /// The parameter table.
    pub fn counts(&self) -> Counts {
        Counts::of(&self.graph())
    }
}

impl Counts {
    /// Those of a network.
    pub fn of(graph: &Graph) -> Self {
        let params = graph.params();
        let sum = |keep: &dyn Fn(&Param) -> bool| params.iter().filter(|p| keep(p)).map(Param::count).sum();
        let batch_norm = |p: &Param| matches!(p.role, Role::Gamma | Role::Beta);
        Self {
            total: sum(&|_| true),
            batch_norm: sum(&batch_norm),
            shortcut_batch_norm: sum(&|p| batch_norm(p) && p.shortcut),
            output: sum(&|p| matches!(p.role, Role::OutputWeight | Role::OutputBias)),
            shortcut: sum(&|p| p.role == Role::Shortcut),
        }
    }
}

/// Types that have a written form, as that: for `#[serde(with = ...)]`.
pub mod as_text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes it.
    pub fn serialize<T: Display, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    /// Reads it.
    pub fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };
        Model::new("resnet8".parse().unwrap(), Variant::Origin, 3, init, 10)
    }

    #[test]
    fn a_description_survives_json_and_draws_its_weights() {
        let model = model();
        let json = model.to_json().unwrap();
        for line in
            ["\"arch\": \"resnet8\"", "\"variant\": \"origin\"", "\"init\": \"he-normal\"", "\"output\": 650"]
        {
            assert!(json.contains(line), "{line} in {json}");
        }
        assert_eq!(Model::from_json(json.as_bytes()).unwrap(), model);
        let newer = json.replace("model 1", "model 2");
        assert!(Model::from_json(newer.as_bytes()).unwrap_err().to_string().contains("`repro model 2`"));
        assert!(Model::from_json(json.replace("resnet8", "resnet9").as_bytes()).is_err());
        assert_eq!(digest(&model.draw().unwrap()), model.initial);
    }

    #[test]
    fn another_digest_is_refused() {
        let error = Model { seed: 4, ..model() }.draw().unwrap_err().to_string();
        assert!(error.contains("initial weights of resnet8 with seed 4"), "{error}");
        for (classes, why) in [(0, "a network of no classes"), (usize::MAX, "more than labels can tell")] {
            let error = Model { classes, ..model() }.draw().unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn weights_are_the_parameters_and_two_statistics_for_each_gamma() {
        let Counts { total, batch_norm, .. } = model().counts();
        assert_eq!(model().weights_bytes(), 4 * (total + batch_norm), "two statistics for two values");
    }
}
