//! All results that the cache has, today's or not, each with what it was made with: its own parameters and those of
//! everything that led to it. Knows no pipeline file: stages and axes that it no longer has are listed, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use rayon::prelude::*;

use crate::{
    digest::Digest,
    error::EngineError,
    pipeline::hint::did_you_mean,
    project::Project,
    recipe::{Part, parts},
    record::Record,
    state::State,
};

/// A result that was made once.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The digest of its recipe.
    pub recipe: Digest,
    /// What is recorded of it.
    pub record: Record,
    /// Does `artifacts/` show it?
    pub shown: bool,
    /// Name -> TOML values of parameters and axes (`stage.name`, `stage.table.key`), kinds and their versions
    /// (`stage.kind`) and digests of files (`file PATH`), its own and those of all that led to it. There are several
    /// where a stage led to it more than once.
    pub with: BTreeMap<String, BTreeSet<String>>,
    /// The content of the file that was asked for.
    pub content: Vec<u8>,
}

impl Project {
    /// The results that have a `file`, by stage and then by when they began. `words` name some of them: instances,
    /// stages, or stages with some of their axes.
    ///
    /// # Errors
    /// When a word names none, or the index or the cache cannot be read.
    pub fn made(&self, words: &[String], file: &str) -> Result<Vec<Made>, EngineError> {
        let (state, _) = State::load(self.store.cache())?;
        let shown: BTreeSet<Digest> = state.results.values().map(|entry| entry.recipe).collect();
        let recipes = self.store.recipes()?;
        let read = |recipe: Digest| Some((recipe, self.store.record(recipe)?));
        let mut records: Vec<(Digest, Record)> = recipes.into_par_iter().filter_map(read).collect();
        let order = |(recipe, record): &(Digest, Record)| (record.run.started, *recipe);
        records.sort_by_key(|one| (stage(&one.1).to_owned(), order(one)));
        refuse_unknown(words, &records)?;
        let mut makers = BTreeMap::<Digest, Vec<usize>>::new();
        for (at, (_, record)) in records.iter().enumerate() {
            makers.entry(record.tree).or_default().push(at);
        }
        let one = |at: usize| {
            let (recipe, record) = &records[at];
            if !words.is_empty() && !words.iter().any(|word| means(word, &record.run.instance)) {
                return None;
            }
            let digest = record.outputs.iter().find(|output| output.path == file)?.digest;
            let content = fs::read(self.store.object(digest)).ok()?;
            // A damaged object is as good as none.
            (Digest::of(&content) == digest).then(|| Made {
                recipe: *recipe,
                record: record.clone(),
                shown: shown.contains(recipe),
                with: with(&records, &makers, at),
                content,
            })
        };
        Ok((0..records.len()).into_par_iter().filter_map(one).collect())
    }
}

/// What a result was made with. Where several recipes came to the same bytes, an input is taken to be of the one that
/// ran last before its reader.
fn with(
    records: &[(Digest, Record)],
    makers: &BTreeMap<Digest, Vec<usize>>,
    result: usize,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut with = BTreeMap::<String, BTreeSet<String>>::new();
    let (mut seen, mut left) = (BTreeSet::from([result]), vec![result]);
    while let Some(at) = left.pop() {
        let record = &records[at].1;
        let stage = stage(record);
        let mut put = |name: String, value: String| {
            with.entry(name).or_default().insert(value);
        };
        for part in parts(&record.recipe) {
            match part {
                Part::Kind(kind) => put(format!("{stage}.kind"), kind),
                Part::Value(name, value) => put(format!("{stage}.{name}"), value),
                Part::File(path, digest) => put(format!("file {path}"), digest.to_string()),
                Part::Input(digest) => {
                    let began = |at: &usize| records[*at].1.run.started;
                    let of = makers.get(&digest).into_iter().flatten().copied();
                    let before = of.filter(|maker| *maker != at && began(maker) <= record.run.started);
                    left.extend(
                        before.max_by_key(|maker| (began(maker), *maker)).filter(|&at| seen.insert(at)),
                    );
                }
            }
        }
    }
    with
}

/// The stage that made a result, as it was called.
fn stage(record: &Record) -> &str {
    record.run.instance.split('[').next().unwrap_or_default()
}

/// Does `word` mean the instance: by its name, its stage, or its stage and some of its axes?
fn means(word: &str, instance: &str) -> bool {
    let inner = |name: &str| {
        let (stage, axes) = name.split_once('[').unwrap_or((name, ""));
        let pairs = axes.trim_end_matches(']').split(',').map(|pair| pair.trim().to_owned());
        (stage.trim().to_owned(), pairs.filter(|pair| !pair.is_empty()).collect::<BTreeSet<_>>())
    };
    let (word, (stage, axes)) = (inner(word), inner(instance));
    word.0 == stage && word.1.is_subset(&axes)
}

fn refuse_unknown(words: &[String], records: &[(Digest, Record)]) -> Result<(), EngineError> {
    let known = |word: &&String| records.iter().any(|(_, record)| means(word, &record.run.instance));
    let Some(word) = words.iter().find(|word| !known(word)) else { return Ok(()) };
    let stages: BTreeSet<&str> = records.iter().map(|(_, record)| stage(record)).collect();
    let of_stage = stages.contains(word.split('[').next().unwrap_or_default());
    let hint = if of_stage { None } else { did_you_mean(word, stages) };
    Err(EngineError::User {
        message: format!("no result in the cache is of `{word}`"),
        hint: hint.unwrap_or_else(|| "without it, all results are shown".into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Facts;

    #[test]
    fn a_word_means_an_instance_a_stage_or_some_axes() {
        let means = |word: &str| means(word, "train[arch=resnet14,mode=bn]");
        assert!(means("train") && means("train[mode=bn]") && means("train[ mode=bn, arch=resnet14 ]"));
        assert!(!means("trai") && !means("train[mode=b]") && !means("train[seed=0]"));
    }

    #[test]
    fn an_input_is_of_the_recipe_that_ran_last_before_its_reader() {
        let tree = Digest::of("the same bytes");
        let record = |stage: &str, started, body: &str, tree| {
            let recipe = format!("repro recipe 1\nkind command 1\n{body}\n");
            let run = Facts { instance: stage.into(), started, ..Facts::default() };
            (Digest::of(&recipe), Record { recipe, outputs: Vec::new(), tree, run })
        };
        let reads = format!("param x = 1\ninput a blake3:{tree}");
        let records = [
            record("make", 1, "param p = \"one\"", tree),
            record("make", 2, "param p = \"two\"", tree),
            record("read", 3, &reads, Digest::of("what was read")),
            record("make", 4, "param p = \"three\"", tree),
            // What hands on what it was given led to itself as little as what came after it.
            record("pass", 5, &reads, tree),
        ];
        let mut makers = BTreeMap::<Digest, Vec<usize>>::new();
        records.iter().enumerate().for_each(|(at, one)| makers.entry(one.1.tree).or_default().push(at));
        let of = |at: usize, name: &str| with(&records, &makers, at).get(name).cloned();
        let one = |value: &str| Some(BTreeSet::from([value.to_owned()]));
        assert_eq!(of(2, "make.p"), one("\"two\""));
        assert_eq!(of(4, "make.p"), one("\"three\""));
        assert_eq!((of(2, "read.x"), of(2, "read.kind")), (one("1"), one("\"command 1\"")));
        assert_eq!(of(2, "pass.x"), None);
    }
}
