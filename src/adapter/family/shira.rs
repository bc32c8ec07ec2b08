//! Sparse updates. SHiRA (Bhardwaj et al. 2024, <https://arxiv.org/abs/2406.13175>): values, and the row and the column of
//! each (PEFT `tuners/shira/layer.py`). Supertuning
//! (<https://arxiv.org/abs/2607.09287>): values and their flat positions, and in the variant Supra factors
//! beside them, times `lora_alpha` / rank (PEFT `tuners/supertuning/layer.py`).
//!
//! Supertuning without its positions would have to choose them by the base's own magnitudes; such a file is refused.

use std::sync::Arc;

use super::positions;
use super::prelude::*;
use crate::math::RowMatrix;
use crate::math::forms::row_matrix::Sparse;

const VALUES: &str = "supertuning_values";
const FACTORS: [&str; 2] = ["supertuning_lora_A", "supertuning_lora_B"];

pub(super) static SHIRA: Family = Family {
    name: "shira",
    signs: &[Part::Named("shira_weight"), Part::Named("shira_indices")],
    parts: &[],
    build: build_shira,
};

pub(super) static SUPERTUNING: Family = Family {
    name: "supertuning",
    signs: &[Part::Named(VALUES), Part::Named("supertuning_indices")],
    parts: &[Part::Named(FACTORS[0]), Part::Named(FACTORS[1])],
    build: build_supertuning,
};

/// What the positions of the values are, and how far they reach.
#[derive(Debug, Clone, Copy)]
enum Places {
    /// All rows and then all columns; the last of each.
    Pairs(usize, usize),
    /// Counted along the rows; the last of all.
    Flat(usize),
}

/// Values at positions, and factors beside them.
#[derive(Debug)]
struct Elements {
    values: String,
    count: usize,
    /// Rows and then columns, or flat positions.
    places: String,
    places_are: Places,
    factors: Option<Factors>,
}

#[derive(Debug)]
struct Factors {
    down: String,
    up: String,
    rank: usize,
    scale: f64,
}

impl Form for Elements {
    fn tensors(&self) -> Vec<&str> {
        let factors = self.factors.iter().flat_map(|pair| [pair.down.as_str(), pair.up.as_str()]);
        [self.values.as_str()].into_iter().chain(factors).collect()
    }

    fn nature(&self) -> Nature {
        Nature::Dense
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, (outputs, inputs): (usize, usize)) -> Result<Update> {
        let values = read_f64(find(file, &self.values)?, 0, self.count)?;
        let places = positions::read(file, &self.places, u64::from(u32::MAX))?;
        let place = |at: usize| places.get(at).copied().unwrap_or_default();
        let elements = values.into_iter().enumerate().map(|(at, value)| {
            let (row, column) = match self.places_are {
                Places::Flat(_) => (place(at) / inputs, place(at) % inputs),
                Places::Pairs(..) => (place(at), place(self.count + at)),
            };
            (row as u32, column as u32, value)
        });
        let sparse = RowMatrix::Sparse(Sparse::new(elements.collect()));
        let Some(pair) = &self.factors else { return Ok(Update::Rows(sparse)) };
        let up = read_matrix(file, &pair.up, outputs, pair.rank)? * pair.scale;
        let factors = LowRank::new(up, read_matrix(file, &pair.down, pair.rank, inputs)?);
        Ok(Update::Rows(RowMatrix::Sum(vec![sparse, RowMatrix::LowRank(factors)])))
    }

    fn check(&self, (outputs, inputs): (usize, usize)) -> Result<()> {
        let inside = match self.places_are {
            Places::Pairs(row, column) => row < outputs && column < inputs,
            Places::Flat(last) => last < outputs.saturating_mul(inputs),
        };
        if inside {
            return Ok(());
        }
        let expected = match self.places_are {
            Places::Pairs(row, column) => format!("more than {row} rows and {column} columns"),
            Places::Flat(last) => format!("more than {last} elements"),
        };
        Err(ErrorKind::BadShape { expected, found: vec![outputs, inputs] }).in_tensor(&self.places)
    }
}

fn build_shira(source: &Source<'_>) -> Result<Module> {
    let values = source.required("shira_weight", "shira_indices")?;
    let places = source.required("shira_indices", "shira_weight")?;
    let count = source.vector(values)?;
    source.expect(places, 2, count, &[])?;
    let found = positions::read(source.file, places, u64::from(u32::MAX))?;
    let (rows, columns) = found.split_at(count);
    let last = |places: &[usize]| places.iter().max().copied().unwrap_or_default();
    let places_are = Places::Pairs(last(rows), last(columns));
    let (values, places) = (values.to_owned(), places.to_owned());
    let form = Elements { values, count, places, places_are, factors: None };
    Ok(module(source, SHIRA.name, form, (0, 0)))
}

fn build_supertuning(source: &Source<'_>) -> Result<Module> {
    let values = source.required(VALUES, "supertuning_indices")?;
    let Some(places) = source.named("supertuning_indices") else {
        let missing = "supertuning_indices: save the adapter with save_precomputed_indices";
        return Err(ErrorKind::MissingFactor { present: VALUES, missing }.into());
    };
    let count = source.vector(values)?;
    super::check_length(source.view(places)?, count)?;
    let (factors, size) = match FACTORS.map(|name| source.named(name)) {
        [None, None] => (None, (0, 0)),
        _ => {
            let (factors, size) = supra(source)?;
            (Some(factors), size)
        }
    };
    let found = positions::read(source.file, places, u64::from(u32::MAX))?;
    let last = found.into_iter().max().unwrap_or_default();
    let (values, places) = (values.to_owned(), places.to_owned());
    let form = Elements { values, count, places, places_are: Places::Flat(last), factors };
    Ok(module(source, SUPERTUNING.name, form, size))
}

/// The factors beside the values, and (outputs, inputs).
fn supra(source: &Source<'_>) -> Result<(Factors, (usize, usize))> {
    let [down, up] = FACTORS;
    let (down, up) = (source.required(down, up)?, source.required(up, down)?);
    let (rank, inputs, _) = source.matrix(down)?;
    let (outputs, _, _) = source.matrix(up)?;
    source.expect(down, rank, inputs, &[])?;
    source.expect(up, outputs, rank, &[])?;
    let alpha = source.required_config()?.number("lora_alpha")?.ok_or_else(|| {
        ErrorKind::BadConfig { reason: "`lora_alpha` is missing beside factors".to_owned() }
    })?;
    let (down, up) = (down.to_owned(), up.to_owned());
    Ok((Factors { down, up, rank, scale: alpha / rank as f64 }, (outputs, inputs)))
}

fn module(
    source: &Source<'_>,
    family: &'static str,
    form: Elements,
    (outputs, inputs): (usize, usize),
) -> Module {
    Module {
        name: source.name.to_owned(),
        family,
        kind: Kind::Linear,
        rank: form.factors.as_ref().map_or(0, |factors| factors.rank),
        inputs,
        outputs,
        scale: Scale::of_family(1.0, None),
        form: Arc::new(form),
        bias: None,
        magnitude: None,
    }
}
