//! BLAKE3 digests of files and folders, and the stamps by which an unchanged file is known. Knows
//! nothing of stages.

use std::{
    fmt, fs,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Visitor};

use crate::place::plain;

/// A BLAKE3 digest; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of bytes in memory.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(blake3::hash(bytes.as_ref()).into())
    }

    /// Of a file's content; always reads it.
    ///
    /// # Errors
    /// When it cannot be read, or is no plain file.
    pub(crate) fn of_file(path: &Path) -> io::Result<Self> {
        plain(path)?;
        Self::of_open(&mut fs::File::open(path)?)
    }

    /// Of what an open file has from here on.
    pub(crate) fn of_open(file: &mut fs::File) -> io::Result<Self> {
        let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        // One byte more than there should be, so that the end is seen with the content.
        let mut block = vec![0; size.saturating_add(1).min(4 << 20)];
        let mut hasher = blake3::Hasher::new();
        loop {
            let mut filled = 0;
            while filled < block.len() {
                match file.read(&mut block[filled..]) {
                    Ok(0) => break,
                    Ok(read) => filled += read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            // Handing a small block to other threads costs more than hashing it.
            if filled < 1 << 20 {
                hasher.update(&block[..filled]);
            } else {
                hasher.update_rayon(&block[..filled]);
            }
            if filled < block.len() {
                return Ok(Self(hasher.finalize().into()));
            }
        }
    }

    /// Of a folder: what lies in it, sorted by path. Lengths are written so that no file name can
    /// forge an entry.
    ///
    /// BLAKE3 of `repro tree 1`, a line feed, and for each entry the length of its path (64 bits,
    /// little endian), its path with `/`, one byte (1 for a file that may be executed, otherwise 0)
    /// and the digest of its content. An empty folder is an entry without content whose path ends
    /// with `/`; other folders are named by what is in them.
    pub fn of_tree<'a>(entries: impl IntoIterator<Item = (&'a str, bool, Digest)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"repro tree 1\n");
        for (path, executable, digest) in entries {
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(&[u8::from(executable)]);
            hasher.update(&digest.0);
        }
        Self(hasher.finalize().into())
    }

    /// Of the names and stamps in a folder, sorted by name; only this program's memory knows it.
    pub(crate) fn of_listing<'a>(entries: impl IntoIterator<Item = (&'a str, Stamp)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for (name, Stamp { size, mtime_ns, ctime_ns, inode }) in entries {
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
            for number in [size, mtime_ns.cast_unsigned(), ctime_ns.cast_unsigned(), inode] {
                hasher.update(&number.to_le_bytes());
            }
        }
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = blake3::HexError;

    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        blake3::Hash::from_hex(hex).map(|hash| Self(hash.into()))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&blake3::Hash::from(self.0).to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Hex)
    }
}

/// Reads a digest without a copy of its text: an index has tens of thousands.
struct Hex;

impl Visitor<'_> for Hex {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("64 hexadecimal digits")
    }

    fn visit_str<E: serde::de::Error>(self, hex: &str) -> Result<Digest, E> {
        hex.parse().map_err(E::custom)
    }
}

/// What the file system says of a file or folder: while it is the same, so is the content. The time
/// of the last change of any kind is part of it, because a modification time can be set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, i64, i64, u64)", into = "(u64, i64, i64, u64)")]
pub(crate) struct Stamp {
    /// Bytes.
    pub(crate) size: u64,
    /// Modification time in nanoseconds since 1970.
    pub(crate) mtime_ns: i64,
    /// Time of the last change of content, name or permission, in nanoseconds since 1970.
    pub(crate) ctime_ns: i64,
    /// Inode number.
    pub(crate) inode: u64,
}

impl From<(u64, i64, i64, u64)> for Stamp {
    fn from((size, mtime_ns, ctime_ns, inode): (u64, i64, i64, u64)) -> Self {
        Self { size, mtime_ns, ctime_ns, inode }
    }
}

impl From<Stamp> for (u64, i64, i64, u64) {
    fn from(Stamp { size, mtime_ns, ctime_ns, inode }: Stamp) -> Self {
        (size, mtime_ns, ctime_ns, inode)
    }
}

impl Stamp {
    /// That of no file.
    pub(crate) const NONE: Self = Self { size: 0, mtime_ns: 0, ctime_ns: 0, inode: 0 };

    /// From what the file system said.
    pub(crate) fn of(meta: &fs::Metadata) -> Self {
        Self {
            size: meta.len(),
            mtime_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
            ctime_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
            inode: meta.ino(),
        }
    }

    /// Of what lies at `path` in an open folder; a link counts as itself.
    pub(crate) fn at(folder: impl AsFd, path: &str) -> io::Result<Self> {
        let stat = rustix::fs::statat(folder, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
        // Nanoseconds have a sign on some systems.
        Ok(Self {
            size: stat.st_size.cast_unsigned(),
            mtime_ns: nanoseconds(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: nanoseconds(stat.st_ctime, stat.st_ctime_nsec as i64),
            inode: stat.st_ino,
        })
    }

    /// Could a later change within the clock's grain go unseen? To be asked before the file is read.
    pub(crate) fn too_young(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        self.too_young_at(now.as_nanos() as i128)
    }

    fn too_young_at(&self, now: i128) -> bool {
        // The kernel's clock ticks every ten milliseconds at least; some file systems keep whole seconds, or two.
        let whole = [self.mtime_ns, self.ctime_ns].iter().all(|time| time % 1_000_000_000 == 0);
        let grain = if whole { 2_050_000_000 } else { 50_000_000 };
        let recent = |time: i64| now - i128::from(time) < grain;
        // Anybody may set the one, also to years from now; the other is the kernel's.
        recent(self.ctime_ns) || recent(self.mtime_ns) && i128::from(self.mtime_ns) <= now
    }
}

fn nanoseconds(seconds: i64, rest: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

/// May the file be executed by its owner?
pub(crate) fn executable(meta: &fs::Metadata) -> bool {
    meta.mode() & 0o100 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_a_tree_is_pinned_and_no_path_forges_another() {
        let [one, two] = ["one", "two"].map(Digest::of);
        let tree =
            |entries: &[(&'static str, bool, Digest)]| Digest::of_tree(entries.iter().copied()).to_string();
        let pinned = tree(&[("a", false, one), ("b/c", true, two)]);
        assert_eq!(pinned, "37dde79cd398d92d8797ff9ccbdde34a4be8501981b268bf352e782b0d79aac5");
        assert_ne!(tree(&[("a", false, one)]), tree(&[("a", true, one)]));
        assert_ne!(
            tree(&[("a", false, one), ("b", false, two)]),
            tree(&[("a", false, two), ("b", false, one)])
        );
    }

    #[test]
    fn a_stamp_of_whole_seconds_is_young_for_longer() {
        let changed = |at: i64| Stamp { size: 1, mtime_ns: 7, ctime_ns: at, inode: 1 };
        let young = |stamp: Stamp| stamp.too_young_at(100_900_000_000);
        assert!(young(changed(100_860_000_000)) && !young(changed(100_840_000_000)));
        let whole = |seconds: i64| {
            let at = seconds * 1_000_000_000;
            Stamp { mtime_ns: at, ..changed(at) }
        };
        assert!(young(whole(100)) && young(whole(99)) && !young(whole(98)));
        // Who says that it is from tomorrow does not have it read at every run.
        let tomorrow = Stamp { mtime_ns: 86_400_000_000_007, ..changed(100_000_000_007) };
        assert!(!young(tomorrow) && young(Stamp { mtime_ns: 100_899_000_007, ..changed(99_000_000_007) }));
    }
}
