//! Source `synthetic`: drawn images, for trying everything without data or network. Knows no files.
//!
//! A class is a shape and how it is filled: five shapes, striped (classes 0 to 4) or chequered (5 to
//! 9). Everything else is chance and says nothing about the class: place, size, angle and frequency,
//! the colours of the figure and of the ground, a stroke across the image, noise. Except one hint:
//! each class leans to a hue, too weakly to be enough alone, so that even a network that can learn
//! little learns something.
//!
//! Image `i` of a split comes from the stream `synthetic SPLIT i` of the seed and has class
//! `i mod classes`. Arithmetic is f64 additions, multiplications and divisions, square roots and
//! libm's sine: the same bytes on every machine.

use std::f64::consts::TAU;

use engine::kind::{Job, ParamError, Progress, StageError};
use network::{
    arch::IMAGE_SIZE,
    data::IMAGE_BYTES,
    rng::{Stream, stream},
};
use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BLOCK, Collected, Part};

const SHAPES: [&str; 5] = ["disc", "square", "triangle", "ring", "cross"];
const FILLS: [&str; 2] = ["striped", "chequered"];
/// Images of a split at most: 3 GB.
const MOST: u32 = 1_000_000;

/// How far noise moves a channel at most, of 1.
const NOISE: f64 = 0.12;
/// How far a figure's hue is from its class's at most, in turns.
const SPREAD: f64 = 0.15;

/// Parameters of drawn images.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SyntheticParams {
    /// How many of the ten classes: the first ones.
    #[serde(default = "ten")]
    #[schemars(range(min = 2, max = 10))]
    classes: u16,
    /// Training images, spread evenly over the classes.
    #[serde(default = "five_thousand")]
    train: u32,
    /// Test images, spread evenly over the classes.
    #[serde(default = "thousand")]
    test: u32,
    /// Decides everything about the images.
    #[serde(default)]
    seed: u64,
}

fn ten() -> u16 {
    10
}

fn five_thousand() -> u32 {
    5000
}

fn thousand() -> u32 {
    1000
}

impl SyntheticParams {
    /// Everything that the types let through and that could not work.
    pub(super) fn faults(&self) -> Vec<ParamError> {
        let (classes, most) = (u32::from(self.classes), (SHAPES.len() * FILLS.len()) as u32);
        let checks = [
            ("classes", classes, 2, most),
            ("train", self.train, classes, MOST),
            ("test", self.test, classes, MOST),
        ];
        let wrong = checks.into_iter().filter(|(_, number, low, high)| !(low..=high).contains(&number));
        let fault = |(key, number, low, high): (&str, u32, u32, u32)| ParamError {
            key: key.into(),
            message: format!("`{key} = {number}` does not work"),
            hint: Some(format!("choose from {low} to {high}")),
        };
        wrong.map(fault).collect()
    }
}

/// Draws the images.
pub(super) fn draw(params: &SyntheticParams, job: &mut Job<'_>) -> Result<Collected, StageError> {
    let classes = usize::from(params.classes);
    let names = FILLS.iter().flat_map(|fill| SHAPES.map(|shape| format!("{fill}-{shape}")));
    let mut done = 0;
    let mut part = |split: &str, count: u32| {
        let mut pixels = vec![0; IMAGE_BYTES * count as usize];
        for (block, images) in pixels.chunks_mut(BLOCK * IMAGE_BYTES).enumerate() {
            if job.reporter.stop_requested() {
                return Err(StageError::interrupted());
            }
            images.par_chunks_mut(IMAGE_BYTES).enumerate().for_each(|(i, image)| {
                let index = block * BLOCK + i;
                paint(
                    index % classes,
                    &mut stream(params.seed, &format!("synthetic {split} {index}")),
                    image,
                );
            });
            done += (images.len() / IMAGE_BYTES) as u64;
            let total = u64::from(params.train) + u64::from(params.test);
            job.reporter.progress(&Progress { done, total, unit: "image".into(), readings: Vec::new() });
        }
        let labels = (0..count as usize).map(|index| (index % classes) as u16).collect();
        Ok(Part { labels, pixels })
    };
    let (train, test) = (part("train", params.train)?, part("test", params.test)?);
    Ok(Collected { classes: names.take(classes).collect(), train, test })
}

fn between(s: &mut Stream, low: f64, high: f64) -> f64 {
    low + (high - low) * s.uniform()
}

fn direction(s: &mut Stream) -> (f64, f64) {
    let (sin, cos) = libm::sincos(between(s, 0.0, TAU));
    (cos, sin)
}

/// A colour of this hue (in turns).
fn colour(lightness: f64, strength: f64, hue: f64) -> [f64; 3] {
    std::array::from_fn(|c| lightness + strength * libm::cos(TAU * (hue - c as f64 / 3.0)))
}

/// Draws one image of `class` into `image` (`3 32 32`).
fn paint(class: usize, s: &mut Stream, image: &mut [u8]) {
    let (shape, fill) = (class % SHAPES.len(), class / SHAPES.len());
    let ground = between(s, 0.3, 0.7);
    let contrast = between(s, 0.15, 0.35) * if s.below(2) == 0 { 1.0 } else { -1.0 };
    let of_ground = s.uniform();
    let grounds = [-0.08, 0.08].map(|step| colour(ground + step, 0.1, of_ground + step));
    let hue = class as f64 / (SHAPES.len() * FILLS.len()) as f64 + between(s, -SPREAD, SPREAD);
    let strength = between(s, 0.15, 0.3);
    // The figure's two tones are on both sides of the ground at times.
    let [light, dark] =
        [contrast, -contrast * between(s, 0.0, 0.8)].map(|step| colour(ground + step, strength, hue));
    let slope = direction(s);
    let (cx, cy) = (between(s, -0.3, 0.3), between(s, -0.3, 0.3));
    let size = between(s, 0.5, 0.8);
    let (cos, sin) = direction(s);
    let (along, across) = (direction(s), between(s, 2.0, 3.5));
    let phases = (s.uniform(), s.uniform());
    // A stroke that crosses some images.
    let (stroke, offset, width) = (direction(s), between(s, -0.9, 0.9), between(s, -0.1, 0.08));
    let stroke_colour = colour(between(s, 0.1, 0.9), 0.15, s.uniform());

    let plane = IMAGE_SIZE * IMAGE_SIZE;
    let scale = 2.0 / IMAGE_SIZE as f64;
    for at in 0..plane {
        let x = ((at % IMAGE_SIZE) as f64 + 0.5) * scale - 1.0;
        let y = ((at / IMAGE_SIZE) as f64 + 0.5) * scale - 1.0;
        let (dx, dy) = ((x - cx) / size, (y - cy) / size);
        let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
        // One pixel of soft edge, so that small shifts change an image a little.
        let inside = (0.5 - distance(shape, u, v) * size / scale).clamp(0.0, 1.0);
        let (p, q) = (x * along.0 + y * along.1, y * along.0 - x * along.1);
        let stripes = wave(across * p + phases.0);
        let tone = if fill == 0 { stripes } else { stripes * wave(across * q + phases.1) };
        let mix = 0.5 + 0.5 * tone;
        let shade = 0.5 + 0.5 * (x * slope.0 + y * slope.1);
        let struck = ((width - (x * stroke.0 + y * stroke.1 - offset).abs()) / scale + 0.5).clamp(0.0, 1.0);
        let noise = s.next_u64();
        for c in 0..3 {
            let back = grounds[0][c] + (grounds[1][c] - grounds[0][c]) * shade;
            let front = dark[c] + (light[c] - dark[c]) * mix;
            let mut value = back + (front - back) * inside;
            value += (stroke_colour[c] - value) * struck;
            // Two pieces of ten bits: a triangle from -1 to 1.
            let piece = |n: usize| ((noise >> (20 * c + 10 * n)) & 1023) as f64;
            value += NOISE * (piece(0) + piece(1) - 1023.0) / 1023.0;
            image[c * plane + at] = (value * 255.0 + 0.5).clamp(0.0, 255.0) as u8;
        }
    }
}

/// Triangle wave of period 1 between -1 and 1, steepened so that it is mostly one or the other.
fn wave(t: f64) -> f64 {
    let distance = (t - libm::floor(t) - 0.5).abs(); // 0 .. 0.5
    (8.0 * distance - 2.0).clamp(-1.0, 1.0)
}

/// How far (u, v) is outside a shape of radius about 1; negative inside.
fn distance(shape: usize, u: f64, v: f64) -> f64 {
    let radius = libm::sqrt(u * u + v * v);
    let (a, b) = (u.abs(), v.abs());
    match shape {
        0 => radius - 0.9,
        1 => a.max(b) - 0.8,
        2 => (0.866 * a + 0.5 * v).max(-v) - 0.55,
        3 => (radius - 0.75).abs() - 0.27,
        _ => (a - 0.33).max(b - 1.0).min((a - 1.0).max(b - 0.33)),
    }
}
