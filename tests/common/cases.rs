//! Random combinations: modules of all proportions, adapters of all ranks, zero and repeated ones,
//! weights of both signs, and random parameters of a method.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lora_tool::method::params::{Given, Param, ParamKind};
use lora_tool::method::{Compat, Method};
use proptest::prelude::*;
use serde_json::{Map, json};

use super::dense::Dense;
use super::reference::{Input, Problem};
use super::{Peft, Random};

/// Two modules, by these names.
pub const NAMES: [&str; 2] = ["model.layers.0.q_proj", "model.layers.1.mlp.up_proj"];

/// How an adapter differs from plain random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Random,
    /// As training begins: B is 0.
    Zero,
    /// The first adapter's factors again.
    Repeated,
    /// Without the second module.
    Partial,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub kind: Kind,
    pub ranks: [usize; 2],
    pub scale: f64,
    pub weight: f64,
}

/// Random adapters.
#[derive(Debug, Clone)]
pub struct Case {
    /// (outputs, inputs) of both modules.
    pub shapes: [(usize, usize); 2],
    pub members: Vec<Member>,
    /// All numbers are multiples of small powers of 2.
    pub exact: bool,
    pub seed: u64,
    /// Which random numbers each adapter has.
    pub sources: Vec<u64>,
}

/// Tall, wide, square, a row, a column.
fn shape() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        4 => (1usize..24, 1usize..24),
        2 => (16usize..40, 2usize..8),
        2 => (2usize..8, 16usize..40),
        1 => (1usize..2, 1usize..30),
        1 => (1usize..30, 1usize..2),
    ]
}

fn member(exact: bool) -> impl Strategy<Value = Member> {
    let kind = prop_oneof![
        8 => Just(Kind::Random), 1 => Just(Kind::Zero), 2 => Just(Kind::Repeated), 1 => Just(Kind::Partial),
    ];
    let rank = prop_oneof![3 => 1usize..8, 1 => Just(1usize), 1 => 8usize..14];
    let (scale, weight) = if exact {
        let weights = vec![1.0, 1.0, -1.0, 0.25, -0.25, 4.0];
        (
            prop::sample::select(vec![1.0, 1.0, 0.25, 4.0]).boxed(),
            prop::sample::select(weights).boxed(),
        )
    } else {
        (
            (0.2f64..5.0).boxed(),
            prop_oneof![3 => 0.1f64..1.5, 2 => -1.5f64..-0.1, 1 => Just(1.0)].boxed(),
        )
    };
    (kind, [rank.clone(), rank], scale, weight).prop_map(|(kind, ranks, scale, weight)| Member {
        kind,
        ranks,
        scale,
        weight,
    })
}

/// One to five adapters.
pub fn cases(exact: bool) -> impl Strategy<Value = Case> {
    let members = prop::collection::vec(member(exact), 1..=5);
    ([shape(), shape()], members, any::<u64>()).prop_map(move |(shapes, mut members, seed)| {
        members[0].kind = Kind::Random;
        let first = members[0].clone();
        for member in members.iter_mut().filter(|member| member.kind == Kind::Repeated) {
            (member.ranks, member.scale) = (first.ranks, first.scale);
        }
        let source = |(which, member): (usize, &Member)| match member.kind {
            Kind::Repeated => 0,
            _ => which as u64,
        };
        let sources = members.iter().enumerate().map(source).collect();
        Case { shapes, members, exact, seed, sources }
    })
}

impl Case {
    /// The same with the first adapter's ranks everywhere.
    #[must_use]
    pub fn of_equal_ranks(mut self) -> Self {
        let ranks = self.members[0].ranks;
        self.members.iter_mut().for_each(|member| member.ranks = ranks);
        self
    }

    /// The same with so many adapters, the first ones again where there are fewer.
    #[must_use]
    pub fn of_adapters(mut self, count: usize) -> Self {
        self.members = self.members.iter().cycle().take(count).cloned().collect();
        self.sources = self.sources.iter().cycle().take(count).copied().collect();
        self
    }

    /// The same adapters from the last to the first.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        self.members.reverse();
        self.sources.reverse();
        self
    }

    pub fn weights(&self) -> Vec<f64> {
        self.members.iter().map(|member| member.weight).collect()
    }

    /// A factor of a module of an adapter, row by row.
    fn factor(&self, which: usize, module: usize, up: bool) -> Vec<f32> {
        let member = &self.members[which];
        let (rows, columns) = self.shapes[module];
        let count = member.ranks[module] * if up { rows } else { columns };
        if up && member.kind == Kind::Zero {
            return vec![0.0; count];
        }
        let key = self.sources[which] << 2 | (module as u64) << 1 | u64::from(up);
        let mut random = Random::new(self.seed ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        // Low bits of such numbers repeat; the first few depend on the seed alone.
        random.values(8, 1.0);
        let values = random.values(count, 1.0);
        if !self.exact {
            return values;
        }
        values.iter().map(|value| (value * 2.5).round() / 2.0).collect()
    }

    fn has(&self, which: usize, module: usize) -> bool {
        module == 0 || self.members[which].kind != Kind::Partial
    }

    /// Writes an adapter as a PEFT directory.
    pub fn write(&self, which: usize, directory: &Path) -> PathBuf {
        let member = &self.members[which];
        let mut peft = Peft::new(member.ranks[0], member.scale * member.ranks[0] as f64);
        let (mut ranks, mut alphas) = (Map::new(), Map::new());
        for (module, name) in
            NAMES.iter().enumerate().filter(|(module, _)| self.has(which, *module))
        {
            let rank = member.ranks[module];
            ranks.insert((*name).to_owned(), json!(rank));
            alphas.insert((*name).to_owned(), json!(member.scale * rank as f64));
            let (down, up) = (self.factor(which, module, false), self.factor(which, module, true));
            peft = peft.linear(name, rank, &down, &up);
        }
        peft.field("rank_pattern", ranks)
            .field("alpha_pattern", alphas)
            .field("target_modules", json!(["q_proj", "up_proj"]))
            .save(directory)
    }

    /// What the adapters bring to a module.
    pub fn inputs(&self, module: usize) -> Vec<Input> {
        let (rows, columns) = self.shapes[module];
        let dense = |rows: usize, columns: usize, values: Vec<f32>| {
            Dense::new(rows, columns, values.into_iter().map(f64::from).collect())
        };
        let present = (0..self.members.len()).filter(|which| self.has(*which, module));
        let input = |which: usize| {
            let member = &self.members[which];
            let rank = member.ranks[module];
            Input {
                up: dense(rows, rank, self.factor(which, module, true)),
                down: dense(rank, columns, self.factor(which, module, false)),
                // As a file has it: alpha, over the rank.
                scale: member.scale * rank as f64 / rank as f64,
                weight: member.weight,
                adapter: which,
            }
        };
        present.map(input).collect()
    }
}

/// What the tool is asked for: parameters as given, and as they are in effect.
#[derive(Debug, Clone)]
pub struct Asked {
    pub given: Given,
    pub effective: BTreeMap<String, String>,
}

/// Random values for all of a method's parameters, some left to their defaults.
pub fn parameters(method: &Method, case: &Case) -> Asked {
    let mut random = Random::new(case.seed ^ 0x5bd1_e995);
    random.values(8, 1.0);
    let mut draw = || f64::from(random.value(0.5)) + 0.5;
    let mut asked = Asked { given: Given::new(), effective: BTreeMap::new() };
    for param in method.takes {
        let text = if draw() < 0.15 { None } else { Some(value(param, case, &mut draw)) };
        let effective = text.clone().unwrap_or_else(|| param.default_text());
        asked.effective.insert(param.name.to_owned(), effective);
        asked.given.extend(text.map(|text| (param.name.to_owned(), text)));
    }
    // DELLA's chances must leave room on both sides.
    if let Some(densities) = asked.effective.get("density")
        && asked.effective.contains_key("epsilon")
    {
        let numbers = densities.split(',').map(|text| text.parse::<f64>().expect("a number"));
        let room = numbers.filter(|d| *d < 1.0).map(|d| d.min(1.0 - d)).fold(0.5, f64::min);
        let count = if draw() > 0.6 { case.members.len() } else { 1 };
        let epsilon: Vec<String> = (0..count).map(|_| (room * 0.9 * draw()).to_string()).collect();
        let epsilon = epsilon.join(",");
        asked.given.insert("epsilon".to_owned(), epsilon.clone());
        asked.effective.insert("epsilon".to_owned(), epsilon);
    }
    asked
}

fn value(param: &Param, case: &Case, draw: &mut dyn FnMut() -> f64) -> String {
    match param.kind {
        ParamKind::Word(words) => {
            words[((draw() * words.len() as f64) as usize).min(words.len() - 1)].to_owned()
        }
        ParamKind::Number { least, most, each, .. } => {
            let exact = case.exact && param.name == "density";
            let mut number = || match (exact, param.name) {
                (true, _) => [0.25, 0.5, 0.5, 1.0][((draw() * 4.0) as usize).min(3)],
                (_, "seed") => (draw() * 1e6).floor(),
                _ => {
                    let (low, high) = (least.max(-1.5), most.min(2.0));
                    (low + (high - low) * draw()).max(low + 1e-3)
                }
            };
            let count = if each && number() > 0.6 { case.members.len() } else { 1 };
            let all: Vec<String> = (0..count).map(|_| number().to_string()).collect();
            all.join(",")
        }
    }
}

/// The problem that a case is for one module.
pub fn problem<'a>(
    case: &Case,
    module: usize,
    inputs: &'a [Input],
    weights: &'a [f64],
    asked: &'a Asked,
    (compat, rank): (Option<Compat>, Option<usize>),
) -> Problem<'a> {
    let (rows, columns) = case.shapes[module];
    Problem {
        name: NAMES[module],
        rows,
        columns,
        inputs,
        weights,
        params: &asked.effective,
        given: &asked.given,
        compat,
        rank,
        exact: case.exact,
        margin: f64::INFINITY.into(),
    }
}
