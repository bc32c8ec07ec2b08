//! A recipe's text as the options of the verb it asks for.

use std::path::{Path, PathBuf};

use regex::Regex;

use super::fields::{
    Fields, Read, count, flag, input, number, orientations, output, regex, text, texts, together,
    unexpected, word,
};
use super::inputs::{self, Inputs};
use super::module_rules::{self, Expression};
use super::params;
use crate::adapter::OpenOptions;
use crate::adapter::scale::ScaleOverride;
use crate::error::{RecipeError, RecipeProblem};
use crate::format::yaml::{self, Node};
use crate::format::{Access, Dtype};
use crate::method::{Compat, Space};
use crate::ops::combine::{self, OnConflict};
use crate::ops::merge::{Quantized, TOUCHED};
use crate::ops::shared::options::{OPTIONS, Recipe as Where};
use crate::ops::{amount, merge};
use crate::weight::{Rounding, Scales, Writing};

/// For which verb a key is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Both,
    Merge,
    Combine,
}

/// Keys that are no single option: parameters of methods, which have a table of their own.
const PARAMETERS: [&str; 2] = ["parameters", "seed"];

/// All keys of a recipe: the options of both verbs that the table gives to recipes.
fn keys() -> Vec<(&'static str, For)> {
    let mut keys: Vec<(&'static str, For)> = Vec::new();
    for option in OPTIONS.iter().filter(|option| option.recipe == Where::Key) {
        let verb = match ["merge", "combine"].map(|verb| option.verbs.contains(&verb)) {
            [true, true] => For::Both,
            [true, false] => For::Merge,
            [false, true] => For::Combine,
            [false, false] => continue,
        };
        match keys.iter_mut().find(|(key, _)| *key == option.name) {
            Some((_, found)) => *found = For::Both,
            None => keys.push((option.name, verb)),
        }
    }
    // Without a base a recipe is a combination, so that either verb may look for it.
    keys.iter_mut().filter(|(key, _)| *key == "base").for_each(|(_, verb)| *verb = For::Both);
    keys.extend(PARAMETERS.map(|key| (key, For::Both)));
    keys
}

/// The keys of a recipe for a verb, `merge` or `combine`.
pub(in crate::ops) fn keys_of(verb: &str) -> Vec<&'static str> {
    let other = if verb == "merge" { For::Combine } else { For::Merge };
    let of_verb = keys().into_iter().filter(|(_, of)| *of != other);
    of_verb.map(|(key, _)| key).filter(|key| verb == "merge" || *key != "base").collect()
}

/// What mergekit, and people, call it.
fn instead(key: &str) -> Option<&'static str> {
    match key {
        "models" | "loras" => Some("what is merged stands below `adapters`"),
        "merge_method" => Some("it is called `method` here"),
        "base_model" => Some("it is called `base` here"),
        "out_dtype" | "save_precision" => Some("it is called `dtype` here"),
        "weights" | "weight" | "ratios" => {
            Some("each adapter below `adapters` has its own `weight`")
        }
        "slices" => Some("layers are not rearranged; weights by layer are `weight: [0, 1]`"),
        "tokenizer" | "tokenizer_source" | "chat_template" => Some("the base's own is kept"),
        "out" | "path" => Some("where the result goes is `output`"),
        "convention_to" | "format" => Some("the convention to write is `to`"),
        "density" | "lambda" | "gamma" | "epsilon" | "majority_sign" | "eta" | "beta" | "t" => {
            Some("parameters of the method stand below `parameters`")
        }
        _ => None,
    }
}

/// What a recipe asks for.
#[derive(Debug)]
pub enum Asked {
    /// A merge into its base.
    Merge(Box<merge::Options>),
    /// A combination, as it has none.
    Combine(Box<combine::Options>),
}

/// A recipe, read.
#[derive(Debug)]
pub struct Recipe {
    /// The options it stands for. The output is empty if it names none.
    pub asked: Asked,
    /// Where each regular expression about modules of one adapter is.
    pub(super) rules: Vec<Expression>,
}

impl Recipe {
    /// Reads a recipe; its paths are relative to `folder`.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its place. That its inputs are there and go together is
    /// for the verb to find out.
    pub fn read(bytes: &[u8], folder: &Path) -> Result<Self, RecipeError> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        Self::of(&yaml::parse(bytes)?, Some(text), folder)
    }

    /// What a tree of YAML asks for; `text` is what the result's metadata have of it.
    ///
    /// # Errors
    /// As [`Recipe::read`].
    pub(in crate::ops) fn of(
        root: &Node,
        text: Option<String>,
        folder: &Path,
    ) -> Result<Self, RecipeError> {
        let keys: Vec<&'static str> = keys().into_iter().map(|(key, _)| key).collect();
        let fields = Fields::new(root, "a recipe", &keys, instead)?;
        let merges = fields.get("base").is_some();
        check_verb(&fields, merges)?;
        let mut inputs = inputs::read(fields.need("adapters")?, folder)?;
        let compat = fields.get("compat").map(|node| word("compat", node, &COMPAT)).transpose()?;
        // Where they stand, should nothing match them.
        for key in ["include", "exclude"] {
            if let Some(node) = fields.get(key) {
                module_rules::expression(None, (key, key), node, &mut inputs.rules)?;
            }
        }
        let module_weights =
            module_rules::module_weights(fields.get("module_weight"), &mut inputs.rules)?;
        let choice = params::read(&fields, compat, &mut inputs)?;
        let common = Common {
            recipe: text,
            open: open(&fields)?,
            compat,
            dtype: dtype(&fields)?,
            module_weights,
            choice,
            inputs,
        };
        let rules = common.inputs.rules.clone();
        let asked = match merges {
            true => Asked::Merge(Box::new(common.merge(&fields, folder)?)),
            false => Asked::Combine(Box::new(common.combine(&fields, folder)?)),
        };
        Ok(Self { asked, rules })
    }
}

const COMPAT: [(&str, Compat); 3] =
    [("peft", Compat::Peft), ("kohya", Compat::Kohya), ("mergekit", Compat::Mergekit)];

const QUANTIZED: [(&str, Quantized); 4] = [
    ("16bit", Quantized::SixteenBit),
    ("requantize", Quantized::Requantize),
    ("hybrid", Quantized::Hybrid),
    ("refuse", Quantized::Refuse),
];

const SCALES: [(&str, Scales); 2] = [("fresh", Scales::Fresh), ("reuse", Scales::Reuse)];
const ROUNDING: [(&str, bool); 2] = [("nearest", false), ("stochastic", true)];

const SPACES: [(&str, Space); 4] = [
    ("delta", Space::Delta),
    ("core", Space::Core),
    ("knots", Space::Knots),
    ("factors", Space::Factors),
];

const CONFLICTS: [(&str, OnConflict); 3] =
    [("first", OnConflict::First), ("average", OnConflict::Average), ("drop", OnConflict::Drop)];

/// The names that the command line takes, and transformers'.
const DTYPES: [(&str, Option<Dtype>); 10] = [
    ("keep", None),
    ("f32", Some(Dtype::F32)),
    ("f16", Some(Dtype::F16)),
    ("bf16", Some(Dtype::BF16)),
    ("float32", Some(Dtype::F32)),
    ("float16", Some(Dtype::F16)),
    ("bfloat16", Some(Dtype::BF16)),
    ("fp32", Some(Dtype::F32)),
    ("fp16", Some(Dtype::F16)),
    ("float", Some(Dtype::F32)),
];

/// Keys that only the other verb has a use for.
fn check_verb(fields: &Fields<'_>, merges: bool) -> Read<()> {
    for (name, verb) in keys() {
        let Some(key) = fields.key(name) else { continue };
        let reason = match verb {
            For::Combine if merges => {
                "for an adapter made of adapters; with a `base`, they are merged into it"
            }
            For::Merge if !merges => {
                "for a merge; without a `base`, the adapters become one adapter"
            }
            _ => continue,
        };
        let problem = RecipeProblem::OtherVerb { key: name.to_owned(), reason };
        return Err(RecipeError { place: key.place, problem });
    }
    Ok(())
}

/// The dtype of what is written.
pub(in crate::ops) fn dtype(fields: &Fields<'_>) -> Read<Option<Dtype>> {
    let dtype = fields.get("dtype").map(|node| word("dtype", node, &DTYPES)).transpose()?;
    Ok(dtype.flatten())
}

/// How adapters are opened.
pub(in crate::ops) fn open(fields: &Fields<'_>) -> Read<OpenOptions> {
    let (alpha, scale) = (fields.read("alpha", number)?, fields.read("scale", number)?);
    let rslora = fields.read("rslora", flag)?.unwrap_or(false);
    if let (Some(key), Some(_)) = (fields.key("scale"), alpha) {
        let reason = "`alpha` and `scale` say the same; give one of them".to_owned();
        return Err(together(key.place, reason));
    }
    if let (Some(key), None) = (fields.key("rslora").filter(|_| rslora), alpha) {
        let reason = "`rslora` says what `alpha` means, which is not given".to_owned();
        return Err(together(key.place, reason));
    }
    Ok(OpenOptions {
        access: Access::Map,
        convention: fields.read("convention", text)?,
        scale: ScaleOverride { alpha, scale, rslora },
        ignored_fields: fields.read("ignore_field", texts)?.unwrap_or_default(),
        residual_base: fields.read("residual_base", flag)?.unwrap_or(false),
        orientation: fields.read("orientation", orientations)?.unwrap_or_default(),
        ..OpenOptions::default()
    })
}

/// Where the result goes; empty if that is not said.
fn output_of(fields: &Fields<'_>, folder: &Path) -> Read<PathBuf> {
    let node = fields.get("output");
    Ok(node.map(|node| output("output", node, folder)).transpose()?.unwrap_or_default())
}

/// How weights are quantised again.
fn writing(fields: &Fields<'_>) -> Read<Writing> {
    let scales = fields.get("scales").map(|node| word("scales", node, &SCALES)).transpose()?;
    let rounding = fields.get("rounding");
    let rounding = rounding.map(|node| word("rounding", node, &ROUNDING)).transpose()?;
    let seed = fields.read("rounding_seed", count)?.unwrap_or_default() as u64;
    let rounding = match rounding {
        Some(true) => Rounding::Stochastic { seed },
        _ => Rounding::Nearest,
    };
    Ok(Writing { scales: scales.unwrap_or_default(), rounding })
}

/// What both verbs take.
struct Common {
    recipe: Option<String>,
    open: OpenOptions,
    compat: Option<Compat>,
    dtype: Option<Dtype>,
    module_weights: Vec<(Regex, f64)>,
    choice: params::Choice,
    inputs: Inputs,
}

impl Common {
    fn merge(self, fields: &Fields<'_>, folder: &Path) -> Read<merge::Options> {
        if let Some(place) = self.inputs.first_blocks {
            let reason =
                "`lbw` is for an adapter made of adapters; with a `base`, use `weight` with rules";
            return Err(together(place, reason.to_owned()));
        }
        let path = |key: &str| Ok(fields.read(key, text)?.map(|path| folder.join(path)));
        let is = |key: &str| Ok(fields.read(key, flag)?.unwrap_or(false));
        let quantized = fields.get("quantized");
        let quantized = quantized.map(|node| word("quantized", node, &QUANTIZED)).transpose()?;
        Ok(merge::Options {
            base: fields
                .get("base")
                .map(|node| input("base", node, folder))
                .transpose()?
                .unwrap_or_default(),
            adapters: self.inputs.adapters,
            output: output_of(fields, folder)?,
            open: self.open,
            method: self.choice.method,
            params: self.choice.params,
            param_rules: self.choice.rules,
            compat: self.compat,
            dtype: self.dtype,
            quantized: quantized.unwrap_or_default(),
            touched: fields
                .get("touched")
                .map(|node| word("touched", node, &TOUCHED))
                .transpose()?
                .unwrap_or_default(),
            quantize_like: fields
                .get("quantize_like")
                .map(|node| input("quantize_like", node, folder))
                .transpose()?,
            as_trained: fields.read("as_trained", text)?,
            writing: writing(fields)?,
            min_survival: fields
                .read("min_survival", number)?
                .map(merge::LeastSurvival)
                .unwrap_or_default(),
            types: fields.parse("types")?,
            reference: fields
                .get("reference")
                .map(|node| input("reference", node, folder))
                .transpose()?,
            max_shard_size: fields.get("max_shard_size").map(shard_size).transpose()?.flatten(),
            include: fields.read("include", regex)?,
            exclude: fields.read("exclude", regex)?,
            module_weights: self.module_weights,
            allow_unmatched: is("allow_unmatched")?,
            add_new: is("add_new")?,
            keep_tied: is("keep_tied")?,
            verify: is("verify")?,
            receipt: path("receipt")?,
            card: is("card")?,
            residual: path("residual")?,
            residual_rank: fields.read("residual_rank", count)?,
            resume: is("resume")?,
            provenance: !is("no_provenance")?,
            recipe: if is("no_provenance")? { None } else { self.recipe },
            ..merge::Options::default()
        })
    }

    fn combine(self, fields: &Fields<'_>, folder: &Path) -> Read<combine::Options> {
        let (space, conflict) = (fields.get("space"), fields.get("on_conflict"));
        Ok(combine::Options {
            block_weights: self.inputs.all_blocks(),
            adapters: self.inputs.adapters,
            output: output_of(fields, folder)?,
            open: self.open,
            method: self.choice.method,
            params: self.choice.params,
            param_rules: self.choice.rules,
            compat: self.compat,
            space: space.map(|node| word("space", node, &SPACES)).transpose()?,
            rank: fields.parse("rank")?,
            conv_rank: fields.parse("conv_rank")?,
            max_rank: fields.read("max_rank", count)?,
            uniform: fields.read("uniform", flag)?.unwrap_or(false),
            include: fields.read("include", regex)?,
            exclude: fields.read("exclude", regex)?,
            module_weights: self.module_weights,
            dtype: self.dtype,
            to: fields.read("to", text)?,
            reference: fields
                .get("reference")
                .map(|node| input("reference", node, folder))
                .transpose()?,
            title: fields.read("title", text)?,
            trigger: fields.read("trigger", text)?,
            card: fields.read("card", flag)?.unwrap_or(false),
            allow_disjoint: fields.read("allow_disjoint", flag)?.unwrap_or(false),
            on_conflict: conflict.map(|node| word("on_conflict", node, &CONFLICTS)).transpose()?,
            recipe: self.recipe,
            ..combine::Options::default()
        })
    }
}

/// Bytes such as 5GB; `keep` is the base's own shards.
fn shard_size(node: &Node) -> Read<Option<u64>> {
    let size = text("max_shard_size", node)?;
    if size == "keep" {
        return Ok(None);
    }
    let expected = "a size such as 5GB, or keep";
    amount(&size, true).map(Some).map_err(|_| unexpected("max_shard_size", node, expected))
}
