//! From modules with new factors to an adapter's files: tensors, config and header of a convention.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::convention::{Convention, Key, Part, ScalePlace};
use super::hashes::{Hashes, MODEL_HASH, file_order};
use super::module::{Kind, Replaces};
use super::sidecar::PeftConfig;
use super::tensor::element_type;
use crate::error::{ErrorKind, Locate, Result};
use crate::format::{Dtype, Metadata};
use crate::math::LowRank;

/// A module to write: scale · up · down, its factors already in the dtype they will have.
#[derive(Debug, Clone)]
pub struct NewModule {
    /// Its name in the convention it will be written in.
    pub name: String,
    /// Its kind of layer.
    pub kind: Kind,
    /// Outputs.
    pub outputs: usize,
    /// Inputs.
    pub inputs: usize,
    /// Its rank.
    pub rank: usize,
    /// What the factors are multiplied by.
    pub scale: f64,
    dtype: Dtype,
    up: Vec<u8>,
    down: Vec<u8>,
    up_bias: Option<Vec<u8>>,
}

impl NewModule {
    /// Stores factors of out × rank and rank × in, and what scale times is added to the bias.
    ///
    /// # Errors
    /// If a value overflows the dtype.
    pub fn new(
        name: &str,
        kind: &Kind,
        factors: &LowRank,
        scale: f64,
        up_bias: Option<&[f64]>,
        dtype: Dtype,
    ) -> Result<Self> {
        // nalgebra keeps columns together, files keep rows together.
        let up = encode(dtype, factors.up.transpose().as_slice())?;
        let down = encode(dtype, factors.down.transpose().as_slice())?;
        Ok(Self {
            name: name.to_owned(),
            kind: kind.clone(),
            outputs: factors.rows(),
            inputs: factors.columns(),
            rank: factors.rank(),
            scale,
            dtype,
            up,
            down,
            up_bias: up_bias.map(|bias| encode(dtype, bias)).transpose()?,
        })
    }

    fn alpha(&self) -> f64 {
        self.scale * self.rank as f64
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
    /// `target_modules`, where suffixes say it; else the modules' full names are listed.
    pub target_modules: Option<Vec<String>>,
}

/// What goes to disk.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Name, dtype, shape and bytes, in file order.
    pub tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    /// The header's metadata.
    pub metadata: Metadata,
    /// `adapter_config.json`, where the convention has one.
    pub config: Option<Vec<u8>>,
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
    (convention.format)(&Key { module: module.to_owned(), part }).ok_or_else(|| {
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
            tensors.push((spell(convention, module.name, Part::UpBias)?, dtype, shape));
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
    let written = modules.iter().zip(ranks).map(|(module, rank)| (*rank, module.scale));
    describe(convention, written, &mut metadata);
    let specs = crate::format::header::lay_out(tensors);
    let header = crate::format::header::encode(Some(&metadata), &specs)?;
    Ok(header.len() as u64 + specs.last().map_or(0, |spec| spec.end))
}

/// Alphas keep the precision that scales are computed in, whatever the factors' dtype.
const ALPHA: Dtype = Dtype::F32;

/// kohya's summary of ranks and alphas, kept true where the convention has one, and room for the hashes.
/// `written` is rank and scale of each module.
fn describe(
    convention: &Convention,
    written: impl Iterator<Item = (usize, f64)>,
    metadata: &mut Metadata,
) {
    if convention.name == super::convention::peft().name {
        return;
    }
    let uniform = |values: Vec<String>| {
        let first = values.first().cloned().unwrap_or_default();
        if values.iter().all(|value| *value == first) { first } else { "Dynamic".to_owned() }
    };
    let (ranks, alphas) = written
        .map(|(rank, scale)| (rank.to_string(), format!("{:?}", scale * rank as f64)))
        .unzip();
    metadata.insert("ss_network_dim".to_owned(), uniform(ranks));
    metadata.insert("ss_network_alpha".to_owned(), uniform(alphas));
    metadata.shift_remove("modelspec.hash_sha256");
    // Of the right length for a size that is asked before the tensors exist.
    let (model, legacy) = ("0".repeat(64), Some("0".repeat(8)));
    Hashes { model, legacy }.insert(metadata);
}

/// One tensor of a file: name, dtype, shape and bytes.
type Tensor = (String, Dtype, Vec<usize>, Vec<u8>);

fn hash(tensors: &[Tensor], metadata: &mut Metadata) -> Result<()> {
    let specs = tensors.iter().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone()));
    let hashes = Hashes::of(specs, metadata, |take| {
        for (_, _, _, bytes) in tensors {
            take(bytes);
        }
        Ok(())
    })?;
    hashes.insert(metadata);
    Ok(())
}

fn encode_module(
    module: NewModule,
    convention: &Convention,
    tensors: &mut Vec<Tensor>,
) -> Result<()> {
    let [(down_part, down_shape), (up_part, up_shape)] =
        shapes(&module.kind, module.outputs, module.inputs, module.rank);
    let mut add = |part, dtype, shape, bytes| -> Result<()> {
        tensors.push((spell(convention, &module.name, part)?, dtype, shape, bytes));
        Ok(())
    };
    if convention.scale == ScalePlace::Tensor {
        add(Part::Alpha, ALPHA, Vec::new(), encode(ALPHA, &[module.alpha()])?)?;
    }
    add(down_part, module.dtype, down_shape, module.down)?;
    add(up_part, module.dtype, up_shape, module.up)?;
    if let Some(bias) = module.up_bias {
        add(Part::UpBias, module.dtype, vec![module.outputs], bias)?;
    }
    Ok(())
}

impl NewAdapter {
    /// Encodes everything for a convention.
    ///
    /// # Errors
    /// If the convention cannot hold a part, or a value overflows the dtype.
    pub fn encode(mut self, convention: &Convention) -> Result<Encoded> {
        let peft = convention.name == super::convention::peft().name;
        let config = if peft { Some(self.config()?) } else { None };
        let mut metadata = std::mem::take(&mut self.metadata);
        let written = self.modules.iter().map(|module| (module.rank, module.scale));
        describe(convention, written, &mut metadata);
        let mut tensors = Vec::new();
        for module in self.modules {
            encode_module(module, convention, &mut tensors)?;
        }
        for replacement in self.replacements {
            let name = spell(convention, &replacement.module, replacement.part())?;
            tensors.push((name, replacement.dtype, replacement.shape, replacement.bytes));
        }
        tensors.sort_by(|a, b| file_order((&a.0, a.1), (&b.0, b.1)));
        if metadata.contains_key(MODEL_HASH) {
            hash(&tensors, &mut metadata)?;
        }
        Ok(Encoded { tensors, metadata, config })
    }

    fn config(&self) -> Result<Vec<u8>> {
        let mut config = self.config.clone().unwrap_or_else(default_config);
        let names: Vec<&str> = self.modules.iter().map(|module| module.name.as_str()).collect();
        let ranks: Vec<Value> = self.modules.iter().map(|m| m.rank.into()).collect();
        let alphas: Vec<Value> = self.modules.iter().map(|m| number(m.alpha())).collect();
        let (rank, rank_pattern) = pattern(&names, &ranks);
        let (alpha, alpha_pattern) = pattern(&names, &alphas);
        let listed = names.iter().map(|name| (*name).to_owned()).collect();
        let targets = self.target_modules.clone().unwrap_or(listed);
        let saved = |kind: fn(&Replaces) -> bool| {
            let found = self.replacements.iter().filter(|r| kind(&r.replaces));
            let mut names: Vec<String> = found.map(|r| r.module.clone()).collect();
            names.sort();
            names.dedup();
            names
        };
        let weights = saved(|replaces| *replaces == Replaces::Weight);
        let biases = saved(|replaces| *replaces == Replaces::Bias);
        let rows: BTreeMap<&str, &Vec<usize>> = self
            .replacements
            .iter()
            .filter_map(|r| match &r.replaces {
                Replaces::Rows(rows) => Some((r.module.as_str(), rows)),
                _ => None,
            })
            .collect();
        let bias_only = biases.iter().filter(|name| !weights.contains(name)).count() > 0;
        let keep_bias = config.get("bias").and_then(Value::as_str).unwrap_or("none").to_owned();
        let bias = match (bias_only, keep_bias.as_str()) {
            (false, _) => "none",
            (true, "lora_only") => "lora_only",
            (true, _) => "all",
        };
        for (field, value) in [
            ("peft_type", json!("LORA")),
            ("r", rank),
            ("lora_alpha", alpha),
            ("rank_pattern", rank_pattern),
            ("alpha_pattern", alpha_pattern),
            ("use_rslora", json!(false)),
            ("use_dora", json!(false)),
            ("lora_bias", json!(self.modules.iter().any(|module| module.up_bias.is_some()))),
            ("bias", json!(bias)),
            ("target_modules", json!(targets)),
            ("modules_to_save", if weights.is_empty() { Value::Null } else { json!(weights) }),
            ("trainable_token_indices", if rows.is_empty() { Value::Null } else { json!(rows) }),
            ("init_lora_weights", json!(true)),
            ("inference_mode", json!(true)),
            ("layers_to_transform", Value::Null),
            ("layers_pattern", Value::Null),
            ("loftq_config", json!({})),
        ] {
            config.insert(field.to_owned(), value);
        }
        if self.target_modules.is_none() && config.contains_key("exclude_modules") {
            // PEFT lets exclusions win over full names too.
            config.insert("exclude_modules".to_owned(), Value::Null);
        }
        self.check_config(&config)?;
        let mut text = serde_json::to_vec_pretty(&config)
            .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
        text.push(b'\n');
        Ok(text)
    }

    /// Reads the config back as PEFT would, and fails if a pattern hits another module too.
    fn check_config(&self, config: &Map<String, Value>) -> Result<()> {
        let text = serde_json::to_vec(config)
            .map_err(|error| ErrorKind::BadConfig { reason: error.to_string() })?;
        let read = PeftConfig::parse(&text, &[], true)?;
        for module in &self.modules {
            let expected = module.rank;
            let found = read.rank_of(&module.name);
            if let Some(found) = found.filter(|found| *found != expected) {
                return Err(ErrorKind::RankConfig { expected: found, found: expected })
                    .in_tensor(&module.name);
            }
        }
        Ok(())
    }
}

fn default_config() -> Map<String, Value> {
    let config = json!({
        "peft_type": "LORA", "base_model_name_or_path": null, "task_type": null, "bias": "none",
        "fan_in_fan_out": false, "lora_dropout": 0.0, "inference_mode": true,
    });
    match config {
        Value::Object(config) => config,
        _ => Map::new(),
    }
}

/// Whole numbers as integers, as configs have them.
fn number(value: f64) -> Value {
    let whole = value.round();
    // Factors are f32: an alpha that is whole to f32's precision was whole.
    if (value - whole).abs() <= whole.abs() * 1e-9 && whole.abs() < 1e15 {
        return json!(whole as i64);
    }
    json!(value)
}

/// The commonest value, and a pattern of full names for the others. Longer names come first, since
/// PEFT takes the first pattern that ends a module's path; names that end others are anchored.
fn pattern(names: &[&str], values: &[Value]) -> (Value, Value) {
    let mut counts: Vec<(&Value, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(known, _)| *known == value) {
            Some((_, count)) => *count += 1,
            None => counts.push((value, 1)),
        }
    }
    // The first of the commonest, so that the choice does not depend on anything else.
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let common = counts.iter().find(|(_, count)| *count == most).map(|(value, _)| (*value).clone());
    let common = common.unwrap_or_else(|| json!(1));
    let mut others: Vec<(&str, &Value)> =
        names.iter().copied().zip(values).filter(|(_, value)| **value != common).collect();
    others.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then(a.0.cmp(b.0)));
    let mut patterns = Map::new();
    for (name, value) in others {
        let ends_another = names.iter().any(|other| other.ends_with(&format!(".{name}")));
        let key = if ends_another { format!("^{name}") } else { name.to_owned() };
        patterns.insert(key, value.clone());
    }
    (common, Value::Object(patterns))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_hit_only_their_module() {
        let names = ["a.q", "b.a.q", "c.q"];
        let (common, patterns) = pattern(&names, &[json!(2), json!(4), json!(4)]);
        assert_eq!(common, json!(4));
        assert_eq!(patterns, json!({"^a.q": 2}));
        assert_eq!(pattern(&names, &[json!(1), json!(1), json!(1)]), (json!(1), json!({})));
    }

    #[test]
    fn alphas_are_written_as_they_are_read() {
        assert_eq!(number(16.0), json!(16));
        assert_eq!(number(2.5), json!(2.5));
        assert_eq!(number(16.000_000_000_001), json!(16));
    }
}
