//! Kind `claims`: what the paper and the origin say, claim by claim, with our numbers and a verdict
//! that a rule gives. Knows the claims from `claims.toml` only; no verdict is written by hand.

mod evidence;
mod rule;
mod table;

use std::collections::BTreeSet;

use engine::kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use self::{
    evidence::{Evidence, Quantity},
    rule::Rule,
};
use crate::{
    output::{write, write_json},
    params::resolve,
    results::{Apart, Repeated, Results},
};

/// The file with the verdicts.
const FILE: &str = "claims.json";
/// As Markdown.
pub(crate) const TABLE: &str = "claims.md";

/// The kind `claims`.
pub(crate) struct Claims;

/// Parameters of a `claims` stage: none.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ClaimsParams {}

/// A claim, as `claims.toml` has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claim {
    id: String,
    statement: String,
    source: String,
    variant: String,
    #[serde(default)]
    networks: Vec<String>,
    least: Option<usize>,
    /// With fewer it stays open.
    #[serde(default = "one")]
    seeds: usize,
    rule: Rule,
    /// Told besides, and not judged.
    #[serde(default)]
    also: Vec<Quantity>,
    /// The id of a [`Command`].
    settled_by: String,
    /// What else a reader must know to take the verdict as it is meant.
    note: Option<String>,
}

fn one() -> usize {
    1
}

/// What would settle a claim, as `claims.toml` has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Command {
    id: String,
    /// A pipeline of the project, and settings for it.
    file: String,
    sets: Vec<String>,
    /// In words.
    cost: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    command: Vec<Command>,
    claim: Vec<Claim>,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Holds,
    DoesNotHold,
    /// Run at fewer networks than would settle it.
    Open,
    NotRun,
}

impl Verdict {
    fn is_settled(self) -> bool {
        matches!(self, Self::Holds | Self::DoesNotHold)
    }
}

/// A line of `claims.json`.
#[derive(Debug, Serialize)]
struct Judged {
    id: String,
    statement: String,
    source: String,
    variant: String,
    rule: String,
    #[serde(flatten)]
    outcome: Outcome,
    /// Our numbers, by network.
    numbers: Vec<String>,
    /// Of a claim that was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// What would settle it otherwise.
    #[serde(skip)]
    settled_by: String,
}

/// A line of `claims.json` in the words of `claims.md`, for a page that shows it otherwise.
#[derive(Debug, Default)]
pub struct Words {
    /// `holds so far, 1 of 4 networks`.
    pub verdict: String,
    /// The instances that show it.
    pub evidence: String,
}

/// What of a line of `claims.json` words are made of.
#[derive(Debug, Serialize, Deserialize)]
struct Outcome {
    verdict: Verdict,
    /// Networks that were run, of those that the claim names.
    #[serde(default)]
    networks: [usize; 2],
    /// Of a claim about what a training comes to; counts and sizes are known without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    seeds: Option<Seeds>,
    /// The instances that show it.
    #[serde(default)]
    evidence: Vec<String>,
}

/// The seeds behind a verdict.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Seeds {
    /// Of the number that fewest were run for.
    run: usize,
    /// Without which nothing is decided.
    wanted: usize,
}

impl Words {
    /// Of a line of `claims.json`; nothing where it has another form.
    #[must_use]
    pub fn of(line: &serde_json::Value) -> Option<Self> {
        let outcome = Outcome::deserialize(line).ok()?;
        let (decided, of) = table::decided(&outcome);
        let evidence = table::evidence(&outcome.evidence, str::to_owned).unwrap_or_default();
        Some(Self { verdict: format!("{decided}{of}"), evidence })
    }
}

impl Kind for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn version(&self) -> u32 {
        18
    }

    fn names_stages(&self) -> bool {
        true
    }

    fn roles(&self) -> Roles {
        Roles::Named(&[
            RoleSpec { name: "metrics", required: true, many: true },
            RoleSpec { name: "histories", required: false, many: true },
            RoleSpec { name: "memory", required: false, many: true },
        ])
    }

    fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        ClaimsParams::json_schema(generator)
    }

    fn resolve(&self, given: &toml::Table) -> Result<Params, Vec<ParamError>> {
        resolve::<ClaimsParams>(given, &[]).map(|(_, params)| params)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let results = Results::read(job, Apart::Results)?;
        for Repeated { role, instances: [first, second], more } in &results.repeated {
            let more =
                if *more == 0 { String::new() } else { format!(" ({more} more of it have another's)") };
            job.reporter.warn(&format!(
                "`{first}` and `{second}` of `{role}` have the same axes{more}: none of them counts; exclude one, or \
                 give it an axis"
            ));
        }
        let File { command, claim } = file()?;
        let judged: Vec<_> = claim.iter().map(|claim| claim.judge(&results)).collect();
        write_json(job, FILE, &judged)?;
        write(job, TABLE, (table::verdicts(&judged) + &table::commands(&judged, &command)).as_bytes())
    }
}

fn file() -> Result<File, StageError> {
    toml::from_str(include_str!("claims.toml")).map_err(|e| StageError::new(format!("claims.toml: {e}")))
}

impl Claim {
    fn judge(&self, results: &Results) -> Judged {
        let quantities = self.rule.quantities();
        // A claim whose quantities name their networks has one place.
        let nowhere = [String::new()];
        let networks = if self.networks.is_empty() { &nowhere[..] } else { &self.networks };
        let mut known = Vec::new();
        for (place, network) in networks.iter().enumerate() {
            let found: Option<Vec<Evidence>> =
                quantities.iter().map(|of| of.evidence(results, network, &self.variant)).collect();
            known.extend(found.map(|found| (place, found)));
        }
        let numbers = |(_, found): &(usize, Vec<Evidence>)| {
            let apart = self.rule.apart(found).map(|apart| apart.value.n);
            found.iter().map(|evidence| evidence.value.n).chain(apart).min()
        };
        let fewest = known.iter().filter_map(numbers).min();
        let seeds = fewest.filter(|_| quantities.iter().any(|of| of.of.is_trained()));
        let seeds = seeds.map(|run| Seeds { run, wanted: self.seeds });
        let verdict = if known.is_empty() {
            Verdict::NotRun
        } else if seeds.is_some_and(|seeds| seeds.run < seeds.wanted) {
            Verdict::Open
        } else if !self.rule.is_kept(&known) {
            Verdict::DoesNotHold
        } else if known.len() < self.least.unwrap_or(networks.len()) {
            Verdict::Open
        } else {
            Verdict::Holds
        };
        let note = if known.is_empty() { None } else { self.note.clone() };
        let numbers = known.iter().map(|(place, found)| {
            let network = &networks[*place];
            let told = self.also.iter();
            let told: Vec<_> =
                told.filter_map(|of| Some((of, of.evidence(results, network, &self.variant)?))).collect();
            table::numbers(network, &self.rule, found, &told)
        });
        let numbers = numbers.collect();
        let instances = known.iter().flat_map(|(_, found)| found).flat_map(|evidence| &evidence.runs);
        let instances: BTreeSet<_> = instances.map(|run| run.instance.clone()).collect();
        Judged {
            id: self.id.clone(),
            statement: self.statement.clone(),
            source: self.source.clone(),
            variant: self.variant.clone(),
            rule: self.rule.words(),
            outcome: Outcome {
                verdict,
                networks: [known.len(), networks.len()],
                seeds,
                evidence: instances.into_iter().collect(),
            },
            numbers,
            note,
            settled_by: self.settled_by.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
