//! What stands beside an adapter's tensors: PEFT's `adapter_config.json`.
//!
//! Fields that change the mathematics are read or refused by name; a field this version has never
//! heard of is refused too unless it is empty, since PEFT adds variants of LoRA as new fields.

use std::path::Path;

use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::peft_type::{PeftType, REFUSED_TYPES, TYPES};
use crate::error::{ErrorKind, Locate, Result};
use crate::format::access::read_config;
use crate::format::json;

/// A parsed `adapter_config.json` of a type that is merged.
#[derive(Debug, Clone)]
pub struct PeftConfig {
    /// The type: `LORA`, `LOHA`, ….
    pub peft_type: &'static str,
    /// Rank where no pattern matches.
    pub rank: usize,
    /// Alpha where no pattern matches.
    pub alpha: f64,
    /// Scale is alpha/√rank instead of alpha/rank.
    pub rslora: bool,
    /// Whether modules carry DoRA magnitudes.
    pub dora: bool,
    /// What the config says of weights stored inputs × outputs, where it says it; see
    /// [`orientation`](super::orientation).
    pub fan_in_fan_out: Option<bool>,
    /// One copy of a LoRA serves both tied embeddings.
    pub ties_weights: bool,
    /// Indices of replaced embedding rows, by module; the empty name is the input embedding.
    pub token_indices: Vec<(String, Vec<usize>)>,
    /// Names, or ends of names, of parameters adapted as they are: experts in stacks.
    pub target_parameters: Vec<String>,
    /// The whole document.
    pub document: Map<String, Value>,
    rank_pattern: Vec<(Pattern, usize)>,
    alpha_pattern: Vec<(Pattern, f64)>,
    has_alpha: bool,
    has_rank: bool,
}

/// The config's name in an adapter directory.
pub const CONFIG_NAME: &str = "adapter_config.json";

/// Fields whose presence means mathematics that is not done here, and why.
const REFUSED_FIELDS: [(&str, &str); 5] = [
    (
        "alora_invocation_tokens",
        "an activated LoRA acts only after its invocation tokens; no single weight can do that",
    ),
    ("arrow_config", "Arrow routes every token to its own experts; no single weight can do that"),
    (
        "layer_replication",
        "its layers are copies that share a weight; merging would add several updates into one",
    ),
    ("use_qalora", "QA-LoRA's A acts on pooled inputs, which this version does not expand"),
    ("kasa_config", "KaSA truncates the base's own spectrum, which this version does not do"),
];

impl PeftConfig {
    /// Reads a config file. Fields of `ignored` are taken as harmless.
    ///
    /// # Errors
    /// If the file cannot be read, is no config, or says something that cannot be merged.
    pub fn open(path: &Path, ignored: &[String], residual_base: bool) -> Result<Self> {
        let text = read_config(path).in_file(path)?;
        Self::parse(&text, ignored, residual_base).map_err(|error| error.in_file(path))
    }

    /// As [`PeftConfig::open`], from the text itself.
    ///
    /// # Errors
    /// As [`PeftConfig::open`], without a file named.
    pub fn parse(text: &[u8], ignored: &[String], residual_base: bool) -> Result<Self> {
        let document = json::object(text).map_err(bad)?;
        let peft_type = match document.get("peft_type").map(|value| value.as_str()) {
            Some(Some(name)) => name,
            Some(None) => return Err(bad("`peft_type` is no string").into()),
            None => return Err(bad("it has no `peft_type`, so it is no PEFT config").into()),
        };
        let Some(known) = TYPES.iter().find(|known| known.name == peft_type) else {
            let refused = REFUSED_TYPES.iter().find(|(name, _)| *name == peft_type);
            let reason =
                refused.map_or("this version does not know the type", |(_, reason)| reason);
            let (peft_type, reason) = (peft_type.to_owned(), reason.to_owned());
            return Err(ErrorKind::UnsupportedType { peft_type, reason }.into());
        };
        refuse_fields(&document, known, ignored, residual_base)?;
        let rank = known.rank.map(|field| count(&document, field)).transpose()?.flatten();
        let alpha = known.alpha.map(|field| number(&document, field)).transpose()?.flatten();
        // AdaLoRA's `rank_pattern` is a mask of what it kept, which the factors show.
        let (ranks, alphas) = match known.rank {
            Some(_) => {
                (patterns(&document, "rank_pattern")?, patterns(&document, "alpha_pattern")?)
            }
            None => (Vec::new(), Vec::new()),
        };
        let rank_pattern = ranks
            .into_iter()
            .map(|(regex, value)| Ok((regex, as_count("rank_pattern", value)?)))
            .collect::<Result<_>>()?;
        let alpha_pattern = alphas
            .into_iter()
            .map(|(regex, value)| Ok((regex, as_number("alpha_pattern", value)?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            peft_type: known.name,
            rank: rank.unwrap_or(8),
            alpha: alpha.unwrap_or(8.0),
            rslora: flag(&document, "use_rslora"),
            dora: flag(&document, "use_dora") && !ignored.iter().any(|field| field == "use_dora"),
            fan_in_fan_out: document.get("fan_in_fan_out").and_then(Value::as_bool),
            ties_weights: flag(&document, "ensure_weight_tying"),
            token_indices: token_indices(&document)?,
            target_parameters: texts(&document, "target_parameters")?,
            rank_pattern,
            alpha_pattern,
            has_alpha: known.alpha.is_some(),
            has_rank: known.rank.is_some(),
            document,
        })
    }

    /// Rank of a module by the config: the first matching pattern in file order, else `r`. None if the
    /// type's config does not bind the factors.
    pub fn rank_of(&self, module: &str) -> Option<usize> {
        let rank = first_match(&self.rank_pattern, module).unwrap_or(self.rank);
        self.has_rank.then_some(rank)
    }

    /// Alpha of a module by the config: the first matching pattern in file order, else the common
    /// one. None if the type has none.
    pub fn alpha_of(&self, module: &str) -> Option<f64> {
        let alpha = first_match(&self.alpha_pattern, module).unwrap_or(self.alpha);
        self.has_alpha.then_some(alpha)
    }

    /// Whether it says something that no verb but `check` reads on.
    pub fn is_refused(&self) -> bool {
        REFUSED_FIELDS.iter().any(|(field, _)| self.flag(field))
    }

    /// Whether a field is set: true, and not 0 or empty.
    pub fn flag(&self, field: &str) -> bool {
        flag(&self.document, field)
    }

    /// A number of the document, if it is there.
    ///
    /// # Errors
    /// If it is no finite number.
    pub fn number(&self, field: &str) -> Result<Option<f64>> {
        number(&self.document, field)
    }

    /// A seed of random numbers.
    ///
    /// # Errors
    /// If it is no whole number.
    pub fn seed(&self, field: &str, default: u64) -> Result<u64> {
        match self.document.get(field) {
            None | Some(Value::Null) => Ok(default),
            Some(value) => value
                .as_u64()
                .ok_or_else(|| bad(format!("`{field}` holds {value}, which is no seed")).into()),
        }
    }

    /// A text of the document, if it is there and one.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.document.get(field)?.as_str()
    }

    /// The document with those fields alone that a LoRA's config has too.
    pub fn as_lora(&self) -> Map<String, Value> {
        let lora = TYPES.iter().find(|known| known.name == "LORA");
        let is_lora = self.peft_type == "LORA";
        let shared = |field: &str| {
            // LoRA calls it `init_lora_weights`, and it is set when a config is written.
            is_lora || (field != "init_weights" && lora.is_some_and(|lora| lora.knows(field)))
        };
        let fields = self.document.iter().filter(|(field, _)| shared(field));
        fields.map(|(field, value)| (field.clone(), value.clone())).collect()
    }

    /// The base model's name, as the config has it.
    pub fn base_model(&self) -> Option<&str> {
        self.document.get("base_model_name_or_path")?.as_str()
    }
}

/// Whether an `adapter_config.json` is PEFT's.
pub(super) fn is_config(document: &Map<String, Value>) -> bool {
    document.contains_key("peft_type")
}

fn bad(reason: impl std::fmt::Display) -> ErrorKind {
    ErrorKind::BadConfig { reason: format!("{reason}") }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(set) => *set,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

fn refuse_fields(
    document: &Map<String, Value>,
    known: &PeftType,
    ignored: &[String],
    residual_base: bool,
) -> Result<()> {
    for (field, value) in
        document.iter().filter(|(field, value)| truthy(value) && !ignored.contains(field))
    {
        if let Some((_, reason)) = REFUSED_FIELDS.iter().find(|(name, _)| name == field) {
            let (field, reason) = (field.clone(), (*reason).to_owned());
            return Err(ErrorKind::UnsupportedField { field, reason }.into());
        }
        if !known.knows(field) {
            let mut value = value.to_string();
            if value.chars().count() > 60 {
                value = value.chars().take(60).chain(['…']).collect();
            }
            return Err(ErrorKind::UnknownField { field: field.clone(), value }.into());
        }
    }
    refuse_mutating_init(document, residual_base)
}

/// Initialisations that changed the base before training: the adapter is relative to what was left
/// (peft `tuners/lora/layer.py`, `pissa_init` and its relatives).
fn refuse_mutating_init(document: &Map<String, Value>, residual_base: bool) -> Result<()> {
    const MUTATING: [&str; 5] = ["pissa", "olora", "corda", "lora_ga", "loftq"];
    let Some(init) = document.get("init_lora_weights").and_then(Value::as_str) else {
        return Ok(());
    };
    if residual_base || !MUTATING.iter().any(|name| init.to_lowercase().starts_with(name)) {
        return Ok(());
    }
    let reason = format!(
        "`{init}` changed the base before training, so the adapter does not fit the original base"
    );
    Err(ErrorKind::UnsupportedField { field: "init_lora_weights".to_owned(), reason }.into())
}

fn flag(document: &Map<String, Value>, field: &str) -> bool {
    document.get(field).is_some_and(truthy)
}

fn number(document: &Map<String, Value>, field: &str) -> Result<Option<f64>> {
    match document.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => as_number(field, value).map(Some),
    }
}

fn as_number(field: &str, value: &Value) -> Result<f64> {
    let number = value.as_f64().filter(|number| number.is_finite());
    number.ok_or_else(|| bad(format!("`{field}` holds {value}, which is no number")).into())
}

fn count(document: &Map<String, Value>, field: &str) -> Result<Option<usize>> {
    match document.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => as_count(field, value).map(Some),
    }
}

fn as_count(field: &str, value: &Value) -> Result<usize> {
    let number = value.as_u64().filter(|number| *number > 0 && *number < u64::from(u32::MAX));
    number
        .map(|number| number as usize)
        .ok_or_else(|| bad(format!("`{field}` holds {value}, which is no positive count")).into())
}

/// A pattern dictionary in file order, each key as PEFT matches it.
fn patterns<'a>(
    document: &'a Map<String, Value>,
    field: &str,
) -> Result<Vec<(Pattern, &'a Value)>> {
    let entries = match document.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Object(entries)) => entries,
        Some(_) => return Err(bad(format!("`{field}` is no object")).into()),
    };
    let patterns = Pattern::all(entries.keys().map(String::as_str));
    let patterns = patterns.map_err(|reason| bad(format!("`{field}`: {reason}")))?;
    Ok(patterns.into_iter().zip(entries.values()).collect())
}

fn first_match<T: Copy>(patterns: &[(Pattern, T)], module: &str) -> Option<T> {
    patterns.iter().find(|(pattern, _)| pattern.is_match(module)).map(|(_, value)| *value)
}

fn texts(document: &Map<String, Value>, field: &str) -> Result<Vec<String>> {
    let items = match document.get(field) {
        None | Some(Value::Null) => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(_) => return Err(bad(format!("`{field}` is no list")).into()),
    };
    let text = |item: &Value| item.as_str().map(str::to_owned);
    let texts = items.iter().map(text).collect::<Option<_>>();
    texts.ok_or_else(|| bad(format!("`{field}` holds something else than names")).into())
}

fn token_indices(document: &Map<String, Value>) -> Result<Vec<(String, Vec<usize>)>> {
    const FIELD: &str = "trainable_token_indices";
    let indices = |value: &Value| -> Result<Vec<usize>> {
        let items = value.as_array().ok_or_else(|| bad(format!("`{FIELD}` holds no list")))?;
        items
            .iter()
            .map(|item| {
                let index = item.as_u64().map(|index| index as usize);
                index
                    .ok_or_else(|| bad(format!("`{FIELD}` holds {item}, which is no index")).into())
            })
            .collect()
    };
    // As a type of its own it calls them otherwise.
    match document.get(FIELD).or_else(|| document.get("token_indices")) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(modules)) => {
            modules.iter().map(|(module, value)| Ok((module.clone(), indices(value)?))).collect()
        }
        Some(value) => Ok(vec![(String::new(), indices(value)?)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fields: &str) -> Result<PeftConfig> {
        PeftConfig::parse(format!(r#"{{"peft_type":"LORA"{fields}}}"#).as_bytes(), &[], false)
    }

    #[test]
    fn the_first_pattern_in_file_order_wins() {
        let forward = parse(r#","r":8,"rank_pattern":{"q_proj":2,"layers.0.q_proj":4}"#);
        assert_eq!(forward.expect("parses").rank_of("model.layers.0.q_proj"), Some(2));
        let backward = parse(r#","r":8,"rank_pattern":{"layers.0.q_proj":4,"q_proj":2}"#);
        let backward = backward.expect("parses");
        assert_eq!(backward.rank_of("model.layers.0.q_proj"), Some(4));
        assert_eq!(backward.rank_of("model.layers.1.q_proj"), Some(2));
        assert_eq!(backward.rank_of("model.layers.1.xq_proj"), Some(8));
        assert_eq!(backward.alpha_of("q_proj"), Some(8.0));
    }

    #[test]
    fn what_cannot_be_merged_is_refused_by_name() {
        let cases = [
            (r#","alora_invocation_tokens":[1]"#, "alora_invocation_tokens"),
            (r#","use_qalora":true"#, "use_qalora"),
            (r#","target_parameters":"experts""#, "target_parameters"),
            (r#","brand_new_trick":{"x":1}"#, "brand_new_trick"),
            (r#","init_lora_weights":"pissa_niter_4""#, "init_lora_weights"),
            (r#","rank_pattern":{"(":4}"#, "rank_pattern"),
            (r#","rank_pattern":{"(a{1000}){1000}":4}"#, "rank_pattern"),
            (r#","r":0"#, "`r`"),
            (r#","r":-3"#, "`r`"),
            (r#","lora_alpha":"x""#, "lora_alpha"),
        ];
        for (fields, expected) in cases {
            let error = parse(fields).expect_err(fields).to_string();
            assert!(error.contains(expected), "{fields}: {error}");
        }
        for peft_type in ["XLORA", "PROMPT_TUNING", "NEVER_HEARD_OF"] {
            let text = format!(r#"{{"peft_type":"{peft_type}"}}"#);
            let error = PeftConfig::parse(text.as_bytes(), &[], false).expect_err(peft_type);
            assert!(error.to_string().contains(peft_type));
        }
        let harmless = r#","init_lora_weights":true,"brand_new_trick":null,"loftq_config":{}"#;
        assert!(parse(harmless).is_ok());
    }
}
