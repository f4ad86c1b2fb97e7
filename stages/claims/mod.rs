//! Kind `claims`: what the paper and the origin say, claim by claim, with our numbers and a verdict
//! that a rule gives. Knows the claims from `claims.toml` only; no verdict is written by hand.

mod evidence;
mod rule;
mod table;

use engine::kind::{Job, Kind, ParamError, Params, RoleSpec, Roles, StageError};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use self::{evidence::Evidence, rule::Rule};
use crate::{
    output::{write, write_json},
    params::resolve,
    results::Results,
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
    rule: Rule,
    /// The id of a [`Command`].
    settled_by: String,
    /// What else a reader must know to take the verdict as it is meant.
    note: Option<String>,
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
    /// Networks that were run, of those that the claim names.
    networks: [usize; 2],
    verdict: Verdict,
    /// Our numbers, by network.
    numbers: Vec<String>,
    /// The instances that they come from.
    evidence: Vec<String>,
    /// Of a claim that was run.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
    /// Does it speak of what a training comes to? Counts and sizes are known without one.
    #[serde(skip)]
    is_trained: bool,
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
#[derive(Deserialize)]
struct Outcome {
    verdict: Verdict,
    #[serde(default)]
    networks: [usize; 2],
    #[serde(default)]
    evidence: Vec<String>,
}

impl Words {
    /// Of a line of `claims.json`; nothing where it has another form.
    #[must_use]
    pub fn of(line: &serde_json::Value) -> Option<Self> {
        let Outcome { verdict, networks, evidence } = Outcome::deserialize(line).ok()?;
        let (decided, of) = table::verdict(verdict, networks);
        let evidence = table::evidence(&evidence, str::to_owned).unwrap_or_default();
        Some(Self { verdict: format!("{decided}{of}"), evidence })
    }
}

impl Kind for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn version(&self) -> u32 {
        15
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
        resolve::<ClaimsParams>(given)
    }

    fn run(&self, job: &mut Job<'_>) -> Result<(), StageError> {
        let results = Results::read(job)?;
        for role in &results.repeated {
            job.reporter.warn(&format!(
                "nothing of `{role}` counts: some of it has the same axes, and only the stages tell it apart"
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
        let least = self.least.unwrap_or(networks.len());
        let verdict = if !self.rule.is_kept(&known) {
            Verdict::DoesNotHold
        } else if known.is_empty() {
            Verdict::NotRun
        } else if known.len() < least {
            Verdict::Open
        } else {
            Verdict::Holds
        };
        let note = if known.is_empty() { None } else { self.note.clone() };
        let numbers =
            known.iter().map(|(place, found)| table::numbers(&networks[*place], &quantities, found));
        let mut evidence: Vec<_> =
            known.iter().flat_map(|(_, found)| found.iter().flat_map(|e| e.instances.clone())).collect();
        evidence.sort();
        evidence.dedup();
        Judged {
            id: self.id.clone(),
            statement: self.statement.clone(),
            source: self.source.clone(),
            variant: self.variant.clone(),
            rule: self.rule.words(),
            networks: [known.len(), networks.len()],
            verdict,
            numbers: numbers.collect(),
            evidence,
            note,
            is_trained: quantities.iter().any(|of| of.of.is_trained()),
            settled_by: self.settled_by.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
