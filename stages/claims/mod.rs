//! Kind `claims`: what the paper and the origin say, claim by claim, with our numbers and a verdict
//! that a rule gives. Knows the claims from `claims.toml` only; no verdict is written by hand.

mod evidence;
mod rule;

use std::fmt::Write as _;

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
    plot::table::cell,
    results::{Line, Network, Results},
};

/// The file with the verdicts.
const FILE: &str = "claims.json";
/// As Markdown.
pub(crate) const TABLE: &str = "claims.md";

/// The kind `claims`.
pub struct Claims;

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
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    claim: Vec<Claim>,
}

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Verdict {
    Holds,
    DoesNotHold,
    NotRun,
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
}

impl Kind for Claims {
    fn name(&self) -> &'static str {
        "claims"
    }

    fn version(&self) -> u32 {
        2
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
        let judged: Vec<_> = claims()?.iter().map(|claim| claim.judge(&results)).collect();
        write_json(job, FILE, &judged)?;
        write(job, TABLE, table(&judged).as_bytes())
    }
}

fn claims() -> Result<Vec<Claim>, StageError> {
    let file: File = toml::from_str(include_str!("claims.toml"))
        .map_err(|e| StageError::new(format!("claims.toml: {e}")))?;
    Ok(file.claim)
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
        let verdict = if known.len() < least {
            Verdict::NotRun
        } else if self.rule.is_kept(&known) {
            Verdict::Holds
        } else {
            Verdict::DoesNotHold
        };
        let numbers = known.iter().map(|(place, found)| numbers(&networks[*place], &quantities, found));
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
        }
    }
}

/// The numbers at one network: `ResNet-32: BatchNorm only 57.1 ± 0.4 % (n = 3), everything ...`.
fn numbers(network: &str, quantities: &[&Quantity], found: &[Evidence]) -> String {
    let part = |(of, evidence): (&&Quantity, &Evidence)| {
        let (unit, digits) = of.of.unit();
        let value = &evidence.value;
        let spread = if value.n > 1 { format!(" ± {:.digits$}", value.sd) } else { String::new() };
        let at = of.network.as_ref().map_or_else(String::new, |name| Network::new(name).label() + ", ");
        let label = Line::new(&of.mode, None, Vec::new()).label();
        let what = if of.of == evidence::Measure::Top1 { "" } else { rule::measure(of.of) };
        let space = if what.is_empty() { "" } else { ", " };
        format!("{at}{label}{space}{what} {:.digits$}{spread}{unit} (n = {})", value.mean, value.n)
    };
    let parts = quantities.iter().zip(found).map(part).collect::<Vec<_>>().join("; ");
    if network.is_empty() { parts } else { format!("{}: {parts}", Network::new(network).label()) }
}

fn table(judged: &[Judged]) -> String {
    let count = |verdict| judged.iter().filter(|claim| claim.verdict == verdict).count();
    let mut text = format!(
        "{} claims: {} hold, {} do not hold, {} have not been run to the end.\n\n\
         | claim | source | our numbers | verdict |\n|---|---|---|---|\n",
        judged.len(),
        count(Verdict::Holds),
        count(Verdict::DoesNotHold),
        count(Verdict::NotRun)
    );
    for claim in judged {
        let [run, named] = claim.networks;
        let verdict = match claim.verdict {
            Verdict::Holds => "**holds**",
            Verdict::DoesNotHold => "**does not hold**",
            Verdict::NotRun => "not run",
        };
        let of = if named > 1 && run > 0 { format!(", {run} of {named} networks") } else { String::new() };
        let numbers = if claim.numbers.is_empty() { "–".into() } else { cell(&claim.numbers.join("<br>")) };
        let shown = match claim.evidence.as_slice() {
            [] => String::new(),
            [one] => format!(" (`{}`)", cell(one)),
            [first, rest @ ..] => format!(" (`{}` and {} more)", cell(first), rest.len()),
        };
        let (statement, source) = (cell(&claim.statement), cell(&claim.source));
        let _ = writeln!(text, "| {statement} | {source} | {numbers}{shown} | {verdict}{of} |");
    }
    text
}

#[cfg(test)]
mod tests;
