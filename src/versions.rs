//! The versions of what this program computes with, for the records. Knows nothing of what computed.

use std::collections::BTreeMap;

/// What the program was built from.
const LOCK: &str = include_str!("../Cargo.lock");

/// The packages whose version decides, or may decide, a result.
const NAMED: [&str; 10] = [
    "candle-core",
    "candle-nn",
    "image",
    "libm",
    "plotters",
    "png",
    "repro",
    "repro-network",
    "repro-stages",
    "zune-jpeg",
];

/// Package -> version.
pub(crate) fn versions() -> BTreeMap<String, String> {
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut versions = BTreeMap::new();
    let mut lines = LOCK.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = value(line, "name = ").filter(|name| NAMED.contains(&name.as_str()))
            && let Some(version) = lines.next().and_then(|line| value(line, "version = "))
        {
            versions.insert(name, version);
        }
    }
    versions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_named_package_has_its_version() {
        let versions = versions();
        assert_eq!(versions.keys().map(String::as_str).collect::<Vec<_>>(), NAMED);
        assert_eq!(versions["repro"], env!("CARGO_PKG_VERSION"));
    }
}
