//! Experts' gates and ups, which some have in one matrix, in stacks of their own.

use super::target::{Layout, MadeOf, Piece, Rows, Target, Wanted};
use crate::adapter::Adapter;
use crate::adapter::convention::gguf_names::Architecture;
use crate::adapter::rename::Renamer;

/// Experts' `gate_up_proj` as llama.cpp and mlx-lm have them: gates and ups in stacks of their own.
pub fn divide_experts(
    adapter: &Adapter,
    architecture: &Architecture,
    renamer: &Renamer<'_>,
    layout: &mut Layout,
) {
    let halves = |at: usize| {
        let module = adapter.modules.get(at)?;
        let above = module.name.strip_suffix(".gate_up_proj")?;
        let total = module.outputs / 2;
        let half = |(number, matrix): (usize, &str)| {
            let path = format!("{above}.{matrix}");
            let name = renamer.rename(&path, None).ok()?;
            let from = Rows::of_half(number, total, architecture.in_turns);
            let pieces = vec![Piece { module: at, from, to: (0..total).into() }];
            Some(Ok(Target { name, source: MadeOf::Rows { pieces, total } }))
        };
        let found: Vec<Wanted> =
            ["gate_proj", "up_proj"].into_iter().enumerate().filter_map(half).collect();
        (found.len() == 2 && module.outputs == 2 * total).then_some(found)
    };
    let divided = std::mem::take(&mut layout.modules).into_iter().flat_map(|target| {
        let parts = target.as_ref().err().and_then(|(at, _)| halves(*at));
        parts.unwrap_or_else(|| vec![target])
    });
    layout.modules = divided.collect();
}
