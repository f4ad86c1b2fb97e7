//! One image file as 3072 bytes. Knows nothing of folders.
//!
//! JPEG goes straight to its decoder, in its strict mode: the usual way through `image` fills what a
//! damaged file lacks with grey and says nothing. Its plain code is as fast on images this small as
//! its vector code, and leaves no doubt that every machine gets the same bytes.

use std::{
    fs,
    io::{self, Cursor},
    path::Path,
};

use engine::kind::StageError;
use image::{ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage, imageops};
use network::arch::IMAGE_SIZE;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

use crate::output::failed;

/// Width or height that no image to be resized exceeds.
const LARGEST: u32 = 16_384;
/// And its pixels: a few damaged bytes may announce more than a machine decodes in a minute.
const PIXELS: u64 = 1 << 26;
const SIZE: u32 = IMAGE_SIZE as u32;

/// Reads `path` into `image` (`3 32 32`). An image of another size is an error, or is resized.
pub(super) fn decode(path: &Path, resize: bool, image: &mut [u8]) -> Result<(), StageError> {
    let read = || {
        if fs::metadata(path)?.is_file() { fs::read(path) } else { Err(io::Error::other("it is no file")) }
    };
    let bytes = read().map_err(|error| failed("read", path, &error))?;
    let fits = |width: u32, height: u32| match (width, height) {
        (SIZE, SIZE) => Ok(()),
        _ if resize && width.max(height) <= LARGEST && u64::from(width) * u64::from(height) <= PIXELS => {
            Ok(())
        }
        _ => Err(Flaw::Size(width, height)),
    };
    let decoded = if bytes.starts_with(&[0xff, 0xd8]) {
        jpeg(&bytes, fits)
    } else if bytes.starts_with(b"\x89PNG") {
        png(&bytes, fits)
    } else {
        Err(Flaw::Damaged("it begins like neither a JPEG nor a PNG".into()))
    };
    let mut decoded = decoded.map_err(|flaw| flaw.of(path, resize))?;
    if decoded.dimensions() != (SIZE, SIZE) {
        decoded = imageops::resize(&decoded, SIZE, SIZE, imageops::FilterType::Triangle);
    }
    let plane = IMAGE_SIZE * IMAGE_SIZE;
    for (at, pixel) in decoded.pixels().enumerate() {
        for (channel, value) in pixel.0.into_iter().enumerate() {
            image[channel * plane + at] = value;
        }
    }
    Ok(())
}

/// What is wrong with an image.
enum Flaw {
    Size(u32, u32),
    Damaged(String),
}

impl Flaw {
    fn of(self, path: &Path, resize: bool) -> StageError {
        let path = path.display();
        match self {
            Self::Size(width, height) if resize => StageError::new(format!(
                "`{path}` is {width}x{height}, too large to be resized"
            ))
            .hint(format!("the limit is {LARGEST} pixels a side and {PIXELS} in all; make it smaller first")),
            Self::Size(width, height) => {
                StageError::new(format!("`{path}` is {width}x{height}, not {SIZE}x{SIZE}"))
                    .hint("set `resize = true` to have every image resized")
            }
            Self::Damaged(reason) => StageError::new(format!("`{path}` is damaged: {reason}"))
                .hint("fetch that file again, or move it elsewhere"),
        }
    }
}

fn jpeg(bytes: &[u8], fits: impl Fn(u32, u32) -> Result<(), Flaw>) -> Result<RgbImage, Flaw> {
    let damaged = |error: &dyn std::fmt::Display| Flaw::Damaged(error.to_string());
    let options = DecoderOptions::default()
        .set_use_unsafe(false)
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = zune_jpeg::JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|e| damaged(&e))?;
    let (width, height) = decoder.dimensions().ok_or_else(|| damaged(&"it has no size"))?;
    let (width, height) = (width as u32, height as u32);
    fits(width, height)?;
    let pixels = decoder.decode().map_err(|e| damaged(&e))?;
    if !ends(bytes) {
        return Err(damaged(&"it is cut off"));
    }
    RgbImage::from_raw(width, height, pixels).ok_or_else(|| damaged(&"it has no colours"))
}

/// Does a JPEG reach its end mark? One that is cut in its last rows still decodes. What stands behind the end is not looked at.
fn ends(bytes: &[u8]) -> bool {
    let mut at = 2;
    while let Some(&[first, second]) = bytes.get(at..at + 2) {
        at += match (first, second) {
            (0xff, 0xd9) => return true,
            // Of a scan: the byte itself, or a mark to begin anew at.
            (0xff, 0x00 | 0x01 | 0xd0..=0xd7) => 2,
            (0xff, 0xff) | (..0xff, _) => 1,
            // A segment with its length, which may hold a picture of its own.
            (0xff, _) => match bytes.get(at + 2..at + 4) {
                Some(&[high, low]) => 2 + usize::from(u16::from_be_bytes([high, low])),
                _ => return false,
            },
        };
    }
    false
}

fn png(bytes: &[u8], fits: impl Fn(u32, u32) -> Result<(), Flaw>) -> Result<RgbImage, Flaw> {
    let damaged = |error: image::ImageError| Flaw::Damaged(error.to_string());
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    let mut limits = Limits::default();
    limits.max_alloc = Some(8 * PIXELS);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    fits(width, height)?;
    Ok(image::DynamicImage::from_decoder(decoder).map_err(damaged)?.into_rgb8())
}
