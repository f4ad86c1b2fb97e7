//! Kind `plot`: the figures with their captions and the tables, from what trainings and evaluations
//! left. Knows which figures there are; what they show is in `figures/`.

mod chart;
mod draw;
mod figures;
mod legend;
mod look;
mod published;
pub(crate) mod table;
mod ticks;

use engine::kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use self::figures::{Drawing, Figure, Given};
use crate::{
    output::{write, write_json},
    params::resolve,
    results::{Apart, Results},
};

/// The file that says which figures there are.
pub(crate) const LIST: &str = "figures.json";

/// Said where there is neither figure nor table.
const NOTHING: &str = "nothing was drawn: of `histories` it draws `train_loss`, `test_loss`, `train_accuracy` and \
    `test_accuracy` by `epoch` in `history.csv`, of the others what `evaluate`, `model` and `memory` make; draw what else \
    there is in a command, and `repro report` shows its SVG and PNG";

/// The kind `plot`.
pub(crate) struct Plot;

/// Parameters of a `plot` stage.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PlotParams {
    /// Which figures, the main one first; those that the inputs can fill when left out.
    #[serde(default)]
    figures: Vec<Figure>,
    /// Whose published numbers stand beside ours: `paper`, `tdtce`, `latkam`, `vishal-v`, `origin`.
    #[serde(default)]
    published: Vec<String>,
    /// What our numbers come from, such as the images and the number of epochs: for the captions.
    #[serde(default)]
    remark: String,
}

/// A line of `figures.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Of its files, which end in `.svg` and `.png`.
    pub(crate) name: String,
    pub(crate) title: String,
    /// What one sees on it.
    pub(crate) caption: String,
}

impl Kind for Plot {
    fn name(&self) -> &'static str {
        "plot"
    }

    fn version(&self) -> u32 {
        27
    }

    fn names_stages(&self) -> bool {
        true
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "histories", required: false, many: true },
            RoleSpec { name: "metrics", required: false, many: true },
            RoleSpec { name: "models", required: false, many: true },
            RoleSpec { name: "memory", required: false, many: true },
        ])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        PlotParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        let (read, params) = resolve::<PlotParams>(given, &[])?;
        let twice = (1..read.figures.len()).find(|i| read.figures[..*i].contains(&read.figures[*i]));
        if let Some(i) = twice {
            let name = serde_json::to_string(&read.figures[i]).unwrap_or_default();
            let message = format!("the figure {name} is named twice");
            return Err(vec![ParamError { key: "figures".into(), message, hint: None }]);
        }
        match published::published(&read.published) {
            Ok(_) => Ok(params),
            Err(e) => Err(vec![ParamError { key: "published".into(), message: e.message, hint: e.hint }]),
        }
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let params: PlotParams = job.params()?;
        if job.inputs.is_empty() {
            return Err(StageError::new(format!("`{}` has nothing to draw", job.instance))
                .hint("give it `needs`: `histories`, `metrics`, `models`, `memory`, or some of them"));
        }
        let results = Results::read(job, Apart::Lines)?;
        let published = published::published(&params.published)?;
        let given = Given { results: &results, published: &published, remark: &params.remark };
        let mut list = Vec::new();
        for figure in if params.figures.is_empty() { &Figure::ALL[..] } else { &params.figures } {
            let drawings = figure.draw(&given);
            if drawings.is_empty() && !params.figures.is_empty() {
                let name = serde_json::to_string(figure).unwrap_or_default();
                job.reporter.warn(&format!("the inputs have nothing for the figure {name}"));
            }
            for Drawing { name, caption, chart } in drawings {
                chart.write(job.out, &name)?;
                list.push(Entry { name, title: chart.title, caption });
            }
        }
        write_json(job, LIST, &list)?;
        let mut nothing = list.is_empty();
        for (name, table) in [
            ("parameters.md", table::parameters(&results)),
            ("memory.md", table::memory(&results)),
            ("table.md", table::accuracies(&results)),
        ] {
            if let Some(table) = table {
                write(job, name, table.as_bytes())?;
                nothing = false;
            }
        }
        if nothing && params.figures.is_empty() {
            job.reporter.warn(NOTHING);
        }
        Ok(())
    }
}

/// `text` as part of a file's name.
fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).collect()
}

#[cfg(test)]
mod tests;
