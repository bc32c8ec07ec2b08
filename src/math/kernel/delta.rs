//! What rounding did to a delta: sums over the elements of the update asked for, and of the update
//! that the stored result really holds.

use super::loops::{Loop, widest};

/// Elements that are counted in 32 bits.
const PART: usize = 1 << 16;
/// Sums that run beside each other: the same ones whatever the vectors.
const LANES: usize = 16;

/// Sums over elements of a merged tensor, with asked = the update before rounding and added = the
/// stored result minus the base. Sums of parts combine with [`DeltaStats::add`]; the order of adding
/// is the caller's to fix.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DeltaStats {
    /// Σ asked².
    pub asked: f64,
    /// Σ added².
    pub added: f64,
    /// Σ asked·added.
    pub dot: f64,
    /// Elements for which an update other than 0 was asked.
    pub touched: u64,
    /// Of those, the ones whose stored value rounding left as it was.
    pub lost: u64,
    /// Elements.
    pub elements: u64,
}

impl DeltaStats {
    /// The sums over some elements: the `asked` values, those that are `stored` for them, and those `before`.
    /// Differences are taken in f32, sums in f64.
    pub fn of(asked: &[f32], stored: &[f32], before: &[f32]) -> Self {
        let mut stats = Self::default();
        let parts = asked.chunks(PART).zip(stored.chunks(PART)).zip(before.chunks(PART));
        for ((asked, stored), before) in parts {
            stats.add(&widest(Sums { asked, stored, before }));
        }
        stats
    }

    /// Adds the sums of another part.
    pub fn add(&mut self, other: &Self) {
        self.asked += other.asked;
        self.added += other.added;
        self.dot += other.dot;
        self.touched += other.touched;
        self.lost += other.lost;
        self.elements += other.elements;
    }

    /// Cosine between asked and added: 1 if rounding kept the direction; 1 for an empty update.
    pub fn cosine(&self) -> f64 {
        if self.asked == 0.0 {
            return 1.0;
        }
        if self.added == 0.0 {
            return 0.0;
        }
        (self.dot / (self.asked.sqrt() * self.added.sqrt())).clamp(-1.0, 1.0)
    }

    /// ‖added‖ / ‖asked‖; 1 for an empty update.
    pub fn norm_ratio(&self) -> f64 {
        if self.asked == 0.0 { 1.0 } else { (self.added / self.asked).sqrt() }
    }

    /// Share of the elements that should have changed and did not, in [0, 1].
    pub fn lost_share(&self) -> f64 {
        if self.touched == 0 { 0.0 } else { self.lost as f64 / self.touched as f64 }
    }

    /// Share of elements for which no change was asked, in [0, 1].
    pub fn untouched_share(&self) -> f64 {
        let untouched = self.elements - self.touched;
        if self.elements == 0 { 0.0 } else { untouched as f64 / self.elements as f64 }
    }
}

/// The sums of a few elements.
struct Sums<'a> {
    asked: &'a [f32],
    stored: &'a [f32],
    before: &'a [f32],
}

impl Loop for Sums<'_> {
    type Output = DeltaStats;

    #[inline(always)]
    fn run(self) -> DeltaStats {
        let (mut asked, mut added, mut dot) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        let (mut touched, mut lost) = ([0u32; LANES], [0u32; LANES]);
        let mut take = |at: usize, value: f32, stored: f32, before: f32| {
            let (a, b) = (value - before, stored - before);
            touched[at] += u32::from(a != 0.0);
            lost[at] += u32::from(a != 0.0 && b == 0.0);
            let (a, b) = (f64::from(a), f64::from(b));
            asked[at] += a * a;
            added[at] += b * b;
            dot[at] += a * b;
        };
        let (values, values_left) = self.asked.as_chunks::<LANES>();
        let (stored, stored_left) = self.stored.as_chunks::<LANES>();
        let (before, before_left) = self.before.as_chunks::<LANES>();
        for ((values, stored), before) in values.iter().zip(stored).zip(before) {
            for at in 0..LANES {
                take(at, values[at], stored[at], before[at]);
            }
        }
        let left = values_left.iter().zip(stored_left).zip(before_left);
        for (at, ((value, stored), before)) in left.enumerate() {
            take(at, *value, *stored, *before);
        }
        let count = |lanes: [u32; LANES]| lanes.iter().map(|n| u64::from(*n)).sum();
        DeltaStats {
            asked: asked.iter().sum(),
            added: added.iter().sum(),
            dot: dot.iter().sum(),
            touched: count(touched),
            lost: count(lost),
            elements: self.asked.len() as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_the_elements() {
        let before: Vec<f32> = (0..70_003).map(|n| (n % 17) as f32 / 8.0).collect();
        let asked: Vec<f32> =
            before.iter().zip(0..).map(|(b, n)| b + (n % 3) as f32 / 4.0).collect();
        let stored: Vec<f32> =
            before.iter().zip(0..).map(|(b, n)| b + (n % 2) as f32 / 4.0).collect();
        let stats = DeltaStats::of(&asked, &stored, &before);
        let mut plain = DeltaStats { elements: before.len() as u64, ..DeltaStats::default() };
        for n in 0..before.len() {
            let (a, b) = ((n % 3) as f64 / 4.0, (n % 2) as f64 / 4.0);
            plain.asked += a * a;
            plain.added += b * b;
            plain.dot += a * b;
            plain.touched += u64::from(a != 0.0);
            plain.lost += u64::from(a != 0.0 && b == 0.0);
        }
        // Sixteenths add up exactly.
        assert_eq!(stats, plain);
    }
}
