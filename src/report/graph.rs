//! The stages as boxes and their needs as lines, as inline SVG whose colours the page gives. Knows
//! no instances: a stage with a matrix is one box that counts them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use engine::instance::Pipeline;

use super::html::escape;
use crate::ui;

const HEIGHT: usize = 46;
/// Of a character of a stage's name, and of what stands around it.
const ADVANCE: usize = 9;
const MARGIN: usize = 16;
const GAP: (usize, usize) = (60, 18);

/// A stage.
#[derive(Default)]
struct Node<'a> {
    kind: &'a str,
    instances: usize,
    /// What those took of which that is known.
    seconds: f64,
    needs: BTreeSet<&'a str>,
}

impl Node<'_> {
    /// Its kind, how many instances it has, and what they took.
    fn words(&self) -> String {
        let mut words = self.kind.to_owned();
        if self.instances > 1 {
            let _ = write!(words, ", {} instances", self.instances);
        }
        if self.seconds > 0.0 {
            let _ = write!(words, ", {}", ui::seconds(self.seconds));
        }
        words
    }
}

/// The drawing; `took`: stages, and seconds of an instance.
pub(super) fn svg<'a>(pipeline: &'a Pipeline, took: impl Iterator<Item = (&'a str, f64)>) -> String {
    let mut nodes = BTreeMap::<&str, Node<'_>>::new();
    for instance in &pipeline.instances {
        let node = nodes.entry(&instance.stage).or_default();
        node.kind = instance.kind.name();
        node.instances += 1;
        node.needs.extend(instance.needs.iter().map(|need| pipeline.instances[need.from].stage.as_str()));
    }
    for (stage, seconds) in took {
        nodes.entry(stage).or_default().seconds += seconds;
    }
    let columns = columns(pipeline);
    let letters =
        nodes.iter().map(|(name, node)| name.chars().count().max(node.words().chars().count() * 6 / 7));
    let width = letters.max().unwrap_or(0) * ADVANCE + MARGIN;
    let mut places = BTreeMap::<&str, (usize, usize)>::new();
    let mut heights = BTreeMap::<usize, usize>::new();
    for (name, column) in &columns {
        let row = heights.entry(*column).or_default();
        places.insert(name, (column * (width + GAP.0) + 2, *row * (HEIGHT + GAP.1) + 2));
        *row += 1;
    }
    let wide = (heights.len() * (width + GAP.0)).saturating_sub(GAP.0) + 4;
    // With a lane below the last row.
    let high = heights.values().max().unwrap_or(&1) * (HEIGHT + GAP.1) + 4;
    let mut text = format!(
        "<div class=\"wide\"><svg class=\"graph\" role=\"img\" width=\"{wide}\" height=\"{high}\" \
         style=\"max-width: 100%; height: auto; min-width: {}px\" viewBox=\"0 0 {wide} {high}\">\n<title>The stages and what they need</title>\n",
        wide * 3 / 4 // smaller letters could not be read
    );
    for (name, node) in &nodes {
        let (x, y) = places[name];
        for need in &node.needs {
            let (from_x, from_y) = places[need];
            let (x1, y1, y2) = (from_x + width, from_y + HEIGHT / 2, y + HEIGHT / 2);
            if columns[name] == columns[need] + 1 {
                let middle = x - GAP.0 / 2;
                let _ = writeln!(text, "<path d=\"M{x1} {y1} C{middle} {y1} {middle} {y2} {x} {y2}\"/>");
                continue;
            }
            // Past the boxes of the columns between, below those of its own row.
            let lane = from_y + HEIGHT + GAP.1 / 2;
            let (out, into) = (x1 + GAP.0, x - GAP.0);
            let (after, before) = (x1 + GAP.0 / 2, x - GAP.0 / 2);
            let _ = writeln!(
                text,
                "<path d=\"M{x1} {y1} C{after} {y1} {after} {lane} {out} {lane} L{into} {lane} \
                 C{before} {lane} {before} {y2} {x} {y2}\"/>"
            );
        }
    }
    for (name, node) in &nodes {
        let (x, y) = places[name];
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{}\" rx=\"5\"/>\n\
             <text x=\"{}\" y=\"{}\">{}</text><text class=\"quiet\" x=\"{}\" y=\"{}\">{}</text>",
            width,
            HEIGHT,
            x + 8,
            y + 19,
            escape(name),
            x + 8,
            y + 37,
            escape(&node.words())
        );
    }
    text + "</svg></div>\n"
}

/// A stage stands right of everything that it needs.
fn columns(pipeline: &Pipeline) -> BTreeMap<&str, usize> {
    let mut columns = BTreeMap::<&str, usize>::new();
    // The instances of a stage come together, after all of the stages that it needs.
    for instance in &pipeline.instances {
        let stages = instance.needs.iter().map(|need| &*pipeline.instances[need.from].stage);
        let least = stages.map(|stage| columns.get(stage).copied().unwrap_or(0) + 1).max().unwrap_or(0);
        let column = columns.entry(&instance.stage).or_default();
        *column = least.max(*column);
    }
    columns
}
