//! Random numbers that are functions of their place: Philox4x32-10 (Salmon, Moraes, Dror and Shaw
//! 2011, "Parallel random numbers: as easy as 1, 2, 3").
//!
//! A number depends on (seed, name, adapter index, element index) alone, so any order, any blocking
//! and any number of threads give the same ones. No state is kept.

use crate::math::kernel::lanes::{Lanes, Task};
use crate::math::kernel::vectors::dispatch;

/// Blocks that are computed side by side.
const WIDE: usize = 16;

const ROUNDS: usize = 10;
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
/// Added to the key after each round: the golden ratio and √3 − 1.
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];

/// The bijection: 128 bits of counter and 64 of key to 128 random ones.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// The random numbers of one module of one adapter under one seed, by element.
///
/// The seed is the key; the counter is made of the element and a hash of name and adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    seed: u64,
    stream: u64,
}

impl Stream {
    /// Those of module `name` of adapter number `adapter`.
    pub fn new(seed: u64, name: &str, adapter: usize) -> Self {
        Self { seed, stream: hash(name, adapter as u64) }
    }

    /// Random bits number 4·`block`..4·`block` + 4.
    pub fn block(&self, block: u64) -> [u32; 4] {
        let counter =
            [block as u32, (block >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32];
        philox(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }

    /// 32 random bits for an element.
    pub fn bits(&self, element: u64) -> u32 {
        self.block(element / 4)[(element % 4) as usize]
    }

    /// The bits of elements `first`..`first` + `out.len()`, as [`Stream::bits`] gives them.
    pub fn fill(&self, first: u64, out: &mut [u32]) {
        let head = (first.wrapping_neg() % 4).min(out.len() as u64) as usize;
        let (unaligned, rest) = out.split_at_mut(head);
        self.fill_one_by_one(first, unaligned);
        let at = first + head as u64;
        let (wide, tail) = rest.as_chunks_mut::<{ 4 * WIDE }>();
        let (done, block) = ((wide.len() * 4 * WIDE) as u64, at / 4);
        dispatch(Fill { stream: self, block, out: wide });
        self.fill_one_by_one(at + done, tail);
    }

    fn fill_one_by_one(&self, first: u64, out: &mut [u32]) {
        for (element, slot) in (first..).zip(out) {
            *slot = self.bits(element);
        }
    }

    /// Uniform in [0, 1), of 24 bits.
    pub fn uniform_f32(&self, element: u64) -> f32 {
        (self.bits(element) >> 8) as f32 / (1u32 << 24) as f32
    }

    /// Uniform in [0, 1), of 53 bits. Shares no bits with another element's.
    pub fn uniform(&self, element: u64) -> f64 {
        let block = self.block(element / 2);
        let half = 2 * (element % 2) as usize;
        let bits = u64::from(block[half + 1]) << 32 | u64::from(block[half]);
        (bits >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Whether the element is drawn with this probability (in steps of 2⁻³²; 1 is always).
    pub fn bernoulli(&self, element: u64, probability: f64) -> bool {
        u64::from(self.bits(element)) < threshold(probability)
    }

    /// Normally distributed with mean 0 and variance 1 (Box and Muller 1958).
    ///
    /// Its last digits are those of the platform's logarithm and cosine.
    pub fn gaussian(&self, element: u64) -> f64 {
        let block = self.block(element / 2);
        let half = 2 * (element % 2) as usize;
        let unit = |bits: u32| (f64::from(bits) + 0.5) / 4_294_967_296.0;
        (-2.0 * unit(block[half]).ln()).sqrt()
            * (std::f64::consts::TAU * unit(block[half + 1])).cos()
    }
}

/// Whole groups of [`WIDE`] blocks, from number `block` on.
struct Fill<'a> {
    stream: &'a Stream,
    block: u64,
    out: &'a mut [[u32; 4 * WIDE]],
}

impl Task for Fill<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Lanes>(self) {
        let Stream { seed, stream } = *self.stream;
        let low = |bits: u64| bits & u64::from(u32::MAX);
        for (group, out) in self.out.iter_mut().enumerate() {
            // Words in 64 bits each, since products are; what is above the lower 32 is never read.
            let first = self.block + (group * WIDE) as u64;
            let blocks: [u64; WIDE] = std::array::from_fn(|lane| first + lane as u64);
            let upper = blocks.map(|block| block >> 32);
            let mut counter = [blocks, upper, [stream; WIDE], [stream >> 32; WIDE]];
            let mut key = [seed as u32, (seed >> 32) as u32];
            for _ in 0..ROUNDS {
                let mut next = [[0u64; WIDE]; 4];
                for lane in 0..WIDE {
                    let first = u64::from(MULTIPLIERS[0]) * low(counter[0][lane]);
                    let second = u64::from(MULTIPLIERS[1]) * low(counter[2][lane]);
                    next[0][lane] = (second >> 32) ^ counter[1][lane] ^ u64::from(key[0]);
                    next[1][lane] = second;
                    next[2][lane] = (first >> 32) ^ counter[3][lane] ^ u64::from(key[1]);
                    next[3][lane] = first;
                }
                counter = next;
                key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
            }
            for (lane, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                *out = counter.map(|word| word[lane] as u32);
            }
        }
    }
}

/// What [`Stream::bits`] must be below to be drawn with this probability: for loops that draw many.
pub fn threshold(probability: f64) -> u64 {
    (probability.clamp(0.0, 1.0) * 4_294_967_296.0).round() as u64
}

/// FNV-1a over the name and the number (Fowler, Noll and Vo), mixed by splitmix64's finaliser so that
/// names that differ in a digit give unrelated streams.
fn hash(name: &str, number: u64) -> u64 {
    let bytes = name.bytes().chain([0xff]).chain(number.to_le_bytes());
    let mut z = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that Random123 is tested with (`kat_vectors`, philox4x32 10).
    #[test]
    fn known_answers() {
        let ones = u32::MAX;
        let cases = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([ones; 4], [ones; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, expected) in cases {
            assert_eq!(philox(counter, key), expected);
        }
    }

    #[test]
    fn filling_is_drawing_one_by_one() {
        let stream = Stream::new(7, "model.layers.0.q_proj", 1);
        for (first, count) in
            [(0, 9), (3, 2), (5, 17), (1, 200), (u64::from(u32::MAX) * 4 - 60, 213)]
        {
            let mut bits = vec![0; count];
            stream.fill(first, &mut bits);
            for (at, found) in bits.iter().enumerate() {
                assert_eq!(*found, stream.bits(first + at as u64));
            }
        }
    }

    #[test]
    fn seeds_names_and_adapters_give_other_streams() {
        let streams = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a1", 0)]
            .map(|(seed, name, adapter)| Stream::new(seed, name, adapter).block(0));
        for (at, first) in streams.iter().enumerate() {
            assert!(!streams[at + 1..].contains(first));
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let stream = Stream::new(3, "x", 0);
        let count = 40_000u64;
        let mean = |of: &dyn Fn(u64) -> f64| (0..count).map(of).sum::<f64>() / count as f64;
        assert!((mean(&|at| stream.uniform(at)) - 0.5).abs() < 0.01);
        assert!((mean(&|at| f64::from(stream.uniform_f32(at))) - 0.5).abs() < 0.01);
        assert!(mean(&|at| stream.gaussian(at)).abs() < 0.02);
        assert!((mean(&|at| stream.gaussian(at).powi(2)) - 1.0).abs() < 0.03);
        let drawn = |p: f64| mean(&|at| f64::from(u8::from(stream.bernoulli(at, p))));
        assert!((drawn(0.2) - 0.2).abs() < 0.01);
        assert_eq!((drawn(0.0), drawn(1.0)), (0.0, 1.0));
    }
}
