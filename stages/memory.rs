//! Kind `memory`: what the buffers of a training step take, and the largest batch that fits a budget. Nothing
//! is trained. The mathematics is [`network::memory`].

use engine::kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError, Wanted};
use network::{
    memory::{Buffers, STEP},
    mode::Mode,
    model::as_text,
    train::Protocol,
    trainer::Precision,
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    inputs,
    output::write_json,
    params::{resolve, sound},
    train::{K, MOST_IMAGES, k_fits},
};

/// The kind `memory`.
pub(crate) struct Memory;

/// Parameters of a `memory` stage.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct MemoryParams {
    /// What trains.
    #[serde(with = "as_text")]
    #[schemars(with = "String", extend("enum" = Mode::NAMES.map(|(name, _)| name)))]
    mode: Mode,
    /// Trained weights per filter in mode `random`; other modes have no use for it.
    #[schemars(range(min = 1))]
    k: usize,
    /// Numbers of images per step to say the bytes for.
    batches: Vec<usize>,
    /// Bytes that the buffers may take.
    budget: usize,
}

impl Default for MemoryParams {
    fn default() -> Self {
        Self { mode: Mode::Bn, k: 2, batches: vec![64, 128, 256, 512, 1024], budget: 1 << 30 }
    }
}

/// `memory.json`.
#[derive(Serialize)]
struct MemoryFile {
    arch: String,
    variant: String,
    mode: String,
    /// Trained weights per filter, in mode `random`.
    #[serde(skip_serializing_if = "Option::is_none")]
    k: Option<usize>,
    /// Parameters in all.
    parameters: usize,
    /// Values that train.
    trained: usize,
    buffers: Vec<OfBatch>,
    budget: usize,
    largest_batch: usize,
}

#[derive(Serialize)]
struct OfBatch {
    batch: usize,
    bytes: usize,
}

impl Kind for Memory {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn version(&self) -> u32 {
        6
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[RoleSpec { name: "model", required: true, many: false }])
    }

    fn wants(&self, role: &str) -> Option<Wanted> {
        inputs::wanted(role)
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        MemoryParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let (read, mut params) = resolve::<MemoryParams>(given, &[])?;
        let step = |batch: &usize| (1..=MOST_IMAGES).contains(batch) && batch.is_multiple_of(STEP);
        let mut faults = Vec::new();
        if !read.batches.iter().all(step) {
            faults.push(ParamError {
                key: "batches".into(),
                message: format!("`batches` must be multiples of {STEP}, up to {MOST_IMAGES}"),
                hint: Some("buffers grow by as many images at once".into()),
            });
        }
        if !k_fits(read.mode, read.k) {
            faults.push(ParamError { key: "k".into(), message: format!("`k` must be {K}"), hint: None });
        }
        sound(faults)?;
        if read.mode != Mode::Random {
            params.recipe.remove("k"); // as in the kind `train`
        }
        Ok(params)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let MemoryParams { mode, k, batches, budget } = job.params()?;
        let model = inputs::model(job)?;
        let set = mode.train_set(model.variant, k);
        // No training begins with other weights than are written, nor with more classes than there can be.
        model.draw().map_err(|e| StageError::new(e.to_string()))?;
        let failed = |e: network::Error| StageError::new(format!("cannot lay out {}: {e}", model.arch));
        let spec = Protocol::default().spec(&model, set, Precision::F32);
        let buffers = Buffers::of(&spec, model.classes).map_err(failed)?;
        let of_batch = |batch| {
            let uncounted = || format!("the buffers of {batch} images are more bytes than can be counted");
            Ok(OfBatch { batch, bytes: buffers.bytes(batch).ok_or_else(uncounted)? })
        };
        let of_batches: Result<_, String> = batches.into_iter().map(of_batch).collect();
        let file = MemoryFile {
            arch: model.arch.to_string(),
            variant: model.variant.to_string(),
            mode: mode.to_string(),
            k: (mode == Mode::Random).then_some(k),
            parameters: model.counts().total,
            trained: set.trained_of(&model.graph()),
            buffers: of_batches.map_err(StageError::new)?,
            budget,
            largest_batch: buffers.largest_batch(budget).map_err(failed)?,
        };
        write_json(job, "memory.json", &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Model, testing::run};

    fn memory(mode: &str) -> serde_json::Value {
        let root = tempfile::tempdir().unwrap();
        let (model, out) = (root.path().join("model"), root.path().join("memory"));
        run(&Model, "arch = 'resnet8'", &[], &model).unwrap();
        run(&Memory, &format!("mode = '{mode}'\nbudget = 300_000_000"), &[("model", model)], &out).unwrap();
        serde_json::from_slice(&std::fs::read(out.join("memory.json")).unwrap()).unwrap()
    }

    #[test]
    fn gradients_of_filters_leave_room_for_fewer_images() {
        let (bn, all) = (memory("bn"), memory("all"));
        let number = |json: &serde_json::Value, key: &str| json[key].as_u64().unwrap();
        assert_eq!(number(&bn, "trained"), 672);
        assert!(number(&bn, "largest_batch") > number(&all, "largest_batch"), "{bn} {all}");
        assert_eq!((&bn["buffers"][1]["batch"], &bn["k"]), (&128.into(), &serde_json::Value::Null));
        assert_eq!(memory("random")["k"], 2);
    }

    #[test]
    fn a_model_that_nothing_can_train_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let (model, out) = (root.path().join("model"), root.path().join("memory"));
        run(&Model, "arch = 'resnet8'", &[], &model).unwrap();
        let text = std::fs::read_to_string(model.join("model.json")).unwrap();
        for (written, changed, why) in [
            ("\"classes\": 10", "\"classes\": 0", "a network of no classes"),
            ("\"classes\": 10", "\"classes\": 18446744073709551615", "more than labels can tell"),
            ("\"seed\": 0", "\"seed\": 1", "initial weights of resnet8 with seed 1 have the digest"),
        ] {
            assert!(text.contains(written));
            std::fs::write(model.join("model.json"), text.replace(written, changed)).unwrap();
            let error = run(&Memory, "", &[("model", model.clone())], &out).unwrap_err();
            assert!(error.message.contains(why), "{}", error.message);
        }
    }

    #[test]
    fn as_many_weights_of_a_filter_as_no_training_takes_are_refused_with_all_else_that_is_wrong() {
        for k in [0, 28] {
            let given = format!("mode = 'random'\nk = {k}\nbatches = [1]");
            let errors = Memory.resolve(&given.parse().unwrap()).unwrap_err();
            assert_eq!(errors.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(), ["batches", "k"]);
        }
        assert!(Memory.resolve(&"mode = 'random'\nk = 27".parse().unwrap()).is_ok());
    }

    #[test]
    fn batches_between_the_steps_are_refused() {
        let errors = Memory.resolve(&"batches = [64, 100]".parse().unwrap()).unwrap_err();
        assert_eq!(errors[0].message, "`batches` must be multiples of 64, up to 65536");
        assert!(Memory.resolve(&"batches = [9223372036854775744]".parse().unwrap()).is_err());
        assert!(Memory.resolve(&"batches = [65536]".parse().unwrap()).is_ok());
        let of = |text: &str| Memory.resolve(&text.parse().unwrap()).unwrap().recipe;
        assert_eq!(of("k = 3"), of(""));
        assert_ne!(of("mode = 'random'\nk = 3"), of("mode = 'random'"));
    }
}
