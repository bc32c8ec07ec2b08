//! An adaptive binary range coder: bits that are easy to guess take next to no room.
//!
//! The carry-propagating coder of LZMA (Martin 1979; I. Pavlov's LZMA specification), with models of
//! more digits. Integers only, so that both ends agree on every machine.

/// Digits of a probability.
const DIGITS: u32 = 14;
/// How slowly a model learns.
const SLOWNESS: u32 = 5;
const TOP: u32 = 1 << 24;

/// What a bit was in the past: the probability that it is 0.
#[derive(Debug, Clone, Copy)]
pub struct Model(u16);

impl Default for Model {
    fn default() -> Self {
        Self(1 << (DIGITS - 1))
    }
}

impl Model {
    fn bound(self, range: u32) -> u32 {
        (range >> DIGITS) * u32::from(self.0)
    }

    fn learn(&mut self, bit: bool) {
        if bit {
            self.0 -= self.0 >> SLOWNESS;
        } else {
            self.0 += ((1 << DIGITS) - self.0) >> SLOWNESS;
        }
        // Nothing is ever certain.
        self.0 = self.0.clamp(1, (1 << DIGITS) - 1);
    }
}

/// Bits to bytes.
#[derive(Debug)]
pub struct Encoder {
    low: u64,
    range: u32,
    cache: u8,
    pending: u64,
    bytes: Vec<u8>,
}

impl Default for Encoder {
    fn default() -> Self {
        Self { low: 0, range: u32::MAX, cache: 0, pending: 1, bytes: Vec::new() }
    }
}

impl Encoder {
    /// Appends a bit under its model.
    #[inline]
    pub fn bit(&mut self, model: &mut Model, bit: bool) {
        let bound = model.bound(self.range);
        if bit {
            self.low += u64::from(bound);
            self.range -= bound;
        } else {
            self.range = bound;
        }
        model.learn(bit);
        self.settle();
    }

    /// Appends the lowest `count` bits of a number that nothing is known of, highest first.
    pub fn raw(&mut self, value: u64, count: u32) {
        for at in (0..count).rev() {
            self.range >>= 1;
            if value >> at & 1 == 1 {
                self.low += u64::from(self.range);
            }
            self.settle();
        }
    }

    /// All bytes.
    pub fn finish(mut self) -> Vec<u8> {
        for _ in 0..5 {
            self.shift();
        }
        self.bytes
    }

    fn settle(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.shift();
        }
    }

    fn shift(&mut self) {
        if self.low < 0xff00_0000 || self.low > u64::from(u32::MAX) {
            let carry = (self.low >> 32) as u8;
            let mut byte = self.cache;
            while self.pending > 0 {
                self.bytes.push(byte.wrapping_add(carry));
                byte = 0xff;
                self.pending -= 1;
            }
            self.cache = (self.low >> 24) as u8;
        }
        self.pending += 1;
        self.low = (self.low << 8) & u64::from(u32::MAX);
    }
}

/// Bytes to bits. Bytes that are missing read as zeros: whoever needs certainty checks a hash.
#[derive(Debug)]
pub struct Decoder<'a> {
    code: u32,
    range: u32,
    bytes: std::slice::Iter<'a, u8>,
}

impl<'a> Decoder<'a> {
    /// Starts on what [`Encoder::finish`] gave.
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut decoder = Self { code: 0, range: u32::MAX, bytes: bytes.iter() };
        for _ in 0..5 {
            decoder.code = decoder.code << 8 | u32::from(decoder.next());
        }
        decoder
    }

    fn next(&mut self) -> u8 {
        self.bytes.next().copied().unwrap_or(0)
    }

    fn settle(&mut self) {
        while self.range < TOP {
            self.range <<= 8;
            self.code = self.code << 8 | u32::from(self.next());
        }
    }

    /// The next bit under its model.
    #[inline]
    pub fn bit(&mut self, model: &mut Model) -> bool {
        let bound = model.bound(self.range);
        let bit = self.code >= bound;
        if bit {
            self.code -= bound;
            self.range -= bound;
        } else {
            self.range = bound;
        }
        model.learn(bit);
        self.settle();
        bit
    }

    /// The next `count` bits that nothing is known of.
    pub fn raw(&mut self, count: u32) -> u64 {
        let mut value = 0;
        for _ in 0..count {
            self.range >>= 1;
            let bit = self.code >= self.range;
            if bit {
                self.code -= self.range;
            }
            value = value << 1 | u64::from(bit);
            self.settle();
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(bits in prop::collection::vec((0usize..3, any::<bool>()), 0..2000), raw: u64) {
            let mut encoder = Encoder::default();
            let mut models = [Model::default(); 3];
            for (model, bit) in &bits {
                encoder.bit(&mut models[*model], *bit);
                encoder.raw(raw, 7);
            }
            encoder.raw(raw, 64);
            let bytes = encoder.finish();
            let mut decoder = Decoder::new(&bytes);
            let mut models = [Model::default(); 3];
            for (model, bit) in &bits {
                prop_assert_eq!(decoder.bit(&mut models[*model]), *bit);
                prop_assert_eq!(decoder.raw(7), raw & 127);
            }
            prop_assert_eq!(decoder.raw(64), raw);
        }

        #[test]
        fn garbage_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut decoder = Decoder::new(&bytes);
            let mut model = Model::default();
            for _ in 0..200 {
                decoder.bit(&mut model);
                decoder.raw(3);
            }
        }
    }

    #[test]
    fn rare_bits_are_cheap() {
        let mut encoder = Encoder::default();
        let mut model = Model::default();
        for at in 0..100_000 {
            encoder.bit(&mut model, at % 1000 == 0);
        }
        assert!(encoder.finish().len() < 600);
    }
}
