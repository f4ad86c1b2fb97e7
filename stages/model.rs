//! Kind `model`: a network and its seed become a description with the parameter table and the digest
//! of every initial weight. No weights are kept: they are the seed.

use engine::kind::{Job, Kind, ParamError, Params, Roles, StageError};
use network::{
    arch::{Arch, Variant},
    init::{BnInit, Init, WeightInit},
    model::{self, as_text},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{output::write, params::resolve};

/// The kind `model`.
pub(crate) struct Model;

/// Parameters of a `model` stage.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ModelParams {
    /// The network: `resnetN` with N = 6 D + 2, `resnetN-W` (W times wider), `vgg11`, `vgg13`,
    /// `vgg16`, `vgg19`.
    #[serde(with = "as_text")]
    #[schemars(with = "String")]
    arch: Arch,
    /// `paper`, or `origin`: the first stage halves the image too, with a projection.
    #[serde(default = "paper", with = "as_text")]
    #[schemars(with = "String", extend("enum" = ["paper", "origin"]))]
    variant: Variant,
    /// Of all initial weights.
    #[serde(default)]
    seed: u64,
    /// How convolution and output weights are drawn.
    #[serde(default = "he_normal")]
    init: WeightInit,
    /// How gamma and beta are drawn: the paper's `uniform`; the origin has `fixed`.
    #[serde(default = "uniform")]
    bn_init: BnInit,
    /// Outputs of the network.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 65535))]
    classes: usize,
}

fn paper() -> Variant {
    Variant::Paper
}

fn he_normal() -> WeightInit {
    WeightInit::HeNormal
}

fn uniform() -> BnInit {
    BnInit::Uniform
}

fn ten() -> usize {
    10
}

impl Kind for Model {
    fn name(&self) -> &'static str {
        "model"
    }

    fn version(&self) -> u32 {
        1
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        ModelParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let (read, params) = resolve::<ModelParams>(given, &[])?;
        match read.classes {
            1..=65535 => Ok(params),
            _ => Err(vec![ParamError {
                key: "classes".into(),
                message: "`classes` must be between 1 and 65535".into(),
                hint: Some("write how many classes the dataset has".into()),
            }]),
        }
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let ModelParams { arch, variant, seed, init, bn_init, classes } = job.params()?;
        let init = Init { weights: init, bn: bn_init };
        let model = model::Model::new(arch, variant, seed, init, classes);
        let json = model.to_json().map_err(|e| StageError::new(e.to_string()))?;
        write(job, "model.json", json.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run;

    #[test]
    fn the_origins_resnet110_has_its_table_and_no_weights() {
        let out = tempfile::tempdir().unwrap();
        run(&Model, "arch = 'resnet110'\nvariant = 'origin'\nbn_init = 'fixed'", &[], out.path()).unwrap();
        let text = std::fs::read_to_string(out.path().join("model.json")).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["parameters"]["total"], 1_731_002);
        assert_eq!(json["parameters"]["batch_norm"], 8_096 + 224);
        assert_eq!(json["parameters"]["shortcut_batch_norm"], 224);
        assert_eq!((json["bn_init"].as_str(), json["seed"].as_u64()), (Some("fixed"), Some(0)));
        assert_eq!(json["initial"].as_str().map(str::len), Some(64));
    }

    #[test]
    fn wrong_parameters_are_named() {
        let errors =
            Model.resolve(&"arch = 'resnet9'\nvariant = 'mine'\nseed = -1".parse().unwrap()).unwrap_err();
        let keys: Vec<_> = errors.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["arch", "seed", "variant"]);
        assert!(
            errors[0].message.contains("unknown architecture `resnet9`; known: resnetN"),
            "{}",
            errors[0].message
        );
        let errors = Model.resolve(&"arch = 'vgg11'\nclasses = 0".parse().unwrap()).unwrap_err();
        assert_eq!(errors[0].key, "classes");
    }

    #[test]
    fn every_default_is_in_the_recipe() {
        let params = Model.resolve(&"arch = 'resnet8'".parse().unwrap()).unwrap();
        let expected = "arch = 'resnet8'\nbn_init = 'uniform'\nclasses = 10\ninit = 'he-normal'\nseed = 0\nvariant = 'paper'";
        assert_eq!(params.recipe, expected.parse().unwrap());
    }
}
