//! What others published, from `published.toml`. Knows no figure.

use std::collections::BTreeMap;

use engine::kind::StageError;
use serde::Deserialize;

use crate::results::{Line, Network};

/// One source of numbers.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    /// In the parameter `published`.
    pub(super) id: String,
    /// In legends.
    pub(super) label: String,
    /// How far to trust it, as the file says.
    pub(super) grade: String,
    /// Where it stands.
    pub(super) source: String,
    line: Vec<Published>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Published {
    mode: String,
    accuracy: BTreeMap<String, f64>,
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
            (Line::new(&published.mode, None, Vec::new()), points)
        })
    }
}

/// The sources called `ids`, in the order of the file.
pub(super) fn published(ids: &[String]) -> Result<Vec<Source>, StageError> {
    let file: File = toml::from_str(include_str!("published.toml"))
        .map_err(|e| StageError::new(format!("published.toml: {e}")))?;
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
