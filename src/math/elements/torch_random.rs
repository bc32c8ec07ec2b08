//! The random numbers of PyTorch's CPU generator, which some of PEFT's types draw frozen positions from instead of
//! storing them: MT19937 (Matsumoto and Nishimura 1998, <https://doi.org/10.1145/272991.272995>), seeded with the low 32
//! bits of the seed, and `torch.randperm` as PyTorch 2 computes it (`aten/src/ATen/native/TensorFactories.cpp`).

use std::collections::BTreeMap;

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// PyTorch's CPU generator.
#[derive(Debug, Clone)]
pub struct TorchGenerator {
    state: Vec<u32>,
    next: usize,
}

impl TorchGenerator {
    /// `torch.Generator().manual_seed(seed)`.
    pub fn new(seed: u64) -> Self {
        let mut state = Vec::with_capacity(WORDS);
        let mut word = seed as u32;
        for at in 1..=WORDS as u32 {
            state.push(word);
            word = (word ^ word >> 30).wrapping_mul(1_812_433_253).wrapping_add(at);
        }
        Self { state, next: WORDS }
    }

    /// The next 32 bits.
    pub fn bits32(&mut self) -> u32 {
        if self.next == WORDS {
            self.renew();
        }
        let mut word = self.state.get(self.next).copied().unwrap_or_default();
        self.next += 1;
        word ^= word >> 11;
        word ^= word << 7 & 0x9d2c_5680;
        word ^= word << 15 & 0xefc6_0000;
        word ^ word >> 18
    }

    /// The next 64 bits, the first 32 of them above.
    pub fn bits64(&mut self) -> u64 {
        let high = u64::from(self.bits32());
        high << 32 | u64::from(self.bits32())
    }

    fn renew(&mut self) {
        for at in 0..WORDS {
            let joined = self.state[at] & 0x8000_0000 | self.state[(at + 1) % WORDS] & 0x7fff_ffff;
            let twist = if joined & 1 == 0 { 0 } else { 0x9908_b0df };
            self.state[at] = self.state[(at + SHIFT) % WORDS] ^ joined >> 1 ^ twist;
        }
        self.next = 0;
    }

    /// The first `count` numbers of `torch.randperm(size, generator=self)`, without the rest of them.
    pub fn permutation(&mut self, size: u64, count: usize) -> Vec<u64> {
        let count = count.min(usize::try_from(size).unwrap_or(usize::MAX));
        if size < u64::from(u32::MAX) / 20 {
            return self.shuffled(size, count);
        }
        self.inside_out(size, count)
    }

    /// The shuffle that grows from the inside out: what leaves the first places never comes back to them.
    fn inside_out(&mut self, size: u64, count: usize) -> Vec<u64> {
        let mut first = Vec::with_capacity(count);
        for at in 0..size {
            let place = usize::try_from(self.bits64() % (at + 1)).unwrap_or(usize::MAX);
            if first.len() < count {
                let before = first.get(place).copied().unwrap_or(at);
                first.push(before);
            }
            if let Some(slot) = first.get_mut(place) {
                *slot = at;
            }
        }
        first
    }

    /// Fisher and Yates' shuffle from the front, of which only what has moved is kept.
    fn shuffled(&mut self, size: u64, count: usize) -> Vec<u64> {
        let mut moved: BTreeMap<u64, u64> = BTreeMap::new();
        let draw = |at: u64| {
            if at + 1 == size {
                return moved.remove(&at).unwrap_or(at);
            }
            let place = at + u64::from(self.bits32()) % (size - at);
            let here = moved.remove(&at).unwrap_or(at);
            if place == at { here } else { moved.insert(place, here).unwrap_or(place) }
        };
        (0..count as u64).map(draw).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_are_those_of_torch() {
        let first = |seed, size, count| TorchGenerator::new(seed).permutation(size, count);
        // torch 2.7.1: torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count]
        assert_eq!(first(777, 10, 10), [5, 9, 0, 3, 1, 7, 4, 8, 6, 2]);
        assert_eq!(first(777, 384, 8), [359, 192, 99, 0, 159, 189, 357, 132]);
        assert_eq!(
            first(777, 16_777_216, 6),
            [1_374_311, 8_240_085, 6_766_295, 6_474_818, 14_786_199, 14_783_200]
        );
        assert_eq!(
            first((1 << 40) + 5, 100_000, 6),
            [53_411, 99_184, 41_565, 33_006, 87_522, 16_190]
        );
        assert_eq!(first(3, 7, 9), [5, 3, 4, 6, 0, 2, 1]);
        assert_eq!(first(3, 0, 9), [0; 0]);
    }

    #[test]
    fn the_first_places_of_a_large_permutation_are_those_of_the_whole() {
        for (size, count) in [(1, 1), (2, 1), (50, 7), (50, 50)] {
            let mut random = TorchGenerator::new(9);
            let mut whole: Vec<u64> = Vec::new();
            for at in 0..size {
                let place = (random.bits64() % (at + 1)) as usize;
                whole.push(at);
                whole[at as usize] = whole[place];
                whole[place] = at;
            }
            whole.truncate(count);
            assert_eq!(TorchGenerator::new(9).inside_out(size, count), whole);
        }
    }
}
