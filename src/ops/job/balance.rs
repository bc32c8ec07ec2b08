//! Which worker makes which parts.

/// For each part the number of its worker, from 0: the largest part first, always to whoever has the fewest bytes
/// (Graham's rule: no worker has more than 4/3 of the least that the busiest must have). `workers` is 1 at least.
pub(in crate::ops) fn balance(bytes: &[u64], workers: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..bytes.len()).collect();
    let size = |part: usize| bytes.get(part).copied().unwrap_or(0);
    order.sort_by_key(|part| std::cmp::Reverse(size(*part)));
    let mut loads = vec![0; workers.min(bytes.len()).max(1)];
    let mut worker_of = vec![0; bytes.len()];
    for part in order {
        let least = loads.iter_mut().enumerate().min_by_key(|(_, load)| **load);
        if let (Some((worker, load)), Some(slot)) = (least, worker_of.get_mut(part)) {
            *load += size(part);
            *slot = worker;
        }
    }
    worker_of
}

#[cfg(test)]
mod tests {
    use super::balance;

    #[test]
    fn the_largest_go_first_to_whoever_has_least() {
        // 5 and 4, then 3 to the second, 2 to the first; at 7 and 7 the first gets the 1.
        assert_eq!(balance(&[1, 5, 3, 4, 2], 2), [0, 0, 1, 1, 0]);
        assert_eq!(balance(&[7, 7, 7], 3), [0, 1, 2]);
        assert_eq!(balance(&[7, 7], 16), [0, 1]);
        assert_eq!(balance(&[], 4), Vec::<usize>::new());
    }
}
