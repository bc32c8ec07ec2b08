//! All weights of a checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use crate::error::{QuantError, Result};
use crate::format::{Checkpoint, Dtype};

use super::decode::InEightBits;
use super::encoding::{ENCODINGS, GGML, PLAIN};
use super::model::Model;
use super::stored::elements;
use super::{Config, Decode, Encode, Encoded, Panel, Part, Stored, Writing};

/// One weight: a tensor as a model has it, whatever it is stored as.
#[derive(Debug, Clone)]
pub struct Weight {
    /// Its (component-prefixed) name, as an unquantised checkpoint has it.
    pub name: String,
    /// Its shape, outermost first.
    pub shape: Vec<usize>,
    /// Name of its encoding.
    pub encoding: &'static str,
    /// Its codes in words: bits, groups.
    pub detail: String,
    /// The stored tensors it is made of, the codes first.
    pub parts: Vec<Stored>,
    codes: Option<Arc<dyn Decode>>,
    writer: Option<Arc<dyn Encode>>,
    eight_bit: InEightBits,
}

impl Weight {
    /// Rows and columns: its last dimension by all others.
    pub fn matrix(&self) -> (usize, usize) {
        let columns = self.shape.last().copied().unwrap_or(1);
        (
            elements(self.shape.get(..self.shape.len().saturating_sub(1)).unwrap_or_default()),
            columns,
        )
    }

    /// Puts rows `rows` into `out`, row after row, exactly.
    ///
    /// # Errors
    /// As [`Decode::rows`].
    pub fn rows(&self, rows: Range<usize>, out: &mut [f32]) -> Result<()> {
        if let Some(codes) = &self.codes {
            return codes.rows(rows, out);
        }
        let (_, columns) = self.matrix();
        if let Some(stored) = self.parts.first() {
            let values = stored.floats(rows.start * columns..rows.end * columns)?;
            out.copy_from_slice(&values);
        }
        Ok(())
    }

    /// How it is written again: `None`, if no reference writer's arithmetic is known.
    pub fn writer(&self) -> Option<&Arc<dyn Encode>> {
        self.writer.as_ref()
    }

    /// How it is written in 8 bits beside others of its encoding, where loaders take both.
    pub(super) fn eight_bit(&self) -> &InEightBits {
        &self.eight_bit
    }

    /// A weight in the place of a stored tensor, whose numbers are elsewhere: rows of `shape`, as `codes` has them.
    pub(crate) fn elsewhere(
        stored: Stored,
        shape: Vec<usize>,
        detail: String,
        codes: Arc<dyn Decode>,
    ) -> Self {
        let name = stored.name.clone();
        let (encoding, parts) = (GGML, vec![stored]);
        Self {
            name,
            shape,
            encoding,
            detail,
            parts,
            codes: Some(codes),
            writer: None,
            eight_bit: InEightBits::default(),
        }
    }

    /// The same weight, written in another way.
    pub(crate) fn written_by(&self, writer: Option<Arc<dyn Encode>>) -> Self {
        Self { writer, ..self.clone() }
    }

    /// Its stored tensors for new values, all in memory. `rows` may be asked twice for each.
    ///
    /// # Errors
    /// Those of `rows` and [`Encode::rows`]; `None`, if no writer is known.
    pub fn encode(&self, writing: Writing, rows: &mut Rows<'_>) -> Result<Option<Written>> {
        let Some(writer) = &self.writer else { return Ok(None) };
        let (count, columns) = self.matrix();
        let (step, mut survey) = (writer.grain(), Vec::new());
        let panels =
            || (0..count).step_by(step.max(1)).map(|first| first..(first + step).min(count));
        let mut values = vec![0.0; step.min(count) * columns];
        if writer.surveys(writing) {
            for panel in panels() {
                let values = &mut values[..panel.len() * columns];
                rows(panel, values)?;
                survey.extend(writer.survey(values));
            }
            survey = writer.settle(&survey)?;
        }
        let mut found = Encoded::default();
        for panel in panels() {
            let values = &mut values[..panel.len() * columns];
            rows(panel.clone(), values)?;
            writer.rows(&Panel::new(&self.name, panel, values, writing, &survey), &mut found)?;
        }
        writer.rest(writing, &survey, &mut found)?;
        let parts = writer.parts(writing).into_iter();
        let mut parts: Vec<_> = parts
            .map(|part| {
                let bytes = vec![0; part.bytes()];
                (part, bytes)
            })
            .collect();
        for piece in found.pieces {
            if let Some((_, bytes)) = parts.get_mut(piece.part) {
                bytes[piece.at..piece.at + piece.bytes.len()].copy_from_slice(&piece.bytes);
            }
        }
        Ok(Some(Written { parts, values: found.values }))
    }

    /// Rows that decode together.
    pub fn grain(&self) -> usize {
        self.codes.as_ref().map_or(1, |codes| codes.grain())
    }

    /// The stored tensor itself, if its bytes are its numbers.
    pub fn plain(&self) -> Option<&Stored> {
        self.parts.first().filter(|_| self.codes.is_none())
    }

    /// Bytes of all that it is stored as.
    pub fn stored_bytes(&self) -> u64 {
        self.parts.iter().map(Stored::length).sum()
    }

    /// Bits that one of its elements takes, with scales and all.
    pub fn bits(&self) -> f64 {
        self.stored_bytes() as f64 * 8.0 / self.elements().max(1) as f64
    }

    /// Its values.
    pub fn elements(&self) -> usize {
        elements(&self.shape)
    }
}

/// Puts the values of some rows into a slice.
pub type Rows<'a> = dyn FnMut(Range<usize>, &mut [f32]) -> Result<()> + 'a;

/// A weight's stored tensors for new values.
#[derive(Debug)]
pub struct Written {
    /// The tensors that are written, each with its bytes; other companions keep theirs.
    pub parts: Vec<(Part, Vec<u8>)>,
    /// What the weight will be read as, row after row.
    pub values: Vec<f32>,
}

/// All weights of a checkpoint, by name.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    weights: BTreeMap<String, Weight>,
    /// Tensors that say something of the file and are no weights.
    pub markers: BTreeSet<String>,
}

/// ComfyUI's tensor that marks a file of scaled 8-bit floats.
const MARKER: &str = "scaled_fp8";

impl Weights {
    /// Finds what every tensor is part of, by the tensors and the configs of the checkpoint's directories.
    ///
    /// # Errors
    /// If a companion is missing, left over or does not fit; if config and tensors disagree; if a scheme is
    /// known and not read. The tensor is named.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self> {
        let lone = checkpoint.directory().is_none();
        let components = checkpoint.components.iter();
        let configs = components.map(|component| match lone {
            true => Ok(Config::default()),
            false => Config::read(&component.directory),
        });
        Self::with_configs(checkpoint, &configs.collect::<Result<Vec<_>>>()?)
    }

    /// As [`Weights::of`], with the config of each component given.
    ///
    /// # Errors
    /// As [`Weights::of`].
    pub fn with_configs(checkpoint: &Checkpoint, configs: &[Config]) -> Result<Self> {
        let mut found = Self::default();
        for (component, config) in checkpoint.components.iter().zip(configs) {
            let model = Model::new(checkpoint, component, config);
            let shards = checkpoint.shards.get(component.shards.clone()).unwrap_or_default();
            let specs = shards.iter().flat_map(|shard| &shard.header.tensors);
            let names: BTreeSet<String> =
                specs.map(|spec| format!("{}{}", component.prefix, spec.name)).collect();
            found.add(&model, &names)?;
        }
        Ok(found)
    }

    /// Puts a weight in the place of that of its name.
    pub(crate) fn replace(&mut self, weight: Weight) {
        self.weights.insert(weight.name.clone(), weight);
    }

    fn add(&mut self, model: &Model<'_>, names: &BTreeSet<String>) -> Result<()> {
        let mut claimed = BTreeSet::new();
        for name in names {
            let Some(stored) = model.tensor(name) else { continue };
            // Floats and wide integers are codes of nothing.
            if claimed.contains(name) || !may_be_codes(stored.dtype) {
                continue;
            }
            for encoding in ENCODINGS {
                let Some(found) = (encoding.recognise)(model, &stored)? else { continue };
                claimed.extend(found.parts.iter().cloned());
                claimed.insert(name.clone());
                let companions = found.parts.iter().filter(|part| *part != name);
                let companions = companions.filter_map(|part| model.tensor(part));
                let weight = Weight {
                    name: found.name,
                    shape: found.shape,
                    encoding: encoding.name,
                    detail: found.detail,
                    parts: std::iter::once(stored.clone()).chain(companions).collect(),
                    codes: Some(found.codes),
                    writer: found.writer,
                    eight_bit: found.eight_bit,
                };
                if let Some(first) = self.weights.insert(weight.name.clone(), weight) {
                    let tensors = format!("a weight `{}` twice", first.name);
                    let config = "one".to_owned();
                    return Err(stored.error(QuantError::Conflict { config, tensors }));
                }
                break;
            }
        }
        for name in names.iter().filter(|name| !claimed.contains(*name)) {
            let Some(stored) = model.tensor(name) else { continue };
            self.add_plain(model, stored)?;
        }
        Ok(())
    }

    /// A tensor that no encoding claims.
    fn add_plain(&mut self, model: &Model<'_>, stored: Stored) -> Result<()> {
        if stored.name.rsplit('.').next() == Some(MARKER) || stored.name.ends_with("/scaled_fp8") {
            self.markers.insert(stored.name);
            return Ok(());
        }
        let mut companions = ENCODINGS.iter().flat_map(|encoding| encoding.companions);
        if let Some(ending) = companions.find(|ending| stored.name.ends_with(**ending)) {
            let module = stored.name.strip_suffix(ending).unwrap_or_default();
            let weight = format!("{module}.weight");
            return Err(stored.error(QuantError::Orphan { weight }));
        }
        if matches!(stored.dtype, Dtype::F8_E4M3 | Dtype::F8_E5M2) {
            let why = match (model.config.method(), &model.any_scale) {
                (Some(method), _) => Some(format!("the config says {method}")),
                (None, Some(scale)) => Some(format!("the model has scales, `{scale}` for one")),
                (None, None) => None,
            };
            if let Some(why) = why {
                let dtype = stored.dtype.to_string();
                return Err(stored.error(QuantError::NoScale { dtype, why }));
            }
        }
        let name = stored.name.clone();
        let (codes, writer) = super::encoding::cast(&stored).unzip();
        let weight = Weight {
            name: name.clone(),
            shape: stored.shape.clone(),
            encoding: PLAIN,
            detail: stored.dtype.to_string(),
            codes,
            writer,
            eight_bit: InEightBits::default(),
            parts: vec![stored],
        };
        self.weights.insert(name, weight);
        Ok(())
    }

    /// The weight of this name.
    pub fn get(&self, name: &str) -> Option<&Weight> {
        self.weights.get(name)
    }

    /// All weights, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Weight> {
        self.weights.values()
    }

    /// Those that are quantised.
    pub fn quantised(&self) -> impl Iterator<Item = &Weight> {
        self.iter().filter(|weight| weight.codes.is_some())
    }
}

fn may_be_codes(dtype: Dtype) -> bool {
    !matches!(
        dtype,
        Dtype::F64 | Dtype::I64 | Dtype::U64 | Dtype::BOOL | Dtype::C64 | Dtype::I16 | Dtype::U16
    )
}
