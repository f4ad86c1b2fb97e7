//! Reads `pipeline.toml` and expands it into [`crate::instance::Pipeline`]. Knows no kind's name,
//! no results and no terminal: what is wrong is returned as data with byte ranges, all at once.
//!
//! The way of a file: parsed into a tree that remembers where everything stood, the
//! profile and the `-S` settings laid over it, `${...}` references answered, each stage's matrix
//! multiplied out, and last the instances joined along `needs`.

mod expand;
pub(crate) mod hint;
mod join;
mod matrix;
mod overlay;
mod params;
mod parse;
mod schema;
mod select;
mod shell;
mod sweep;
#[cfg(test)]
mod tests;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    path::{Component, Path, PathBuf},
};

pub use schema::schema;
pub use select::select;

use crate::{
    instance::{Instance, Pipeline},
    kind::{Kinds, Roles},
};
use parse::Span;

/// What to load, and what to change about it.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The pipeline file.
    pub file: PathBuf,
    /// Which `[profile.NAME]` to lay over it.
    pub profile: Option<String>,
    /// `key=value` settings, as after `-S`.
    pub sets: Vec<String>,
}

/// Something wrong with a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// A sentence without full stop.
    pub message: String,
    /// The bytes of the file it is about; `None` when it is about the command line.
    pub span: Option<Range<usize>>,
    /// A way out.
    pub hint: Option<String>,
}

/// Everything that is wrong with a pipeline.
#[derive(Clone, Debug)]
pub struct LoadError {
    /// The pipeline file.
    pub file: PathBuf,
    /// Its text, empty when it could not be read.
    pub source: String,
    /// At least one.
    pub diagnostics: Vec<Diagnostic>,
}

/// Collects what is wrong, each thing once: a mistake in a stage with a large matrix is still one.
#[derive(Default)]
struct Diagnostics {
    list: Vec<Diagnostic>,
    /// How often something was wrong, repetitions included.
    count: usize,
    seen: BTreeSet<(Option<usize>, String)>,
}

impl Diagnostics {
    fn add(&mut self, span: &Span, message: impl Into<String>, hint: Option<String>) {
        let message = message.into();
        self.count += 1;
        if self.seen.insert((span.as_ref().map(|s| s.start), message.clone())) {
            self.list.push(Diagnostic { message, span: span.clone(), hint });
        }
    }

    /// With the stage's name where nothing else tells it: what a setting gave has no place in the file.
    fn of_stage(mut self, name: &str) -> Self {
        let whose = format!("`{name}`");
        for found in self.list.iter_mut().filter(|found| found.span.is_none()) {
            if !found.message.contains(&whose) {
                found.message = format!("the stage {whose}: {}", found.message);
            }
        }
        self
    }

    /// What was collected elsewhere.
    fn merge(&mut self, other: Self) {
        other.list.into_iter().for_each(|found| self.add(&found.span, found.message, found.hint));
    }
}

/// Reads, checks and expands a pipeline file.
///
/// # Errors
/// When the file cannot be read, and with all that is wrong with it.
pub fn load(options: &LoadOptions, kinds: &Kinds) -> Result<Pipeline, LoadError> {
    load_text(read(&options.file)?, options, kinds)
}

/// The text of a pipeline file.
///
/// # Errors
/// When there is none, or it is no UTF-8.
pub fn read(file: &Path) -> Result<String, LoadError> {
    std::fs::read_to_string(file).map_err(|e| {
        let hint = match e.kind() {
            std::io::ErrorKind::InvalidData => "save it as UTF-8 text",
            _ => "go to the project's folder, or name another file with `-f FILE`",
        };
        let message = format!("cannot read the pipeline file: {e}");
        let diagnostic = Diagnostic { message, span: None, hint: Some(hint.into()) };
        LoadError { file: file.to_owned(), source: String::new(), diagnostics: vec![diagnostic] }
    })
}

/// Checks and expands the text of a pipeline file, as if it stood in `options.file`.
///
/// # Errors
/// With all that is wrong with it, and with the profile and the settings that are laid over it.
pub fn load_text(source: String, options: &LoadOptions, kinds: &Kinds) -> Result<Pipeline, LoadError> {
    // How an editor or git ends lines is no part of a text of several: to a shell the `\r` would be one of the last word.
    let source = if source.contains("\r\n") { source.replace("\r\n", "\n") } else { source };
    let file = &options.file;
    let (root, mut diagnostics) = (root_of(file), Diagnostics::default());
    let namespace = namespace_of(&root, file, options.profile.as_deref());
    if file.extension() != Some("toml".as_ref()) {
        let message = format!("`{}` does not end in `.toml`", file.display());
        let hint =
            "its results and its lock file are named after it without that ending: rename it".to_owned();
        // What is wrong with its text says little: it may be no pipeline file at all.
        let diagnostics = vec![Diagnostic { message, span: None, hint: Some(hint) }];
        return Err(LoadError { file: file.clone(), source, diagnostics });
    }
    let both = |place: &Path| {
        format!("`artifacts/{}/` cannot show the results of both: rename one of them", place.display())
    };
    if let Some((name, place, other)) = taken(&root, &namespace, file) {
        let message = format!("`{name}` is also a stage or a profile of `{}`", other.display());
        diagnostics.add(&None, message, Some(both(&place)));
    }
    if namespace.to_str().is_none() || file.file_name().is_some_and(|name| name.to_str().is_none()) {
        let message = format!("the path of `{}` is not UTF-8", file.display());
        diagnostics.add(&None, message, Some("its results are named after it: rename it".to_owned()));
    }
    let Expanded { instances, swept, profiles } = expand_text(&source, options, kinds, &mut diagnostics);
    let stages: BTreeSet<_> = instances.iter().map(|instance| namespace.join(&instance.stage)).collect();
    let profile = options.profile.iter().map(|_| namespace.clone());
    for (place, other) in profile.chain(stages).filter_map(|place| covers(&root, place, file)) {
        let name = place.file_name().unwrap_or_default().display();
        let message = format!("`{name}` is also where `{}` has its results", other.display());
        diagnostics.add(&None, message, Some(both(&place)));
    }
    own_results(&instances, &root, &namespace, &mut diagnostics);
    published_twice(&instances, &mut diagnostics);
    if !diagnostics.list.is_empty() {
        let mut diagnostics = diagnostics.list;
        // In the order of the file; what is about the command line comes first.
        diagnostics.sort_by_key(|d| d.span.as_ref().map(|s| s.start));
        return Err(LoadError { file: file.clone(), source, diagnostics });
    }
    let (profile, set) = (options.profile.clone(), !options.sets.is_empty());
    Ok(Pipeline { root, file: in_full(file), profile, profiles, set, swept, namespace, instances })
}

/// What a file comes to.
#[derive(Default)]
struct Expanded {
    instances: Vec<Instance>,
    swept: BTreeSet<String>,
    profiles: BTreeSet<String>,
}

fn expand_text(
    source: &str,
    options: &LoadOptions,
    kinds: &Kinds,
    diagnostics: &mut Diagnostics,
) -> Expanded {
    let Some(mut document) = parse::document(source, options.profile.as_deref(), diagnostics) else {
        return Expanded::default();
    };
    let facts = schema::Facts::of(kinds);
    let before = sweep::with_axes(&document);
    for set in &options.sets {
        overlay::set(&mut document, set, kinds, &facts, diagnostics);
    }
    matrix::refuse_idle_exclusions(&document, diagnostics);
    let swept = sweep::with_axes(&document).difference(&before).cloned().collect();
    let values = params::resolve(&document.params, diagnostics);
    let stages = expand::stages(&document.stages, kinds, &facts, &values, diagnostics);
    join::refuse_wrong_kinds(&stages, diagnostics);
    Expanded { instances: join::instances(stages, diagnostics), swept, profiles: document.profiles }
}

/// A stage that reads a result as a file would read what is there before that is made anew.
fn own_results(instances: &[Instance], root: &Path, namespace: &Path, diagnostics: &mut Diagnostics) {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let artifacts = root.join("artifacts");
    // That folder may be a link, and what is read may lead to where it leads.
    let far = artifacts.canonicalize().unwrap_or_else(|_| artifacts.clone()).join(namespace);
    let places = [artifacts.join(namespace), far];
    let mut behind = BTreeMap::new();
    let mut said = BTreeSet::new();
    for instance in instances {
        for path in instance.kind.files(&instance.params) {
            // `./artifacts` is `artifacts`.
            let plain: PathBuf = path.components().filter(|part| *part != Component::CurDir).collect();
            let behind = behind.entry(plain);
            let to: &Path = behind.or_insert_with_key(|plain| behind_links(&root, plain, &places[0]));
            let what = if to == root.join(&path) {
                format!("`{}` reads `{}`", instance.stage, path.display())
            } else {
                let to = to.strip_prefix(&root).ok().filter(|to| !to.as_os_str().is_empty()).unwrap_or(to);
                let (stage, path, to) = (&instance.stage, path.display(), to.display());
                format!("`{stage}` reads `{path}`, which leads to `{to}`")
            };
            if places.iter().any(|place| place.starts_with(to)) {
                let message = format!("{what}, in which its own result lies");
                diagnostics.add(&None, message, Some("name the stages in `needs` instead".into()));
            }
            let below = places.iter().find_map(|place| to.strip_prefix(place).ok());
            let made = below.and_then(|below| below.iter().next()?.to_str());
            let made = made.filter(|stage| instances.iter().any(|other| other.stage == *stage));
            if let Some(made) = made.filter(|made| said.insert((&instance.stage, (*made).to_owned()))) {
                let message = format!("{what}, a result of `{made}`");
                let role = match instance.kind.roles() {
                    Roles::Any => made,
                    Roles::Named(specs) => {
                        specs.iter().find(|spec| !spec.required).map_or("ROLE", |s| s.name)
                    }
                };
                let kind = instance.kind.name();
                let hint = format!(
                    "write `needs = {{ {role} = \"{made}\" }}` instead; see the kind `{kind}` in docs/pipeline.md"
                );
                diagnostics.add(&None, message, Some(hint));
            }
        }
    }
}

/// Where `path` in the folder `root` leads, link by link, also to what is not there yet. Below `results`, where every file
/// is a result or will be, nothing is followed.
fn behind_links(root: &Path, path: &Path, results: &Path) -> PathBuf {
    /// As many as the system follows.
    const MOST: usize = 40;
    let (mut at, mut rest, mut followed) = (root.to_owned(), path.to_owned(), 0);
    loop {
        let leaves = rest.components().any(|part| part == Component::ParentDir);
        let mut parts = rest.components();
        let Some(part) = parts.next().filter(|_| leaves || !at.starts_with(results)) else {
            return at.components().chain(rest.components()).collect();
        };
        let below = parts.as_path().to_owned();
        match part {
            Component::ParentDir => {
                at.pop();
            }
            Component::CurDir => {}
            part => at.push(part),
        }
        rest = below;
        if followed < MOST
            && let Ok(target) = std::fs::read_link(&at)
        {
            followed += 1;
            at.pop();
            rest = target.components().chain(rest.components()).collect();
        }
    }
}

/// Of two instances that publish alike, the last one would win.
fn published_twice(instances: &[Instance], diagnostics: &mut Diagnostics) {
    let mut publish = BTreeMap::new();
    for instance in instances {
        let Some(place) = instance.kind.publishes(&instance.params) else { continue };
        if let Some(other) = publish.insert(place, instance) {
            let message = format!("`{}` and `{}` would publish in the same place", other.name, instance.name);
            let hint = if other.stage == instance.stage {
                format!("set `stage.{}.publish` to false, or sweep nothing that it shows", instance.stage)
            } else {
                format!("give each of them a `name`, or set `stage.{}.publish` to false", instance.stage)
            };
            diagnostics.add(&None, message, Some(hint));
        }
    }
}

/// The project of a pipeline file: the nearest folder from the file upwards that is a project already, but never
/// beyond the repository; otherwise the file's own folder.
pub fn root_of(file: &Path) -> PathBuf {
    let absolute = in_full(file);
    let own = absolute.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    for folder in own.ancestors() {
        if folder.join("pipeline.toml").is_file() || folder.join(".repro").is_dir() {
            return folder.to_path_buf();
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    own
}

/// The path of `file` from the root on, without `..`.
fn in_full(file: &Path) -> PathBuf {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf());
    if !absolute.components().any(|part| part == Component::ParentDir) {
        return absolute;
    }
    // Where `..` leads from a link, only the file system knows.
    let folder = absolute.parent().and_then(|folder| folder.canonicalize().ok());
    folder.zip(absolute.file_name()).map_or_else(|| absolute.clone(), |(folder, name)| folder.join(name))
}

/// Where below `artifacts/` the results lie: nowhere else than those of another file or profile.
fn namespace_of(root: &Path, file: &Path, profile: Option<&str>) -> PathBuf {
    let absolute = in_full(file);
    let below = absolute.strip_prefix(root).unwrap_or(&absolute).with_extension("");
    let mut namespace = if below == Path::new("pipeline") { PathBuf::new() } else { below };
    namespace.extend(profile);
    namespace
}

/// The first folder of `namespace` in which another pipeline file shows results of its own: its name, the whole of
/// it, and that file, below the root.
fn taken<'a>(root: &Path, namespace: &'a Path, file: &Path) -> Option<(&'a str, PathBuf, PathBuf)> {
    let own = in_full(file);
    let parts: Vec<&str> = namespace.iter().map(|part| part.to_str()).collect::<Option<_>>()?;
    (0..parts.len()).find_map(|above| {
        let other = if above == 0 { "pipeline".into() } else { parts[..above].iter().collect::<PathBuf>() };
        let other = other.with_added_extension("toml");
        if root.join(&other) == own {
            return None;
        }
        let table = readable(&root.join(&other))?;
        let mut names = ["stage", "profile"].into_iter().filter_map(|key| table.get(key)?.as_table());
        let name = parts[above];
        let both = names.any(|names| names.contains_key(name));
        both.then(|| (name, parts[..=above].iter().collect(), other))
    })
}

/// `place`, below `artifacts/`, of a stage or profile of `file`, and another pipeline file whose results lie in it: one of
/// that name, or in a folder of that name.
fn covers(root: &Path, place: PathBuf, file: &Path) -> Option<(PathBuf, PathBuf)> {
    let namesake = place.with_added_extension("toml");
    let inside = std::fs::read_dir(root.join(&place)).into_iter().flatten().flatten();
    let inside = inside.map(|entry| place.join(entry.file_name()));
    let mut inside: Vec<_> = inside.filter(|path| path.extension() == Some("toml".as_ref())).collect();
    inside.sort_unstable();
    let own = in_full(file);
    let shows = |other: &PathBuf| {
        let full = root.join(other);
        full != own
            && readable(&full).is_some_and(|table| table.get("stage").is_some_and(toml::Value::is_table))
    };
    // `pipeline.toml` itself has no folder of its own.
    let all = [namesake].into_iter().filter(|other| other != Path::new("pipeline.toml")).chain(inside);
    let other = all.into_iter().find(shows)?;
    Some((place, other))
}

/// The text of a pipeline file; one that cannot be read shows nothing.
fn readable(file: &Path) -> Option<toml::Table> {
    std::fs::read_to_string(file).ok()?.parse().ok()
}
