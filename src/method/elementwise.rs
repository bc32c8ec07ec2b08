//! Methods that look at elements of the deltas: a trim of each delta, then a blend of all.
//!
//! The deltas are never held. Whoever has them hands them over as [`Panel`]s of whole rows, as often as
//! the preparation asks ([`Blending::wants_pass`]), in any order and from any thread; then every panel
//! is combined by itself. Neither the panels' size nor the threads change a bit of the result.

pub use super::rule::{Blend, Elementwise, Trim};

use super::compat::Compat;
use super::overlap;
use super::panel::{Counts, InputWeight, Panel};
use super::params::{DENSITY, EPSILON, GAMMA, LAMBDA, MAJORITY_SIGN, REDUCE, SEED};
use super::settings::Settings;
use crate::math::elements::blend::{self, Election, Majority};
use crate::math::elements::random::Stream;
use crate::math::elements::select::{Cut, Keep, Selection};
use crate::math::elements::sparsify::Sparsifier;

/// What is still to be learnt of a tensor before its elements can be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Cuts,
    Norms,
    Ready,
}

/// One input, and what has been learnt of it.
#[derive(Debug, Clone)]
struct Input {
    part: InputWeight,
    density: f64,
    stream: Stream,
    selections: Vec<Selection>,
    /// Sums over its elements: before the trim, and after; of [`Blend::ShareReinforced`], how many others have too, and
    /// how many it has alone.
    norms: (f64, f64),
}

impl Input {
    /// ‖weight · delta‖², after the trim.
    fn energy(&self) -> f64 {
        self.norms.1 * self.part.weight * self.part.weight
    }
}

/// How many of so many elements a density keeps: one at least, but for peers that keep none.
fn count_to_keep(density: f64, elements: u64, compat: Option<Compat>) -> u64 {
    let count = (density * elements as f64).floor() as u64;
    count.max(u64::from(compat.is_none())).min(elements)
}

/// The counts above which elements are dropped, and above which they are kept unless dropped.
fn outliers((density, gamma): (f64, f64), elements: u64, compat: Option<Compat>) -> (u64, u64) {
    let keep = count_to_keep(density, elements, compat);
    // Where both cannot be, the density is held to.
    let dropped = ((gamma * elements as f64).floor() as u64).min(elements - keep);
    // mergekit's slice of all but the last 0 is empty.
    if compat == Some(Compat::Mergekit) && dropped == 0 {
        (elements, elements)
    } else {
        (dropped, dropped + keep)
    }
}

/// An elementwise method at work on one tensor.
#[derive(Debug, Clone)]
pub struct Blending<'a> {
    rule: Elementwise,
    settings: &'a Settings,
    compat: Option<Compat>,
    adapters: usize,
    /// Rows times columns.
    elements: f64,
    inputs: Vec<Input>,
    /// Of variances among the inputs.
    joint: Option<Selection>,
    stage: Stage,
    election: Election,
    /// What each input's elements are multiplied by that no other has.
    alone: Vec<f32>,
}

impl<'a> Blending<'a> {
    /// Begins on a tensor of rows × columns with a name of its own among all, of which some of
    /// `adapters` have a part.
    pub fn new(
        rule: Elementwise,
        (settings, compat): (&'a Settings, Option<Compat>),
        (name, rows, columns): (&str, usize, usize),
        parts: &[InputWeight],
        adapters: usize,
    ) -> Self {
        let elements = (rows * columns) as u64;
        let seed = settings.number(&SEED) as u64;
        let input = |part: &InputWeight| {
            let density = settings.number_of(&DENSITY, part.adapter);
            let stream = Stream::new(seed, name, part.adapter);
            let select = |count| Selection::new(Keep::Count(count), elements);
            let selections = match rule.trim {
                _ if density >= 1.0 => Vec::new(),
                Trim::Smallest => vec![select(count_to_keep(density, elements, compat))],
                Trim::SmallestAndLargest => {
                    let gamma = settings.number_of(&GAMMA, part.adapter);
                    let (above, within) = outliers((density, gamma), elements, compat);
                    vec![select(above), select(within)]
                }
                Trim::Random | Trim::RandomByRank | Trim::LeastVarying | Trim::Tiny => Vec::new(),
            };
            Input { part: *part, density, stream, selections, norms: (0.0, 0.0) }
        };
        let inputs: Vec<Input> = parts.iter().map(input).collect();
        let density = settings.number(&DENSITY);
        // A single adapter varies nowhere.
        let joint = (rule.trim == Trim::LeastVarying && density < 1.0 && adapters > 1)
            .then(|| Selection::new(Keep::ShareOfNonZero(density), elements));
        let election = Election {
            vote: Vec::new(),
            gain: Vec::new(),
            share: Vec::new(),
            majority: Majority::Total,
            plus_on_tie: false,
            mean: false,
            least: 0.0,
        };
        let (elements, stage) = (elements as f64, Stage::Cuts);
        let mut blending = Self {
            rule,
            settings,
            compat,
            adapters,
            elements,
            inputs,
            joint,
            stage,
            election,
            alone: Vec::new(),
        };
        blending.advance();
        blending
    }

    /// Whether another pass over all panels is needed before elements can be combined.
    pub fn wants_pass(&self) -> bool {
        self.stage != Stage::Ready
    }

    /// Empty counts for the pass that is next.
    pub fn counts(&self) -> Counts {
        match self.stage {
            Stage::Cuts => {
                let tallies =
                    |input: &Input| input.selections.iter().map(Selection::tally).collect();
                let joint = self.joint.iter().map(|joint| vec![joint.tally()]);
                Counts {
                    tallies: self.inputs.iter().map(tallies).chain(joint).collect(),
                    norms: Vec::new(),
                }
            }
            Stage::Norms => {
                Counts { tallies: Vec::new(), norms: vec![Vec::new(); self.inputs.len()] }
            }
            Stage::Ready => Counts::default(),
        }
    }

    /// Counts one panel; every row once a pass.
    ///
    /// # Panics
    /// If the panel has another number of inputs, or the counts are of another pass.
    #[track_caller]
    pub fn count(&self, panel: &mut Panel, counts: &mut Counts) {
        assert_eq!(panel.deltas.len(), self.inputs.len(), "inputs of a panel");
        match self.stage {
            Stage::Cuts => self.count_cuts(panel, counts),
            Stage::Norms => self.count_norms(panel, counts),
            Stage::Ready => {}
        }
    }

    /// Ends a pass with the counts of all threads.
    pub fn finish_pass(&mut self, counts: &Counts) {
        match self.stage {
            Stage::Cuts => {
                let selections = self.inputs.iter_mut().flat_map(|input| &mut input.selections);
                let tallies = counts.tallies.iter().flatten();
                for (selection, tally) in selections.chain(&mut self.joint).zip(tallies) {
                    selection.finish_pass(tally);
                }
            }
            Stage::Norms => {
                for (input, norms) in self.inputs.iter_mut().zip(&counts.norms) {
                    // Row after row: the same sum for any panels.
                    let add = |sum: (f64, f64), row: &(f64, f64)| (sum.0 + row.0, sum.1 + row.1);
                    input.norms = norms.iter().fold((0.0, 0.0), add);
                }
                self.stage = Stage::Ready;
            }
            Stage::Ready => {}
        }
        self.advance();
    }

    /// Combines one panel into `out`, rows × columns of it.
    ///
    /// # Panics
    /// If passes are still wanted, or the lengths differ.
    #[track_caller]
    pub fn combine(&self, panel: &mut Panel, out: &mut [f32]) {
        assert!(!self.wants_pass(), "a pass is wanted before");
        self.trim(panel);
        let parts: Vec<&[f32]> = panel.deltas.iter().map(Vec::as_slice).collect();
        match self.rule.blend {
            Blend::Sum => blend::sum(&parts, &self.election.gain, out),
            Blend::Elect | Blend::ElectByEnergy => blend::elect(&parts, &self.election, out),
            Blend::Share | Blend::ShareReinforced => {
                blend::share(&parts, &self.election.gain, &self.alone, out);
            }
        }
    }

    /// On to the next stage that has something to learn.
    fn advance(&mut self) {
        let mut selections = self.inputs.iter().flat_map(|input| &input.selections);
        if self.stage == Stage::Cuts
            && selections.all(|selection| selection.cut().is_some())
            && self.joint.as_ref().is_none_or(|joint| joint.cut().is_some())
        {
            self.stage = if self.needs_norms() { Stage::Norms } else { Stage::Ready };
        }
        if self.stage == Stage::Ready {
            self.election = self.elect();
            let reinforced = self.rule.blend == Blend::ShareReinforced;
            let raise = |norms| if reinforced { overlap::raise(self.settings, norms) } else { 1.0 };
            self.alone = self.inputs.iter().map(|input| raise(input.norms)).collect();
        }
    }

    fn needs_norms(&self) -> bool {
        matches!(self.rule.blend, Blend::ElectByEnergy | Blend::ShareReinforced)
            || self.matches_norms()
    }

    /// mergekit makes up for what random trims drop by the sum of magnitudes.
    fn matches_norms(&self) -> bool {
        let random = matches!(self.rule.trim, Trim::Random | Trim::RandomByRank);
        random && self.compat == Some(Compat::Mergekit)
    }

    fn count_cuts(&self, panel: &mut Panel, counts: &mut Counts) {
        let columns = panel.columns.max(1);
        for ((input, delta), tallies) in
            self.inputs.iter().zip(&panel.deltas).zip(&mut counts.tallies)
        {
            for (selection, tally) in input.selections.iter().zip(tallies) {
                for (row, values) in delta.chunks(columns).enumerate() {
                    selection.count(tally, panel.first + row, values);
                }
            }
        }
        if let (Some(joint), Some([tally])) =
            (&self.joint, counts.tallies.last_mut().map(Vec::as_mut_slice))
        {
            panel.vary(&self.weights(), self.adapters);
            for (row, values) in panel.variances.chunks(columns).enumerate() {
                joint.count(tally, panel.first + row, values);
            }
        }
    }

    fn count_norms(&self, panel: &mut Panel, counts: &mut Counts) {
        if self.rule.blend == Blend::ShareReinforced {
            self.trim(panel);
            return overlap::count(panel, counts);
        }
        let columns = panel.columns.max(1);
        let by_energy = self.rule.blend == Blend::ElectByEnergy;
        let norm = |values: &[f32]| {
            let values = values.iter().map(|value| f64::from(*value));
            if by_energy {
                values.map(|value| value * value).sum()
            } else {
                values.map(f64::abs).sum::<f64>()
            }
        };
        for after in [false, true] {
            if after {
                self.trim(panel);
            }
            for (norms, delta) in counts.norms.iter_mut().zip(&panel.deltas) {
                norms.resize(norms.len().max(panel.first + delta.len() / columns), (0.0, 0.0));
                for (values, row) in delta.chunks(columns).zip(&mut norms[panel.first..]) {
                    *(if after { &mut row.1 } else { &mut row.0 }) = norm(values);
                }
            }
        }
    }

    /// The inputs' weights.
    pub fn weights(&self) -> Vec<f32> {
        self.inputs.iter().map(|input| input.part.weight as f32).collect()
    }

    fn trim(&self, panel: &mut Panel) {
        for (input, delta) in self.inputs.iter().zip(&mut panel.deltas) {
            self.sparsifier(input).apply(panel.first, panel.columns, delta);
        }
        let Some(cut) = self.joint.as_ref().and_then(Selection::cut) else { return };
        panel.vary(&self.weights(), self.adapters);
        Sparsifier::Largest(cut).apply(panel.first, panel.columns, &mut panel.variances);
        for delta in &mut panel.deltas {
            for (value, variance) in delta.iter_mut().zip(&panel.variances) {
                *value = if *variance == 0.0 { 0.0 } else { *value };
            }
        }
    }

    fn sparsifier(&self, input: &Input) -> Sparsifier {
        let cut = |at: usize| input.selections.get(at).and_then(Selection::cut).unwrap_or(Cut::ALL);
        let (chance, stream) = (input.density, input.stream);
        let rescale = !self.matches_norms();
        match self.rule.trim {
            _ if input.density >= 1.0 => Sparsifier::All,
            Trim::Smallest => Sparsifier::Largest(cut(0)),
            Trim::SmallestAndLargest => Sparsifier::Between { above: cut(0), within: cut(1) },
            Trim::Random => Sparsifier::Chance { chance, rescale, stream },
            Trim::RandomByRank => {
                let spread = self.settings.number_of(&EPSILON, input.part.adapter);
                Sparsifier::RankedChance { chance, spread, rescale, stream }
            }
            Trim::LeastVarying => Sparsifier::All,
            Trim::Tiny => {
                Sparsifier::Above(self.settings.number_of(&EPSILON, input.part.adapter) as f32)
            }
        }
    }

    /// The numbers that the blend takes, of all that has been learnt.
    fn elect(&self) -> Election {
        let lambda = self.settings.number(&LAMBDA);
        let energy: f64 = self.inputs.iter().map(Input::energy).sum();
        // mergekit takes small deltas, as most are, for none at all.
        let least = if self.compat == Some(Compat::Mergekit) { 1e-6 } else { 0.0 };
        let mut election = Election {
            vote: Vec::new(),
            gain: Vec::new(),
            share: Vec::new(),
            majority: match self.settings.word(&MAJORITY_SIGN) {
                "frequency" => Majority::Frequency,
                _ => Majority::Total,
            },
            plus_on_tie: self.compat.is_some(),
            mean: match self.rule.trim {
                // What mergekit does with these if it is not told.
                Trim::Random | Trim::SmallestAndLargest
                    if self.compat == Some(Compat::Mergekit)
                        && !self.settings.is_given(&REDUCE) =>
                {
                    false
                }
                _ => self.settings.word(&REDUCE) != "sum",
            },
            least: if self.rule.blend == Blend::ElectByEnergy { least as f32 } else { 0.0 },
        };
        for input in &self.inputs {
            let weight = input.part.weight;
            let (vote, share) = match (self.rule.blend, self.compat) {
                (Blend::ElectByEnergy, _) if energy / self.elements <= least => (weight, 1.0),
                (Blend::ElectByEnergy, _) => (weight, input.energy() / energy),
                (Blend::Share | Blend::ShareReinforced, _) => (weight, 1.0),
                (_, Some(Compat::Peft)) => (1.0, 1.0),
                (_, Some(Compat::Mergekit)) => (weight, weight),
                (_, _) => (weight, weight.abs()),
            };
            let by_energy = if self.rule.blend == Blend::ElectByEnergy { share } else { 1.0 };
            let made_up = match input.norms {
                (before, after) if self.matches_norms() && before >= 1e-7 && after >= 1e-7 => {
                    before / after
                }
                _ => 1.0,
            };
            election.vote.push((vote * made_up) as f32);
            election.gain.push((lambda * weight * by_energy * made_up) as f32);
            election.share.push(share as f32);
        }
        election
    }
}
