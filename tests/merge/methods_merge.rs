//! merge by every method that it takes, and as every peer, against dense formulas in f64
//! (`common/reference`), over random adapters and tuned checkpoints; and the laws that methods list, for
//! merge and for combine in every space.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::common::cases::{Asked, Case, Kind as How, NAMES, cases, parameters, problem};
use crate::common::dense::{Dense, deltas};
use crate::common::made::Workshop;
use crate::common::reference::{self, Input};
use crate::common::{Random, Tensors, read};
use lora_tool::format::Dtype;
use lora_tool::math::RankPolicy;
use lora_tool::method::params::Given;
use lora_tool::method::{Compat, Kind, Law, METHODS, Method, Space};
use lora_tool::ops::combine;
use lora_tool::ops::merge::{self, AdapterInput, Options};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

/// What deltas in f32 may change, relative to the inputs and the result, and the last place of a weight.
const F32: f64 = 3e-6;
/// Decisions that are closer than this are rounding's.
const CLOSE: f64 = 1e-5;

type Deltas = BTreeMap<String, Dense>;

/// A case and a base for it; some of the adapters may be tuned checkpoints instead.
struct Scene {
    case: Case,
    base: Vec<Dense>,
    /// Of each member, the weights it was tuned to.
    tuned: Vec<Option<Vec<Dense>>>,
    workshop: Workshop,
}

impl Scene {
    fn new(case: Case, some_tuned: bool) -> Self {
        let mut random = Random::new(case.seed ^ 0xba5e);
        random.values(8, 1.0);
        let mut weight = |(rows, columns): (usize, usize)| {
            let values = random.values(rows * columns, 1.0).into_iter().map(|value| {
                f64::from(if case.exact { (value * 16.0).round() / 4.0 } else { value })
            });
            Dense::new(rows, columns, values.collect())
        };
        let base: Vec<Dense> = case.shapes.into_iter().map(&mut weight).collect();
        let tune = |which: usize| {
            let moved = |module: usize| {
                let inputs = case.inputs(module);
                let own = inputs.iter().find(|input| input.adapter == which).map(Input::delta);
                let moved = own.map_or(base[module].clone(), |own| base[module].plus(&own));
                let rounded = moved.values.iter().map(|value| f64::from(*value as f32)).collect();
                Dense::new(moved.rows, moved.columns, rounded)
            };
            (some_tuned && case.seed >> which & 1 == 1).then(|| (0..2).map(moved).collect())
        };
        let tuned = (0..case.members.len()).map(tune).collect();
        Self { case, base, tuned, workshop: Workshop::new() }
    }

    /// Writes a checkpoint.
    fn checkpoint(&self, name: &str, weights: &[Dense]) -> PathBuf {
        let mut tensors = Tensors::new().f32("norm.weight", &[2], &[1.0, -0.0]);
        for (module, weight) in NAMES.iter().zip(weights) {
            let values: Vec<f32> = weight.values.iter().map(|value| *value as f32).collect();
            let shape = [weight.rows, weight.columns];
            tensors = tensors.f32(&format!("{module}.weight"), &shape, &values);
        }
        tensors.save(&self.workshop.path(&format!("{name}.safetensors")))
    }

    /// What the inputs are to a module.
    fn inputs(&self, module: usize) -> Vec<Input> {
        let own = self.case.inputs(module);
        let input = |which: usize| match &self.tuned[which] {
            None => own.iter().find(|input| input.adapter == which).cloned(),
            Some(tuned) => {
                let delta = tuned[module].minus(&self.base[module]);
                let down = crate::common::formulas::identity(delta.columns);
                let weight = self.case.members[which].weight;
                Some(Input { up: delta, down, scale: 1.0, weight, adapter: which })
            }
        };
        (0..self.case.members.len()).filter_map(input).collect()
    }

    /// base + what the method makes of the inputs, and whether rounding may have decided.
    fn expected(&self, method: &Method, compat: Option<Compat>, asked: &Asked) -> (Deltas, bool) {
        let weights = self.case.weights();
        let (mut doubt, mut all) = (false, Deltas::new());
        let of_weights =
            compat == Some(Compat::Mergekit) && matches!(method.name, "slerp" | "karcher");
        for (module, name) in NAMES.iter().enumerate() {
            if of_weights {
                let (weight, close) = self.between_weights(method, module, asked);
                doubt |= close;
                all.insert((*name).to_owned(), weight);
                continue;
            }
            let inputs = self.inputs(module);
            let problem = problem(&self.case, module, &inputs, &weights, asked, (compat, None));
            let delta = reference::combined(method, Space::Delta, &problem);
            doubt |= problem.doubt(CLOSE);
            all.insert((*name).to_owned(), self.base[module].plus(&delta));
        }
        (all, doubt)
    }

    /// mergekit's points on a sphere are whole weights, base + weight · delta, of inputs without a part
    /// the base's.
    fn between_weights(&self, method: &Method, module: usize, asked: &Asked) -> (Dense, bool) {
        let (base, own) = (&self.base[module], self.inputs(module));
        let model = |which: usize| {
            let part = own.iter().find(|input| input.adapter == which).map(Input::weighted);
            let up = part.map_or(base.clone(), |part| base.plus(&part));
            let down = crate::common::formulas::identity(up.columns);
            Input { up, down, scale: 1.0, weight: 1.0, adapter: which }
        };
        let models: Vec<Input> = (0..self.case.members.len()).map(model).collect();
        let ones = vec![1.0; models.len()];
        let how = (Some(Compat::Mergekit), None);
        // λ is of the change, not of the whole weight.
        let mut whole = asked.clone();
        let lambda = whole.effective.insert("lambda".to_owned(), "1".to_owned());
        let lambda: f64 = lambda.and_then(|text| text.parse().ok()).expect("a lambda");
        let problem = problem(&self.case, module, &models, &ones, &whole, how);
        let weight = reference::combined(method, Space::Delta, &problem);
        let change = weight.minus(base).scaled(lambda);
        (base.plus(&change), problem.doubt(CLOSE))
    }

    fn options(&self, method: &Method, compat: Option<Compat>, given: &Given) -> Options {
        let path = |which: usize| match &self.tuned[which] {
            None => self.case.write(which, &self.workshop.path(&format!("in{which}"))),
            Some(tuned) => self.checkpoint(&format!("tuned{which}"), tuned),
        };
        let weight = |which: usize| self.case.members[which].weight;
        let adapter = |which: usize| AdapterInput::new(path(which), weight(which));
        Options {
            base: self.checkpoint("base", &self.base),
            adapters: (0..self.case.members.len()).map(adapter).collect(),
            output: self.workshop.path("out"),
            method: Some(method.name.to_owned()),
            params: given.clone(),
            compat,
            force: true,
            threads: 1,
            ..Options::default()
        }
    }

    /// The merged weights.
    fn merged(&self, options: &Options) -> Deltas {
        let done = merge::plan(options).and_then(|plan| plan.run(&()));
        done.unwrap_or_else(|error| panic!("{error}"));
        let tensors = read(&options.output);
        let weight = |(module, name): (usize, &&str)| {
            let (rows, columns) = self.case.shapes[module];
            let values = tensors[&format!("{name}.weight")].values();
            ((*name).to_owned(), Dense::new(rows, columns, values))
        };
        NAMES.iter().enumerate().map(weight).collect()
    }

    /// What rounding is relative to.
    fn size(&self, module: usize) -> f64 {
        let inputs: f64 = self.inputs(module).iter().map(|input| input.weighted().norm()).sum();
        inputs + 0.1 * self.base[module].norm()
    }

    /// Compares merged weights.
    fn close(&self, found: &Deltas, expected: &Deltas, what: &str) {
        for (module, name) in NAMES.iter().enumerate() {
            let off = found[*name].minus(&expected[*name]).norm();
            let size = self.size(module).max(expected[*name].norm() * 0.1);
            assert!(off <= F32 * size, "{what}: {name} is off by {off} of {size}");
        }
    }
}

/// Methods that need no factors as they are stored.
fn merging() -> impl Iterator<Item = &'static Method> {
    let merges = |method: &&&Method| !matches!(method.kind, Kind::Factors(_));
    METHODS.iter().filter(merges).copied()
}

fn fit(method: &Method, case: Case) -> Case {
    if method.name == "slerp" { case.of_adapters(2) } else { case }
}

/// The same cases each time; one that says false is drawn again.
fn on_cases(exact: bool, count: u32, what: &str, check: impl Fn(Case) -> bool) {
    let config = ProptestConfig {
        cases: count,
        failure_persistence: None,
        max_global_rejects: 20 * count,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let held = TestRunner::new_with_rng(config, rng).run(&cases(exact), |case| {
        prop_assume!(check(case));
        Ok(())
    });
    held.unwrap_or_else(|error| panic!("{what}, exact {exact}: {error}"));
}

fn holds(
    method: &'static Method,
    compat: Option<Compat>,
    exact: bool,
    some_tuned: bool,
    count: u32,
) {
    let what = format!("{} {compat:?}, tuned {some_tuned}", method.name);
    on_cases(exact, count, &what, |case| {
        let scene = Scene::new(fit(method, case), some_tuned);
        let asked = parameters(method, &scene.case);
        let (expected, doubt) = scene.expected(method, compat, &asked);
        if doubt {
            return false;
        }
        let found = scene.merged(&scene.options(method, compat, &asked.given));
        scene.close(&found, &expected, method.name);
        true
    });
}

fn is_core(method: &Method) -> bool {
    matches!(method.kind, Kind::Core(_))
}

/// All that merge has of methods whose name begins so.
fn every_way(part: usize) {
    for method in merging().skip(part).step_by(4) {
        let peers = method.peers.iter().copied().map(Some);
        for compat in [None].into_iter().chain(peers) {
            // A checkpoint has no factors.
            let tuned = [false, true].into_iter().filter(|tuned| !tuned || !is_core(method));
            for some_tuned in tuned {
                holds(method, compat, false, some_tuned, 12);
                if matches!(method.kind, Kind::Elementwise(_)) {
                    holds(method, compat, true, some_tuned, 12);
                }
            }
        }
    }
}

#[test]
fn every_method_one() {
    every_way(0);
}

#[test]
fn every_method_two() {
    every_way(1);
}

#[test]
fn every_method_three() {
    every_way(2);
}

#[test]
fn every_method_four() {
    every_way(3);
}

/// mergekit's `linear`: a mean of whole models, so of their deltas.
#[test]
fn the_linear_of_mergekit_divides_by_the_weights() {
    let linear = lora_tool::method::by_name("linear").expect("a method");
    on_cases(false, 24, "linear", |case| {
        let total: f64 = case.weights().iter().sum();
        if total.abs() < 0.2 {
            return false;
        }
        let scene = Scene::new(case, true);
        let mean = |(module, name): (usize, &&str)| {
            let inputs = scene.inputs(module);
            let sum = inputs.iter().fold(scene.base[module].clone(), |sum, input| {
                sum.plus(&input.weighted().scaled(1.0 / total))
            });
            ((*name).to_owned(), sum)
        };
        let expected: Deltas = NAMES.iter().enumerate().map(mean).collect();
        let options = scene.options(linear, Some(Compat::Mergekit), &Given::new());
        scene.close(&scene.merged(&options), &expected, "linear");
        true
    });
}

/// merge adds what combine, at a rank that loses nothing, writes: the random numbers too.
#[test]
fn merging_by_a_method_is_merging_what_it_combines() {
    for method in merging() {
        on_cases(false, 6, method.name, |case| {
            let scene = Scene::new(fit(method, case), false);
            let asked = parameters(method, &scene.case);
            let options = scene.options(method, None, &asked.given);
            let inputs: Vec<_> =
                options.adapters.iter().map(|i| (i.path.as_path(), i.weight)).collect();
            let combine = combine::Options {
                method: Some(method.name.to_owned()),
                params: asked.given.clone(),
                rank: Some(RankPolicy::Fixed(64)),
                dtype: Some(Dtype::F32),
                ..combine::Options::default()
            };
            let (combined, _) = scene.workshop.combine(&inputs, "combined", combine);
            let combined = deltas(&combined);
            let added = |(module, name): (usize, &&str)| {
                ((*name).to_owned(), scene.base[module].plus(&combined[*name]))
            };
            let expected: Deltas = NAMES.iter().enumerate().map(added).collect();
            // Where rounding decides, the two may differ.
            if scene.expected(method, None, &asked).1 {
                return false;
            }
            scene.close(&scene.merged(&options), &expected, method.name);
            true
        });
    }
}

/// The inputs of a law, and what its result is compared with.
enum Twin {
    /// This many times the deltas of these.
    Of(Case, f64),
    /// The plain sum.
    Sum,
}

/// What a law says of a case: the case to run, whether with everything kept, and its twin.
fn twin(law: Law, case: &Case) -> (Case, bool, Twin) {
    let mut own = case.clone();
    match law {
        Law::Identity | Law::Negation => {
            own.members.truncate(1);
            own.members[0].weight = if law == Law::Identity { 1.0 } else { -1.0 };
            (own, true, Twin::Sum)
        }
        Law::WeightedSum | Law::Stack => (own, false, Twin::Sum),
        Law::Scale => {
            own.members.iter_mut().for_each(|member| member.scale *= 2.0);
            (own, false, Twin::Of(case.clone(), 2.0))
        }
        Law::Permutation => (own.reversed(), false, Twin::Of(case.clone(), 1.0)),
    }
}

/// Everything kept, if that is asked for; the methods' own parameters otherwise.
fn given(method: &Method, whole: bool) -> Given {
    let density = method.takes.iter().filter(|param| whole && param.name == "density");
    density.map(|param| (param.name.to_owned(), "1".to_owned())).collect()
}

/// Deltas that combine writes of a case.
fn combined(method: &Method, space: Space, case: &Case, params: Given) -> Deltas {
    let workshop = Workshop::new();
    let write = |which: usize| case.write(which, &workshop.path(&format!("in{which}")));
    let paths: Vec<PathBuf> = (0..case.members.len()).map(write).collect();
    let inputs: Vec<_> = paths.iter().map(PathBuf::as_path).zip(case.weights()).collect();
    let by_elements = matches!(method.kind, Kind::Elementwise(_));
    let everything = (by_elements && space == Space::Delta).then_some(RankPolicy::Fixed(64));
    let options = combine::Options {
        method: Some(method.name.to_owned()),
        space: by_elements.then_some(space),
        params,
        rank: everything,
        dtype: Some(Dtype::F32),
        ..combine::Options::default()
    };
    deltas(&workshop.combine(&inputs, "out", options).0)
}

/// What merge adds to the base.
fn merged(method: &Method, case: &Case, params: &Given) -> Deltas {
    let scene = Scene::new(case.clone(), false);
    let found = scene.merged(&scene.options(method, None, params));
    let added = |(module, name): (usize, &&str)| {
        ((*name).to_owned(), found[*name].minus(&scene.base[module]))
    };
    NAMES.iter().enumerate().map(added).collect()
}

fn obeys(method: &'static Method, law: Law, what: &str, of: impl Fn(&Case, Given) -> Deltas) {
    on_cases(false, 10, &format!("{} breaks {law:?} {what}", method.name), |case| {
        // Sums of factors take equal ranks.
        let case = fit(method, case.of_equal_ranks());
        if case.members.iter().any(|member| member.kind == How::Partial) && law == Law::Identity {
            return false;
        }
        let (own, whole, twin) = twin(law, &case);
        let found = of(&own, given(method, whole));
        let expected: Deltas = match twin {
            Twin::Sum => (NAMES.iter().enumerate())
                .map(|(module, name)| {
                    let parts = own.inputs(module).into_iter().map(|input| input.weighted());
                    let parts: Vec<Dense> = parts.collect();
                    let zero = Dense::zeros(own.shapes[module].0, own.shapes[module].1);
                    ((*name).to_owned(), parts.iter().fold(zero, |sum, part| sum.plus(part)))
                })
                .collect(),
            Twin::Of(case, times) => of(&case, given(method, whole))
                .into_iter()
                .map(|(name, delta)| (name, delta.scaled(times)))
                .collect(),
        };
        for (module, name) in NAMES.iter().enumerate() {
            let size: f64 = own.inputs(module).iter().map(|input| input.weighted().norm()).sum();
            let size = size.max(expected[*name].norm());
            // A merge is rounded as the base's weights, of about 1, are.
            let base = (own.shapes[module].0 as f64 * own.shapes[module].1 as f64).sqrt();
            let off = found[*name].minus(&expected[*name]).norm();
            assert!(off <= 5e-6 * size + 3e-7 * base, "{name} is off by {off} of {size}");
        }
        true
    });
}

fn laws_of_combine(space: Space) {
    let takes_space =
        |method: &&&Method| space == Space::Delta || matches!(method.kind, Kind::Elementwise(_));
    for method in METHODS.iter().filter(takes_space) {
        for law in method.laws {
            let what = format!("in {}", space.name());
            obeys(method, *law, &what, |case, params| combined(method, space, case, params));
        }
    }
}

#[test]
fn laws_of_combine_on_deltas() {
    laws_of_combine(Space::Delta);
}

#[test]
fn laws_of_combine_in_cores() {
    laws_of_combine(Space::Core);
}

#[test]
fn laws_of_combine_in_knots() {
    laws_of_combine(Space::Knots);
}

#[test]
fn laws_of_combine_on_factors() {
    laws_of_combine(Space::Factors);
}

#[test]
fn laws_of_merge() {
    for method in merging() {
        for law in method.laws {
            obeys(method, *law, "in merge", |case, params| merged(method, case, &params));
        }
    }
}
