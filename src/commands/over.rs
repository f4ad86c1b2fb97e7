//! Results that differ in some axes alone, as one: what `repro metrics --over seed` shows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};

use super::metrics::Row;

/// One row for all rows of a name, in the order of the first of each, with their number as `runs`. Numbers in which those
/// of a name differ become means, beside sample standard deviations (`sd`); anything else stays where it is the same in
/// all.
pub(super) fn averaged(rows: Vec<Row>) -> Vec<Row> {
    let mut groups: Vec<Vec<Row>> = Vec::new();
    let mut places = BTreeMap::new();
    for row in rows {
        let place = *places.entry(row.name.clone()).or_insert(groups.len());
        if place == groups.len() {
            groups.push(Vec::new());
        }
        groups[place].push(row);
    }
    // What differs somewhere is a mean in all rows.
    let differs = |group: &[Row], key: &str| {
        numbers(group, key).is_some_and(|numbers| numbers.windows(2).any(|two| two[0] != two[1]))
    };
    let keys: BTreeSet<String> = groups.iter().flatten().flat_map(|row| row.fields.keys().cloned()).collect();
    let (means, others): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|key| groups.iter().any(|group| differs(group, key)));
    let one = |group: Vec<Row>| {
        let mut fields = Map::from_iter([("runs".to_owned(), json!(group.len()))]);
        for key in &means {
            let Some(numbers) = numbers(&group, key) else { continue };
            let (mean, sd) = mean_and_sd(&numbers);
            fields.insert(key.clone(), json!(mean));
            fields.extend(sd.map(|sd| (format!("{key} sd"), json!(sd))));
        }
        for key in &others {
            let value = |row: &Row| row.fields.get(key).cloned();
            let first = group.first().and_then(value);
            if let Some(first) =
                first.filter(|first| group.iter().all(|row| row.fields.get(key) == Some(first)))
            {
                fields.insert(key.clone(), first);
            }
        }
        let fresh = group.iter().all(|row| row.fresh);
        group.into_iter().next().map(|first| Row { fresh, fields, ..first })
    };
    groups.into_iter().filter_map(one).collect()
}

/// The numbers of all rows by that name; nothing where some have none, as after a training that diverged: a mean of the
/// others would pass for one of all.
fn numbers(rows: &[Row], key: &str) -> Option<Vec<f64>> {
    rows.iter().map(|row| row.fields.get(key)?.as_f64()).collect()
}

/// The second needs two numbers.
fn mean_and_sd(numbers: &[f64]) -> (f64, Option<f64>) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (numbers.len() > 1).then(|| (squares / (count - 1.0)).sqrt()))
}
