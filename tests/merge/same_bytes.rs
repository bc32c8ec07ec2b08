//! The same bytes by every method, in every space, for any number of threads and any size of blocks.
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use crate::common::made::{How, Workshop};
use crate::common::{Random, Tensors};
use lora_tool::math::RankPolicy;
use lora_tool::method::{Compat, Kind, METHODS, Method, Space};
use lora_tool::ops::combine;
use lora_tool::ops::merge::{self, AdapterInput};

/// Modules that take several blocks, a sketch or an exact decomposition; one is small.
const SHAPES: [(&str, usize, usize); 4] = [
    ("layers.0.q_proj", 150, 130),
    ("layers.0.k_proj", 40, 310),
    ("layers.1.q_proj", 333, 21),
    ("layers.1.k_proj", 5, 3),
];
/// (threads, rows of a block).
const WAYS: [(usize, Option<usize>); 6] =
    [(1, None), (2, None), (8, None), (1, Some(1)), (2, Some(7)), (8, Some(64))];

fn adapters(workshop: &Workshop) -> [PathBuf; 2] {
    [("a", 1), ("b", 2)].map(|(name, seed)| {
        let modules = SHAPES.map(|(module, rows, columns)| (module, rows, columns, 4));
        workshop.peft(name, seed, &modules, How::default())
    })
}

fn inputs(adapters: &[PathBuf; 2]) -> Vec<AdapterInput> {
    let input = |(path, weight): (&PathBuf, f64)| AdapterInput::new(path, weight);
    adapters.iter().zip([0.7, -0.4]).map(input).collect()
}

/// All files of a directory.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        files.push((name, std::fs::read(path).expect("a file")));
    }
    files.sort();
    files
}

/// Runs all ways and compares what was written.
fn same(what: &str, run: impl Fn(usize, Option<usize>) -> Vec<(String, Vec<u8>)>) {
    let [(threads, block), rest @ ..] = WAYS;
    let first = run(threads, block);
    assert!(!first.is_empty(), "{what}");
    for (threads, block) in rest {
        let again = run(threads, block);
        assert!(again == first, "{what}: {threads} threads, blocks of {block:?}");
    }
}

fn combines_alike(method: &'static Method, space: Space, compat: Option<Compat>) {
    let workshop = Workshop::new();
    let adapters = adapters(&workshop);
    let by_elements = matches!(method.kind, Kind::Elementwise(_));
    same(&format!("{} {space:?} {compat:?}", method.name), |threads, block_rows| {
        let options = combine::Options {
            adapters: inputs(&adapters),
            output: workshop.path("out"),
            method: Some(method.name.to_owned()),
            space: by_elements.then_some(space),
            compat,
            rank: (space == Space::Delta).then_some(RankPolicy::Fixed(6)),
            force: true,
            threads,
            block_rows,
            ..combine::Options::default()
        };
        let done = combine::plan(&options).and_then(|plan| plan.run(&()));
        done.unwrap_or_else(|error| panic!("{error}"));
        files(&options.output)
    });
}

#[test]
fn of_every_combination() {
    for method in METHODS {
        combines_alike(method, Space::Delta, None);
        if matches!(method.kind, Kind::Elementwise(_)) {
            for space in [Space::Core, Space::Knots, Space::Factors] {
                combines_alike(method, space, None);
            }
            for peer in method.peers {
                combines_alike(method, Space::Delta, Some(*peer));
            }
        }
    }
}

#[test]
fn of_every_merge() {
    let workshop = Workshop::new();
    let adapters = adapters(&workshop);
    let mut random = Random::new(7);
    let mut base = Tensors::new();
    for (module, rows, columns) in SHAPES {
        let values = random.values(rows * columns, 1.0);
        base = base.f32(&format!("{module}.weight"), &[rows, columns], &values);
    }
    let base = base.save(&workshop.path("base.safetensors"));
    let tuned = {
        let options = merge::Options {
            base: base.clone(),
            adapters: inputs(&adapters),
            output: workshop.path("tuned.safetensors"),
            ..merge::Options::default()
        };
        merge::plan(&options).and_then(|plan| plan.run(&())).expect("merged");
        options.output
    };
    let adds = |method: &&&Method| {
        matches!(method.kind, Kind::Elementwise(_) | Kind::Gram(_)) || method.name == "linear"
    };
    for method in METHODS.iter().filter(adds) {
        // An adapter and a tuned checkpoint.
        let both = [adapters[0].clone(), tuned.clone()];
        same(&format!("merge by {}", method.name), |threads, block_rows| {
            let options = merge::Options {
                base: base.clone(),
                adapters: inputs(&both),
                output: workshop.path("merged"),
                method: Some(method.name.to_owned()),
                force: true,
                threads,
                block_rows,
                ..merge::Options::default()
            };
            let done = merge::plan(&options).and_then(|plan| plan.run(&()));
            done.unwrap_or_else(|error| panic!("{error}"));
            files(&options.output)
        });
    }
}
