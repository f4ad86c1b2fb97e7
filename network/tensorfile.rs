//! Tensors as the bytes of a safetensors file, the same bytes every time: metadata and tensors are
//! sorted (the public crate writes metadata in the order of a hash table). Knows no meaning.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensors};
use serde::Serialize;

use crate::{
    Error, Result,
    tensor::{Tensor, Tensors},
};

/// The file's free text.
pub(crate) type Metadata = BTreeMap<String, String>;

#[derive(Serialize)]
struct Info<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

#[derive(Serialize)]
#[serde(untagged)]
enum Entry<'a> {
    Metadata(&'a Metadata),
    Info(Info<'a>),
}

/// The file that holds `metadata`, `scalars` (as 64-bit integers without dimensions) and `tensors`.
pub(crate) fn write(
    metadata: &Metadata,
    scalars: &BTreeMap<String, i64>,
    tensors: &Tensors,
) -> Result<Vec<u8>> {
    let (mut bytes, data) = head(metadata, scalars, tensors)?;
    bytes.reserve_exact(data);
    put_data(scalars, tensors, |part| bytes.extend_from_slice(part));
    Ok(bytes)
}

/// The BLAKE3 of that file, which is not made.
pub(crate) fn hash(metadata: &Metadata, tensors: &Tensors) -> Result<blake3::Hash> {
    let scalars = BTreeMap::new();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&head(metadata, &scalars, tensors)?.0);
    put_data(&scalars, tensors, |part| {
        hasher.update(part);
    });
    Ok(hasher.finalize())
}

/// How it begins, and how many bytes follow.
fn head(metadata: &Metadata, scalars: &BTreeMap<String, i64>, tensors: &Tensors) -> Result<(Vec<u8>, usize)> {
    let mut header = BTreeMap::from([("__metadata__", Entry::Metadata(metadata))]);
    let mut end = 0;
    let mut place = |name, dtype, shape, bytes| {
        let data_offsets = [end, end + bytes];
        end += bytes;
        header.insert(name, Entry::Info(Info { dtype, shape, data_offsets }));
    };
    for name in scalars.keys() {
        place(name.as_str(), Dtype::I64, [].as_slice(), 8);
    }
    for (name, tensor) in tensors {
        place(name, Dtype::F32, &tensor.shape, 4 * tensor.data.len());
    }
    let mut json = serde_json::to_vec(&header).map_err(|e| Error::Invalid(format!("tensor file: {e}")))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    Ok(([&(json.len() as u64).to_le_bytes(), &json[..]].concat(), end))
}

/// What follows, in parts.
fn put_data(scalars: &BTreeMap<String, i64>, tensors: &Tensors, mut put: impl FnMut(&[u8])) {
    scalars.values().for_each(|scalar| put(&scalar.to_le_bytes()));
    for part in tensors.values().flat_map(|tensor| tensor.data.chunks(1 << 14)) {
        put(&part.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
    }
}

/// Metadata of a file, whose tensors are not read; `what` is named in errors.
pub(crate) fn metadata(what: &str, bytes: &[u8]) -> Result<Metadata> {
    let header = SafeTensors::read_metadata(bytes).map_err(|e| Error::Malformed(format!("{what}: {e}")));
    Ok(header?.1.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect())
}

/// Metadata and f32 tensors of a file; `what` is named in errors.
pub(crate) fn read(what: &str, bytes: &[u8]) -> Result<(Metadata, Tensors)> {
    let bad = |reason: String| Error::Malformed(format!("{what}: {reason}"));
    let metadata = metadata(what, bytes)?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    let mut tensors = Tensors::new();
    for (name, view) in file.iter() {
        if view.dtype() != Dtype::F32 {
            return Err(bad(format!("tensor `{name}` is {:?}, not F32", view.dtype())));
        }
        let data = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        tensors.insert(name.to_owned(), Tensor::new(view.shape(), data));
    }
    Ok((metadata, tensors))
}

/// Entry `key` of `metadata`, understood.
pub(crate) fn entry<T: std::str::FromStr>(what: &str, metadata: &Metadata, key: &str) -> Result<T> {
    let text =
        metadata.get(key).ok_or_else(|| Error::Malformed(format!("{what}: it does not say its `{key}`")))?;
    text.parse().map_err(|_| Error::Malformed(format!("{what}: its `{key}`, `{text}`, makes no sense")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_by_the_public_crate_and_by_us() {
        let metadata: Metadata = [("b", "2"), ("a", "1\"")].map(|(k, v)| (k.into(), v.into())).into();
        let tensors: Tensors = [
            ("x".into(), Tensor::new([2, 1], vec![1.0, -2.5])),
            ("w".into(), Tensor::new([3], vec![0.0; 3])),
        ]
        .into();
        let bytes = write(&metadata, &[("n".into(), 7)].into(), &tensors).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("n").unwrap().data(), 7i64.to_le_bytes());
        assert!(file.tensor("n").unwrap().shape().is_empty());
        let text = String::from_utf8_lossy(&bytes[8..48]);
        assert!(text.starts_with("{\"__metadata__\":{\"a\":\"1\\\"\",\"b\":\"2\"}"), "{text}");
        assert!(read("it", &bytes).unwrap_err().to_string().contains("it: tensor `n` is I64"));
        let bytes = write(&metadata, &BTreeMap::new(), &tensors).unwrap();
        assert_eq!(hash(&metadata, &tensors).unwrap(), blake3::hash(&bytes));
        assert_eq!(read("it", &bytes).unwrap(), (metadata, tensors));
        for cut in [0, 7, 30, bytes.len() - 1] {
            assert!(read("it", &bytes[..cut]).is_err(), "cut at {cut}");
        }
    }
}
