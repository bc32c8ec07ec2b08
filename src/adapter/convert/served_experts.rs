//! Experts one by one or in stacks, as a program reads them.

use std::collections::BTreeMap;

use super::served::{ExpertForm, MATRICES, Served, expert_of};
use crate::adapter::layout::{Layout, MadeOf, Piece, Rows, Target, Wanted};
use crate::adapter::stacks::Stack;

/// Divides stacks into experts, or puts experts together; the stacks of the result.
pub(super) fn experts(served: &Served<'_>, layout: &mut Layout) -> BTreeMap<String, Stack> {
    let single = served.adapter.stacks.is_empty();
    let any = served.adapter.modules.iter().any(|module| expert_of(&module.name).is_some());
    let stacks = match served.expert_form() {
        Some(ExpertForm::Single) if !single => {
            divide(served, layout);
            BTreeMap::new()
        }
        Some(ExpertForm::Stacks) if single && any => stack(served, layout),
        form => {
            // A is on the side of the inputs, as PEFT since 0.19 has it of stacks outputs × inputs; of others the
            // model's class decides for PEFT.
            let straight = form == Some(ExpertForm::Stacks) || served.plain_stacks;
            let oriented = |(name, stack): (&String, &Stack)| {
                (name.clone(), Stack { crossed: stack.crossed && !straight, ..*stack })
            };
            served.adapter.stacks.iter().map(oriented).collect()
        }
    };
    call_matrices(served, layout);
    stacks
}

/// Gives single experts' matrices the program's own names, where it has some.
fn call_matrices(served: &Served<'_>, layout: &mut Layout) {
    let Some(called) = served.takes.matrices else { return };
    for target in layout.modules.iter_mut().flatten() {
        let renamed = expert_of(&target.name).and_then(|(holder, number, matrix)| {
            let at = MATRICES.iter().find_map(|names| names.iter().position(|n| *n == matrix))?;
            Some(format!("{holder}.{number}.{}", called.get(at)?))
        });
        target.name = renamed.unwrap_or_else(|| target.name.clone());
    }
}

/// An expert's gate and up, which a stack has in one matrix, by themselves.
fn divide(served: &Served<'_>, layout: &mut Layout) {
    let halves = |wanted: Wanted| -> Vec<Wanted> {
        let Ok(Target { name, source: MadeOf::Whole(at) }) = &wanted else {
            return vec![wanted];
        };
        let above = name.strip_suffix(".gate_up_proj").filter(|_| expert_of(name).is_some());
        let outputs = served.adapter.modules.get(*at).map_or(0, |module| module.outputs);
        let Some(above) = above.filter(|_| outputs % 2 == 0) else { return vec![wanted] };
        let total = outputs / 2;
        let half = |(number, matrix): (usize, &str)| {
            let from = Rows::of_half(number, total, served.in_turns);
            let pieces = vec![Piece { module: *at, from, to: (0..total).into() }];
            let source = MadeOf::Rows { pieces, total };
            Ok(Target { name: format!("{above}.{matrix}"), source })
        };
        ["gate_proj", "up_proj"].into_iter().enumerate().map(half).collect()
    };
    layout.modules = std::mem::take(&mut layout.modules).into_iter().flat_map(halves).collect();
}

/// An expert's gate and up in one matrix, and the stacks that they make.
fn stack(served: &Served<'_>, layout: &mut Layout) -> BTreeMap<String, Stack> {
    let mut pairs: BTreeMap<(String, usize), [Option<usize>; 2]> = BTreeMap::new();
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut modules = Vec::new();
    for wanted in std::mem::take(&mut layout.modules) {
        let expert = wanted.as_ref().ok().and_then(|target| {
            let MadeOf::Whole(at) = target.source else { return None };
            let (holder, number, matrix) = expert_of(&target.name)?;
            let place =
                MATRICES.iter().find_map(|names| names.iter().position(|name| *name == matrix))?;
            Some((holder.to_owned(), number, place, at))
        });
        let Some((holder, number, place, at)) = expert else {
            modules.push(wanted);
            continue;
        };
        let count = counts.entry(holder.clone()).or_default();
        *count = (*count).max(number + 1);
        match place {
            2 => {
                let name = format!("{holder}.{number}.down_proj");
                modules.push(Ok(Target { name, source: MadeOf::Whole(at) }));
            }
            place => {
                let pair = pairs.entry((holder, number)).or_default();
                if let Some(slot) = pair.get_mut(place) {
                    *slot = Some(at);
                }
            }
        }
    }
    for ((holder, number), pair) in pairs {
        let outputs = |at: usize| served.adapter.modules.get(at).map_or(0, |module| module.outputs);
        let half = pair.iter().flatten().map(|at| outputs(*at)).max().unwrap_or(0);
        let piece = |(place, at): (usize, Option<usize>)| {
            let to = Rows::of_half(place, half, served.in_turns);
            Some(Piece { module: at?, from: (0..half).into(), to })
        };
        let pieces: Vec<Piece> = pair.into_iter().enumerate().filter_map(piece).collect();
        let name = format!("{holder}.{number}.gate_up_proj");
        let source = MadeOf::Rows { pieces, total: 2 * half };
        modules.push(Ok(Target { name, source }));
    }
    layout.modules = modules;
    let stacks = counts.into_iter().flat_map(|(holder, count)| {
        let experts = served.experts.unwrap_or(count);
        ["gate_up_proj", "down_proj"]
            .map(|name| (format!("{holder}.{name}"), Stack { experts, crossed: false }))
    });
    stacks.collect()
}
