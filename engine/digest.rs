//! BLAKE3 digests of files and folders, and the memory that spares reading unchanged files again.
//! Knows nothing of stages.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A BLAKE3 digest; prints as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(blake3::Hash);

impl Digest {
    /// Of bytes in memory.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self(blake3::hash(bytes.as_ref()))
    }

    /// Of a file's content; always reads it.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        if fs::metadata(path)?.len() < 1 << 20 {
            return Ok(Self::of(fs::read(path)?));
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path)?;
        Ok(Self(hasher.finalize()))
    }

    /// Of a folder: its files' relative paths and digests, which must be sorted by path. Lengths
    /// are written so that no file name can forge an entry.
    pub fn of_tree<'a>(files: impl IntoIterator<Item = (&'a str, Digest)>) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"repro tree 1\n");
        for (path, digest) in files {
            hasher.update(&(path.len() as u64).to_le_bytes());
            hasher.update(path.as_bytes());
            hasher.update(digest.0.as_bytes());
        }
        Self(hasher.finalize())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
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
        blake3::Hash::from_hex(hex).map(Self)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let hex = std::borrow::Cow::<str>::deserialize(deserializer)?;
        hex.parse().map_err(serde::de::Error::custom)
    }
}

/// What the file system says of a file: while it is the same, so is the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Modification time in nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Inode number.
    pub inode: u64,
}

impl Stamp {
    /// The stamp of a file; an error for anything but a plain file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = fs::symlink_metadata(path)?;
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a plain file"));
        }
        Ok(Self::of_metadata(&meta))
    }

    fn of_metadata(meta: &fs::Metadata) -> Self {
        let mtime_ns = meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec());
        Self { size: meta.len(), mtime_ns, inode: meta.ino() }
    }

    /// Could a later change within the clock's grain go unseen?
    fn too_young(&self) -> bool {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        now.as_nanos() as i128 - i128::from(self.mtime_ns) < 50_000_000
    }
}

/// Digests of files already read, by path.
#[derive(Debug, Default)]
pub(crate) struct Memo {
    known: BTreeMap<PathBuf, (Stamp, Digest)>,
    /// Learned since the memory was loaded.
    pub(crate) learned: Vec<(PathBuf, Stamp, Digest)>,
}

impl Memo {
    pub(crate) fn remember(&mut self, path: PathBuf, stamp: Stamp, digest: Digest) {
        self.known.insert(path, (stamp, digest));
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = (&PathBuf, &(Stamp, Digest))> {
        self.known.iter()
    }

    /// The digest of the file or folder at `root`/`path`.
    pub(crate) fn digest(&mut self, root: &Path, path: &Path) -> io::Result<Digest> {
        let full = root.join(path);
        if !fs::metadata(&full)?.is_dir() {
            return self.file(path, &full);
        }
        let mut files = Vec::new();
        for entry in walkdir::WalkDir::new(&full).follow_links(true).sort_by_file_name() {
            let entry = entry?;
            if entry.file_type().is_file() {
                let below = entry.path().strip_prefix(&full).map_err(io::Error::other)?;
                let digest = self.file(&path.join(below), entry.path())?;
                files.push((below.to_string_lossy().into_owned(), digest));
            }
        }
        files.sort();
        Ok(Digest::of_tree(files.iter().map(|(path, digest)| (path.as_str(), *digest))))
    }

    fn file(&mut self, path: &Path, full: &Path) -> io::Result<Digest> {
        let stamp = Stamp::of_metadata(&fs::metadata(full)?);
        if let Some((then, digest)) = self.known.get(path)
            && *then == stamp
        {
            return Ok(*digest);
        }
        let digest = Digest::of_file(full)?;
        if !stamp.too_young() {
            self.remember(path.to_owned(), stamp, digest);
            self.learned.push((path.to_owned(), stamp, digest));
        }
        Ok(digest)
    }
}

impl PartialOrd for Digest {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Digest {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_bytes().cmp(other.0.as_bytes())
    }
}
