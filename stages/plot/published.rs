//! What others published, from `published.toml`. Knows no figure.

use std::collections::BTreeMap;

use engine::kind::StageError;
use serde::Deserialize;

use crate::results::{Line, Network, Value};

/// One source of numbers.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// In the parameter `published`.
    pub(super) id: String,
    /// In legends.
    pub(super) label: String,
    /// Whose networks they are nearest to: `paper` or `origin`.
    pub(super) variant: String,
    /// How far to trust it, as the file says.
    pub(super) grade: String,
    /// Where it stands.
    pub(super) source: String,
    /// Its number in the file.
    #[serde(skip)]
    pub(super) place: usize,
    line: Vec<Published>,
    #[serde(default)]
    curve: Vec<Curve>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    mode: String,
    bn_init: Option<String>,
    accuracy: BTreeMap<String, f64>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Curve {
    network: String,
    mode: String,
    accuracy: Vec<(u64, f64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: Vec<Source>,
}

impl Source {
    /// What was trained -> network and accuracy in percent, in order of the networks.
    pub(super) fn lines(&self) -> impl Iterator<Item = (Line, Vec<(Network, f64)>)> {
        self.line.iter().map(|published| {
            let points = published.accuracy.iter().map(|(name, value)| (Network::new(name), *value));
            let mut points: Vec<_> = points.collect();
            points.sort_by(|a, b| a.0.cmp(&b.0));
            let others = published.bn_init.iter().map(|init| ("bn_init".to_owned(), Value(init.clone())));
            (Line::new(&published.mode, None, others.collect()), points)
        })
    }

    /// What was trained -> epoch and test accuracy in percent, in trainings of `network`.
    pub(super) fn curves(&self, network: &Network) -> impl Iterator<Item = (Line, &[(u64, f64)])> {
        let curves = self.curve.iter().filter(move |curve| Network::new(&curve.network) == *network);
        curves.map(|curve| (Line::new(&curve.mode, None, Vec::new()), curve.accuracy.as_slice()))
    }
}

/// The sources called `ids`, in the order of the file.
pub(super) fn published(ids: &[String]) -> Result<Vec<Source>, StageError> {
    let mut file: File = toml::from_str(include_str!("published.toml"))
        .map_err(|e| StageError::new(format!("published.toml: {e}")))?;
    file.source.iter_mut().enumerate().for_each(|(place, source)| source.place = place);
    if let Some(id) = ids.iter().find(|id| file.source.iter().all(|source| source.id != **id)) {
        let known: Vec<_> = file.source.iter().map(|source| format!("`{}`", source.id)).collect();
        return Err(StageError::new(format!("`published` names `{id}`, which has no published numbers"))
            .hint(format!("there are {}", known.join(", "))));
    }
    Ok(file.source.into_iter().filter(|source| ids.contains(&source.id)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_names_known_networks_and_says_where_it_stands() {
        let ids = ["paper", "tdtce", "latkam", "vishal-v", "origin"].map(str::to_owned);
        let sources = published(&ids).unwrap();
        assert_eq!(sources.len(), ids.len());
        for source in sources {
            assert!(["A", "B", "C"].contains(&&*source.grade) && source.source.len() > 20, "{source:?}");
            assert!(["paper", "origin"].contains(&&*source.variant), "{source:?}");
            for Curve { network, accuracy, .. } in &source.curve {
                assert_eq!(Network::new(network).label(), "ResNet-110");
                assert!(accuracy.is_sorted_by_key(|(epoch, _)| *epoch) && accuracy.len() > 2, "{source:?}");
            }
            for (network, accuracy) in source.lines().flat_map(|(_, points)| points) {
                assert!(network.label().starts_with("ResNet-") && (9.0..96.0).contains(&accuracy));
            }
        }
    }

    #[test]
    fn an_unknown_source_is_refused_with_those_that_there_are() {
        let error = published(&["papr".into()]).unwrap_err();
        assert!(error.message.contains("`papr`") && error.hint.unwrap().contains("`paper`"));
    }
}
