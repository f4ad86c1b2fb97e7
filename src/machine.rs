//! What this machine says about itself. Everything that it does not say is `None`: the files under
//! `/proc` and `/sys` are Linux's. Knows no command.

use std::fs;

/// The processor's name.
pub(crate) fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    field(&text, "model name").or_else(|| field(&text, "Hardware")).map(str::to_owned)
}

/// Threads that this process may run at once.
pub(crate) fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Bytes of the largest cache.
pub(crate) fn cache_bytes() -> Option<u64> {
    let caches = fs::read_dir("/sys/devices/system/cpu/cpu0/cache").ok()?;
    let sizes = caches.filter_map(|cache| {
        let text = fs::read_to_string(cache.ok()?.path().join("size")).ok()?;
        text.trim().strip_suffix('K')?.parse::<u64>().ok().map(|kib| kib * 1024)
    });
    sizes.max()
}

/// Bytes of memory: all of it, and what programs can still get.
pub(crate) fn memory() -> Option<[u64; 2]> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    Some([kib(&text, "MemTotal")?, kib(&text, "MemAvailable")?])
}

/// How many threads wanted to run, on average over the last minute.
pub(crate) fn load() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory that this process holds: now, and at its peak.
pub(crate) fn resident() -> Option<[u64; 2]> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    Some([kib(&text, "VmRSS")?, kib(&text, "VmHWM")?])
}

/// The version of NVIDIA's kernel driver.
pub(crate) fn nvidia_driver() -> Option<String> {
    let version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
    let text = fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    text.split_whitespace().find(version).map(str::to_owned)
}

fn kib(text: &str, name: &str) -> Option<u64> {
    field(text, name)?.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}

/// What stands behind `name` and a colon.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.split_once(':').filter(|(key, _)| key.trim() == name);
    text.lines().find_map(value).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "VmHWMx: 1 kB\nVmHWM:\t   20 kB\nmodel name\t: A: B\n";
        assert_eq!(super::kib(text, "VmHWM"), Some(20 * 1024));
        assert_eq!(super::field(text, "model name"), Some("A: B"));
        assert_eq!(super::kib(text, "VmRSS"), None);
    }
}
