//! The Protocol Buffers wire format, as much as ONNX models and TensorBoard's events need. Knows
//! none of their fields.
//!
//! Written out rather than generated: the two formats use fifteen messages of two or three fields each,
//! which declared as types (for `prost`) would be longer than the writer below, and would need a macro to
//! be compiled first.

/// A message under construction. Readers take any order of fields; ours are written in ascending
/// order, as the official writers do.
#[derive(Default)]
pub(super) struct Message(Vec<u8>);

/// How the bytes after a field's number are to be read.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Eight = 1,
    Length = 2,
    Four = 5,
}

impl Message {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// An integer, a boolean or an enumeration. Negative ones take ten bytes.
    pub(super) fn int(mut self, field: u32, value: i64) -> Self {
        self.key(field, Wire::Varint);
        self.varint(value as u64);
        self
    }

    pub(super) fn float(mut self, field: u32, value: f32) -> Self {
        self.key(field, Wire::Four);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn double(mut self, field: u32, value: f64) -> Self {
        self.key(field, Wire::Eight);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// A string, or bytes.
    pub(super) fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.key(field, Wire::Length);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn message(self, field: u32, value: Message) -> Self {
        self.bytes(field, value.0)
    }

    /// A repeated field: one `put` for each of `items`.
    pub(super) fn each<T>(self, items: impl IntoIterator<Item = T>, put: impl Fn(Self, T) -> Self) -> Self {
        items.into_iter().fold(self, put)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, wire: Wire) {
        self.varint(u64::from(field) << 3 | wire as u64);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// Reads messages back, for the tests of what is written with this file.
#[cfg(test)]
pub(super) mod reader {
    use std::collections::BTreeMap;

    /// One value as the wire has it.
    #[derive(Clone, Debug, PartialEq)]
    pub(in crate::export) enum Value {
        Varint(u64),
        Eight([u8; 8]),
        Bytes(Vec<u8>),
        Four([u8; 4]),
    }

    /// The values of each field, in order.
    pub(in crate::export) struct Fields(BTreeMap<u64, Vec<Value>>);

    impl Fields {
        pub(in crate::export) fn read(mut bytes: &[u8]) -> Self {
            let mut fields: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
            while !bytes.is_empty() {
                let key = varint(&mut bytes);
                let value = match key & 7 {
                    0 => Value::Varint(varint(&mut bytes)),
                    1 => Value::Eight(take(&mut bytes, 8).try_into().unwrap()),
                    2 => {
                        let length = varint(&mut bytes) as usize;
                        Value::Bytes(take(&mut bytes, length).to_vec())
                    }
                    5 => Value::Four(take(&mut bytes, 4).try_into().unwrap()),
                    wire => panic!("wire type {wire}"),
                };
                fields.entry(key >> 3).or_default().push(value);
            }
            Self(fields)
        }

        pub(in crate::export) fn all(&self, field: u64) -> &[Value] {
            self.0.get(&field).map_or(&[], Vec::as_slice)
        }

        /// The nested messages of a repeated field.
        pub(in crate::export) fn messages(&self, field: u64) -> Vec<Fields> {
            self.all(field).iter().map(|value| Fields::read(value.bytes())).collect()
        }

        pub(in crate::export) fn message(&self, field: u64) -> Fields {
            Self::read(self.one(field).bytes())
        }

        pub(in crate::export) fn text(&self, field: u64) -> &str {
            self.one(field).text()
        }

        pub(in crate::export) fn int(&self, field: u64) -> i64 {
            self.one(field).int()
        }

        /// The only value of a field.
        pub(in crate::export) fn one(&self, field: u64) -> &Value {
            let [value] = self.all(field) else { panic!("field {field}: {:?}", self.all(field)) };
            value
        }
    }

    impl Value {
        pub(in crate::export) fn bytes(&self) -> &[u8] {
            let Self::Bytes(bytes) = self else { panic!("{self:?}") };
            bytes
        }

        pub(in crate::export) fn text(&self) -> &str {
            std::str::from_utf8(self.bytes()).unwrap()
        }

        pub(in crate::export) fn int(&self) -> i64 {
            let Self::Varint(value) = self else { panic!("{self:?}") };
            *value as i64
        }

        pub(in crate::export) fn float(&self) -> f32 {
            let Self::Four(bytes) = self else { panic!("{self:?}") };
            f32::from_le_bytes(*bytes)
        }

        pub(in crate::export) fn double(&self) -> f64 {
            let Self::Eight(bytes) = self else { panic!("{self:?}") };
            f64::from_le_bytes(*bytes)
        }
    }

    fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
        let (head, tail) = bytes.split_at(count);
        *bytes = tail;
        head
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = take(bytes, 1)[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::{Message, reader::Fields};

    /// The examples of the format's own documentation.
    #[test]
    fn bytes_are_those_of_the_specification() {
        assert_eq!(Message::new().int(1, 150).into_bytes(), [0x08, 0x96, 0x01]);
        let nested = Message::new().message(3, Message::new().int(1, 150));
        assert_eq!(nested.into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let text = Message::new().bytes(2, "testing").into_bytes();
        assert_eq!(text, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
    }

    #[test]
    fn what_is_written_reads_back() {
        for value in [0, 1, 127, 128, 300, i64::MAX, -1, i64::MIN] {
            let fields = Fields::read(&Message::new().int(2000, value).into_bytes());
            assert_eq!(fields.int(2000), value);
        }
        let message = Message::new().float(1, -0.5).double(16, 1e300).each(["a", ""], |m, s| m.bytes(17, s));
        let fields = Fields::read(&message.into_bytes());
        assert_eq!((fields.one(1).float(), fields.one(16).double()), (-0.5, 1e300));
        assert_eq!(fields.all(17).iter().map(|v| v.text()).collect::<Vec<_>>(), ["a", ""]);
    }
}
