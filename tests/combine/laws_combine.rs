//! Laws of combining and resizing, held to a dense f64 reference over random shapes, ranks, scales,
//! signs and dtypes.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;

use crate::common::dense::{Dense, adapter, deltas, relative_error, weighted_sum};
use crate::common::made::{How, Workshop};
use lora_tool::format::Dtype;
use lora_tool::math::RankPolicy;
use lora_tool::method::params::Given;
use lora_tool::method::{Law, METHODS};
use lora_tool::ops::combine::Options;
use proptest::prelude::*;

/// What writing factors in f32 may change, relative to the whole.
const F32: f64 = 1e-6;
/// The same in bf16, whose factors carry 8 bits: 2⁻⁸ a factor and element.
const BF16: f64 = 6e-3;

type Deltas = BTreeMap<String, Dense>;

/// Two modules per adapter, of random shapes shared by all adapters; rank may exceed the shape.
#[derive(Debug, Clone)]
struct Inputs {
    shapes: [(usize, usize); 2],
    ranks: [[usize; 2]; 2],
    hows: [How; 2],
    weights: [f64; 2],
    seed: u64,
}

fn inputs() -> impl Strategy<Value = Inputs> {
    let size = 1usize..24;
    let rank = 1usize..9;
    let how = (0.25f64..20.0, any::<bool>(), any::<bool>()).prop_map(|(alpha, rslora, narrow)| {
        How { alpha, rslora, dtype: if narrow { Dtype::BF16 } else { Dtype::F32 } }
    });
    let weight = prop_oneof![-1.5f64..-0.1, 0.1f64..1.5];
    let shapes = [(size.clone(), size.clone()), (size.clone(), size)];
    let ranks = [[rank.clone(), rank.clone()], [rank.clone(), rank]];
    (shapes, ranks, [how.clone(), how], [weight.clone(), weight], any::<u64>()).prop_map(
        |(shapes, ranks, hows, weights, seed)| Inputs { shapes, ranks, hows, weights, seed },
    )
}

const NAMES: [&str; 2] = ["model.layers.0.q_proj", "model.layers.1.mlp.up_proj"];

impl Inputs {
    fn write(&self, workshop: &Workshop, which: usize) -> std::path::PathBuf {
        let at = |module: usize| {
            let (rows, columns) = self.shapes[module];
            (NAMES[module], rows, columns, self.ranks[which][module])
        };
        let seed = self.seed.wrapping_add(which as u64);
        workshop.peft(["a", "b"][which], seed, &[at(0), at(1)], self.hows[which])
    }

    fn tolerance(&self, used: usize) -> f64 {
        let narrow = self.hows[..used].iter().all(|how| how.dtype == Dtype::BF16);
        if narrow { BF16 } else { F32 }
    }
}

fn apart(path: &Path, expected: &Deltas) -> f64 {
    relative_error(&deltas(path), expected)
}

fn only(weight: f64, path: &Path) -> Deltas {
    weighted_sum(&[(weight, deltas(path))])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_default_is_the_weighted_sum(inputs in inputs()) {
        let workshop = Workshop::new();
        let (a, b) = (inputs.write(&workshop, 0), inputs.write(&workshop, 1));
        let [x, y] = inputs.weights;
        let expected = weighted_sum(&[(x, deltas(&a)), (y, deltas(&b))]);
        let (out, report) = workshop.combine(&[(&a, x), (&b, y)], "ab", Options::default());
        // Signs may cancel: what is left carries the rounding of what went in.
        let whole: f64 = expected.values().map(|delta| delta.inner(delta)).sum::<f64>().sqrt();
        prop_assume!(whole > 0.0);
        let tolerance = inputs.tolerance(2);
        prop_assert!(apart(&out, &expected) < tolerance, "{}", apart(&out, &expected));
        prop_assert!(report.relative_error < 1e-7 && report.energy_kept > 1.0 - 1e-12);
        for (name, part) in adapter(&out) {
            let at = NAMES.iter().position(|known| *known == name).expect("a known module");
            let most = inputs.ranks[0][at] + inputs.ranks[1][at];
            let (rows, columns) = inputs.shapes[at];
            prop_assert!(part.rank <= most.min(rows).min(columns), "rank {} of {name}", part.rank);
            prop_assert_eq!(part.scale, 1.0);
        }
        let (other, _) = workshop.combine(&[(&b, y), (&a, x)], "ba", Options::default());
        prop_assert!(apart(&other, &expected) < tolerance);
    }

    #[test]
    fn identities(inputs in inputs()) {
        let workshop = Workshop::new();
        let (a, b) = (inputs.write(&workshop, 0), inputs.write(&workshop, 1));
        let tolerance = inputs.tolerance(1);
        let run = |list: &[(&Path, f64)]| workshop.combine(list, "out", Options::default()).0;
        let own: Vec<usize> = adapter(&a).values().map(|part| part.rank).collect();
        for (list, weight) in [
            (vec![(a.as_path(), 1.0)], 1.0),
            (vec![(a.as_path(), -1.0)], -1.0),
            (vec![(a.as_path(), 0.5), (a.as_path(), 0.5)], 1.0),
        ] {
            let out = run(&list);
            prop_assert!(apart(&out, &only(weight, &a)) < tolerance, "{list:?}");
            for (part, own) in adapter(&out).values().zip(&own) {
                prop_assert!(part.rank <= *own, "{} > {own}: {list:?}", part.rank);
            }
        }
        // The dtype is the widest of both, so the tolerance can only be better.
        let out = run(&[(&a, 1.0), (&b, 0.0)]);
        prop_assert!(apart(&out, &only(1.0, &a)) < tolerance);
        let (out, _) = workshop.combine(&[(&a, 1.0), (&a, -1.0), (&b, 1.0)], "out", Options::default());
        prop_assert!(apart(&out, &only(1.0, &b)) < inputs.tolerance(2) * 100.0);
    }

    #[test]
    fn ranks_keep_what_the_report_says(inputs in inputs(), rank in 1usize..10) {
        let workshop = Workshop::new();
        let mut inputs = inputs;
        inputs.hows[0].dtype = Dtype::F32;
        let (a, b) = (inputs.write(&workshop, 0), inputs.write(&workshop, 1));
        let [x, y] = inputs.weights;
        let exact = weighted_sum(&[(x, deltas(&a)), (y, deltas(&b))]);
        let mut last = 0.0;
        for rank in [rank, rank + 1, rank + 3] {
            let options = Options { rank: Some(RankPolicy::Fixed(rank)), ..Options::default() };
            let (out, report) = workshop.combine(&[(&a, x), (&b, y)], "out", options);
            let values: Vec<Vec<f64>> = exact.values().map(Dense::singular_values).collect();
            let square = |values: &[f64]| values.iter().map(|value| value * value).sum::<f64>();
            let total: f64 = values.iter().map(|values| square(values)).sum();
            let dropped: f64 = values.iter().map(|values| square(values.get(rank..).unwrap_or(&[]))).sum();
            prop_assert!((report.energy_kept - (1.0 - dropped / total)).abs() < 1e-9);
            prop_assert!((report.relative_error - apart(&out, &exact)).abs() < F32);
            prop_assert!(report.energy_kept >= last - 1e-15);
            last = report.energy_kept;
        }
    }

    #[test]
    fn a_shared_error_is_respected(inputs in inputs(), error in 0.02f64..0.9) {
        let workshop = Workshop::new();
        let mut inputs = inputs;
        inputs.hows[0].dtype = Dtype::F32;
        let (a, b) = (inputs.write(&workshop, 0), inputs.write(&workshop, 1));
        let list = [(a.as_path(), 1.0), (b.as_path(), 0.5)];
        let exact = weighted_sum(&[(1.0, deltas(&a)), (0.5, deltas(&b))]);
        let options = Options { rank: Some(RankPolicy::Error(error)), ..Options::default() };
        let (out, report) = workshop.combine(&list, "out", options.clone());
        prop_assert!(apart(&out, &exact) <= error + F32);
        prop_assert!((report.relative_error - apart(&out, &exact)).abs() < F32);
        // Filled up to one rank: the least that respects it.
        let (filled, _) = workshop.combine(&list, "filled", Options { uniform: true, ..options });
        let ranks: Vec<usize> = adapter(&filled).values().map(|part| part.rank).collect();
        prop_assert!(ranks.windows(2).all(|pair| pair[0] == pair[1]), "{ranks:?}");
        prop_assert!(apart(&filled, &exact) <= error + F32);
        if ranks[0] > 1 {
            let rank = Some(RankPolicy::Fixed(ranks[0] - 1));
            let (less, _) = workshop.combine(&list, "less", Options { rank, ..Options::default() });
            prop_assert!(apart(&less, &exact) > error - F32, "{ranks:?}");
        }
    }

}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_method_obeys_the_laws_it_lists(inputs in inputs()) {
        let workshop = Workshop::new();
        let mut inputs = inputs;
        // Sums of factors take equal ranks.
        inputs.ranks[1] = inputs.ranks[0];
        let (a, b) = (inputs.write(&workshop, 0), inputs.write(&workshop, 1));
        let [x, y] = inputs.weights;
        let twice = Inputs {
            hows: inputs.hows.map(|how| How { alpha: 2.0 * how.alpha, ..how }),
            ..inputs.clone()
        };
        let other = Workshop::new();
        let (a2, b2) = (twice.write(&other, 0), twice.write(&other, 1));
        for method in METHODS {
            // Of what has no low rank, everything.
            let rank = method.elementwise().map(|_| RankPolicy::Fixed(64));
            let with = |list: &[(&Path, f64)], params: Given| {
                let (method, dtype) = (Some(method.name.to_owned()), Some(Dtype::F32));
                workshop.combine(list, "out", Options { method, dtype, rank, params, ..Options::default() })
            };
            let run = |list: &[(&Path, f64)]| with(list, Given::new());
            let whole = |list: &[(&Path, f64)]| {
                let takes = method.takes.iter().any(|param| param.name == "density");
                let density = ("density".to_owned(), "1".to_owned());
                with(list, takes.then_some(density).into_iter().collect())
            };
            for law in method.laws {
                let (found, expected) = match law {
                    Law::Identity => (whole(&[(&a, 1.0)]), only(1.0, &a)),
                    Law::Negation => (whole(&[(&a, -1.0)]), only(-1.0, &a)),
                    Law::Permutation => {
                        let (out, _) = run(&[(&b, y), (&a, x)]);
                        let expected = deltas(&out);
                        (run(&[(&a, x), (&b, y)]), expected)
                    }
                    Law::Scale => {
                        let once = deltas(&run(&[(&a, x), (&b, y)]).0);
                        (run(&[(&a2, x), (&b2, y)]), weighted_sum(&[(2.0, once)]))
                    }
                    Law::WeightedSum | Law::Stack => (
                        run(&[(&a, x), (&b, y)]),
                        weighted_sum(&[(x, deltas(&a)), (y, deltas(&b))]),
                    ),
                };
                let error = apart(&found.0, &expected);
                prop_assert!(error < F32 * 10.0, "{} breaks {law:?}: {error}", method.name);
            }
            // And the report tells how far it is from the sum.
            let (out, report) = run(&[(&a, x), (&b, y)]);
            let true_distance = apart(&out, &weighted_sum(&[(x, deltas(&a)), (y, deltas(&b))]));
            let off = (report.distance_from_sum - true_distance).abs();
            prop_assert!(off < F32 * 10.0 * (1.0 + true_distance), "{}: {off}", method.name);
        }
    }
}

/// A module of every kind of policy: the same delta and rank after resizing to its own rank.
#[test]
fn resizing_to_the_own_rank_changes_nothing() {
    let workshop = Workshop::new();
    let how = How { alpha: 5.0, rslora: true, ..How::default() };
    let a = workshop.peft("a", 3, &[(NAMES[0], 20, 30, 4), (NAMES[1], 12, 40, 7)], how);
    for policy in [RankPolicy::Lossless, RankPolicy::Fixed(7), RankPolicy::Energy(1.0)] {
        let resized = lora_tool::ops::resize::Options {
            adapter: a.clone(),
            rank: policy,
            combine: Options { output: workshop.path("out"), force: true, ..Options::default() },
        };
        let report =
            lora_tool::ops::resize::plan(&resized).expect("a plan").run(&()).expect("done");
        let out = adapter(&report.output);
        assert!(apart(&report.output, &only(1.0, &a)) < F32, "{policy}");
        for (name, part) in adapter(&a) {
            assert_eq!(out[&name].rank, part.rank, "{policy}: {name}");
            assert!((out[&name].scale - part.scale).abs() < 1e-9 * part.scale, "{policy}: {name}");
        }
    }
}
