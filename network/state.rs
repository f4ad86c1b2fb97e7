//! Where a training begins, and what a training state must look like. Knows no engine.

use crate::{
    Error, Result,
    arch::{Graph, Param, Role},
    init,
    mode::{Convs, Share, TrainSet},
    tensor::{Tensor, Tensors},
    trainer::{State, TrainSpec},
};

impl State {
    /// The state before the first step of `spec` on `graph`, and every parameter's value then.
    /// Errors when the `k` of mode `random` is larger than a filter.
    pub fn initial(graph: &Graph, spec: &TrainSpec) -> Result<(Self, Tensors)> {
        fits(graph, &spec.set)?;
        let mut weights = init::initial(graph, spec.seed, spec.init);
        if spec.set.convs == Convs::Thin {
            let convs = |param: &Param| matches!(param.role, Role::Conv | Role::Shortcut);
            for param in graph.params().into_iter().filter(convs) {
                weights.insert(param.name.clone(), init::thin(spec.seed, &param));
            }
        }
        let mut state = Self::default();
        for param in graph.params() {
            let Some((name, shape)) = spec.set.slot(&param) else { continue };
            let initial = &weights[&param.name];
            let tensor = match spec.set.share(&param) {
                Share::PerFilter { k } => {
                    let positions = init::random_positions(spec.seed, &param, k);
                    Tensor::new(shape, positions.iter().map(|p| initial.data[*p as usize]).collect())
                }
                _ => initial.clone(),
            };
            state.momentum.insert(name.clone(), Tensor::full(tensor.shape.clone(), 0.0));
            state.values.insert(name, tensor);
        }
        for (name, channels, which) in graph.running() {
            let value = if which == "running_var" { 1.0 } else { 0.0 };
            state.values.insert(name, Tensor::full([channels], value));
        }
        Ok((state, weights))
    }

    /// Errors unless `other` has exactly the names and shapes of `self`.
    pub fn check(&self, other: &Self) -> Result<()> {
        check("values", &self.values, &other.values)?;
        check("momentum", &self.momentum, &other.momentum)
    }
}

/// Errors when a filter has not as many values as are to train, or none is.
pub(crate) fn fits(graph: &Graph, set: &TrainSet) -> Result<()> {
    let some = |param: &Param| match set.share(param) {
        Share::PerFilter { k } => Some((param.count() / param.shape[0], k, param.name.clone())),
        _ => None,
    };
    match graph.params().iter().filter_map(some).min() {
        Some((most, k, name)) if k == 0 || k > most => Err(Error::Invalid(format!(
            "k = {k} trained weights per filter do not fit `{name}`, whose filters have {most}; choose k from 1 to {most}"
        ))),
        _ => Ok(()),
    }
}

fn check(part: &str, ours: &Tensors, theirs: &Tensors) -> Result<()> {
    let bad = |what: String| {
        Err(Error::Invalid(format!(
            "training state, {part}: {what}; it belongs to another network or mode, so start this training anew"
        )))
    };
    for (name, tensor) in ours {
        match theirs.get(name) {
            None => return bad(format!("`{name}` is missing")),
            Some(t) if t.shape != tensor.shape => {
                return bad(format!("`{name}` has shape {:?} instead of {:?}", t.shape, tensor.shape));
            }
            Some(_) => {}
        }
    }
    match theirs.keys().find(|name| !ours.contains_key(*name)) {
        Some(name) => bad(format!("`{name}` is not part of this training")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{arch::Variant, mode::Mode, support::spec};

    fn initial(mode: Mode, k: usize) -> Result<(State, Tensors)> {
        let spec =
            TrainSpec { set: mode.train_set(Variant::Paper, k), ..spec("resnet8", Variant::Paper, mode, 8) };
        State::initial(&Graph::new(spec.arch, spec.variant, 10), &spec)
    }

    #[test]
    fn chosen_values_are_the_initial_weights_at_their_positions() {
        let (state, weights) = initial(Mode::Random, 3).unwrap();
        let values = &state.values["layer2.0.shortcut.0.weight.values"];
        assert_eq!(values.shape, [32, 3]);
        for (filter, chosen) in values.data.chunks(3).enumerate() {
            let all = &weights["layer2.0.shortcut.0.weight"].data[16 * filter..][..16];
            assert!(chosen.iter().all(|w| all.contains(w)), "filter {filter}");
        }
        assert!(state.values.contains_key("bn1.running_var") && !state.values.contains_key("bn1.weight"));
        assert_eq!(state.momentum.len(), 7 + 2, "nine convolutions");
        assert!(initial(Mode::Random, 17).is_err(), "a projection has 16 weights per filter");
    }

    #[test]
    fn foreign_states_are_refused_by_name() {
        let (bn, _) = initial(Mode::Bn, 0).unwrap();
        let (all, _) = initial(Mode::All, 0).unwrap();
        let message = |ours: &State, theirs: &State| ours.check(theirs).unwrap_err().to_string();
        assert!(bn.check(&bn).is_ok());
        assert!(message(&bn, &all).contains("`conv1.weight` is not part"));
        assert!(message(&all, &bn).contains("`conv1.weight` is missing"));
        let mut other = bn.clone();
        other.momentum.insert("bn1.bias".into(), Tensor::full([8], 0.0));
        assert!(message(&bn, &other).contains("momentum: `bn1.bias` has shape [8] instead of [16]"));
    }
}
