//! What an elementwise method is: a trim of each delta, then a blend of all.

/// An elementwise method, as its file declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elementwise {
    /// What becomes 0 in each delta.
    pub trim: Trim,
    /// How what is left becomes one.
    pub blend: Blend,
}

/// What becomes 0 in each delta before they are blended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    /// All but the `density` largest elements.
    Smallest,
    /// The `gamma` largest, and the smallest until `density` is left.
    SmallestAndLargest,
    /// Each with a chance of 1 − `density`; the others make up for it.
    Random,
    /// The same, with chances that fall with the magnitude's rank in its row.
    RandomByRank,
    /// Where the deltas vary least among each other, in all of them.
    LeastVarying,
    /// Those up to `epsilon`.
    Tiny,
}

/// How trimmed deltas become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blend {
    /// Their weighted sum.
    Sum,
    /// Of those that agree with the elected sign, the weighted mean or sum.
    Elect,
    /// The same, a delta counting by its share of all energy.
    ElectByEnergy,
    /// The mean of the weighted deltas that are not 0.
    Share,
    /// The same; where one alone is not 0, it is raised by how much it overlaps with the others.
    ShareReinforced,
}
