//! Everything that is printed. Knows nothing of how it came about.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::Path,
};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use engine::pipeline::{Diagnostic, LoadError};

use crate::{
    args::Form,
    error::{Failure, Message},
};

/// Results for people go to stdout: some of it others may have written, such as a name.
pub(crate) fn print(text: &str) {
    raw(&visible(text, KEPT));
}

/// What of control characters people need.
const KEPT: &str = "\n\t";

/// Results as they are, for programs and where all of it is harmless. A reader that has gone away (`| head`) is no error;
/// anything else ends the program, or what was written would be taken for the whole.
pub(crate) fn raw(text: &str) {
    if let Err(error) = write(text) {
        note(&format!("error: cannot write what was asked for: {error}"));
        std::process::exit(2);
    }
}

/// The same for who goes on without; a reader that went away is no error.
pub(crate) fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// A line of the results.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// A result for programs.
pub(crate) fn json(value: &serde_json::Value) {
    raw(&format!("{value:#}\n"));
}

/// News on the way to a result go to stderr.
pub(crate) fn note(text: &str) {
    tell(&visible(text, KEPT));
}

fn tell(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Why the command failed, and a way out.
pub(crate) fn failure(failure: &Failure) {
    match &failure.message {
        Message::Text(text) => note(&format!("error: {text}")),
        Message::Load(error) => tell(&load_error(error, &renderer())), // with colours
    }
    if let Some(hint) = &failure.hint {
        note(&format!("help: {hint}"));
    }
}

/// A path as seen from here, where it lies below.
pub(crate) fn path(path: &Path) -> String {
    let here = std::env::current_dir().ok();
    here.and_then(|here| path.strip_prefix(here).ok()).unwrap_or(path).display().to_string()
}

/// A time span as people say it: `0.04 s`, `41.3 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn seconds(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match seconds {
        ..0.995 => format!("{seconds:.2} s"),
        ..59.95 => format!("{seconds:.1} s"),
        ..3599.5 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A moment, given in seconds since 1970, to the minute: `2026-11-29 08:50`, in UTC. The date is that of the
/// proleptic Gregorian calendar, by `civil_from_days` of <https://howardhinnant.github.io/date_algorithms.html>.
pub(crate) fn when(seconds: u64) -> String {
    let minute = seconds / 60 % (24 * 60);
    // Years begin in March, so that the leap day is their last.
    let days = seconds / (24 * 60 * 60) + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year}-{month:02}-{day:02} {:02}:{:02}", minute / 60, minute % 60)
}

/// A text as it is, anything else or what would break the line as JSON.
pub(crate) fn cell(value: &serde_json::Value) -> String {
    let plain = value.as_str().filter(|text| !text.contains(char::is_control));
    plain.map_or_else(|| value.to_string(), str::to_owned)
}

/// A text as it is, anything else as JSON: for a form that can hold any text.
pub(crate) fn whole(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Lines of cells, the heading first, as columns: numbers stand to the right, texts to the left.
pub(crate) fn table(table: &[Vec<String>]) -> String {
    let mut text = String::new();
    let columns = table.first().map_or(0, Vec::len);
    let cells = |column: usize| table.iter().map(move |line| line[column].as_str());
    let width = |column| cells(column).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let number = |cell: &str| cell.is_empty() || cell.parse::<f64>().is_ok();
    let shapes: Vec<_> =
        (0..columns).map(|column| (width(column), cells(column).skip(1).all(number))).collect();
    for line in table {
        let cells = line.iter().zip(&shapes).map(|(cell, &(width, right))| {
            if right { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Lines of cells, the heading first, as columns, as a Markdown table or as CSV.
pub(crate) fn formed(lines: &[Vec<String>], form: Form) -> String {
    let in_lines =
        || lines.iter().map(|line| line.iter().map(|cell| visible(cell, "")).collect()).collect::<Vec<_>>();
    match form {
        Form { md: true, .. } => as_markdown(&in_lines()),
        Form { csv: true, .. } => as_csv(lines),
        _ => table(&in_lines()),
    }
}

/// A text that somebody else wrote, without what would do something to a terminal; such characters `but` those.
pub(crate) fn visible(text: &str, but: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !but.contains(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn as_markdown(table: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, line) in table.iter().enumerate() {
        let cells: Vec<_> = line.iter().map(|cell| cell.replace('|', "\\|")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if index == 0 {
            text.push_str(&format!("|{}\n", " --- |".repeat(line.len())));
        }
    }
    text
}

/// By RFC 4180, but for the ends of lines.
fn as_csv(table: &[Vec<String>]) -> String {
    let quoted = |cell: &String| {
        let plain = !cell.contains(['"', ',', '\n', '\r']);
        if plain { cell.clone() } else { format!("\"{}\"", cell.replace('"', "\"\"")) }
    };
    table.iter().map(|line| line.iter().map(quoted).collect::<Vec<_>>().join(",") + "\n").collect()
}

fn renderer() -> Renderer {
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if coloured { Renderer::styled() } else { Renderer::plain() }
}

/// The mistakes of a pipeline file, each with its place, its line and a caret; of many the first.
fn load_error(error: &LoadError, renderer: &Renderer) -> String {
    const MOST: usize = 20;
    let file = visible(&error.file.display().to_string(), "");
    // The renderer shows others of a file's control characters by itself. Spans count bytes: these are two, too.
    let source = error.source.replace(|c| matches!(c, '\u{80}'..='\u{9f}'), "·");
    let told = error.diagnostics.iter().take(MOST).map(|d| Diagnostic {
        message: visible(&d.message, KEPT),
        hint: d.hint.as_ref().map(|hint| visible(hint, KEPT)),
        span: d.span.clone(),
    });
    let mut rendered: Vec<_> = told.map(|d| renderer.render(&[group(&d, &file, &source)])).collect();
    let more = error.diagnostics.len().saturating_sub(MOST);
    if more > 0 {
        rendered.push(format!("and at least {more} more"));
    }
    rendered.join("\n\n")
}

fn group<'a>(diagnostic: &'a Diagnostic, file: &'a str, source: &'a str) -> Group<'a> {
    let title = Level::ERROR.primary_title(diagnostic.message.as_str());
    let mut group = match &diagnostic.span {
        Some(span) => {
            // A span must lie on characters of this very text; anything else would be a panic.
            let fits = source.get(span.clone()).is_some();
            let span = if fits { span.clone() } else { 0..0 };
            title.element(Snippet::source(source).path(file).annotation(AnnotationKind::Primary.span(span)))
        }
        None => title.element(annotate_snippets::Origin::path(file)),
    };
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    group
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_rounded_before_their_unit_is_chosen() {
        let told = [0.994, 0.996, 59.94, 59.96, 3599.4, 3599.6].map(seconds);
        assert_eq!(told, ["0.99 s", "1.0 s", "59.9 s", "1 min 00 s", "59 min 59 s", "1 h 00 min"]);
    }

    #[test]
    fn nobody_else_moves_the_cursor_or_breaks_a_line() {
        assert_eq!(visible("a\u{1b}[2J\tb\n\u{9b}c ä", "\n\t"), "a\\u{1b}[2J\tb\n\\u{9b}c ä");
        let table = [vec!["a\nb".to_owned()], vec!["1".to_owned()]];
        assert_eq!(formed(&table, Form { md: true, csv: false, json: false }), "| a\\nb |\n| --- |\n| 1 |\n");
    }

    #[test]
    fn moments_are_dates_of_the_calendar() {
        let days = |days: u64| when(days * 24 * 60 * 60);
        assert_eq!([when(0), when(59)], ["1970-01-01 00:00"; 2].map(str::to_owned));
        assert_eq!(when(1_795_929_638), "2026-11-29 05:20");
        assert_eq!([days(58), days(59)], ["1970-02-28 00:00", "1970-03-01 00:00"].map(str::to_owned));
        assert_eq!([days(11_016), days(11_017)], ["2000-02-29 00:00", "2000-03-01 00:00"].map(str::to_owned));
        assert_eq!(when(4_107_542_399), "2100-02-28 23:59");
        assert_eq!(when(4_107_542_400), "2100-03-01 00:00");
    }
}
