//! llama.cpp's names for transformers' modules, by the tables of `gguf_architectures.rs`, and the order of rows
//! that it gives some of them (llama.cpp `conversion/llama.py`, `LlamaModel.permute`).

use std::path::Path;

use serde_json::{Map, Value};

pub use super::gguf_architectures::Architecture;
use super::gguf_architectures::{
    ARCHITECTURES, EXPERTS, MIXTRAL, NOT_CONVERTED, Pair, ROUTER, STACKS,
};
use crate::error::Result;
use crate::format::json::model_config;
use crate::weight::root::Root;

/// Heads of a model's attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Heads {
    /// Of the queries.
    pub queries: usize,
    /// Of the keys and values.
    pub keys: usize,
}

impl Heads {
    /// What a model's config says of them.
    pub fn of_config(config: &Map<String, Value>) -> Option<Self> {
        // Those of the language model in a wrapper stand in its own part.
        let text = config.get("text_config").and_then(Value::as_object);
        let number = |field: &str| {
            let number = config.get(field).or_else(|| text?.get(field))?.as_u64()?;
            usize::try_from(number).ok().filter(|number| *number > 0)
        };
        let queries = number("num_attention_heads")?;
        Some(Self { queries, keys: number("num_key_value_heads").unwrap_or(queries) })
    }

    /// What the config beside a base says of them; none without one.
    ///
    /// # Errors
    /// If the config is there and cannot be read.
    pub fn of_base(base: &Path) -> Result<Option<Self>> {
        let above = base.parent().unwrap_or(Path::new(""));
        let config = model_config(if base.is_dir() { base } else { above })?;
        Ok(config.as_ref().and_then(Self::of_config))
    }
}

/// The norm behind the last layer, in all architectures.
const LAST_NORM: Pair = ("model.norm", "output_norm");

impl Architecture {
    /// The architecture of this name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.name == name)
    }

    /// The architecture that a config's `model_type` becomes.
    pub fn of_model_type(model_type: &str) -> Option<&'static Self> {
        ARCHITECTURES.iter().find(|architecture| architecture.model_types.contains(&model_type))
    }

    /// Whether llama.cpp's converter has no class for models of this type.
    pub fn is_not_converted(model_type: &str) -> bool {
        NOT_CONVERTED.contains(&model_type)
    }

    fn in_layers(&self) -> impl Iterator<Item = &'static Pair> {
        self.in_layer.iter().copied().flatten()
    }

    /// transformers' path → llama.cpp's name. A language model below a wrapper's `language_model` is named as
    /// it is by itself; towers are in another file and have no name.
    pub fn to_gguf(&self, module: &str) -> Option<String> {
        let unwrapped = Root::TEXT.of(module).filter(|_| module.contains("language_model."));
        let module = unwrapped.as_deref().unwrap_or(module);
        if let Some((number, name)) = module.strip_prefix(self.layers).and_then(numbered) {
            let named = |name| self.in_layers().find(|(known, _)| *known == name);
            let older = || named(ROUTER.1).filter(|_| name == ROUTER.0);
            let found = named(name).or_else(older).map(|found| found.1);
            let found = found.map(str::to_owned).or_else(|| self.expert_to_gguf(name))?;
            return Some(format!("blk.{number}.{found}"));
        }
        let found = self.outside.iter().find(|(known, _)| *known == module)?;
        Some(found.1.to_owned())
    }

    /// Whether whole checkpoints are converted, and not adapters alone.
    pub fn is_whole(&self) -> bool {
        self.rest.is_some()
    }

    /// As [`Architecture::to_gguf`], of norms too; and what llama.cpp adds to the numbers.
    pub fn any_to_gguf(&self, module: &str) -> Option<(String, f32)> {
        if let Some(name) = self.to_gguf(module) {
            return Some((name, 0.0));
        }
        let rest = self.rest.as_ref()?;
        let shift = if rest.shifted { 1.0 } else { 0.0 };
        if module == LAST_NORM.0 {
            return Some((LAST_NORM.1.to_owned(), shift));
        }
        let (number, name) = numbered(module.strip_prefix(self.layers)?)?;
        let found = rest.in_layer.iter().find(|(known, _)| *known == name)?;
        Some((format!("blk.{number}.{}", found.1), shift))
    }

    /// llama.cpp's name → transformers' path.
    pub fn from_gguf(&self, name: &str) -> Option<String> {
        if let Some((number, name)) = name.strip_prefix("blk.").and_then(numbered) {
            let found = self.in_layers().find(|(_, theirs)| *theirs == name);
            let found = found.map(|found| found.0.to_owned());
            let found = found.or_else(|| self.expert_from_gguf(name))?;
            return Some(format!("{}{number}.{found}", self.layers));
        }
        let found = self.outside.iter().find(|(_, theirs)| *theirs == name)?;
        Some(found.0.to_owned())
    }

    /// Either way in which releases of transformers call an expert's matrix.
    fn expert_to_gguf(&self, name: &str) -> Option<String> {
        [self.experts?, EXPERTS, MIXTRAL, ("mlp.experts", MIXTRAL.1)].into_iter().find_map(
            |(above, names)| {
                let below = name.strip_prefix(above)?.strip_prefix('.')?;
                let (expert, matrix) = numbered(below)?;
                let at = names.iter().position(|name| *name == matrix)?;
                Some(format!("{}.{expert}", STACKS.get(at)?))
            },
        )
    }

    /// transformers' path of an expert's matrix as its checkpoints have it, of any release's.
    pub fn expert(&self, module: &str) -> Option<String> {
        let name = self.to_gguf(module)?;
        self.expert_from_gguf(numbered(name.strip_prefix("blk.")?)?.1)?;
        self.from_gguf(&name)
    }

    fn expert_from_gguf(&self, name: &str) -> Option<String> {
        let (above, names) = self.experts?;
        let (stack, expert) = name.rsplit_once('.')?;
        let (expert, _) = numbered(&format!("{expert}.")).filter(|(_, rest)| rest.is_empty())?;
        let matrix = names.get(STACKS.iter().position(|known| *known == stack)?)?;
        Some(format!("{above}.{expert}.{matrix}"))
    }

    /// The heads whose rows llama.cpp reorders in a module of this (llama.cpp's) name.
    pub fn permuted_heads(&self, name: &str, heads: Heads) -> Option<usize> {
        match name.rsplit('.').next() {
            Some("attn_q") if self.permuted => Some(heads.queries),
            Some("attn_k") if self.permuted => Some(heads.keys),
            _ => None,
        }
    }
}

fn numbered(rest: &str) -> Option<(usize, &str)> {
    let (number, name) = rest.split_once('.')?;
    // Only as it would be printed again.
    let parsed: usize = number.parse().ok()?;
    (parsed.to_string() == number).then_some((parsed, name))
}

/// For each row as llama.cpp orders them, the row it is in transformers: within a head, the two halves
/// of a rotation stand side by side instead of one after another. `None` if the rows do not divide.
pub fn row_order(rows: usize, heads: usize) -> Option<Vec<usize>> {
    let half = rows.checked_div(heads)? / 2;
    (half > 0 && half * 2 * heads == rows).then(|| {
        let place = |row: usize| {
            let (head, inside) = (row / (2 * half), row % (2 * half));
            head * 2 * half + inside % 2 * half + inside / 2
        };
        (0..rows).map(place).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for architecture in &ARCHITECTURES {
            let layered = architecture.in_layers().map(|(name, _)| {
                [0, 17].map(|number| format!("{}{number}.{name}", architecture.layers))
            });
            let outside = architecture.outside.iter().map(|(name, _)| (*name).to_owned());
            for module in layered.flatten().chain(outside) {
                let name = architecture.to_gguf(&module).expect("named");
                assert_eq!(architecture.from_gguf(&name), Some(module));
            }
            assert_eq!(architecture.to_gguf("model.layers.00.self_attn.q_proj"), None);
            assert_eq!(architecture.from_gguf("blk.0.attn_unheard_of"), None);
        }
        let mixtral = Architecture::of_model_type("mixtral").expect("known");
        for (path, stored, again) in [
            ("block_sparse_moe.experts.7.w3", "ffn_up_exps.7", "block_sparse_moe.experts.7.w3"),
            ("mlp.experts.7.down_proj", "ffn_down_exps.7", "block_sparse_moe.experts.7.w2"),
            ("mlp.gate", "ffn_gate_inp", "block_sparse_moe.gate"),
        ] {
            let name = mixtral.to_gguf(&format!("model.layers.3.{path}")).expect("named");
            assert_eq!(name, format!("blk.3.{stored}"));
            assert_eq!(mixtral.from_gguf(&name), Some(format!("model.layers.3.{again}")));
        }
        for unknown in ["blk.0.ffn_up_exps.07", "blk.0.ffn_up_exps", "blk.0.ffn_up_exps.x"] {
            assert_eq!(mixtral.from_gguf(unknown), None, "{unknown}");
        }
        let w2 = "model.layers.3.block_sparse_moe.experts.7.w2";
        let down = mixtral.expert("model.layers.3.mlp.experts.7.down_proj");
        assert_eq!(down.as_deref(), Some(w2));
        assert_eq!(mixtral.expert("model.layers.3.self_attn.q_proj"), None);
        let llama = Architecture::by_name("llama").expect("known");
        let q = llama.to_gguf("model.layers.3.self_attn.q_proj");
        assert_eq!(q.as_deref(), Some("blk.3.attn_q"));
    }

    #[test]
    fn rows_of_a_rotation_stand_side_by_side() {
        // reshape(heads 1, 2, 2).swapaxes(1, 2)
        assert_eq!(row_order(4, 1), Some(vec![0, 2, 1, 3]));
        assert_eq!(row_order(8, 2), Some(vec![0, 2, 1, 3, 4, 6, 5, 7]));
        assert_eq!(row_order(6, 4), None);
        assert_eq!(row_order(4, 0), None);
    }
}
