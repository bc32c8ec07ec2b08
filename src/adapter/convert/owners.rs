//! Which columns of a fused module's B belong to which of its parts.

use std::collections::BTreeMap;

use super::fold::Factor;
use super::stored::{self, FACTORS};
use crate::adapter::Adapter;
use crate::adapter::layout::{MadeOf, Piece, Rows, Target};
use crate::error::{Locate, Result};

/// Which columns of B only one of a module's parts has, by module: such a module was fused of modules
/// with an A each, and falls into them again.
#[derive(Debug, Default)]
pub(super) struct Owners(BTreeMap<usize, Owned>);

/// A module's parts, and of each column the part that has it.
#[derive(Debug)]
struct Owned {
    parts: Vec<Rows>,
    columns: Vec<usize>,
}

impl Owners {
    /// Looks at the B of every module that is divided.
    pub(super) fn new(adapter: &Adapter, targets: &[&Target]) -> Result<Self> {
        let mut parts: BTreeMap<usize, Vec<Rows>> = BTreeMap::new();
        for target in targets {
            if let MadeOf::Rows { pieces, .. } = &target.source
                && let [piece] = pieces.as_slice()
            {
                parts.entry(piece.module).or_default().push(piece.from);
            }
        }
        let mut owners = Self::default();
        for (at, parts) in parts.into_iter().filter(|(_, parts)| parts.len() > 1) {
            let Some(module) = adapter.modules.get(at) else { continue };
            let tensors = stored::stored(adapter, module).in_tensor(&module.name)?;
            if !stored::is_plain(module, &tensors) {
                continue;
            }
            let up =
                tensors.into_iter().find(|(part, ..)| FACTORS.iter().any(|(_, up)| part == up));
            let Some((_, dtype, shape, bytes)) = up else { continue };
            let columns = owned_columns(&Factor { dtype, shape, bytes }, &parts);
            if let Some(columns) = columns {
                owners.0.insert(at, Owned { parts, columns });
            }
        }
        Ok(owners)
    }

    /// The columns of a part of a module; `None` for all.
    pub(super) fn columns(&self, piece: &Piece) -> Option<Vec<usize>> {
        let Owned { parts, columns } = self.0.get(&piece.module)?;
        let part = parts.iter().position(|part| *part == piece.from)?;
        let owned = columns.iter().enumerate().filter(|(_, owner)| **owner == part);
        Some(owned.map(|(column, _)| column).collect())
    }
}

/// The part that has each column; `None` if any column has values in several, or none has any. Columns of
/// zeros go with the one before them.
fn owned_columns(up: &Factor, parts: &[Rows]) -> Option<Vec<usize>> {
    let rows = up.shape.first().copied().filter(|rows| *rows > 0)?;
    let values = up.values().ok()?;
    let rank = values.len() / rows;
    let used = |part: &Rows, column: usize| {
        part.numbers().any(|row| values.get(row * rank + column).is_some_and(|value| *value != 0.0))
    };
    let mut owners = Vec::with_capacity(rank);
    for column in 0..rank {
        let mut having =
            (0..parts.len()).filter(|&at| parts.get(at).is_some_and(|p| used(p, column)));
        let first = having.next();
        if having.next().is_some() {
            return None;
        }
        owners.push(first);
    }
    let mut last = owners.iter().flatten().copied().next()?;
    Some(
        owners
            .into_iter()
            .map(|owner| {
                last = owner.unwrap_or(last);
                last
            })
            .collect(),
    )
}
