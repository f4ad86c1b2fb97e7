//! "Did you mean": the nearest of the names that exist. Knows nothing of pipelines.

/// A hint that names the nearest candidate, or lists them all when none is near.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let allowed = (word.chars().count() / 3).max(1);
    let (lower, length) = (word.to_lowercase(), word.chars().count());
    let begins = |c: &str| word.len() > 2 && c.starts_with(word);
    let near = candidates
        .iter()
        .filter(|c| c.chars().count().abs_diff(length) <= allowed || begins(c)) // there may be thousands
        .map(|c| (distance(&lower, &c.to_lowercase()), *c))
        .filter(|(d, c)| *d <= allowed || begins(c))
        .min();
    match near {
        Some((_, candidate)) => Some(format!("did you mean `{candidate}`?")),
        None => choices(&candidates),
    }
}

/// A hint that lists what there is.
pub(crate) fn choices(candidates: &[&str]) -> Option<String> {
    match candidates {
        [] => None,
        few if few.len() <= 20 => Some(format!("there is {}", list(few))),
        many => Some(format!("there is {} and {} more", list(&many[..20]), many.len() - 20)),
    }
}

fn list(names: &[&str]) -> String {
    names.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
}

/// Edits between two words; a swap of neighbours is one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = change.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}
