//! Everything that is printed. Knows nothing of how it came about.

use std::io::{self, IsTerminal as _, Write as _};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use engine::pipeline::{Diagnostic, LoadError};

use crate::error::{Failure, Message};

/// Results go to stdout. A reader that has gone away (`| head`) is no error.
pub(crate) fn print(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// A line of the results.
pub(crate) fn line(text: &str) {
    print(&format!("{text}\n"));
}

/// A result for programs.
pub(crate) fn json(value: &serde_json::Value) {
    line(&format!("{value:#}"));
}

/// News on the way to a result go to stderr.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Why the command failed, and a way out.
pub(crate) fn failure(failure: &Failure) {
    match &failure.message {
        Message::Text(text) => note(&format!("error: {text}")),
        Message::Load(error) => note(&load_error(error, &renderer())),
    }
    if let Some(hint) = &failure.hint {
        note(&format!("help: {hint}"));
    }
}

fn renderer() -> Renderer {
    let coloured = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    if coloured { Renderer::styled() } else { Renderer::plain() }
}

/// Every mistake of a pipeline file, each with its place, its line and a caret.
fn load_error(error: &LoadError, renderer: &Renderer) -> String {
    let file = error.file.display().to_string();
    let rendered: Vec<String> =
        error.diagnostics.iter().map(|d| renderer.render(&[group(d, &file, &error.source)])).collect();
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
