//! Curves as an event file, the input of TensorBoard: a sequence of records (TFRecord: length,
//! checksum of the length, bytes, checksum of the bytes), each a protobuf message `Event`.
//!
//! Reads no clock: every event carries the wall time that the caller gives, so that equal curves
//! are equal bytes. TensorBoard reads a file whose name contains `tfevents`, see [`FILE_NAME`].

use super::protobuf::Message;

/// A name under which TensorBoard finds the file, in any folder; the folder is the run's name.
pub const FILE_NAME: &str = "events.out.tfevents.repro";

/// One point of one curve.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scalar<'a> {
    /// Abscissa: an iteration or an epoch.
    pub step: u64,
    /// The curve; those with the same `PREFIX/` are drawn in one group.
    pub tag: &'a str,
    /// Ordinate.
    pub value: f32,
}

/// The file that holds `scalars`, each at `wall_time` (seconds since 1970). Points of one tag
/// belong in ascending order of steps: a step back reads as a restarted run, and TensorBoard then
/// forgets what came after it.
pub fn events<'a>(wall_time: f64, scalars: impl IntoIterator<Item = Scalar<'a>>) -> Vec<u8> {
    let mut file = Vec::new();
    let event = || Message::new().double(1, wall_time);
    record(&mut file, event().bytes(3, "brain.Event:2"));
    for Scalar { step, tag, value } in scalars {
        let summary = Message::new().message(1, Message::new().bytes(1, tag).float(2, value));
        record(&mut file, event().int(2, step as i64).message(5, summary));
    }
    file
}

fn record(file: &mut Vec<u8>, event: Message) {
    let data = event.into_bytes();
    let length = (data.len() as u64).to_le_bytes();
    for part in [&length[..], &data] {
        file.extend_from_slice(part);
        file.extend(masked(crc32c(part)).to_le_bytes());
    }
}

/// Checksums are stored disguised, because a checksum of data with its own checksum in it is weak.
fn masked(checksum: u32) -> u32 {
    checksum.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// The Castagnoli checksum, bit by bit: event files are small.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !data.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{protobuf::reader::Fields, tests::SCALARS};

    /// Takes one record off the front, checking both checksums.
    fn next<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
        let (length, rest) = bytes.split_at_checked(8)?;
        let (length_check, rest) = rest.split_at(4);
        let (data, rest) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let (data_check, rest) = rest.split_at(4);
        assert_eq!(length_check, masked(crc32c(length)).to_le_bytes());
        assert_eq!(data_check, masked(crc32c(data)).to_le_bytes());
        *bytes = rest;
        Some(data)
    }

    /// The test vectors of RFC 3720, B.4.
    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert_eq!(crc32c(&(0..32).collect::<Vec<u8>>()), 0x46dd_794e);
    }

    #[test]
    fn every_scalar_is_an_event_after_the_version() {
        let file = events(1.5, SCALARS);
        let mut rest = &file[..];
        let version = Fields::read(next(&mut rest).unwrap());
        assert_eq!(version.text(3), "brain.Event:2");
        for scalar in SCALARS {
            let event = Fields::read(next(&mut rest).unwrap());
            assert_eq!(event.one(1).double(), 1.5);
            assert_eq!(event.int(2), scalar.step as i64);
            let value = event.message(5).message(1);
            assert_eq!((value.text(1), value.one(2).float()), (scalar.tag, scalar.value));
        }
        assert_eq!(next(&mut rest), None);
    }
}
