//! A training's `history.csv`. Knows no column but `epoch`.

use std::collections::BTreeMap;

use engine::kind::{Input, StageError};

use super::{Line, Network, read::Axes};

/// One line of a history.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Counted from 1.
    pub(crate) epoch: u64,
    /// By column.
    pub(crate) values: BTreeMap<String, f64>,
}

/// A training's history.
#[derive(Clone, Debug)]
pub(crate) struct History {
    /// The instance.
    pub(crate) instance: String,
    pub(crate) axes: Axes,
    /// `paper` or `origin`, where its checkpoint says so.
    pub(crate) variant: String,
    pub(crate) network: Network,
    pub(crate) line: Line,
    pub(crate) rows: Vec<Row>,
}

/// Reads the text of a `history.csv`.
pub(super) fn rows(text: &str, input: &Input) -> Result<Vec<Row>, StageError> {
    let wrong = |line: usize, what: &str| {
        StageError::new(format!("history.csv of `{}`, line {line}: {what}", input.instance))
            .hint("`histories` wants instances of kind `train`")
    };
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().map(|(_, line)| line.split(',').collect()).unwrap_or_default();
    let epoch = header.iter().position(|name| *name == "epoch");
    let epoch = epoch.ok_or_else(|| wrong(1, "there is no column `epoch`"))?;
    let mut rows = Vec::new();
    for (index, line) in lines {
        let cells: Vec<&str> = line.split(',').collect();
        if cells.len() != header.len() {
            return Err(wrong(index + 1, "the number of cells is not that of the header"));
        }
        let mut values = BTreeMap::new();
        for (name, cell) in header.iter().zip(&cells) {
            let value = cell.parse::<f64>().map_err(|_| wrong(index + 1, "a cell is not a number"))?;
            values.insert((*name).to_owned(), value);
        }
        let epoch = cells[epoch].parse().map_err(|_| wrong(index + 1, "`epoch` is not a whole number"))?;
        rows.push(Row { epoch, values });
    }
    Ok(rows)
}
