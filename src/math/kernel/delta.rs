//! What rounding did to a delta: sums over the elements of the update asked for, and of the update
//! that the stored result really holds.

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
