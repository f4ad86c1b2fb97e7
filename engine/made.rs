//! All results that the cache has, today's or not, each with what it was made with: its own parameters and those of
//! everything that led to it. Knows no pipeline file: stages and axes that it no longer has are listed, too.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use rayon::prelude::*;
use toml::Value;

use crate::{
    digest::Digest,
    error::EngineError,
    look::look,
    pipeline::hint::did_you_mean,
    plan::Found,
    project::Project,
    recipe::{Part, parts, value_in},
    record::{Record, recordable},
    state::{Entry, State},
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
    /// Name -> values of parameters and axes (`STAGE.NAME`, `STAGE.TABLE.KEY`), kinds and their versions (`kind STAGE`)
    /// and digests of files (`file PATH`), its own and those of all that led to it. There are several where a stage led to
    /// it more than once. Numbers that are not finite are their names.
    pub with: BTreeMap<String, Vec<Value>>,
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
        let state = State::load(self.store.cache())?;
        let recipes = self.store.recipes()?;
        let read = |recipe: Digest| Some((recipe, self.store.record(recipe)?));
        let mut records: Vec<(Digest, Record)> = recipes.into_par_iter().filter_map(read).collect();
        let order = |(recipe, record): &(Digest, Record)| (record.run.started, *recipe);
        records.sort_by(|a, b| (stage(&a.1), order(a)).cmp(&(stage(&b.1), order(b))));
        let mut made_by = BTreeMap::<&str, Vec<usize>>::new();
        for (at, (_, record)) in records.iter().enumerate() {
            made_by.entry(&record.run.instance).or_default().push(at);
        }
        let position: BTreeMap<_, _> =
            records.iter().enumerate().map(|(at, (recipe, _))| (*recipe, at)).collect();
        let lies = |place: &Path, entry: &Entry| matches!(look(place, entry).0, Found::Intact(_));
        let shown = state.results.par_iter().filter_map(|(key, entry)| {
            let place = self.store.shown(key);
            if lies(&place, entry) {
                return Some(entry.recipe);
            }
            // Git or somebody else may have put another result of the instance there.
            let of = &records[*position.get(&entry.recipe)?].1.run.instance;
            let others = made_by.get(of.as_str())?.iter().map(|&at| &records[at]);
            let mut others = others.map(|(recipe, record)| Entry::expected(*recipe, &record.outputs));
            others.find(|expected| lies(&place, expected)).map(|expected| expected.recipe)
        });
        let shown: BTreeSet<Digest> = shown.collect();
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
            let content =
                self.store.content(record.outputs.iter().find(|output| output.path == file)?.digest)?;
            let values = |(name, values): (String, BTreeSet<String>)| {
                let value = |text: String| value_in(&text).map_or(Value::String(text), recordable);
                (name, values.into_iter().map(value).collect())
            };
            let with = with(&records, &makers, &shown, at).into_iter().map(values).collect();
            Some(Made {
                recipe: *recipe,
                record: record.clone(),
                shown: shown.contains(recipe),
                with,
                content,
            })
        };
        Ok((0..records.len()).into_par_iter().filter_map(one).collect())
    }
}

/// What a result was made with. Where several recipes came to the bytes of an input, it is taken to be of one with the
/// stage and axes that the reader's recipe names; of these of one that is shown, if the result is; and of these the last
/// that began before the reader; where none did, the first that began later, because a stage that is made again may be
/// older than it says.
fn with(
    records: &[(Digest, Record)],
    makers: &BTreeMap<Digest, Vec<usize>>,
    shown: &BTreeSet<Digest>,
    result: usize,
) -> BTreeMap<String, BTreeSet<String>> {
    let mut with = BTreeMap::<String, BTreeSet<String>>::new();
    let is_shown = |at: usize| shown.contains(&records[at].0);
    let (mut seen, mut left) = (BTreeSet::from([result]), vec![result]);
    while let Some(at) = left.pop() {
        let record = &records[at].1;
        let stage = stage(record);
        let mut put = |name: String, value: String| {
            with.entry(name).or_default().insert(value);
        };
        for part in parts(&record.recipe) {
            match part {
                Part::Kind(kind) => put(format!("kind {stage}"), kind),
                Part::Value(name, value) => put(format!("{stage}.{name}"), value),
                Part::File(path, digest) => put(format!("file {path}"), format!("\"{digest}\"")),
                Part::Input(whose, digest) => {
                    let rank = |maker: &usize| {
                        let run = &records[*maker].1.run;
                        let (began, before) = (run.started, run.started <= record.run.started);
                        (
                            is_of(&whose, &run.instance),
                            is_shown(result) && is_shown(*maker),
                            before,
                            if before { began } else { u64::MAX - began },
                            *maker,
                        )
                    };
                    let of = makers.get(&digest).into_iter().flatten().copied().filter(|maker| *maker != at);
                    left.extend(of.max_by_key(rank).filter(|&maker| seen.insert(maker)));
                }
            }
        }
    }
    with
}

/// Is it the instance of which a recipe's line says this, a stage or axes or both? Where a value has spaces in it nobody
/// is.
fn is_of(whose: &str, instance: &str) -> bool {
    let (stage, axes) = split(instance);
    let bare = whose.replace('"', "");
    let (said, names): (BTreeSet<_>, BTreeSet<_>) = bare.split(' ').partition(|word| word.contains('='));
    !whose.is_empty() && names.iter().all(|name| *name == stage) && said == axes
}

/// The stage that made a result, as it was called.
fn stage(record: &Record) -> &str {
    split(&record.run.instance).0
}

/// An instance's stage and its axes with their values.
fn split(instance: &str) -> (&str, BTreeSet<&str>) {
    let (stage, axes) = instance.split_once('[').unwrap_or((instance, ""));
    let axes = axes.strip_suffix(']').unwrap_or(axes).split(',').map(str::trim);
    (stage.trim(), axes.filter(|pair| !pair.is_empty()).collect())
}

/// Does `word` mean the instance: by its name, its stage, or its stage and some of its axes?
fn means(word: &str, instance: &str) -> bool {
    let ((stage, wanted), (of, axes)) = (split(word), split(instance));
    // A number may be spelt otherwise than names do.
    let same = |a: &str, b: &str| {
        let number = |text: &str| {
            text.split_once('=')
                .map(|(axis, value)| (axis.trim().to_owned(), value.trim().parse::<f64>().ok()))
        };
        a == b || number(a).zip(number(b)).is_some_and(|(a, b)| a == b && a.1.is_some())
    };
    stage == of && wanted.iter().all(|pair| axes.iter().any(|axis| same(pair, axis)))
}

fn refuse_unknown(words: &[String], records: &[(Digest, Record)]) -> Result<(), EngineError> {
    if let Some(word) = words.iter().find(|word| word.contains('[') && !word.trim().ends_with(']')) {
        return Err(EngineError::user(format!("`{word}` has no closing `]`"), "quote it for the shell"));
    }
    let known = |word: &&String| records.iter().any(|(_, record)| means(word, &record.run.instance));
    let Some(word) = words.iter().find(|word| !known(word)) else { return Ok(()) };
    let stages: BTreeSet<&str> = records.iter().map(|(_, record)| stage(record)).collect();
    let (wanted, _) = split(word);
    let hint = if stages.contains(wanted) { None } else { did_you_mean(wanted, stages) };
    Err(EngineError::user(
        format!("no result in the cache is of `{word}`"),
        hint.unwrap_or_else(|| "without it, all results are shown".into()),
    ))
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
        assert!(super::means("s[rate=1e-1]", "s[rate=0.1]") && !super::means("s[rate=x]", "s[rate=y]"));
    }

    #[test]
    fn an_input_is_of_the_instance_that_is_named_or_ran_last_before_its_reader() {
        let tree = Digest::of("the same bytes");
        let record = |instance: &str, started, body: &str, tree| {
            let recipe = format!("repro recipe 1\nkind command 1\n{body}\n");
            let run = Facts { instance: instance.into(), started, ..Facts::default() };
            (Digest::of(&recipe), Record { recipe, outputs: Vec::new(), tree, run })
        };
        let reads = format!("param x = 1\ninput a blake3:{tree}");
        let named = format!("input a make lang=\"de\" blake3:{tree}");
        let records = [
            record("make", 2, "param p = \"one\"", tree),
            record("make", 3, "param p = \"two\"", tree),
            record("read", 4, &reads, Digest::of("what was read")),
            record("make[lang=de]", 5, "param p = \"three\"", tree),
            // What hands on what it was given led to itself as little as what came after it.
            record("pass", 6, &reads, tree),
            record("early", 1, &reads, Digest::of("before all")),
            record("name", 9, &named, Digest::of("it says whose")),
        ];
        let mut makers = BTreeMap::<Digest, Vec<usize>>::new();
        records.iter().enumerate().for_each(|(at, one)| makers.entry(one.1.tree).or_default().push(at));
        let of = |at: usize, name: &str| with(&records, &makers, &BTreeSet::new(), at).get(name).cloned();
        let one = |value: &str| Some(BTreeSet::from([value.to_owned()]));
        assert_eq!(of(2, "make.p"), one("\"two\""));
        assert_eq!(of(4, "make.p"), one("\"three\""));
        assert_eq!((of(5, "make.p"), of(6, "make.p")), (one("\"one\""), one("\"three\"")));
        assert_eq!((of(2, "read.x"), of(2, "kind read")), (one("1"), one("\"command 1\"")));
        assert_eq!(of(2, "pass.x"), None);
        // What is shown was made of what is shown.
        let shown = [0, 2, 6].map(|at: usize| records[at].0).into();
        let of = |at: usize| with(&records, &makers, &shown, at).get("make.p").cloned();
        assert_eq!((of(2), of(6)), (one("\"one\""), one("\"three\"")));
    }
}
