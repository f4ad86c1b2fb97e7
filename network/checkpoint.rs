//! A trained network as one small safetensors file: exactly what was trained, the running statistics
//! of the BatchNorms, and the recipe of the frozen rest with its digest. Knows no files.
//!
//! What a network has many of is kept in few tensors, joined along the first axis in the order of
//! PyTorch's `state_dict`, because a hundred names would be as long as the numbers: `gamma`, `beta`
//! (those that train), `running_mean`, `running_var`, and `values` (the k trained values of each
//! filter, `K k`). Everything else that trains has PyTorch's name. [`Checkpoint::state_dict`] gives
//! every tensor under its own.

use std::collections::BTreeMap;

use crate::{
    Error, Result,
    arch::{Graph, Role},
    init::random_positions,
    mode::{Mode, Share, TrainSet},
    model::Model,
    state::fits,
    tensor::{Tensor, Tensors},
    tensorfile::{self, Metadata, entry},
    trainer::State,
};

const FORMAT: &str = "repro checkpoint 1";
const WHAT: &str = "checkpoint";

/// A trained network.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// What it was before.
    pub model: Model,
    /// What was trained.
    pub mode: Mode,
    /// Trained weights per filter in [`Mode::Random`]; otherwise without meaning.
    pub k: usize,
    /// Whether the shortcuts' BatchNorms trained with the others, where the variant does not say it.
    pub shortcut_bn: Option<bool>,
    /// Optimisation steps that were done.
    pub steps: u64,
    /// What trained, and the running statistics, as in [`State::values`].
    pub values: Tensors,
}

/// One tensor of [`State::values`] and where the file keeps it.
struct Slot {
    name: String,
    shape: Vec<usize>,
    pack: Option<&'static str>,
}

/// The tensors of [`State::values`], in `state_dict` order, running statistics last.
fn slots(graph: &Graph, set: &TrainSet) -> Vec<Slot> {
    let trained = graph.params().into_iter().filter_map(|param| {
        let (name, shape) = set.slot(&param)?;
        let pack = match (param.role, set.share(&param)) {
            (Role::Gamma, _) => Some("gamma"),
            (Role::Beta, _) => Some("beta"),
            (_, Share::PerFilter { .. }) => Some("values"),
            _ => None,
        };
        Some(Slot { name, shape, pack })
    });
    let running = |(name, channels, which)| Slot { name, shape: vec![channels], pack: Some(which) };
    trained.chain(graph.running().map(running)).collect()
}

impl Checkpoint {
    /// The switches of its mode.
    pub fn set(&self) -> TrainSet {
        self.mode.train_set(self.model.variant, self.k).with_shortcut_bn(self.shortcut_bn)
    }

    /// How many values were trained.
    pub fn trained(&self) -> usize {
        self.set().trained_of(&self.model.graph())
    }

    /// The file; the same bytes for the same values.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let slots = slots(&self.model.graph(), &self.set());
        let mut tensors = Tensors::new();
        for slot in &slots {
            let found = self.values.get(&slot.name).filter(|tensor| tensor.shape == slot.shape);
            let tensor = found.ok_or_else(|| {
                Error::Invalid(format!(
                    "trained values: there is no `{}` of shape {:?}",
                    slot.name, slot.shape
                ))
            })?;
            let mut shape = slot.shape.clone();
            shape[0] = 0;
            let name = slot.pack.unwrap_or(&slot.name).to_owned();
            let joined = tensors.entry(name).or_insert_with(|| Tensor::new(shape, Vec::new()));
            joined.shape[0] += slot.shape[0];
            joined.data.extend_from_slice(&tensor.data);
        }
        if self.values.len() != slots.len() {
            let known = |name: &&String| slots.iter().all(|slot| slot.name != **name);
            let extra = self.values.keys().find(known).cloned().unwrap_or_default();
            return Err(Error::Invalid(format!(
                "trained values: `{extra}` does not train in mode `{}`",
                self.mode
            )));
        }
        tensorfile::write(&self.metadata(), &BTreeMap::new(), &tensors)
    }

    /// What the file says of itself, as words.
    pub fn metadata(&self) -> Metadata {
        let model = &self.model;
        let mut metadata = Metadata::from(
            [
                ("format", FORMAT.to_owned()),
                ("arch", model.arch.to_string()),
                ("variant", model.variant.to_string()),
                ("seed", model.seed.to_string()),
                ("init", word(&model.init)),
                ("bn_init", word(&model.bn_init)),
                ("classes", model.classes.to_string()),
                ("initial", model.initial.clone()),
                ("mode", self.mode.to_string()),
                ("steps", self.steps.to_string()),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        if self.mode == Mode::Random {
            metadata.insert("k".into(), self.k.to_string());
        }
        if self.set() != self.mode.train_set(model.variant, self.k) {
            metadata.insert("shortcut_bn".into(), self.set().shortcut_bn.to_string());
        }
        metadata
    }

    /// Reads a file; its tensors must be those that its metadata announces. The initial weights are
    /// drawn and compared by [`Checkpoint::weights`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bad = |reason: String| Error::Malformed(format!("{WHAT}: {reason}"));
        let (metadata, mut tensors) = tensorfile::read(WHAT, bytes)?;
        match metadata.get("format").map(String::as_str) {
            Some(FORMAT) => {}
            Some(other) => {
                return Err(bad(format!("its format is `{other}`; this program reads `{FORMAT}`")));
            }
            None => return Err(bad(format!("it does not say that it is a `{FORMAT}`"))),
        }
        let mode: Mode = entry(WHAT, &metadata, "mode")?;
        let model = Model {
            arch: entry(WHAT, &metadata, "arch")?,
            variant: entry(WHAT, &metadata, "variant")?,
            seed: entry(WHAT, &metadata, "seed")?,
            init: of_word(&metadata, "init")?,
            bn_init: of_word(&metadata, "bn_init")?,
            classes: entry(WHAT, &metadata, "classes")?,
            initial: entry(WHAT, &metadata, "initial")?,
        };
        let k = if mode == Mode::Random { entry(WHAT, &metadata, "k")? } else { 1 };
        let says = metadata.contains_key("shortcut_bn");
        let shortcut_bn = if says { Some(entry(WHAT, &metadata, "shortcut_bn")?) } else { None };
        let steps = entry(WHAT, &metadata, "steps")?;
        let mut values = Tensors::new();
        let set = mode.train_set(model.variant, k).with_shortcut_bn(shortcut_bn);
        for Slot { name, shape, pack } in slots(&model.graph(), &set) {
            let kept = pack.unwrap_or(&name);
            let wrong =
                || bad(format!("its tensor `{kept}` is missing or has not the size of {}", model.arch));
            let tensor = tensors.get_mut(kept).ok_or_else(wrong)?;
            let fits = tensor.shape.len() == shape.len() && tensor.shape[1..] == shape[1..];
            if !fits || tensor.shape[0] < shape[0] {
                return Err(wrong());
            }
            tensor.shape[0] -= shape[0];
            let data = tensor.data.drain(..shape.iter().product::<usize>()).collect();
            values.insert(name, Tensor::new(shape, data));
        }
        if let Some((name, _)) = tensors.iter().find(|(_, tensor)| !tensor.data.is_empty()) {
            return Err(bad(format!(
                "its tensor `{name}` holds more than {} has in mode `{mode}`",
                model.arch
            )));
        }
        Ok(Self { model, mode, k, shortcut_bn, steps, values })
    }

    /// Every parameter and running statistic under PyTorch's name: the rest drawn again from the seed,
    /// its digest checked, and what was trained laid over it.
    pub fn weights(&self) -> Result<Tensors> {
        let mut weights = self.model.draw()?;
        let (graph, set) = (self.model.graph(), self.set());
        fits(&graph, &set)?; // `k` may come from a file
        for param in graph.params() {
            let Some((name, _)) = set.slot(&param) else { continue };
            let missing = || Error::Invalid(format!("trained values: there is no `{name}`"));
            let trained = self.values.get(&name).ok_or_else(missing)?;
            let whole = weights.get_mut(&param.name).ok_or_else(missing)?;
            if let Share::PerFilter { k } = set.share(&param) {
                let positions = random_positions(self.model.seed, &param, k);
                for (position, value) in positions.iter().zip(&trained.data) {
                    whole.data[*position as usize] = *value;
                }
            } else {
                whole.data.clone_from(&trained.data);
            }
        }
        let running = |name: &str| name.ends_with(".running_mean") || name.ends_with(".running_var");
        weights.extend(
            self.values.iter().filter(|(name, _)| running(name)).map(|(n, t)| (n.clone(), t.clone())),
        );
        Ok(weights)
    }

    /// The whole `state_dict` of the PyTorch network as a safetensors file, `num_batches_tracked`
    /// included, for `load_state_dict(..., strict=True)`.
    pub fn state_dict(&self) -> Result<Vec<u8>> {
        let steps = i64::try_from(self.steps).unwrap_or(i64::MAX);
        let graph = self.model.graph();
        let tracked =
            graph.batch_norms().map(|(bn, _)| (format!("{bn}.num_batches_tracked"), steps)).collect();
        let mut metadata = self.metadata();
        metadata.insert("format".into(), "pt".into()); // what other readers expect there
        tensorfile::write(&metadata, &tracked, &self.weights()?)
    }

    /// What a trainer of `set` goes on from, with momentum at zero. The set holds all that trained and perhaps more: the rest
    /// is found in `weights` (see [`Checkpoint::weights`]).
    pub fn state_in(&self, set: &TrainSet, weights: &Tensors) -> State {
        let mut state = State { values: self.values.clone(), momentum: Tensors::new() };
        for param in self.model.graph().params() {
            let Some((name, shape)) = set.slot(&param) else { continue };
            if let (false, Some(weight)) = (state.values.contains_key(&name), weights.get(&name)) {
                state.values.insert(name.clone(), weight.clone());
            }
            state.momentum.insert(name, Tensor::full(shape, 0.0));
        }
        state
    }
}

/// The one word that serde writes for a value.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

fn of_word<T: serde::de::DeserializeOwned>(metadata: &Metadata, key: &str) -> Result<T> {
    let text: String = entry(WHAT, metadata, key)?;
    serde_json::from_value(text.as_str().into())
        .map_err(|_| Error::Malformed(format!("{WHAT}: its `{key}`, `{text}`, makes no sense")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        arch::Variant,
        init::{BnInit, Init, WeightInit},
    };

    /// A checkpoint whose every trained value tells its place.
    fn checkpoint(arch: &str, mode: Mode) -> Checkpoint {
        let init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };
        let model = Model::new(arch.parse().unwrap(), Variant::Origin, 1, init, 10);
        let slots = slots(&model.graph(), &mode.train_set(model.variant, 2));
        let mut next = 0.0;
        let values = slots.into_iter().map(|slot| {
            let data = (0..slot.shape.iter().product()).map(|_| {
                next += 1.0;
                next
            });
            (slot.name, Tensor::new(slot.shape, data.collect()))
        });
        let values = values.collect();
        let k = if mode == Mode::Random { 2 } else { 1 };
        Checkpoint { model, mode, k, shortcut_bn: None, steps: 9, values }
    }

    #[test]
    fn shortcut_batch_norms_are_there_where_the_file_says_so() {
        let mut made = checkpoint("resnet8", Mode::Bn);
        let usual = made.to_bytes().unwrap();
        made.shortcut_bn = Some(false);
        assert_eq!(made.to_bytes().unwrap(), usual, "the variant says it already");
        made.shortcut_bn = Some(true);
        assert!(made.to_bytes().is_err(), "their values are missing");
        made.values = made.state_in(&made.set(), &made.model.draw().unwrap()).values;
        let read = Checkpoint::from_bytes(&made.to_bytes().unwrap()).unwrap();
        assert_eq!((&read, read.trained()), (&made, 2 * (16 + 3 * (16 + 32 + 64))));
    }

    #[test]
    fn every_mode_comes_back_as_it_went() {
        for (name, mode) in Mode::NAMES {
            for arch in ["resnet8", "resnet14-2"] {
                let made = checkpoint(arch, mode);
                let bytes = made.to_bytes().unwrap();
                let read = Checkpoint::from_bytes(&bytes).unwrap();
                assert_eq!(read, made, "{arch} {name}");
                assert_eq!(read.to_bytes().unwrap(), bytes);
            }
        }
    }

    /// What was written once is read for ever: here the bytes are those of another program.
    #[test]
    fn a_file_has_the_same_bytes_for_ever() {
        for (mode, expected) in [
            (Mode::Bn, "b477d81d44c82f1cbf887b88191d0b1bfaf6c6884bfebb7af880a1d613c86c17"),
            (Mode::Random, "7be441dc7be8ae091e02e6e616cff615e157a52db0fd3dc9d1ea15fa859f797a"),
        ] {
            let bytes = checkpoint("resnet8", mode).to_bytes().unwrap();
            assert_eq!(blake3::hash(&bytes).to_hex().to_string(), expected, "{mode}");
        }
    }

    #[test]
    fn batch_norm_only_resnet110_is_as_small_as_its_numbers() {
        let mut made = checkpoint("resnet110", Mode::Bn);
        made.model.variant = Variant::Paper;
        let slots = slots(&made.model.graph(), &made.set());
        made.values = slots.into_iter().map(|slot| (slot.name, Tensor::full(slot.shape, 0.0))).collect();
        let bytes = made.to_bytes().unwrap().len();
        assert_eq!(made.trained(), 8_288);
        assert!((4 * 2 * 8_288..4 * 2 * 8_288 + 1_000).contains(&bytes), "{bytes} bytes");
    }

    #[test]
    fn weights_are_the_initial_ones_but_for_what_trained() {
        let made = checkpoint("resnet8", Mode::Random);
        let (before, after) = (made.model.draw().unwrap(), made.weights().unwrap());
        let mut changed = 0;
        for (name, tensor) in &before {
            changed += tensor.data.iter().zip(&after[name].data).filter(|(a, b)| a != b).count();
        }
        assert_eq!(changed, made.trained());
        let params = made.model.graph().params();
        let positions = random_positions(1, &params[0], 2);
        assert_eq!(
            after["conv1.weight"].data[positions[3] as usize],
            made.values["conv1.weight.values"].data[3]
        );
        assert_eq!(after["bn1.running_var"], made.values["bn1.running_var"]);
        let error = Checkpoint { k: 17, ..made }.weights().unwrap_err().to_string();
        assert!(error.contains("`layer1.0.shortcut.0.weight`, whose filters have 16"), "{error}");
        let made = checkpoint("resnet8", Mode::Bn);
        let after = made.weights().unwrap();
        assert_eq!(after["layer1.0.shortcut.1.weight"], before["layer1.0.shortcut.1.weight"]);
        assert_eq!(after["layer1.0.bn1.bias"], made.values["layer1.0.bn1.bias"]);
    }

    #[test]
    fn a_state_dict_has_every_tensor_of_the_network_in_pytorch() {
        let made = checkpoint("resnet8", Mode::None);
        let bytes = made.state_dict().unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), 10 + 10 * 5 + 2);
        assert_eq!(
            file.tensor("layer1.0.shortcut.1.num_batches_tracked").unwrap().data(),
            9i64.to_le_bytes()
        );
        assert_eq!(file.tensor("linear.bias").unwrap().shape(), [10]);
        assert_eq!(tensorfile::metadata("", &bytes).unwrap()["format"], "pt");
    }

    #[test]
    fn foreign_damaged_and_changed_files_are_refused() {
        let made = checkpoint("resnet8", Mode::Bn);
        let bytes = made.to_bytes().unwrap();
        assert!(Checkpoint::from_bytes(&bytes[..bytes.len() - 4]).is_err());
        let foreign = tensorfile::write(&Metadata::new(), &BTreeMap::new(), &made.values).unwrap();
        let error = Checkpoint::from_bytes(&foreign).unwrap_err().to_string();
        assert!(error.contains("does not say that it is a `repro checkpoint 1`"), "{error}");
        let (mut metadata, tensors) = tensorfile::read("", &bytes).unwrap();
        metadata.insert("arch".into(), "resnet14".into());
        let other = tensorfile::write(&metadata, &BTreeMap::new(), &tensors).unwrap();
        let error = Checkpoint::from_bytes(&other).unwrap_err().to_string();
        assert!(error.contains("`gamma` is missing or has not the size of resnet14"), "{error}");
        let mut seeded = made.clone();
        seeded.model.seed = 2;
        let read = Checkpoint::from_bytes(&seeded.to_bytes().unwrap()).unwrap();
        assert!(read.weights().unwrap_err().to_string().contains("have the digest"));
        let mut renamed = made;
        let tensor = renamed.values.remove("bn1.weight").unwrap();
        renamed.values.insert("bn1.gamma".into(), tensor);
        assert!(renamed.to_bytes().unwrap_err().to_string().contains("there is no `bn1.weight`"));
        let mut larger = checkpoint("resnet8", Mode::Bn);
        larger.values.insert("linear.bias".into(), Tensor::full([10], 0.0));
        let error = larger.to_bytes().unwrap_err().to_string();
        assert!(error.ends_with("`linear.bias` does not train in mode `bn`"), "{error}");
        let (metadata, mut tensors) = tensorfile::read("", &bytes).unwrap();
        let gamma = tensors.get_mut("gamma").unwrap();
        gamma.data.push(1.0);
        gamma.shape[0] += 1;
        let longer = tensorfile::write(&metadata, &BTreeMap::new(), &tensors).unwrap();
        let error = Checkpoint::from_bytes(&longer).unwrap_err().to_string();
        assert!(error.contains("`gamma` holds more than resnet8 has in mode `bn`"), "{error}");
    }
}
