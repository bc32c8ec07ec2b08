//! A base in GGUF: what transformers calls its tensors, and in what order their rows are.

use super::convention::gguf_names::{Architecture, Heads};
use super::convention::{ARCHITECTURE, MOST_EXPERTS};
use crate::format::{Checkpoint, Metadata};

/// A name that transformers has for a tensor of the base, or for one matrix of a stack.
pub(super) struct Named {
    /// With `.weight`.
    pub(super) name: String,
    /// What of the tensor it is.
    pub(super) part: Part,
}

/// What of a tensor a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it, outputs × inputs whatever the model's class has.
    Straight,
    /// All of it, its rows reordered by so many heads; none if the file does not say how many.
    Reordered(Option<usize>),
    /// One matrix of a stack.
    Expert(usize),
}

/// What the file says of the model.
struct Model {
    architecture: &'static Architecture,
    heads: Option<Heads>,
}

impl Heads {
    /// What a GGUF model says of them.
    pub(super) fn of_gguf(base: &Checkpoint) -> Option<Self> {
        let metadata = metadata(base)?;
        let architecture = metadata.get(ARCHITECTURE)?;
        let number = |field: &str| {
            let number = metadata.get(&format!("{architecture}.attention.{field}"))?;
            number.parse().ok().filter(|number: &usize| *number > 0)
        };
        let queries = number("head_count")?;
        let keys = match metadata.contains_key(&format!("{architecture}.attention.head_count_kv")) {
            true => number("head_count_kv")?,
            false => queries,
        };
        Some(Self { queries, keys })
    }
}

/// The pairs of a GGUF model; of a split one those of its first file.
fn metadata(base: &Checkpoint) -> Option<&Metadata> {
    let shard = base.shards.first().filter(|_| base.is_gguf())?;
    shard.header.metadata.as_ref()
}

/// Of a GGUF model whose architecture has no table of names, the architecture.
pub(super) fn unknown_architecture(base: &Checkpoint) -> Option<&str> {
    let name = metadata(base)?.get(ARCHITECTURE)?;
    Architecture::by_name(name).is_none().then_some(name.as_str())
}

/// What transformers calls a tensor of a base in GGUF; nothing for one that it has no name for.
pub(super) fn names(base: &Checkpoint) -> impl Fn(&str) -> Vec<Named> + '_ {
    let architecture = metadata(base).and_then(|metadata| metadata.get(ARCHITECTURE));
    let architecture = architecture.and_then(|name| Architecture::by_name(name));
    let model =
        architecture.map(|architecture| Model { architecture, heads: Heads::of_gguf(base) });
    move |tensor: &str| {
        let stem = tensor.strip_suffix(".weight");
        let (Some(model), Some(stem)) = (&model, stem) else { return Vec::new() };
        let shape = base.tensor(tensor).map_or(&[][..], |view| view.spec.shape.as_slice());
        model.names(stem, shape)
    }
}

impl Model {
    fn names(&self, stem: &str, shape: &[usize]) -> Vec<Named> {
        let path = |stem: &str| Some(format!("{}.weight", self.architecture.from_gguf(stem)?));
        if let [experts, _, _] = shape {
            // An adapter has gate and up in one matrix, row by row in turns, and half a matrix is what others have:
            // its rows would land in the wrong places.
            if self.architecture.in_turns && !stem.ends_with("ffn_down_exps") {
                return Vec::new();
            }
            let expert = |at: usize| {
                let name = path(&format!("{stem}.{at}"))?;
                Some(Named { name, part: Part::Expert(at) })
            };
            return (0..(*experts).min(MOST_EXPERTS)).filter_map(expert).collect();
        }
        let heads = |heads| self.architecture.permuted_heads(stem, heads);
        // Whether rows are reordered at all does not depend on how many heads there are.
        let part = match heads(Heads { queries: 1, keys: 1 }) {
            Some(_) => Part::Reordered(self.heads.and_then(heads)),
            None => Part::Straight,
        };
        path(stem).map(|name| Named { name, part }).into_iter().collect()
    }
}

#[cfg(test)]
#[allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]
mod tests {
    use super::*;

    #[test]
    fn gate_and_up_in_turns_are_no_halves_of_an_experts_matrix() {
        let count = |architecture: &str, stack: &str| {
            let architecture = Architecture::by_name(architecture).expect("a table");
            Model { architecture, heads: None }.names(stack, &[2, 8, 4]).len()
        };
        let of = |architecture| {
            ["gate", "up", "down"]
                .map(|name| count(architecture, &format!("blk.0.ffn_{name}_exps")))
        };
        assert_eq!(of("gpt-oss"), [0, 0, 2]);
        assert_eq!(of("qwen3moe"), [2, 2, 2]);
    }
}
