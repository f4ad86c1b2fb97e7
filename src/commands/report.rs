//! `repro report`: all there is to say about the results, in one HTML file. A command and no stage,
//! because times and machines belong to the records: a result must not differ from run to run.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::Path,
    process::ExitCode,
};

use engine::store::Output;
use serde_json::Value;

use super::{export::save, metrics, read};
use crate::{
    args::Global,
    error::Failure,
    report::{Figure, HEAD, Item, Report},
};

pub(super) fn report(global: &Global, output: Option<&Path>) -> Result<ExitCode, Failure> {
    const DEFAULT: &str = "report.html";
    // A clone may bring one that leads anywhere.
    if output.is_none() && Path::new(DEFAULT).is_symlink() {
        let hint = format!("delete it; or write through it by `-o {DEFAULT}`");
        return Err(Failure::user(format!("`{DEFAULT}` is a link")).hint(hint));
    }
    let output = output.unwrap_or(Path::new(DEFAULT));
    if holds_something_else(output) {
        let message = format!("`{}` is there already, and is no report", output.display());
        return Err(Failure::user(message).hint("name another file, or delete it first"));
    }
    let (pipeline, project) = super::project(global)?;
    let standings = super::standings(&project, pipeline)?;
    // As where they stand: without a lock file that can be read there is less to say.
    let records = project.records(pipeline, true).or_else(|_| project.records(pipeline, false))?;
    let locked = project.locked(pipeline).unwrap_or_else(|_| vec![None; pipeline.instances.len()]);
    let (mut figures, mut others) = (Vec::new(), Vec::new());
    let (mut tables, mut claims) = (Vec::new(), Vec::new());
    let mut room = 64 << 20; // a browser opens that
    for (id, instance) in pipeline.instances.iter().enumerate() {
        let folder = project.result(pipeline, id);
        let current = standings[id].is_current();
        let stale = if current { "" } else { ", not fresh" };
        let name = format!("{}{stale}", instance.name);
        match instance.kind.name() {
            "plot" => {
                figures.extend(figures_of(&folder, &name));
                let table = read(&folder, "table.md");
                tables.extend(table.map(|text| rows(&String::from_utf8_lossy(&text))));
            }
            "claims" => claims.push((name, list(&folder, "claims.json"))),
            "command" => {
                // A clone has results without records.
                let locked = locked[id].as_ref().filter(|_| current).map(|locked| &locked.outputs);
                let outputs = records[id].as_ref().map(|record| &record.outputs).or(locked);
                others.extend(images_in(&folder, &name, outputs.into_iter().flatten(), &mut room));
            }
            _ => {}
        }
    }
    figures.append(&mut others);
    let metrics = metrics::table(&metrics::rows(pipeline, &project, &standings, &[], &[])?);
    let items = pipeline.instances.iter().zip(&standings).zip(records).zip(locked);
    let items =
        items.map(|(((instance, standing), record), locked)| Item { instance, standing, record, locked });
    let report = Report { pipeline, items: items.collect(), metrics, tables, figures, claims };
    save(output, report.html().as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Is there a file with something in it that is not a page? A device or a pipe is written into.
fn holds_something_else(path: &Path) -> bool {
    let start = || {
        let mut start = Vec::new();
        File::open(path)?.take(HEAD.len() as u64).read_to_end(&mut start)?;
        io::Result::Ok(start)
    };
    let is_file = fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() > 0);
    is_file && start().map_or(true, |start| start != HEAD.as_bytes())
}

/// The figures of a result, as far as they can be read.
fn figures_of(folder: &Path, instance: &str) -> Vec<Figure> {
    let entries = list(folder, "figures.json").into_iter();
    let figures = entries.filter_map(|entry| {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).map(str::to_owned);
        let name = text("name")?;
        // Only what lies beside the list.
        let name = Path::new(&name).file_name().filter(|file| *file == name.as_str())?;
        let svg = read(folder, &format!("{}.svg", name.to_str()?))?;
        let (title, caption) = (text("title")?, text("caption")?);
        Some(Figure { instance: instance.to_owned(), title, caption, media: "image/svg+xml", bytes: svg })
    });
    figures.collect()
}

/// The rows of a table in Markdown.
fn rows(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    // As `plot` writes what would mean something else there.
    let plain = |cell: &str| cell.replace("\\|", "|").replace("&lt;", "<").replace("&amp;", "&");
    let cells = |line: &str| line.split(" | ").map(plain).collect();
    lines.map(cells).collect()
}

/// How browsers call the images that they show, by the ending of the file's name.
const MEDIA: [(&str, &str); 6] = [
    ("gif", "image/gif"),
    ("jpeg", "image/jpeg"),
    ("jpg", "image/jpeg"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("webp", "image/webp"),
];

/// The images among the outputs of a result, those that a page has room for, of which so many bytes are left.
fn images_in<'a>(
    folder: &Path,
    instance: &str,
    outputs: impl Iterator<Item = &'a Output>,
    room: &mut u64,
) -> Vec<Figure> {
    const LARGEST: u64 = 2 << 20;
    let image = |output: &Output| {
        let ending = Path::new(&output.path).extension()?.to_str()?.to_ascii_lowercase();
        let (_, media) = MEDIA.into_iter().find(|(known, _)| *known == ending)?;
        *room = room.checked_sub(output.size).filter(|_| output.size <= LARGEST)?;
        let bytes = read(folder, &output.path)?;
        let [title, caption] = [(); 2].map(|()| output.path.clone());
        Some(Figure { instance: instance.to_owned(), title, caption, media, bytes })
    };
    outputs.filter_map(image).collect()
}

/// The entries of a JSON list; none where there is no such file.
fn list(folder: &Path, name: &str) -> Vec<Value> {
    read(folder, name).and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_what_they_were_before_they_stood_in_a_table() {
        let table = "| a | b |\n|---|---|\n| x\\|y &lt;z> | &amp;lt; |\n";
        assert_eq!(rows(table), [["a", "b"], ["x|y <z>", "&lt;"]]);
    }
}
