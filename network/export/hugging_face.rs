//! A trained network as a model folder for the Hugging Face Hub: a card, the small file of what was
//! trained, a configuration, and `rebuild.py`, which makes the whole network of it in Python. Knows
//! neither the Hub nor how well the network does: it is told.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Error, Result,
    arch::{IMAGE_CHANNELS, IMAGE_SIZE},
    checkpoint::Checkpoint,
    data::{DEVIATION, MEAN},
    mode::Mode,
    model::Model,
    trainer::Precision,
};

/// `rebuild.py`: the streams, the initialisations and the networks of this crate once more, in Python.
const REBUILD: &str = include_str!("rebuild.py");

/// The names of the folder's files.
pub const FILES: [&str; 4] = ["README.md", "config.json", "model.safetensors", "rebuild.py"];

/// What a card says beyond the network itself.
#[derive(Clone, Copy, Debug)]
pub struct Card<'a> {
    /// Title, and name of the model in tables of results.
    pub name: &'a str,
    /// What it was trained on, as the Hub calls it (`cifar10`), if the Hub has it.
    pub dataset: Option<&'a str>,
    /// Names of the classes in the order of the logits.
    pub classes: &'a [String],
    /// Share of the test images that it recognises, 0 to 1, where that is known.
    pub accuracy: Option<f64>,
    /// The precision in which that was measured. The folder's own is float32, and a table of results shows no other's.
    pub precision: Precision,
    /// SPDX name of the licence of the weights, where there is one.
    pub license: Option<&'a str>,
}

#[derive(Serialize)]
struct Config<'a> {
    architectures: [String; 1],
    #[serde(flatten)]
    model: &'a Model,
    mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shortcut_bn: Option<bool>,
    steps: u64,
    num_channels: usize,
    image_size: usize,
    image_mean: [f32; IMAGE_CHANNELS],
    image_std: [f32; IMAGE_CHANNELS],
    id2label: BTreeMap<usize, &'a str>,
}

/// The files of the folder by name, see [`FILES`].
///
/// Errors when there is not one class name for each logit, or a value of the checkpoint is missing.
pub fn model_folder(checkpoint: &Checkpoint, card: &Card<'_>) -> Result<BTreeMap<&'static str, Vec<u8>>> {
    let model = &checkpoint.model;
    if card.classes.len() != model.classes {
        return Err(Error::Invalid(format!(
            "{} names of classes for a network with {} outputs; name each output once",
            card.classes.len(),
            model.classes
        )));
    }
    let config = Config {
        architectures: [model.arch.to_string()],
        model,
        mode: checkpoint.mode.to_string(),
        k: (checkpoint.mode == Mode::Random).then_some(checkpoint.k),
        shortcut_bn: checkpoint.shortcut_bn,
        steps: checkpoint.steps,
        num_channels: IMAGE_CHANNELS,
        image_size: IMAGE_SIZE,
        image_mean: MEAN,
        image_std: DEVIATION,
        id2label: card.classes.iter().map(String::as_str).enumerate().collect(),
    };
    let mut config =
        serde_json::to_vec_pretty(&config).map_err(|e| Error::Invalid(format!("configuration: {e}")))?;
    config.push(b'\n');
    let weights = checkpoint.to_bytes()?;
    let readme = front_matter(card) + &text(checkpoint, card, weights.len());
    Ok(FILES.into_iter().zip([readme.into_bytes(), config, weights, REBUILD.into()]).collect())
}

/// What the Hub reads: YAML, its strings written as JSON, which is a part of YAML.
fn front_matter(card: &Card<'_>) -> String {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let license = card.license.map_or(String::new(), |license| format!("license: {}\n", quoted(license)));
    let (name, dataset) = (quoted(card.name), card.dataset.map(quoted));
    let datasets = dataset.as_ref().map_or(String::new(), |dataset| format!("datasets:\n- {dataset}\n"));
    // A result needs something on which it is one.
    let accuracy = card.accuracy.filter(|_| card.precision == Precision::F32);
    let results = accuracy.zip(dataset).map_or(String::new(), |(accuracy, dataset)| {
        format!(
            "model-index:\n\
             - name: {name}\n  \
               results:\n  \
               - task:\n      \
                   type: image-classification\n    \
                 dataset:\n      \
                   type: {dataset}\n      \
                   name: {dataset}\n      \
                   split: test\n    \
                 metrics:\n    \
                 - type: accuracy\n      \
                   value: {accuracy}\n"
        )
    });
    format!(
        "---\n\
         {license}\
         library_name: pytorch\n\
         pipeline_tag: image-classification\n\
         {datasets}\
         metrics:\n\
         - accuracy\n\
         tags:\n\
         - batchnorm\n\
         - random-features\n\
         - arxiv:2003.00152\n\
         {results}\
         ---\n"
    )
}

/// The card itself, for a reader who has the folder and nothing else.
fn text(checkpoint: &Checkpoint, card: &Card<'_>, bytes: usize) -> String {
    let Checkpoint { model, mode, .. } = checkpoint;
    let (trained, total) = (checkpoint.trained(), model.counts().total);
    let k = match mode {
        Mode::Random => format!(" (k = {})", checkpoint.k),
        _ => String::new(),
    };
    let percent = 100.0 * trained as f64 / total as f64;
    let full = model.weights_bytes();
    let accuracy = card.accuracy.map_or(String::new(), |accuracy| {
        let how = match card.precision {
            Precision::F32 => "",
            Precision::Tf32 => ", computed in tf32 as in its training",
            Precision::Bf16 => ", computed in bf16 as in its training",
        };
        format!("It recognises {:.2} % of the test images{how}. ", 100.0 * accuracy)
    });
    format!(
        r#"
# {name}

{arch} (variant `{variant}`) for {size}x{size} images, trained{dataset} in mode `{mode}`{k}: of its {total} parameters,
{trained} ({percent:.2} %) were trained. The others are as seed {seed} drew them. {accuracy}The experiment is that of
"Training BatchNorm and Only BatchNorm" (arXiv 2003.00152).

`model.safetensors` holds what was trained, BatchNorm's running statistics, and the recipe of the rest: {bytes}
bytes, where all weights would be {full}. `rebuild.py` draws the rest again, the same bits on every machine, and
compares the BLAKE3 digest of all initial weights with the one that the file carries:
`{initial}`.

```sh
pip install blake3 numpy safetensors torch
python rebuild.py  # Python 3.10 or newer
```

```python
import torch
from rebuild import load

network = load("model.safetensors")
images = torch.rand(8, 3, {size}, {size})  # red, green, blue, from 0 to 1
mean = torch.tensor({mean:?}).view(3, 1, 1)
deviation = torch.tensor({deviation:?}).view(3, 1, 1)
logits = network((images - mean) / deviation)
```
"#,
        name = card.name,
        arch = model.arch,
        variant = model.variant,
        size = IMAGE_SIZE,
        dataset = card.dataset.map_or(String::new(), |dataset| format!(" on {dataset}")),
        seed = model.seed,
        initial = model.initial,
        mean = MEAN,
        deviation = DEVIATION,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        arch::Variant,
        export::tests::checkpoint,
        init::{BnInit, Init, WeightInit},
        tensorfile,
    };

    const INIT: Init = Init { weights: WeightInit::HeNormal, bn: BnInit::Uniform };

    fn classes() -> Vec<String> {
        (0..10).map(|class| format!("class {class}")).collect()
    }

    fn files(mode: Mode, accuracy: Option<f64>, license: Option<&str>) -> BTreeMap<&'static str, String> {
        files_in(Precision::F32, mode, accuracy, license)
    }

    fn files_in(
        precision: Precision,
        mode: Mode,
        accuracy: Option<f64>,
        license: Option<&str>,
    ) -> BTreeMap<&'static str, String> {
        let checkpoint = checkpoint("resnet8", Variant::Paper, mode, INIT);
        let card = Card {
            name: "a \"b\": c",
            dataset: Some("cifar10"),
            classes: &classes(),
            accuracy,
            precision,
            license,
        };
        let files = model_folder(&checkpoint, &card).unwrap();
        assert_eq!(files["model.safetensors"], checkpoint.to_bytes().unwrap());
        files.into_iter().map(|(name, bytes)| (name, String::from_utf8_lossy(&bytes).into_owned())).collect()
    }

    #[test]
    fn the_card_says_what_was_trained_and_what_came_of_it() {
        let readme = &files(Mode::Bn, Some(0.5), Some("MIT"))["README.md"];
        for part in [
            "---\nlicense: \"MIT\"\nlibrary_name",
            "\n- name: \"a \\\"b\\\": c\"\n  results:\n  - task:\n      type: image",
            "\n    metrics:\n    - type: accuracy\n      value: 0.5\n---\n",
            "seed 7 drew them. It recognises 50.00 % of",
        ] {
            assert!(readme.contains(part), "{part:?} is not in {readme}");
        }
        let half = &files_in(Precision::Bf16, Mode::Bn, Some(0.5), None)["README.md"];
        assert!(
            half.contains("It recognises 50.00 % of the test images, computed in bf16 as in its training. "),
            "{half}"
        );
        assert!(!half.contains("model-index"), "{half}");
        let plain = &files(Mode::Bn, None, None)["README.md"];
        for part in ["license", "model-index", "recognises"] {
            assert!(!plain.contains(part), "{part:?} is in {plain}");
        }
    }

    #[test]
    fn the_configuration_has_the_recipe_and_the_labels() {
        let config: serde_json::Value =
            serde_json::from_str(&files(Mode::Bn, None, None)["config.json"]).unwrap();
        assert_eq!(config["architectures"][0], "resnet8");
        assert_eq!((&config["init"], &config["seed"]), (&"he-normal".into(), &7.into()));
        assert_eq!(config["id2label"]["9"], "class 9");
        assert_eq!(config["image_mean"][0].to_string(), "0.485");
        assert_eq!((&config["k"], &config["shortcut_bn"]), (&().into(), &().into()));
        let random = files(Mode::Random, None, None);
        let config: serde_json::Value = serde_json::from_str(&random["config.json"]).unwrap();
        assert!(config["k"].is_u64() && config["steps"].is_u64(), "{config:#}");
        assert!(random["README.md"].contains(&format!("in mode `random` (k = {}): of", config["k"])));
    }

    #[test]
    fn a_class_without_a_name_is_refused() {
        let checkpoint = checkpoint("resnet8", Variant::Paper, Mode::Bn, INIT);
        let classes = &classes()[1..];
        let card = Card {
            name: "",
            dataset: None,
            classes,
            accuracy: None,
            precision: Precision::F32,
            license: None,
        };
        let error = model_folder(&checkpoint, &card).unwrap_err().to_string();
        assert!(error.starts_with("9 names of classes for a network with 10 outputs"), "{error}");
    }

    /// What `rebuild.py` looks up by name must be in the file.
    #[test]
    fn rebuild_asks_for_what_a_checkpoint_has() {
        let random = checkpoint("resnet8", Variant::Paper, Mode::Random, INIT).to_bytes().unwrap();
        let bn = checkpoint("resnet8", Variant::Paper, Mode::Bn, INIT).to_bytes().unwrap();
        let (metadata, mut tensors) = tensorfile::read("", &bn).unwrap();
        tensors.extend(tensorfile::read("", &random).unwrap().1);
        let asked: Vec<&str> =
            REBUILD.split("recipe[\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(asked.len() > 6, "{asked:?}");
        for key in asked {
            assert!(metadata.contains_key(key), "{key}");
        }
        for name in tensors.keys() {
            assert!(REBUILD.contains(&format!("\"{name}\"")), "{name}");
        }
    }
}
