//! What a command's script reads of the variables that the runner sets: a misspelt one would be empty, and
//! `rm -r "$IN_X/"` not what was meant. Knows just enough of the shell to tell what is meant to be empty.

use super::{Diagnostics, hint::did_you_mean, parse::Span};
use crate::instance::variable;

/// The variables of a stage's inputs and axes, as they are read.
pub(super) struct Known(Vec<String>);

impl Known {
    pub(super) fn new<'a>(
        roles: impl IntoIterator<Item = &'a str>,
        axes: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        let inputs = roles
            .into_iter()
            .flat_map(|role| ["", "_LIST", "_JSON"].map(|ending| format!("$IN_{}{ending}", variable(role))));
        let axes = axes.into_iter().map(|axis| format!("$AXIS_{}", variable(axis)));
        Self(inputs.chain(axes).collect())
    }

    /// Refuses what `script` reads and the stage has not.
    pub(super) fn check(&self, stage: &str, script: &str, span: &Span, diagnostics: &mut Diagnostics) {
        for name in read(script) {
            let read = format!("${name}");
            if self.0.contains(&read) || itself(script, name) {
                continue;
            }
            let (what, family) = if name.starts_with("IN_") { ("input", "$IN_") } else { ("axis", "$AXIS_") };
            let message = format!(
                "the command of `{stage}` reads `{read}`, which is always empty: the stage has no such {what}"
            );
            let empty = format!("what may be empty is written `$${{{name}:-}}`");
            let alike = self.0.iter().map(String::as_str).filter(|known| known.starts_with(family));
            let meant = did_you_mean(&read, alike);
            let hint = meant.map_or_else(|| empty.clone(), |meant| format!("{meant} ({empty})"));
            diagnostics.add(span, message, Some(hint));
        }
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The `IN_...` and `AXIS_...` whose values a script takes as they are; `${IN_X:-}` and its like say what to do without.
fn read(script: &str) -> Vec<&str> {
    let mut out = Vec::new();
    for line in script.lines() {
        let code = line.split_once(" #").map_or(line, |(code, _)| code);
        let code = if code.trim_start().starts_with('#') { "" } else { code };
        for (at, _) in code.match_indices('$') {
            // `\$` is a dollar, and `$$` a number.
            if code[..at].ends_with(['\\', '$']) {
                continue;
            }
            let rest = &code[at + 1..];
            let (braced, rest) = rest.strip_prefix('{').map_or((false, rest), |rest| (true, rest));
            let name = &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())];
            let taken = !braced || rest[name.len()..].starts_with(['}', '%', '#']);
            let ours =
                ["IN_", "AXIS_"].iter().any(|prefix| name.len() > prefix.len() && name.starts_with(prefix));
            if taken && ours && !out.contains(&name) {
                out.push(name);
            }
        }
    }
    out
}

/// Does the script itself give the variable a value, as by `IN_X=...` or `read IN_X`? There it has no `$`.
fn itself(script: &str, name: &str) -> bool {
    script.match_indices(name).any(|(at, _)| {
        let (before, after) = (&script[..at], &script[at + name.len()..]);
        !before.ends_with(|c| is_word(c) || c == '$' || c == '{') && !after.starts_with(is_word)
    })
}
