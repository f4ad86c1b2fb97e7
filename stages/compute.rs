//! Where a stage computes: the settings `device` and `engine`, and the trainer that they give.
//! Neither is in a recipe: a card rounds otherwise than the processor, and the record says which computed.

use std::sync::{Arc, LazyLock};

use engine::kind::{Job, Params, StageError};
use network::{
    cuda::{cards, nvrtc::Nvrtc},
    data::Dataset,
    trainer::{EngineChoice, EngineName, TrainSpec, Trainer, trainer},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::card;

/// The names of the settings.
pub(crate) const SETTINGS: [&str; 2] = ["device", "engine"];

/// The device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Device {
    /// What `REPRO_DEVICE` names, or else a card where there is one.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// An NVIDIA card.
    Cuda,
}

/// What the settings come to, and whether a card may be used. The environment's word counts where both
/// are left open.
fn choose(
    device: Device,
    engine: EngineName,
    environment: Option<String>,
) -> Result<(EngineName, bool), StageError> {
    let device = match (device, engine, environment) {
        (Device::Auto, EngineName::Auto, Some(name)) => {
            Device::deserialize(toml::Value::String(name.clone())).map_err(|_| {
                StageError::new(format!("`REPRO_DEVICE` is `{name}`, which is no device"))
                    .hint("set it to `auto`, `cpu` or `cuda`, or not at all")
            })?
        }
        _ => device,
    };
    Ok(match (engine, device) {
        (EngineName::Reference, Device::Auto | Device::Cpu) => (EngineName::Reference, false),
        (EngineName::Cpu, Device::Auto | Device::Cpu) => (EngineName::Cpu, false),
        (EngineName::Auto, Device::Cpu) => (EngineName::Auto, false),
        (EngineName::Auto, Device::Auto) => (EngineName::Auto, true),
        (EngineName::Auto | EngineName::Cuda, Device::Cuda) | (EngineName::Cuda, Device::Auto) => {
            (EngineName::Cuda, true)
        }
        (EngineName::Reference | EngineName::Cpu, Device::Cuda) | (EngineName::Cuda, Device::Cpu) => {
            let message = "`engine` names one that does not compute on the `device`";
            return Err(StageError::new(message).hint("leave one of the two at `auto`"));
        }
    })
}

/// GPUs that a stage with these settings takes where there are any. One that may also do without takes none
/// that it could not use.
pub(crate) fn gpus(params: &Params) -> usize {
    #[derive(Deserialize)]
    struct Settings {
        #[serde(default)]
        device: Device,
        #[serde(default)]
        engine: EngineName,
    }
    let settings = Settings::deserialize(toml::Value::Table(params.settings.clone())).ok();
    let chosen = settings.and_then(|Settings { device, engine }| choose(device, engine, card::device()).ok());
    usize::from(match chosen {
        Some((EngineName::Auto, true)) => has_card(),
        Some((_, card)) => card,
        None => false,
    })
}

/// Threads that a step on `batch` images makes use of, given the settings of the stage: with less than eight images to each,
/// they would wait for one another more than they would compute (an estimate; two threads were measured). Nobody asks for
/// the reference to be fast.
pub(crate) fn threads(params: &Params, batch: usize) -> usize {
    let engine = params.settings.get("engine").and_then(toml::Value::as_str);
    if engine == Some("reference") { 1 } else { batch / 8 }
}

/// Is there a card to use, with a compiler for it? Asked once.
pub(crate) fn has_card() -> bool {
    static CARD: LazyLock<bool> = LazyLock::new(|| cards::usable(&card::places()).is_ok_and(|usable| usable));
    *CARD
}

/// A trainer for `spec`; what computes goes into the record.
pub(crate) fn start(
    job: &mut Job<'_>,
    spec: &TrainSpec,
    data: &Arc<Dataset>,
    device: Device,
    name: EngineName,
) -> Result<Box<dyn Trainer>, StageError> {
    let (engine, welcome) = choose(device, name, card::device())?;
    let card = welcome.then(card::places);
    let memory = usize::try_from(job.resources.memory).ok().filter(|bytes| *bytes > 0);
    // Who was given a card was given no threads to speak of, and needs them where it cannot use it.
    let threads = if welcome && job.resources.gpus > 0 && job.resources.threads <= 1 {
        std::thread::available_parallelism().map_or(1, usize::from)
    } else {
        job.resources.threads.max(1)
    };
    let choice = EngineChoice { engine, threads, memory, isa: None, card };
    let (trainer, note) = trainer(spec, Arc::clone(data), &choice)
        .map_err(|e| {
            let failure = StageError::new(format!("cannot compute {}: {e}", spec.arch));
            let card = matches!(engine, EngineName::Cuda);
            let hint = "`device = \"auto\"` takes the processor where no card can be used; `$REPRO_DEVICE` counts before it";
            if card { failure.hint(hint) } else { failure }
        })?;
    job.reporter.note("engine", trainer.describe().into());
    // A card that cannot be used is not handed out, and so cannot be seen from here.
    let unused = engine == EngineName::Auto && welcome && trainer.engine() != "cuda" && cards::has_driver();
    let why = || match Nvrtc::find(&card::places(), cards::newest(), None) {
        Err(error) => Some(error.to_string()),
        Ok(_) if card::are_hidden() => {
            Some("the runner found none to use; `repro doctor` says why".to_owned())
        }
        Ok(_) if job.resources.gpus > 0 => {
            Some("the driver does not show the one that it was given (see `CUDA_VISIBLE_DEVICES`)".to_owned())
        }
        Ok(_) => None,
    };
    let why = if note.is_none() && unused { why() } else { None };
    if let Some(note) = note.or_else(|| Some(format!("no card is used: {}", why?))) {
        job.reporter.warn(&note);
        job.reporter.note("engine_note", note.into());
    }
    Ok(trainer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(device: Device, engine: EngineName, environment: Option<&str>) -> Option<(EngineName, bool)> {
        choose(device, engine, environment.map(str::to_owned)).ok()
    }

    #[test]
    fn the_environment_decides_only_what_is_left_open() {
        let open = |environment| chosen(Device::Auto, EngineName::Auto, environment);
        assert_eq!(open(None), Some((EngineName::Auto, true)));
        assert_eq!(open(Some("cuda")), Some((EngineName::Cuda, true)));
        assert_eq!(open(Some("cpu")), Some((EngineName::Auto, false)));
        assert_eq!(open(Some("gpu")), None);
        assert_eq!(chosen(Device::Cpu, EngineName::Auto, Some("cuda")), Some((EngineName::Auto, false)));
        assert_eq!(
            chosen(Device::Auto, EngineName::Reference, Some("cuda")),
            Some((EngineName::Reference, false))
        );
    }

    #[test]
    fn an_engine_of_another_device_is_refused() {
        assert_eq!(chosen(Device::Cuda, EngineName::Cpu, None), None);
        assert_eq!(chosen(Device::Cpu, EngineName::Cuda, None), None);
    }

    #[test]
    fn what_may_use_a_card_takes_one() {
        let gpus = |settings: &str| {
            gpus(&Params { settings: toml::from_str(settings).unwrap(), ..Params::default() })
        };
        assert_eq!(gpus("device = 'cuda'"), 1);
        assert_eq!(gpus("device = 'cpu'"), 0);
        assert_eq!(gpus("engine = 'reference'"), 0);
    }
}
