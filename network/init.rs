//! How each initial weight is drawn from its stream. Knows neither what trains nor any engine.
//!
//! Parameter `NAME` comes from the stream `NAME`, element by element in row-major order, drawn in
//! f64 and rounded once; the positions of mode `random` come from the stream `NAME positions`, the
//! start of mode `origin-random` from `NAME thin`.

use rayon::prelude::*;

use crate::{
    arch::{Graph, Param, Role},
    rng::{Stream, stream},
    tensor::{Tensor, Tensors},
};

/// How weights start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Init {
    /// Convolution and output weights.
    pub weights: WeightInit,
    /// Gamma and beta.
    pub bn: BnInit,
}

/// Distributions of the convolution and output weights (OpenLTH's four).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WeightInit {
    /// Normal, standard deviation sqrt(2 / fan-in).
    HeNormal,
    /// Uniform in +- sqrt(6 / fan-in).
    HeUniform,
    /// Orthogonal rows (or columns), gain 1.
    Orthogonal,
    /// Sign of a He-normal draw times the standard deviation of that draw.
    Binary,
}

/// Distributions of gamma and beta (OpenLTH's four).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BnInit {
    /// gamma ~ U(0, 1), beta = 0.
    Uniform,
    /// gamma = 1, beta = 0.
    Fixed,
    /// gamma = 1, beta = 1.
    Oneone,
    /// gamma ~ U(-1, 1), beta = 0.
    PositiveNegative,
}

/// The initial value of every parameter of `graph` (running statistics start at 0 and 1).
pub fn initial(graph: &Graph, seed: u64, init: Init) -> Tensors {
    let mut fan_in = 1; // a bias follows its weight in `params`
    let mut tensors = Tensors::new();
    for param in graph.params() {
        if matches!(param.role, Role::Conv | Role::Shortcut | Role::OutputWeight) {
            fan_in = param.count() / param.shape[0];
        }
        let data = draw(&param, fan_in, &mut stream(seed, &param.name), init);
        tensors.insert(param.name, Tensor::new(param.shape, data));
    }
    tensors
}

/// Numbers that one thread draws at a time. Even: normals come in pairs.
const AT_ONCE: usize = 1 << 16;

/// `n` numbers of a stream, each of which `draw` makes of one 64-bit number (of a pair's two, two).
fn numbers<T: Copy + Default + Send>(n: usize, s: &Stream, draw: impl Fn(&mut Stream) -> T + Sync) -> Vec<T> {
    let mut all = vec![T::default(); n];
    all.par_chunks_mut(AT_ONCE).enumerate().for_each(|(i, part)| {
        let mut s = s.clone();
        s.seek((i * AT_ONCE) as u64);
        part.fill_with(|| draw(&mut s));
    });
    all
}

fn draw(param: &Param, fan_in: usize, s: &mut Stream, init: Init) -> Vec<f32> {
    let n = param.count();
    let between = |low: f64, high: f64| numbers(n, s, |s| (low + (high - low) * s.uniform()) as f32);
    match param.role {
        Role::Gamma => match init.bn {
            BnInit::Uniform => between(0.0, 1.0),
            BnInit::Fixed | BnInit::Oneone => vec![1.0; n],
            BnInit::PositiveNegative => between(-1.0, 1.0),
        },
        Role::Beta => vec![if init.bn == BnInit::Oneone { 1.0 } else { 0.0 }; n],
        Role::ConvBias | Role::OutputBias => {
            let bound = 1.0 / libm::sqrt(fan_in as f64);
            between(-bound, bound)
        }
        Role::Conv | Role::Shortcut | Role::OutputWeight => {
            let deviation = libm::sqrt(2.0 / fan_in as f64);
            match init.weights {
                WeightInit::HeNormal => numbers(n, s, |s| (deviation * s.normal()) as f32),
                WeightInit::HeUniform => {
                    let bound = libm::sqrt(6.0 / fan_in as f64);
                    between(-bound, bound)
                }
                WeightInit::Orthogonal => orthogonal(param.shape[0], fan_in, s),
                WeightInit::Binary => binary(n, deviation, s),
            }
        }
    }
}

/// Signs of a normal draw, times the (unbiased) standard deviation of that draw.
fn binary(n: usize, deviation: f64, s: &Stream) -> Vec<f32> {
    let draw = numbers(n, s, |s| deviation * s.normal());
    let mean = draw.iter().sum::<f64>() / n as f64;
    let squares: f64 = draw.iter().map(|x| (x - mean) * (x - mean)).sum();
    let size = libm::sqrt(squares / (n.max(2) - 1) as f64) as f32;
    draw.iter().map(|x| if *x < 0.0 { -size } else { size }).collect()
}

/// A `rows x columns` matrix with orthonormal rows, or columns where there are fewer of those:
/// Gram-Schmidt, done twice for f64 accuracy, on normal draws.
fn orthogonal(rows: usize, columns: usize, s: &mut Stream) -> Vec<f32> {
    let (count, length) = (rows.min(columns), rows.max(columns));
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(count);
    while basis.len() < count {
        let mut v: Vec<f64> = (0..length).map(|_| s.normal()).collect();
        for _ in 0..2 {
            for b in &basis {
                let along = dot(&v, b);
                v.iter_mut().zip(b).for_each(|(x, y)| *x -= along * y);
            }
        }
        let norm = libm::sqrt(dot(&v, &v));
        v.iter_mut().for_each(|x| *x /= norm);
        basis.push(v);
    }
    let at = |r: usize, c: usize| if rows <= columns { basis[r][c] } else { basis[c][r] };
    (0..rows * columns).map(|i| at(i / columns, i % columns) as f32).collect()
}

/// Eight partial sums in a fixed order: quick, and the same bits everywhere.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for (i, (a, b)) in a.iter().zip(b).enumerate() {
            sums[i] += a * b;
        }
    }
    sums.iter().sum()
}

/// The digest of initial weights that checkpoints carry: BLAKE3 over each tensor in order of
/// names: name, a zero byte, number of elements as 8 bytes, elements; all little endian.
pub fn digest(tensors: &Tensors) -> String {
    let mut hasher = blake3::Hasher::new();
    for (name, tensor) in tensors {
        hasher.update(name.as_bytes());
        hasher.update(&[0]);
        hasher.update(&(tensor.data.len() as u64).to_le_bytes());
        let mut bytes = vec![0; 4 * tensor.data.len()];
        bytes.chunks_exact_mut(4).zip(&tensor.data).for_each(|(to, x)| to.copy_from_slice(&x.to_le_bytes()));
        hasher.update_rayon(&bytes);
    }
    hasher.finalize().to_hex().to_string()
}

/// Which `k` elements of each filter of `param` train in mode `random`: `K k` flat indices into the
/// whole tensor, each filter's ascending, drawn without replacement.
///
/// # Panics
/// Where a filter has fewer elements.
pub fn random_positions(seed: u64, param: &Param, k: usize) -> Vec<u32> {
    let filters = param.shape[0];
    let fan_in = param.count() / filters;
    let mut s = stream(seed, &format!("{} positions", param.name));
    let mut positions = Vec::with_capacity(filters * k);
    for filter in 0..filters {
        let mut order: Vec<u32> = (0..fan_in as u32).collect();
        for i in 0..k {
            order.swap(i, i + s.below((fan_in - i) as u64) as usize);
        }
        order.truncate(k);
        order.sort_unstable();
        positions.extend(order.iter().map(|p| (filter * fan_in) as u32 + p));
    }
    positions
}

/// How the weights of a convolution start in mode `origin-random`, in the order in which the origin
/// draws: row and column of two positions, two filters (by a number of the input's channels, and both may be
/// the same), and for each a number from U(0.001, 1), which stands at the position for all channels. All else is zero.
pub fn thin(seed: u64, param: &Param) -> Tensor {
    let [channels, rows, columns] = [1, 2, 3].map(|axis| param.shape.get(axis).copied().unwrap_or(1));
    let mut s = stream(seed, &format!("{} thin", param.name));
    let mut below = |n: usize| s.below(n as u64) as usize;
    let places = [(); 2].map(|()| [below(rows), below(columns)]);
    // The origin has no layer that narrows, for which it would draw filters that are not there.
    let filters = [(); 2].map(|()| below(channels.min(param.shape[0])));
    let mut data = vec![0.0; param.count()];
    for (filter, [row, column]) in filters.into_iter().zip(places) {
        let value = (0.001 + 0.999 * s.uniform()) as f32;
        for channel in 0..channels {
            data[((filter * channels + channel) * rows + row) * columns + column] = value;
        }
    }
    Tensor::new(param.shape.clone(), data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{Arch, Variant};

    fn graph(arch: &str) -> Graph {
        Graph::new(arch.parse::<Arch>().unwrap(), Variant::Paper, 10)
    }

    fn init(weights: WeightInit) -> Init {
        Init { weights, bn: BnInit::Uniform }
    }

    #[test]
    fn initial_weights_are_pinned() {
        let of = |weights| digest(&initial(&graph("resnet8"), 0, init(weights)));
        assert_eq!(
            [WeightInit::HeNormal, WeightInit::HeUniform, WeightInit::Orthogonal, WeightInit::Binary].map(of),
            [
                "b8642bd7a7848d20c46b0ac5adf90328f2b2ac8c5a061efe3c15cca1349d82fb",
                "e82f6673110246145043e62e5b62e1cedc66867aa6d8b195107041f299362bbe",
                "dc2b586b3656ce65cba1cee25dd1ea41b2fc0dbf2622590024fbb46d4d529e04",
                "040ce18faa33e46d580faeae235fca58203ef96b15599391f06c8834e844af54"
            ]
        );
    }

    #[test]
    fn a_tensor_that_threads_share_is_drawn_as_by_one() {
        let whole = stream(0, "w");
        for n in [1, AT_ONCE - 1, AT_ONCE, AT_ONCE + 1, 2 * AT_ONCE + 3] {
            let (mut s, mut t) = (whole.clone(), whole.clone());
            let normals: Vec<f64> = (0..n).map(|_| s.normal()).collect();
            assert_eq!(numbers(n, &whole, Stream::normal), normals, "{n}");
            let uniform: Vec<f64> = (0..n).map(|_| t.uniform()).collect();
            assert_eq!(numbers(n, &whole, Stream::uniform), uniform, "{n}");
        }
    }

    #[test]
    fn he_normal_has_its_deviation_and_gamma_its_range() {
        let tensors = initial(&graph("resnet8"), 3, init(WeightInit::HeNormal));
        let w = &tensors["layer3.0.conv2.weight"].data;
        let variance = w.iter().map(|x| f64::from(x * x)).sum::<f64>() / w.len() as f64;
        assert!((variance * 576.0 / 2.0 - 1.0).abs() < 0.03, "variance {variance}");
        assert!(tensors["bn1.weight"].data.iter().all(|g| (0.0..1.0).contains(g)));
        assert!(tensors["bn1.bias"].data.iter().all(|b| *b == 0.0));
        assert!(tensors["linear.bias"].data.iter().all(|b| b.abs() <= 0.125));
    }

    #[test]
    fn scales_and_shifts_begin_as_their_initialisation_says() {
        for (bn, low, high, shift) in [
            (BnInit::Uniform, 0.0, 1.0, 0.0),
            (BnInit::PositiveNegative, -1.0, 1.0, 0.0),
            (BnInit::Fixed, 1.0, 1.0, 0.0),
            (BnInit::Oneone, 1.0, 1.0, 1.0),
        ] {
            let graph = graph("resnet8");
            let tensors = initial(&graph, 0, Init { weights: WeightInit::HeNormal, bn });
            let all = |role: Role| {
                let of_role = graph.params().into_iter().filter(move |param| param.role == role);
                of_role.flat_map(|param| tensors[&param.name].data.clone()).collect::<Vec<f32>>()
            };
            let (scales, shifts) = (all(Role::Gamma), all(Role::Beta));
            let [least, most] = [f32::min, f32::max].map(|of| scales.iter().copied().reduce(of).unwrap());
            let near = 0.05 * (high - low);
            assert!((low..=low + near).contains(&least), "{bn:?}: {least}");
            assert!((high - near..=high).contains(&most), "{bn:?}: {most}");
            assert!(shifts.iter().all(|beta| *beta == shift), "{bn:?}");
        }
    }

    #[test]
    fn orthogonal_filters_are_orthonormal() {
        let tensors = initial(&graph("resnet8"), 0, init(WeightInit::Orthogonal));
        let w = &tensors["layer2.0.conv1.weight"];
        let (rows, n) = (w.shape[0], w.data.len() / w.shape[0]);
        for a in 0..rows {
            for b in 0..=a {
                let product: f32 = (0..n).map(|i| w.data[a * n + i] * w.data[b * n + i]).sum();
                let expected = if a == b { 1.0 } else { 0.0 };
                assert!((product - expected).abs() < 1e-5, "{a} {b}: {product}");
            }
        }
    }

    #[test]
    fn random_positions_are_distinct_inside_their_filter() {
        let params = graph("resnet8").params();
        let param = params.iter().find(|p| p.role == Role::Shortcut).unwrap();
        let positions = random_positions(1, param, 5);
        assert_eq!(positions.len(), 32 * 5);
        for (filter, chosen) in positions.chunks(5).enumerate() {
            assert!(chosen.windows(2).all(|w| w[0] < w[1]));
            assert!(chosen.iter().all(|p| *p as usize / 16 == filter));
        }
        let all = random_positions(1, param, 16);
        assert_eq!(all, (0..512).collect::<Vec<u32>>());
        assert_ne!(positions, random_positions(2, param, 5));
    }

    #[test]
    fn a_thin_start_is_one_number_at_one_position_of_at_most_two_filters() {
        let params = graph("resnet8").params();
        for (name, low, high) in [
            ("conv1.weight", 3, 6),
            ("layer2.0.conv1.weight", 16, 32),
            ("layer2.0.shortcut.0.weight", 16, 32),
            ("layer3.0.conv2.weight", 64, 128),
        ] {
            let param = params.iter().find(|p| p.name == name).unwrap();
            for seed in 0..20 {
                let w = thin(seed, param);
                assert_eq!(w.shape, param.shape);
                let (channels, area) = (param.shape[1], param.shape[2] * param.shape[3]);
                let set: Vec<usize> = (0..w.data.len()).filter(|i| w.data[*i] != 0.0).collect();
                assert!((low..=high).contains(&set.len()), "{name}: {}", set.len());
                for i in set {
                    let (filter, position) = (i / (channels * area), i % area);
                    assert!(filter < channels && (0.001..=1.0).contains(&w.data[i]));
                    let same = |c: usize| w.data[(filter * channels + c) * area + position];
                    assert!((0..channels).all(|c| same(c) == w.data[i]), "{name}");
                }
            }
        }
        let stem = thin(0, &params[0]);
        assert_ne!(stem, thin(1, &params[0]));
        let tensors = Tensors::from([("conv1.weight".to_owned(), stem)]);
        assert_eq!(&digest(&tensors)[..16], "5ae0f671043b21e7");
    }
}
