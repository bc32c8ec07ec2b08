//! Adapters that say much the same, in groups, and the order in which pairs are worth a look.

use std::cmp::{Ordering, Reverse};

use super::report::{Cluster, Pair};

/// Cosine from which two adapters are of one group: half of the squared norm of each then lies along the other.
const NEAR: f64 = 0.707;

/// The groups of two adapters or more, the largest first.
pub(super) fn clusters(count: usize, pairs: &[Pair]) -> Vec<Cluster> {
    let mut group: Vec<usize> = (0..count).collect();
    for pair in pairs.iter().filter(|pair| pair.measures.cosine >= NEAR) {
        let (Some(&a), Some(&b)) = (group.get(pair.a), group.get(pair.b)) else { continue };
        for number in &mut group {
            if *number == a.max(b) {
                *number = a.min(b);
            }
        }
    }
    let members = |of: usize| (0..count).filter(|at| group.get(*at) == Some(&of)).collect();
    let groups = (0..count).map(members).filter(|members: &Vec<usize>| members.len() > 1);
    let mut clusters: Vec<Cluster> = groups
        .map(|adapters| {
            let inside = |pair: &&Pair| adapters.contains(&pair.a) && adapters.contains(&pair.b);
            let cosines = pairs.iter().filter(inside).map(|pair| pair.measures.cosine);
            let least_cosine = cosines.fold(1.0, f64::min);
            Cluster { adapters, least_cosine }
        })
        .collect();
    clusters.sort_by_key(|cluster| Reverse(cluster.adapters.len()));
    clusters
}

/// Numbers of the pairs, those first whose updates are the most alike or the most opposed.
pub(super) fn by_interest(pairs: &[Pair]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pairs.len()).collect();
    let size = |at: &usize| pairs.get(*at).map_or(0.0, |pair| pair.measures.cosine.abs());
    order.sort_by(|a, b| size(b).partial_cmp(&size(a)).unwrap_or(Ordering::Equal).then(a.cmp(b)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::compare::Measures;

    fn pair(a: usize, b: usize, cosine: f64) -> Pair {
        let measures = Measures { cosine, ..Measures::default() };
        Pair { a, b, shared_modules: 1, measures, modules: Vec::new() }
    }

    #[test]
    fn groups_are_what_is_near_to_one_of_them() {
        let pairs = [
            pair(0, 1, 0.1),
            pair(0, 2, -0.9),
            pair(0, 3, 0.0),
            pair(1, 2, 0.8),
            pair(1, 3, 0.3),
            pair(2, 3, 0.75),
        ];
        let expected = Cluster { adapters: vec![1, 2, 3], least_cosine: 0.3 };
        assert_eq!(clusters(4, &pairs), [expected]);
        assert_eq!(by_interest(&pairs), [1, 3, 5, 4, 0, 2]);
        assert_eq!(clusters(2, &[pair(0, 1, 0.0)]), []);
    }
}
