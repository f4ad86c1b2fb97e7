//! Results that differ in some axes alone, as one: what `repro metrics --over seed` shows.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, json};
use stages::Statistics;

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
    let means: BTreeSet<&String> =
        keys.iter().filter(|key| groups.iter().any(|group| differs(group, key))).collect();
    let one = |group: Vec<Row>| {
        let (mut fields, mut deviations) = (Map::new(), Map::new());
        for key in &keys {
            let numbers = if means.contains(key) { numbers(&group, key) } else { None };
            if let Some(of) = numbers.and_then(Statistics::of) {
                let number = |name: String, number: f64| number.is_finite().then(|| (name, json!(number)));
                fields.extend(number(key.clone(), of.mean));
                deviations.extend(of.spread().and_then(|sd| number(format!("{key} sd"), sd)));
            } else {
                let mut values = group.iter().map(|row| row.fields.get(key));
                let first = values.next().flatten();
                fields.extend(
                    first
                        .filter(|_| values.all(|value| value == first))
                        .map(|first| (key.clone(), first.clone())),
                );
            }
        }
        // Whatever else has such names.
        fields.extend(deviations);
        fields.insert("runs".to_owned(), json!(group.len()));
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
