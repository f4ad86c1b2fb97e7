//! Kind `readme`: the page of the figures, and the blocks of README.md that show them. Knows
//! nothing of what the figures show.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use engine::kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{output::failed, params::resolve};

/// Where the figures of README.md lie in the project.
const FIGURES: &str = "docs/figures";

/// The kind `readme`.
pub struct Readme;

/// Parameters of a `readme` stage.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ReadmeParams {
    /// Replace the blocks `table` and `figures` of README.md; otherwise only write `page.md`.
    #[serde(default)]
    publish: bool,
}

impl Kind for Readme {
    fn name(&self) -> &'static str {
        "readme"
    }

    fn version(&self) -> u32 {
        1
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[RoleSpec { name: "figures", required: true, many: false }])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        ReadmeParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        resolve::<ReadmeParams>(given)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let from = &job.input("figures")?.dir;
        let names = figures(from)?;
        for name in names.iter().map(String::as_str).chain(["table.md"]) {
            fs::copy(from.join(name), job.out.join(name))
                .map_err(|e| failed("copy", &from.join(name), &e))?;
        }
        let page = format!("# Results\n\n{}\n{}", read(&from.join("table.md"))?, links(&names, ""));
        write(&job.out.join("page.md"), page.as_bytes())
    }

    fn publishes(&self, params: &Params) -> bool {
        params.recipe.get("publish").and_then(toml::Value::as_bool) == Some(true)
    }

    fn publish(&self, params: &Params, result: &Path, project: &Path) -> Result<Vec<PathBuf>, StageError> {
        if !self.publishes(params) {
            return Ok(Vec::new());
        }
        let names = figures(result)?;
        let path = project.join("README.md");
        let old = read(&path)?;
        let new = replace(&old, "table", &read(&result.join("table.md"))?)?;
        let new = replace(&new, "figures", &links(&names, &format!("{FIGURES}/")))?;
        let mut files = vec![(PathBuf::from("README.md"), new.into_bytes())];
        for name in &names {
            let bytes = fs::read(result.join(name)).map_err(|e| failed("read", &result.join(name), &e))?;
            files.push((Path::new(FIGURES).join(name), bytes));
        }
        let mut changed = Vec::new();
        for (file, bytes) in files {
            let path = project.join(&file);
            if fs::read(&path).is_ok_and(|there| there == bytes) {
                continue;
            }
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).map_err(|e| failed("create", folder, &e))?;
            }
            // Beside and renamed, so that a full disk never leaves half a README.md.
            let draft = path.with_extension("repro-draft");
            write(&draft, &bytes)?;
            fs::rename(&draft, &path).map_err(|e| failed("write", &path, &e))?;
            changed.push(file);
        }
        Ok(changed)
    }
}

/// The names of the SVG files in `folder`, sorted.
fn figures(folder: &Path) -> Result<Vec<String>, StageError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.map_err(|e| failed("read", folder, &e))?;
    let names = entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter(|name| name.ends_with(".svg")).collect();
    names.sort();
    Ok(names)
}

fn links(names: &[String], prefix: &str) -> String {
    let link =
        |name: &String| format!("![{}]({prefix}{name})\n", name.trim_end_matches(".svg").replace('-', " "));
    names.iter().map(link).collect::<Vec<_>>().join("\n")
}

/// `text` with `content` between the markers called `name`; unchanged where there are none.
fn replace(text: &str, name: &str, content: &str) -> Result<String, StageError> {
    let (open, close) = (format!("<!-- repro:{name} -->"), format!("<!-- /repro:{name} -->"));
    let Some((before, rest)) = text.split_once(&open) else {
        return Ok(text.to_owned());
    };
    let Some((_, after)) = rest.split_once(&close) else {
        return Err(StageError::new(format!("README.md has `{open}` but no `{close}` after it"))
            .hint(format!("write `{close}` where the block ends")));
    };
    Ok(format!("{before}{open}\n\n{}\n\n{close}{after}", content.trim_end()))
}

fn read(path: &Path) -> Result<String, StageError> {
    fs::read_to_string(path).map_err(|e| failed("read", path, &e))
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), StageError> {
    fs::write(path, bytes).map_err(|e| failed("write", path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result_and_project(readme: &str) -> (tempfile::TempDir, tempfile::TempDir) {
        let (result, project) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(result.path().join("table.md"), "| a |\n|---|\n").unwrap();
        fs::write(result.path().join("loss-curves.svg"), "<svg/>").unwrap();
        fs::write(project.path().join("README.md"), readme).unwrap();
        (result, project)
    }

    fn params(text: &str) -> Params {
        Readme.resolve(&text.parse().unwrap()).unwrap()
    }

    #[test]
    fn blocks_are_replaced_once_and_then_left_alone() {
        let text = "top\n<!-- repro:table -->old<!-- /repro:table -->\n<!-- repro:figures --><!-- /repro:figures -->end";
        let (result, project) = result_and_project(text);
        let publish = || Readme.publish(&params("publish = true"), result.path(), project.path()).unwrap();
        assert_eq!(publish(), [PathBuf::from("README.md"), "docs/figures/loss-curves.svg".into()]);
        let written = fs::read_to_string(project.path().join("README.md")).unwrap();
        assert!(
            written.starts_with("top\n<!-- repro:table -->\n\n| a |\n|---|\n\n<!-- /repro:table -->"),
            "{written}"
        );
        assert!(written.contains("![loss curves](docs/figures/loss-curves.svg)"), "{written}");
        assert!(!written.contains("old") && written.ends_with("end"), "{written}");
        assert!(publish().is_empty());
    }

    #[test]
    fn without_publish_the_readme_stays() {
        let (result, project) = result_and_project("<!-- repro:table --><!-- /repro:table -->");
        assert!(!Readme.publishes(&params("")));
        assert!(Readme.publish(&params(""), result.path(), project.path()).unwrap().is_empty());
    }

    #[test]
    fn a_block_without_end_is_an_error_that_changes_nothing() {
        let (result, project) = result_and_project("<!-- repro:table -->\nmine");
        let error = Readme.publish(&params("publish = true"), result.path(), project.path()).unwrap_err();
        assert!(error.message.contains("no `<!-- /repro:table -->`"), "{}", error.message);
        let left = fs::read_to_string(project.path().join("README.md")).unwrap();
        assert_eq!(left, "<!-- repro:table -->\nmine");
    }
}
