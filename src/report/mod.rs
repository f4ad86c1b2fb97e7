//! The report: one HTML page with the graph, figures, claims, numbers, recipes, machines and digests,
//! which needs neither network nor scripts. Knows neither files nor how results came about.

mod graph;
mod html;
mod style;

use std::{collections::BTreeMap, fmt::Write as _};

use engine::{
    instance::{Instance, Pipeline},
    plan::Standing,
    project::LockedResult,
    record::Record,
};
use serde_json::Value;
use stages::claims::Words;

use self::html::{details, escape, image, table};
use crate::{
    commands::{counted, word},
    ui,
};

/// How a report begins.
pub(crate) const HEAD: &str = "<!doctype html>";

/// Instances that are named for a machine.
const SHOWN: usize = 3;

/// Everything on the page.
pub(crate) struct Report<'a> {
    pub(crate) pipeline: &'a Pipeline,
    /// Every instance, in order.
    pub(crate) items: Vec<Item<'a>>,
    /// Of every result with a `metrics.json`, heading and rows.
    pub(crate) metrics: Vec<Vec<String>>,
    /// The same of each table of a `plot` stage.
    pub(crate) tables: Vec<Vec<Vec<String>>>,
    pub(crate) figures: Vec<Figure>,
    /// Of each stage, the entries of its `claims.json`.
    pub(crate) claims: Vec<(String, Vec<Value>)>,
}

/// An instance and what is known of its result.
pub(crate) struct Item<'a> {
    pub(crate) instance: &'a Instance,
    pub(crate) standing: &'a Standing,
    pub(crate) record: Option<Record>,
    /// What the lock file says of it. A clone has nothing else of most.
    pub(crate) locked: Option<LockedResult>,
}

/// A figure of a `plot` stage, or an image that a command made.
pub(crate) struct Figure {
    pub(crate) instance: String,
    pub(crate) title: String,
    pub(crate) caption: String,
    /// The media type, such as `image/svg+xml`.
    pub(crate) media: &'static str,
    pub(crate) bytes: Vec<u8>,
}

impl Report<'_> {
    /// The page.
    pub(crate) fn html(&self) -> String {
        let file = self.pipeline.file.strip_prefix(&self.pipeline.root).unwrap_or(&self.pipeline.file);
        let file = file.display();
        let profile =
            self.pipeline.profile.as_ref().map_or_else(String::new, |name| format!(", profile {name}"));
        let title = escape(&format!("{file}{profile}"));
        let sections = [
            ("Figures", self.figures()),
            ("Claims", self.claims()),
            ("Numbers", self.numbers()),
            ("Graph", self.graph()),
            ("Machines and versions", self.machines()),
            ("Recipes and digests", self.recipes()),
        ];
        let sections = sections.into_iter().filter(|(_, content)| !content.is_empty());
        let sections: String = sections
            .map(|(heading, content)| format!("<section>\n<h2>{heading}</h2>\n{content}</section>\n"))
            .collect();
        format!(
            "{HEAD}\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>{}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}{sections}</body>\n</html>\n",
            style::STYLE,
            self.summary()
        )
    }

    fn summary(&self) -> String {
        // Those of a group share a process, whose time is that of the last.
        let mut groups = BTreeMap::<_, f64>::new();
        let mut seconds = 0.0;
        for Record { run, .. } in self.records() {
            if run.notes.contains_key("together") {
                let longest = groups.entry((run.started, &run.gpus)).or_default();
                *longest = longest.max(run.seconds);
            } else {
                seconds += run.seconds;
            }
        }
        seconds += groups.values().sum::<f64>();
        let said = |word| if word == "locked" { "as the lock file says" } else { word };
        let counts = counted(self.items.iter().map(|item| item.standing)).into_iter();
        let words = counts.map(|(n, word)| format!("{n} {}", said(word))).collect::<Vec<_>>().join(", ");
        // A clone has results without records.
        let time = if seconds > 0.0 {
            format!(" What is shown took {} of stages' time.", ui::seconds(seconds))
        } else {
            String::new()
        };
        format!("<p>{} instances: {words}.{time}</p>\n", self.items.len())
    }

    fn records(&self) -> impl Iterator<Item = &Record> {
        self.items.iter().filter_map(|item| item.record.as_ref())
    }

    fn figures(&self) -> String {
        let figure = |figure: &Figure| {
            format!(
                "<figure>\n{}<figcaption>{} <span class=\"quiet\">({})</span></figcaption>\n</figure>\n",
                image(figure.media, &figure.bytes, &figure.title),
                escape(&figure.caption),
                escape(&figure.instance)
            )
        };
        let Some((main, others)) = self.figures.split_first() else { return String::new() };
        let others: String = others.iter().map(figure).collect();
        let more = if others.is_empty() { others } else { details("More figures", &others) };
        figure(main) + &more
    }

    fn claims(&self) -> String {
        let claims = self.claims.iter().filter(|(_, claims)| !claims.is_empty());
        let by = |stage: &str| format!("<p class=\"quiet\">Judged by the stage {}</p>\n", escape(stage));
        claims.map(|(stage, claims)| by(stage) + &Self::judged(claims)).collect()
    }

    fn judged(claims: &[Value]) -> String {
        let quiet = |text: &str| {
            let text = escape(text);
            if text.is_empty() { text } else { format!("<div class=\"quiet\">{text}</div>") }
        };
        let mut rows = String::new();
        let [mut hold, mut fail] = [0; 2];
        for (index, claim) in claims.iter().enumerate() {
            let text = |key: &str| claim.get(key).and_then(Value::as_str).unwrap_or_default();
            let numbers = claim.get("numbers").and_then(Value::as_array).into_iter().flatten();
            let numbers: Vec<_> = numbers.filter_map(Value::as_str).map(escape).collect();
            let Words { verdict, evidence } = Words::of(claim).unwrap_or_default();
            hold += usize::from(text("verdict") == "holds");
            fail += usize::from(text("verdict") == "does-not-hold");
            let shown = if evidence.is_empty() { evidence } else { format!("Shown by {evidence}.") };
            let rule =
                if text("rule").is_empty() { String::new() } else { format!("Rule: {}. ", text("rule")) };
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{}{}</td><td>{}{}</td><td>{}{}</td></tr>",
                index + 1,
                escape(text("statement")),
                quiet(text("source")),
                escape(&verdict),
                quiet(text("note")),
                numbers.join("<br>"),
                quiet(&(rule + &shown))
            );
        }
        let (all, open) = (claims.len(), claims.len() - hold - fail);
        format!(
            "<p>Of {all}, {hold} hold as far as they were run, {fail} do not, {open} are open.</p>\n\
             <div class=\"wide\"><table class=\"claims\">\n<tr><th>#</th><th>claim</th><th>verdict</th><th>our numbers</th></tr>\n\
             {rows}</table></div>\n"
        )
    }

    /// What the `plot` stages sum up, and under it every result with a `metrics.json`.
    fn numbers(&self) -> String {
        let tables: String = self.tables.iter().map(|rows| table(rows)).collect();
        if self.metrics.len() < 2 {
            return tables;
        }
        let all = table(&self.metrics);
        if tables.is_empty() { all } else { tables + &details("Every evaluation", &all) }
    }

    fn graph(&self) -> String {
        let mut rows =
            vec![["instance", "kind", "needs", "stands", "took", "threads"].map(str::to_owned).to_vec()];
        for Item { instance, standing, record, .. } in &self.items {
            let mut needs: Vec<_> =
                instance.needs.iter().map(|need| self.pipeline.instances[need.from].stage.as_str()).collect();
            needs.dedup();
            let run = record.as_ref().map(|record| &record.run);
            rows.push(vec![
                instance.name.clone(),
                instance.kind.name().to_owned(),
                needs.join(", "),
                word(standing).to_owned(),
                run.map_or_else(String::new, |run| ui::seconds(run.seconds)),
                run.map_or_else(String::new, |run| run.threads.to_string()),
            ]);
        }
        let took = self
            .items
            .iter()
            .filter_map(|item| Some((&*item.instance.stage, item.record.as_ref()?.run.seconds)));
        graph::svg(self.pipeline, took) + &details("Every instance", &table(&rows))
    }

    /// What computed, each once, with the instances that it computed.
    fn machines(&self) -> String {
        let mut machines = BTreeMap::<Vec<(String, String)>, Vec<&str>>::new();
        for record in self.records() {
            let machine = &record.run.machine;
            let dirty = if machine.dirty == Some(true) { ", with changes" } else { "" };
            let mut facts = vec![
                ("processor".to_owned(), machine.cpu.clone().unwrap_or_default()),
                ("instructions".to_owned(), machine.instructions.clone()),
                ("system".to_owned(), machine.system.clone().unwrap_or_default()),
                ("GPUs".to_owned(), machine.devices.join(", ")),
                ("driver".to_owned(), machine.driver.clone().unwrap_or_default()),
                ("started by".to_owned(), record.run.launcher.clone().unwrap_or_default()),
                (
                    "commit".to_owned(),
                    machine.commit.as_ref().map_or_else(String::new, |c| format!("{c}{dirty}")),
                ),
            ];
            facts.extend(machine.versions.iter().map(|(name, version)| (name.clone(), version.clone())));
            facts.retain(|(_, value)| !value.is_empty());
            if facts.is_empty() {
                facts.push((
                    "machine".to_owned(),
                    "not known: git, or somebody, put these results here".to_owned(),
                ));
            }
            machines.entry(facts).or_default().push(&record.run.instance);
        }
        let one = |(facts, instances): (Vec<(String, String)>, Vec<&str>)| {
            let more = instances.len().saturating_sub(SHOWN);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            let shown: Vec<_> = instances.into_iter().take(SHOWN).collect();
            let mut rows = vec![vec!["computed".to_owned(), shown.join(", ") + &more]];
            rows.extend(facts.into_iter().map(|(name, value)| vec![name, value]));
            table(&rows)
        };
        machines.into_iter().map(one).collect()
    }

    /// The resolved parameters, inputs and outputs of every result, and what its run noted; or what the lock file says.
    fn recipes(&self) -> String {
        let one =
            |item: &Item<'_>| {
                let (recipe, outputs) = match (&item.record, &item.locked) {
                    (Some(record), _) => (record.recipe.clone(), &record.outputs),
                    (None, Some(LockedResult { recipe, outputs })) if item.standing.is_current() => {
                        let parameters = item.instance.params.recipe.to_string();
                        (format!("# by the lock file, recipe {recipe}\n{parameters}"), outputs)
                    }
                    _ => return None,
                };
                let mut rows = vec![["output", "bytes", "BLAKE3"].map(str::to_owned).to_vec()];
                rows.extend(outputs.iter().map(|output| {
                    vec![output.path.clone(), output.size.to_string(), output.digest.to_string()]
                }));
                let run = item.record.iter().map(|record| &record.run);
                let notes = run.flat_map(|run| run.settings.iter().chain(&run.notes));
                let notes: String = notes.map(|(name, value)| format!("{name} = {value}\n")).collect();
                let notes = if notes.is_empty() { notes } else { format!("<pre>{}</pre>\n", escape(&notes)) };
                let content = format!("<pre>{}</pre>\n{notes}{}", escape(&recipe), table(&rows));
                Some(details(&item.instance.name, &content))
            };
        self.items.iter().filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests;
