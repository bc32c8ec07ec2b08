//! From modules with new factors to an adapter's files: tensors, config and header of a convention.

mod other;
mod peft;
mod stacks;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use other::Described;

use super::convention::{self, Convention, Key, Output, Part, ScalePlace};
use super::files::DIFFUSERS_ENTRY;
use super::hashes::file_order;
use super::module::{Kind, Replaces};
use super::stacks::{Stack, holder};
use super::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Dtype, Metadata, Tensor};
use crate::math::LowRank;

/// A tensor of a module: its part, dtype, shape and bytes.
pub type PartTensor = (Part, Dtype, Vec<usize>, Vec<u8>);

/// A module to write: its tensors, already in the dtypes they will have, and the scale of their update.
#[derive(Debug, Clone)]
pub struct NewModule {
    /// Its name in the convention it will be written in.
    pub name: String,
    /// Its rank.
    pub rank: usize,
    /// What its update is multiplied by.
    pub scale: f64,
    /// The alpha that makes this scale, where it is known to be more exact than scale times rank.
    pub alpha: Option<f64>,
    /// Its tensors; an alpha of their own wins over the scale.
    pub tensors: Vec<PartTensor>,
}

impl NewModule {
    /// Stores factors of out × rank and rank × in, and what is added to the bias; see [`bias_part`].
    ///
    /// # Errors
    /// If a value overflows the dtype.
    pub fn new(
        name: &str,
        kind: &Kind,
        factors: &LowRank,
        scale: f64,
        bias: Option<(Part, &[f64])>,
        dtype: Dtype,
    ) -> Result<Self> {
        let (outputs, inputs, rank) = (factors.rows(), factors.columns(), factors.rank());
        let [(down_part, down_shape), (up_part, up_shape)] = shapes(kind, outputs, inputs, rank);
        // nalgebra keeps columns together, files keep rows together.
        let up = encode(dtype, factors.up.transpose().as_slice())?;
        let down = encode(dtype, factors.down.transpose().as_slice())?;
        let mut tensors =
            vec![(down_part, dtype, down_shape, down), (up_part, dtype, up_shape, up)];
        if let Some((part, values)) = bias {
            tensors.push((part, dtype, vec![outputs], encode(dtype, values)?));
        }
        Ok(Self { name: name.to_owned(), rank, scale, alpha: None, tensors })
    }

    /// A module of stored differences, which have neither rank nor scale.
    pub fn stored(name: String, tensors: Vec<PartTensor>) -> Self {
        Self { name, rank: 0, scale: 1.0, alpha: None, tensors }
    }

    fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(self.scale * self.rank as f64)
    }

    /// Whether a factor holds zeros alone, of either sign.
    pub fn is_zero(&self) -> bool {
        use Part::{Down, EmbeddingDown, EmbeddingUp, Up};
        let factors =
            self.tensors.iter().filter(|t| matches!(t.0, Down | Up | EmbeddingDown | EmbeddingUp));
        let zeros = |(_, dtype, _, bytes): &PartTensor| {
            element_type(*dtype).is_some_and(|element| {
                let mut values = vec![0.0; bytes.len() / element.size().max(1)];
                element.decode(bytes, &mut values);
                values.iter().all(|value| *value == 0.0)
            })
        };
        factors.into_iter().any(zeros)
    }

    fn has(&self, part: Part) -> bool {
        self.tensors.iter().any(|tensor| tensor.0 == part)
    }
}

/// A tensor that replaces the base's, as it was stored.
#[derive(Debug, Clone)]
pub struct NewReplacement {
    /// The module it belongs to.
    pub module: String,
    /// What it replaces.
    pub replaces: Replaces,
    /// Its dtype.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl NewReplacement {
    fn part(&self) -> Part {
        match &self.replaces {
            Replaces::Weight => Part::Weight,
            Replaces::Bias => Part::Bias,
            Replaces::Rows(_) => Part::TokenRows,
        }
    }
}

/// A whole adapter to write.
#[derive(Debug, Clone)]
pub struct NewAdapter {
    /// Its modules.
    pub modules: Vec<NewModule>,
    /// Its replacements.
    pub replacements: Vec<NewReplacement>,
    /// Header metadata to carry and add.
    pub metadata: Metadata,
    /// Config fields to carry, of the first input that has a config.
    pub config: Option<Map<String, Value>>,
    /// Stacks that modules of single experts are parts of, by the parameter's name.
    pub stacks: BTreeMap<String, Stack>,
    /// `target_modules`, where suffixes say it; else the modules' full names are listed.
    pub target_modules: Option<Vec<String>>,
    /// All of it, where that is known already; then there are no modules.
    pub kept: Option<Kept>,
}

/// Tensors and a config that are not made anew.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The tensors under the names they will have.
    pub tensors: Vec<Tensor>,
    /// The config.
    pub config: Map<String, Value>,
}

/// What goes to disk.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Name, dtype, shape and bytes, in file order.
    pub tensors: Vec<Tensor>,
    /// The header's metadata.
    pub metadata: Metadata,
    /// `adapter_config.json`, where the convention has one.
    pub config: Option<Vec<u8>>,
    /// What files these are.
    pub output: Output,
    /// Files beside these, by name.
    pub beside: Vec<(&'static str, Vec<u8>)>,
}

/// How a convention stores what is added to a bias: times the scale, as PEFT does, or as it is, which
/// ComfyUI reads.
pub fn bias_part(convention: &Convention) -> Part {
    match convention.scale {
        ScalePlace::Tensor => Part::Named("diff_b"),
        ScalePlace::Patterns | ScalePlace::Uniform => Part::UpBias,
    }
}

/// Tensors that a module of this kind has at some rank: (part, shape).
fn shapes(kind: &Kind, rows: usize, columns: usize, rank: usize) -> [(Part, Vec<usize>); 2] {
    match kind {
        Kind::Linear | Kind::Channels | Kind::Whole(_) => {
            [(Part::Down, vec![rank, columns]), (Part::Up, vec![rows, rank])]
        }
        Kind::Embedding => {
            [(Part::EmbeddingDown, vec![rank, columns]), (Part::EmbeddingUp, vec![rows, rank])]
        }
        Kind::Conv(kernel) => {
            let channels = columns / kernel.iter().product::<usize>().max(1);
            let down = [rank, channels].into_iter().chain(kernel.iter().copied()).collect();
            let up = [rows, rank].into_iter().chain(kernel.iter().map(|_| 1)).collect();
            [(Part::Down, down), (Part::Up, up)]
        }
    }
}

/// Spells a module's part, or says why the convention cannot.
fn spell(convention: &Convention, module: &str, part: Part) -> Result<String> {
    convention.spell(&Key { module: module.to_owned(), part }).ok_or_else(|| {
        let reason = format!("the {} convention has no way to store its {part:?}", convention.name);
        crate::Error::from(ErrorKind::BadOption(reason)).in_tensor(module)
    })
}

/// A module as a size budget sees it.
#[derive(Debug, Clone)]
pub struct Sized<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its kind of layer.
    pub kind: &'a Kind,
    /// Outputs and inputs.
    pub shape: (usize, usize),
    /// What its factors will be multiplied by.
    pub scale: f64,
    /// Whether something is added to its bias.
    pub biased: bool,
}

/// Bytes that a file will have whose modules have these ranks.
///
/// # Errors
/// If the convention cannot spell a part.
pub fn file_size(
    convention: &Convention,
    modules: &[Sized<'_>],
    ranks: &[usize],
    replacements: &[NewReplacement],
    dtype: Dtype,
    metadata: &Metadata,
) -> Result<u64> {
    let mut tensors = Vec::with_capacity(modules.len() * 3 + replacements.len());
    for (module, rank) in modules.iter().zip(ranks) {
        for (part, shape) in shapes(module.kind, module.shape.0, module.shape.1, *rank) {
            tensors.push((spell(convention, module.name, part)?, dtype, shape));
        }
        if module.biased {
            let shape = vec![module.shape.0];
            tensors.push((spell(convention, module.name, bias_part(convention))?, dtype, shape));
        }
        if convention.scale == ScalePlace::Tensor {
            tensors.push((spell(convention, module.name, Part::Alpha)?, ALPHA, Vec::new()));
        }
    }
    for replacement in replacements {
        let name = spell(convention, &replacement.module, replacement.part())?;
        tensors.push((name, replacement.dtype, replacement.shape.clone()));
    }
    tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
    let mut metadata = metadata.clone();
    metadata.shift_remove(DIFFUSERS_ENTRY);
    let written = modules.iter().zip(ranks);
    let written = written.map(|(module, rank)| (*rank, module.scale * *rank as f64));
    other::describe(convention, written, &mut metadata);
    if convention.name == convention::diffusers().name {
        let described = modules.iter().zip(ranks).map(|(module, rank)| {
            let (name, rank, alpha) = (module.name, *rank, module.scale * *rank as f64);
            Described { name, rank, alpha, dora: false, bias: module.biased }
        });
        other::describe_components(&described.collect::<Vec<_>>(), &mut metadata)?;
    }
    let specs = crate::format::header::lay_out(tensors);
    let header = crate::format::header::encode(Some(&metadata), &specs)?;
    Ok(header.len() as u64 + specs.last().map_or(0, |spec| spec.end))
}

/// Alphas keep the precision that scales are computed in, whatever the factors' dtype.
const ALPHA: Dtype = Dtype::F32;

fn encode_module(
    module: NewModule,
    convention: &Convention,
    tensors: &mut Vec<Tensor>,
) -> Result<()> {
    // Other families say by themselves whether alpha means anything to them.
    let factors = module.has(Part::Down) || module.has(Part::EmbeddingDown);
    if convention.scale == ScalePlace::Tensor && factors && !module.has(Part::Alpha) {
        let name = spell(convention, &module.name, Part::Alpha)?;
        let alpha = module.alpha();
        if alpha != 0.0 && alpha as f32 == 0.0 {
            let dtype = ALPHA.to_string();
            return Err(ErrorKind::Underflow { value: module.scale, dtype })
                .in_tensor(&module.name);
        }
        tensors.push((name, ALPHA, Vec::new(), encode(ALPHA, &[alpha])?));
    }
    for (part, dtype, shape, bytes) in module.tensors {
        let name = spell(convention, &module.name, part)?;
        tensors.push(other::orient(convention, part, (name, dtype, shape, bytes)));
    }
    Ok(())
}

impl NewAdapter {
    /// Encodes everything for a convention.
    ///
    /// # Errors
    /// If the convention cannot hold a part, or a value overflows the dtype.
    pub fn encode(mut self, convention: &Convention) -> Result<Encoded> {
        let own = |name: &str| convention.name == name;
        let mut metadata = std::mem::take(&mut self.metadata);
        if let Some(Kept { mut tensors, config }) = self.kept {
            tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
            let config = Some(peft::text(&config)?);
            return Ok(Encoded {
                tensors,
                metadata,
                config,
                output: convention.output,
                beside: Vec::new(),
            });
        }
        let peft = own(convention::peft().name);
        let places = if peft { self.pack()? } else { BTreeMap::new() };
        let ranked = self.modules.iter().filter(|module| module.rank > 0);
        let written = ranked.map(|module| (module.rank, module.alpha()));
        other::describe(convention, written, &mut metadata);
        let config = if peft {
            Some(self.config(&places)?)
        } else if own(convention::mlx().name) {
            Some(other::mlx_config(&self.modules)?)
        } else {
            None
        };
        metadata.shift_remove(DIFFUSERS_ENTRY);
        if own(convention::diffusers().name) {
            let described: Vec<Described<'_>> = self.modules.iter().map(Described::from).collect();
            other::describe_components(&described, &mut metadata)?;
        } else if own(convention::gguf().name) {
            other::describe_gguf(&self.modules, &mut metadata)?;
        }
        let mut tensors = Vec::new();
        for mut module in self.modules {
            let Some(place) = places.get(&module.name) else {
                encode_module(module, convention, &mut tensors)?;
                continue;
            };
            // Spelled as the module that holds the parameter, nested as the parameter is.
            let holder = holder(place);
            holder.clone_into(&mut module.name);
            let first = tensors.len();
            encode_module(module, convention, &mut tensors)?;
            for tensor in tensors.iter_mut().skip(first) {
                tensor.0 = tensor.0.replacen(holder, place, 1);
            }
        }
        for replacement in self.replacements {
            let name = spell(convention, &replacement.module, replacement.part())?;
            tensors.push((name, replacement.dtype, replacement.shape, replacement.bytes));
        }
        if own(convention::gguf().name) {
            tensors = super::gguf::together(tensors)?;
        } else if own(convention::mlx().name) {
            tensors = super::mlx::together(tensors)?;
        }
        tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
        other::hash(&tensors, &mut metadata)?;
        Ok(Encoded { tensors, metadata, config, output: convention.output, beside: Vec::new() })
    }
}

fn encode(dtype: Dtype, values: &[f64]) -> Result<Vec<u8>> {
    let element =
        element_type(dtype).ok_or_else(|| ErrorKind::BadDtype { dtype: dtype.to_string() })?;
    let mut bytes = vec![0; values.len() * element.size()];
    element.encode(values, &mut bytes);
    let limit = element.largest();
    // A NaN fits nowhere.
    let fits = |value: &f64| value.abs() <= limit;
    match values.iter().position(|value| !fits(value)) {
        None => Ok(bytes),
        Some(index) => {
            let value = values.get(index).copied().unwrap_or(f64::NAN);
            Err(ErrorKind::Overflow { index, value, dtype: dtype.to_string() }.into())
        }
    }
}
