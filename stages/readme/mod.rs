//! Kind `readme`: a page of figures, tables, claims and speeds, and the blocks of Markdown files of the
//! project that show them. Knows nothing of what the figures show.

mod blocks;
mod card;
mod speed;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use engine::kind::{Input, Job, Kind, ParamError, Params, Publication, RoleSpec, Roles, StageError, Wanted};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{
    claims,
    output::{failed, write},
    params::{checked, stays_inside},
    plot::{Entry, LIST},
};

/// Where the figures of the pages lie in the project.
const FIGURES: &str = "docs/figures";
/// What a page may show of a result, each as a block of its own, and its title.
const TABLES: [(&str, &str); 6] = [
    ("table", "Accuracy"),
    ("parameters", "Parameters"),
    ("memory", "Memory"),
    ("claims", "Claims"),
    ("speed", "Speed and memory"),
    ("card", "Speed on a card"),
];

/// The kind `readme`.
pub(crate) struct Readme;

/// Parameters of a `readme` stage.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReadmeParams {
    /// Replace the blocks of `pages`; otherwise only write `page.md`.
    #[serde(default)]
    publish: bool,
    /// The Markdown files with blocks `<!-- repro:table -->` ... `<!-- /repro:table -->`.
    #[serde(default = "pages")]
    pages: Vec<PathBuf>,
    /// Tells this stage's blocks and figures from those of others: `<!-- repro:NAME/table -->`.
    #[serde(default)]
    name: String,
    /// A report of `benches/compare.py`, such as `benches/compare.json`, for the block `speed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    speed: Option<PathBuf>,
    /// A report of `benches/gpu.sh`, such as `benches/gpu.json`, for the block `card`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    card: Option<PathBuf>,
}

fn pages() -> Vec<PathBuf> {
    vec!["README.md".into()]
}

impl ReadmeParams {
    /// Names that lead out of their place.
    fn faults(&self) -> Vec<ParamError> {
        let fault = |key: &str, message: String, hint: &str| ParamError {
            key: key.into(),
            message,
            hint: Some(hint.into()),
        };
        let mut faults = Vec::new();
        let name = &self.name;
        if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            let message = format!("`name` is `{name}`; it becomes a folder");
            faults.push(fault("name", message, "use letters, digits and `-`"));
        }
        for page in self.pages.iter().filter(|page| !stays_inside(page)) {
            let message =
                format!("`pages` has `{}`, and links are written for a page in the project", page.display());
            faults.push(fault(
                "pages",
                message,
                "name it by its path from the project's folder, without `..`",
            ));
        }
        faults
    }
}

impl Kind for Readme {
    fn name(&self) -> &'static str {
        "readme"
    }

    fn version(&self) -> u32 {
        12
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "figures", required: true, many: false },
            RoleSpec { name: "claims", required: false, many: false },
        ])
    }

    fn wants(&self, role: &str) -> Option<Wanted> {
        // A page holds a copy of what it shows.
        let (kinds, file): (&[_], _) = match role {
            "figures" => (&["plot", "readme"], LIST),
            "claims" => (&["claims", "readme"], claims::TABLE),
            _ => return None,
        };
        Some(Wanted { kinds, file })
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        ReadmeParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        checked(given, &[], ReadmeParams::faults)
    }

    fn files(&self, params: &Params) -> Vec<PathBuf> {
        let Ok(ReadmeParams { speed, card, .. }) = read_params(params) else { return Vec::new() };
        speed.into_iter().chain(card).collect()
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let params: ReadmeParams = job.params()?;
        let figures = job.input("figures")?;
        let from = &figures.dir;
        let list = if from.join(LIST).exists() {
            list(from)?
        } else {
            return Err(wrong_kind(figures, "figures", "plot"));
        };
        let files = list.iter().map(|entry| format!("{}.svg", entry.name));
        for name in files.chain([LIST.to_owned()]) {
            copy(from, &name, job.out)?;
        }
        for name in ["table.md", "parameters.md", "memory.md"] {
            if from.join(name).exists() {
                copy(from, name, job.out)?;
            } else {
                figures.lacks_no(name.as_ref())?;
            }
        }
        if let Ok(input) = job.input("claims") {
            if !input.dir.join(claims::TABLE).exists() {
                return Err(wrong_kind(input, "claims", "claims"));
            }
            copy(&input.dir, claims::TABLE, job.out)?;
        }
        if let Some(path) = &params.speed {
            let table = speed::table(&read(&job.project.join(path))?, path)?;
            write(job, "speed.md", table.as_bytes())?;
        }
        if let Some(path) = &params.card {
            let table = card::table(&read(&job.project.join(path))?, path)?;
            write(job, "card.md", table.as_bytes())?;
        }
        let mut page = format!("# Results\n\n{}", blocks::figures(&list, ""));
        for (name, title) in TABLES {
            let path = job.out.join(format!("{name}.md"));
            if path.exists() {
                page += &format!("\n## {title}\n\n{}", read(&path)?);
            }
        }
        write(job, "page.md", page.as_bytes())
    }

    fn publishes(&self, params: &Params) -> Option<PathBuf> {
        let publishes = params.recipe.get("publish").and_then(toml::Value::as_bool) == Some(true);
        let name = params.recipe.get("name").and_then(toml::Value::as_str).unwrap_or_default();
        publishes.then(|| Path::new(FIGURES).join(name))
    }

    fn publication(&self, params: &Params, result: &Path, project: &Path) -> Result<Publication, StageError> {
        if self.publishes(params).is_none() {
            return Ok(Publication::new());
        }
        let ReadmeParams { pages, name, .. } = read_params(params)?;
        let (list, folder) = (list(result)?, Path::new(FIGURES).join(&name));
        let mut files = Publication::new();
        for page in pages {
            let mut text = read(&project.join(&page))?;
            let shows = |block: &str| {
                ["figure", "figures"].contains(&block)
                    || TABLES.iter().any(|(table, _)| *table == block)
                        && result.join(format!("{block}.md")).exists()
            };
            if !blocks::check(&text, &page, &name, shows)? {
                return Err(no_block(&page, &name));
            }
            let way = blocks::way(&page, &folder);
            text = blocks::replace(&text, &page, &name, "figure", &blocks::figure(&list, &way))?;
            text = blocks::replace(&text, &page, &name, "figures", &blocks::figures(&list, &way))?;
            for (table, _) in TABLES {
                let path = result.join(format!("{table}.md"));
                if path.exists() {
                    text = blocks::replace(&text, &page, &name, table, &read(&path)?)?;
                }
            }
            files.push((page, Some(text.into_bytes())));
        }
        for entry in &list {
            let file = format!("{}.svg", entry.name);
            let bytes = fs::read(result.join(&file)).map_err(|e| failed("read", &result.join(&file), &e))?;
            files.push((folder.join(file), Some(bytes)));
        }
        files.extend(old_figures(project, &folder, &list)?.into_iter().map(|path| (path, None)));
        Ok(files)
    }
}

/// The figures in `folder` that are not in the `list`. Folders in it are other stages'.
fn old_figures(project: &Path, folder: &Path, list: &[Entry]) -> Result<Vec<PathBuf>, StageError> {
    let place = project.join(folder);
    let entries = match fs::read_dir(&place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.and_then(Iterator::collect::<io::Result<Vec<_>>>),
    };
    let files = entries.map_err(|e| failed("read", &place, &e))?.into_iter();
    let files = files.filter(|entry| entry.file_type().is_ok_and(|kind| !kind.is_dir()));
    let mut old: Vec<_> = files.map(|entry| folder.join(entry.file_name())).collect();
    old.retain(|file| {
        let made = list.iter().any(|made| file.file_stem().is_some_and(|name| name == made.name.as_str()));
        file.extension().is_some_and(|end| end == "svg") && !made
    });
    old.sort();
    Ok(old)
}

/// An input that has not what this stage shows of it.
fn wrong_kind(input: &Input, role: &str, kind: &str) -> StageError {
    StageError::new(format!("`{}` has no {role} to show", input.instance))
        .hint(format!("`{role}` wants an instance of kind `{kind}`"))
}

fn no_block(page: &Path, name: &str) -> StageError {
    let [open, close] = blocks::markers(name, TABLES[0].0);
    StageError::new(format!("`{}` has no block of this stage, such as `{open}`", page.display())).hint(
        format!("write `{open}` and `{close}` where the table should stand, or take the page out of `pages`"),
    )
}

fn read_params(params: &Params) -> Result<ReadmeParams, StageError> {
    ReadmeParams::deserialize(toml::Value::Table(params.recipe.clone()))
        .map_err(|e| StageError::new(format!("parameters of a `readme` stage: {e}")))
}

/// The figures that `folder` lists, the main one first.
fn list(folder: &Path) -> Result<Vec<Entry>, StageError> {
    let path = folder.join(LIST);
    let wrong = |why: String| {
        StageError::new(format!("`{}` is no list of figures: {why}", path.display()))
            .hint("`figures` wants an instance of kind `plot`")
    };
    let list: Vec<Entry> = serde_json::from_str(&read(&path)?).map_err(|e| wrong(e.to_string()))?;
    match list.iter().find(|entry| Path::new(&entry.name).file_name() != Some(entry.name.as_ref())) {
        Some(entry) => Err(wrong(format!("`{}` is not the name of a file beside it", entry.name))),
        None => Ok(list),
    }
}

fn copy(from: &Path, name: &str, to: &Path) -> Result<(), StageError> {
    let from = from.join(name);
    fs::copy(&from, to.join(name)).map(drop).map_err(|e| failed("copy", &from, &e))
}

fn read(path: &Path) -> Result<String, StageError> {
    fs::read_to_string(path).map_err(|e| failed("read", path, &e))
}

#[cfg(test)]
mod tests;
