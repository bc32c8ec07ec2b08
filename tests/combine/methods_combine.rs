//! combine by every method, in every space, and as every peer that it reproduces, against dense
//! formulas in f64 (`common/reference`) over random adapters and parameters.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::common::cases::{Case, NAMES, cases, parameters, problem};
use crate::common::dense::{Dense, deltas};
use crate::common::made::Workshop;
use crate::common::reference::{self, Formula};
use crate::common::svd::Svd;
use lora_tool::format::Dtype;
use lora_tool::math::RankPolicy;
use lora_tool::method::{Compat, Kind, METHODS, Method, Space};
use lora_tool::ops::combine::{Options, Report};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

/// What deltas in f32, and factors written in f32, may change, relative to the inputs and the result.
const F32: f64 = 3e-6;
/// Decisions that are closer than this are rounding's.
const CLOSE: f64 = 1e-5;

/// A method, a space and a peer.
#[derive(Debug, Clone, Copy)]
struct Run {
    method: &'static Method,
    space: Space,
    compat: Option<Compat>,
}

/// What the tool has of a method.
fn runs(method: &'static Method) -> Vec<Run> {
    let run = |space: Space, compat: Option<Compat>| Run { method, space, compat };
    let mut all = vec![run(Space::Delta, None)];
    if matches!(method.kind, Kind::Elementwise(_)) {
        all.extend([Space::Core, Space::Knots, Space::Factors].map(|space| run(space, None)));
        if method.peers.contains(&Compat::Peft) {
            all.extend([Space::Delta, Space::Factors].map(|space| run(space, Some(Compat::Peft))));
        }
    }
    if method.peers.contains(&Compat::Mergekit) && method.name != "linear" {
        all.push(run(Space::Delta, Some(Compat::Mergekit)));
    }
    all
}

impl Run {
    /// The case as the method takes it.
    fn fit(self, case: Case) -> Case {
        let sums_factors = ["peft-linear", "kohya-linear"].contains(&self.method.name);
        let case =
            if sums_factors || self.space == Space::Factors { case.of_equal_ranks() } else { case };
        if self.method.name == "slerp" { case.of_adapters(2) } else { case }
    }

    /// Whether numbers without rounding tell more.
    fn has_exact_cases(self) -> bool {
        let by_elements = matches!(self.method.kind, Kind::Elementwise(_));
        by_elements && matches!(self.space, Space::Delta | Space::Factors)
    }

    /// The modules' results by the reference, and whether rounding may have decided any.
    fn expected(self, case: &Case, rank: Option<usize>) -> (BTreeMap<String, Dense>, bool) {
        let (asked, weights) = (parameters(self.method, case), case.weights());
        let mut doubt = false;
        let mut results = BTreeMap::new();
        for (module, name) in NAMES.iter().enumerate() {
            let inputs = case.inputs(module);
            let problem = problem(case, module, &inputs, &weights, &asked, (self.compat, rank));
            let result = reference::combined(self.method, self.space, &problem);
            doubt |= problem.doubt(CLOSE);
            results.insert((*name).to_owned(), result);
        }
        (results, doubt)
    }

    fn found(
        self,
        case: &Case,
        rank: Option<usize>,
        threads: usize,
    ) -> (Workshop, PathBuf, Report) {
        let workshop = Workshop::new();
        let paths: Vec<PathBuf> = (0..case.members.len())
            .map(|which| case.write(which, &workshop.path(&format!("in{which}"))))
            .collect();
        let weights = case.weights();
        let inputs: Vec<_> = paths.iter().map(PathBuf::as_path).zip(weights).collect();
        let by_elements = matches!(self.method.kind, Kind::Elementwise(_));
        // Of what has no low rank, everything; of factors, what the method leaves.
        let everything = (by_elements && self.space == Space::Delta).then_some(64);
        let options = Options {
            method: Some(self.method.name.to_owned()),
            params: parameters(self.method, case).given,
            space: by_elements.then_some(self.space),
            compat: self.compat,
            rank: rank.or(everything).map(RankPolicy::Fixed),
            dtype: Some(Dtype::F32),
            threads,
            ..Options::default()
        };
        let (out, report) = workshop.combine(&inputs, "out", options);
        (workshop, out, report)
    }
}

/// The size that rounding is relative to: the inputs', and what came of them.
fn size(case: &Case, module: usize, result: &Dense) -> f64 {
    let inputs: f64 = case.inputs(module).iter().map(|input| input.weighted().norm()).sum();
    inputs.max(result.norm())
}

/// Runs cases until so many without doubt are held to the reference.
fn hold(run: Run, exact: bool, count: u32, check: impl Fn(&Case) -> bool) {
    let config = ProptestConfig {
        cases: count,
        failure_persistence: None,
        max_global_rejects: 20 * count,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(
        config,
        proptest::test_runner::TestRng::deterministic_rng(
            proptest::test_runner::RngAlgorithm::ChaCha,
        ),
    );
    let held = runner.run(&cases(exact), |case| {
        prop_assume!(check(&run.fit(case)));
        Ok(())
    });
    if let Err(error) = held {
        let Run { method, space, compat } = run;
        panic!("{}, {space:?}, {compat:?}, exact {exact}: {error}", method.name);
    }
}

/// At full rank the result is the reference's.
fn whole(run: Run, exact: bool, count: u32) {
    hold(run, exact, count, |case| {
        let (expected, doubt) = run.expected(case, None);
        if doubt {
            return false;
        }
        let (_workshop, out, report) = run.found(case, None, 1);
        let found = deltas(&out);
        assert!(found.keys().eq(expected.keys()), "{:?}", found.keys());
        for (module, (name, expected)) in expected.iter().enumerate() {
            let off = found[name].minus(expected).norm() / size(case, module, expected).max(1e-30);
            assert!(off < F32, "{name} is off by {off}");
        }
        assert!(report.relative_error < 1e-3, "{}", report.relative_error);
        true
    });
}

/// Cut to a rank, the error is the least that any matrix of that rank has.
fn cut(run: Run, count: u32) {
    hold(run, false, count, |case| {
        let rank = 1 + (case.seed % 6) as usize;
        let (expected, doubt) = run.expected(case, Some(rank));
        if doubt {
            return false;
        }
        let (_workshop, out, report) = run.found(case, Some(rank), 1);
        let (mut dropped, mut all) = (0.0, 0.0);
        for (module, (name, found)) in deltas(&out).iter().enumerate() {
            let expected = &expected[name];
            let (error, size) = (found.minus(expected).norm(), size(case, module, expected));
            let least = Svd::of(expected).error(rank);
            assert!(
                error <= least * 1.01 + F32 * size,
                "{name} at {rank}: {error}, {least} of {size}"
            );
            assert!(Svd::of(found).error(rank) <= F32 * size, "{name} is of a rank above {rank}");
            dropped += error * error;
            all += expected.inner(expected);
        }
        if all > 1e-12 {
            let true_error = (dropped / all).sqrt();
            let off = (report.relative_error - true_error).abs();
            assert!(off < 1e-4, "{} reported, {true_error} found", report.relative_error);
        }
        true
    });
}

fn method(name: &str) -> &'static Method {
    lora_tool::method::by_name(name).expect("a method")
}

fn every_way(name: &str, count: u32) {
    for run in runs(method(name)) {
        whole(run, false, count);
        if run.has_exact_cases() {
            whole(run, true, count);
        }
        // A peer's factors are what they are.
        if run.compat.is_none() {
            cut(run, count / 2);
        }
    }
}

macro_rules! methods {
    ($($test:ident: $name:literal),+ $(,)?) => {
        $(#[test]
        fn $test() {
            every_way($name, 24);
        })+

        const HELD: &[&str] = &[$($name),+];
    };
}

methods! {
    linear: "linear", cat: "cat", shared_basis: "shared-basis", slerp: "slerp", karcher: "karcher",
    model_stock: "model-stock", ema: "ema", tsv: "tsv", iso_c: "iso-c", iso_cts: "iso-cts", star: "star", df_regmean: "df-regmean",
    peft_linear: "peft-linear", kohya_linear: "kohya-linear", kohya_cat: "kohya-cat",
    ties: "ties", dare_linear: "dare-linear", dare_ties: "dare-ties", della: "della",
    magnitude_prune: "magnitude-prune", breadcrumbs: "breadcrumbs",
    breadcrumbs_ties: "breadcrumbs-ties", della_linear: "della-linear", sce: "sce", ram: "ram", ram_plus: "ram-plus",
}

/// mergekit's `linear` is a mean of whole models, so of their deltas.
#[test]
fn the_linear_of_mergekit_divides_by_the_weights() {
    let plain = Run { method: method("linear"), space: Space::Delta, compat: None };
    let theirs = Run { compat: Some(Compat::Mergekit), ..plain };
    hold(theirs, false, 12, |case| {
        let total: f64 = case.weights().iter().sum();
        if total.abs() < 0.2 {
            return false;
        }
        let (_workshop, out, _) = theirs.found(case, None, 1);
        let found = deltas(&out);
        for (module, (name, sum)) in plain.expected(case, None).0.iter().enumerate() {
            let mean = sum.scaled(1.0 / total);
            let size = size(case, module, &mean) / total.abs().min(1.0);
            assert!(found[name].minus(&mean).norm() <= F32 * size, "{name}");
        }
        true
    });
}

#[test]
fn every_method_has_a_reference_and_a_test() {
    for method in METHODS {
        let formula = reference::formula(method.name);
        let by_elements = matches!(method.kind, Kind::Elementwise(_));
        let fits = match formula {
            Some(Formula::Whole(_)) => !by_elements,
            Some(Formula::Elements(..)) => by_elements,
            None => false,
        };
        assert!(fits, "`{}` needs a reference in tests/common/reference", method.name);
        assert!(HELD.contains(&method.name), "`{}` needs a line in this file", method.name);
    }
}
