//! A module of the result made of one module's rows, or of what there is of several.

use std::ops::Range;

use super::fit::{Atom, rows_of};
use super::target::{MadeOf, Piece};
use crate::adapter::Adapter;
use crate::adapter::architecture::Cut;

/// A split module made of one.
pub(super) fn alone(atom: Atom) -> MadeOf {
    let (module, from) = (atom.module, atom.from);
    let total = from.len();
    match atom.cut {
        Cut::Swapped => swapped(module, total),
        _ => MadeOf::Rows {
            pieces: vec![Piece { module, from: from.into(), to: (0..total).into() }],
            total,
        },
    }
}

fn swapped(module: usize, total: usize) -> MadeOf {
    let half = total / 2;
    let piece =
        |from: Range<usize>, to: Range<usize>| Piece { module, from: from.into(), to: to.into() };
    let pieces = vec![piece(half..total, 0..half), piece(0..half, half..total)];
    MadeOf::Rows { pieces, total }
}

/// A published module made of what there is of its parts.
pub(super) fn join(adapter: &Adapter, atoms: Vec<Atom>) -> Option<MadeOf> {
    let first = atoms.first()?;
    let inputs = adapter.modules.get(first.module)?.inputs;
    let total = match first.cut {
        Cut::Swapped => {
            return first
                .from
                .len()
                .is_multiple_of(2)
                .then(|| swapped(first.module, first.from.len()));
        }
        Cut::Share { count, of, .. } => first.from.len() / count.max(1) * of,
        Cut::First | Cut::Middle | Cut::Last => {
            let keys = atoms.iter().find(|atom| atom.cut != Cut::First)?;
            inputs + 2 * keys.from.len()
        }
        Cut::Whole => first.from.len(),
        Cut::Linear(_) | Cut::Stack | Cut::StackHalf(_) => return None,
    };
    let mut pieces = Vec::new();
    for atom in atoms {
        let to = rows_of(atom.cut, total, adapter.modules.get(atom.module)?.inputs)?;
        if to.len() != atom.from.len() {
            return None;
        }
        pieces.push(Piece { module: atom.module, from: atom.from.into(), to: to.into() });
    }
    pieces.sort_by_key(|piece| piece.to.first);
    let apart = pieces.windows(2).all(|two| matches!(two, [a, b] if a.to.end() <= b.to.first));
    apart.then_some(MadeOf::Rows { pieces, total })
}
