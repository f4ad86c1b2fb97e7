//! Randomness as named streams of a seed. A stream is the extendable output of BLAKE3, so its
//! values are fixed by that specification on every machine, for ever, and any position can be
//! read without the ones before it. Knows nothing of what the numbers are for.
//!
//! `stream(seed, name)`: BLAKE3 in key-derivation mode, context `"repro random stream v1"`, key
//! material = seed as 8 bytes little endian, then the UTF-8 name; read as extendable output.
//! Each 64-bit number is 8 bytes little endian at byte position 8 i.

use blake3::OutputReader;

/// Bytes of an output block of BLAKE3.
const BLOCK: usize = 64;

/// A stream of random numbers.
#[derive(Clone)]
pub struct Stream {
    reader: OutputReader,
    /// One output of the compression function, which gives no less, and how much of it is used up.
    block: [u8; BLOCK],
    used: usize,
    spare_normal: Option<f64>,
}

/// The stream `name` of `seed`.
///
/// ```
/// let mut s = network::rng::stream(0, "conv1.weight");
/// assert_eq!(s.next_u64(), 0x93dc_e452_1a51_8d68);
/// ```
pub fn stream(seed: u64, name: &str) -> Stream {
    let mut hasher = blake3::Hasher::new_derive_key("repro random stream v1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(name.as_bytes());
    Stream { reader: hasher.finalize_xof(), block: [0; BLOCK], used: BLOCK, spare_normal: None }
}

impl Stream {
    /// Goes to the `index`-th 64-bit number.
    pub fn seek(&mut self, index: u64) {
        let (block, within) = (index / 8, index % 8);
        self.reader.set_position(BLOCK as u64 * block);
        self.reader.fill(&mut self.block);
        self.used = 8 * within as usize;
        self.spare_normal = None;
    }

    /// 64 uniform bits.
    pub fn next_u64(&mut self) -> u64 {
        if self.used == BLOCK {
            self.reader.fill(&mut self.block);
            self.used = 0;
        }
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.block[self.used..self.used + 8]);
        self.used += 8;
        u64::from_le_bytes(bytes)
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in 0..n, by Lemire's multiplication; the bias is below n / 2^64.
    pub fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n)) >> 64) as u64
    }

    /// Standard normal by Box-Muller in f64 with libm's functions, which are the same on every
    /// machine (std's are not). Two numbers give two normals: cosine first, then sine.
    pub fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare_normal.take() {
            return spare;
        }
        let radius = libm::sqrt(-2.0 * libm::log(1.0 - self.uniform())); // 1 - u is in (0, 1]
        let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * self.uniform());
        self.spare_normal = Some(radius * sin);
        radius * cos
    }

    /// A random order of 0..n (Fisher-Yates, from the end).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            order.swap(i, self.below(i as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights() -> Stream {
        stream(0, "conv1.weight")
    }

    /// As an implementation in another language has them.
    #[test]
    fn a_stream_is_the_same_for_ever() {
        let mut s = weights();
        let words = [0x93dc_e452_1a51_8d68, 0x5002_4656_13a9_8906, 0xf6ec_f0d9_c949_3d47];
        assert_eq!([(); 3].map(|()| s.next_u64()), words);
        let mut s = weights();
        assert_eq!([(); 8].map(|()| s.below(10)), [5, 3, 9, 2, 2, 1, 3, 5]);
        let mut s = weights();
        let normals = [-0.5026674332952293, 1.212798353916579, 0.4533172586540738, 2.5443924279467702];
        assert_eq!([(); 4].map(|()| s.normal()), normals);
        assert_ne!(stream(1, "conv1.weight").next_u64(), words[0]);
        assert_ne!(stream(0, "conv2.weight").next_u64(), words[0]);
    }

    #[test]
    fn whoever_seeks_leaves_no_normal_behind() {
        let (mut s, mut fresh) = (weights(), weights());
        let first = s.normal(); // its pair waits
        s.seek(0);
        assert_eq!((s.normal(), s.normal()), (first, 1.212798353916579));
        s.seek(2);
        fresh.next_u64();
        fresh.next_u64();
        assert_eq!(s.next_u64(), fresh.next_u64());
    }

    #[test]
    fn every_position_is_found_from_every_other() {
        let mut s = weights();
        let all: Vec<u64> = (0..40).map(|_| s.next_u64()).collect();
        for (from, to) in (0..30).flat_map(|from| (0..30).map(move |to| (from, to))) {
            s.seek(from);
            assert_eq!((s.next_u64(), s.next_u64()), (all[from as usize], all[from as usize + 1]));
            s.seek(to);
            assert!((0..10).all(|i| s.next_u64() == all[to as usize + i]), "{from} {to}");
        }
    }
}
