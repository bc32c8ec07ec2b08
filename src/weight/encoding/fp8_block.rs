//! 8-bit floats with a scale for every block of rows and columns: DeepSeek-V3 and its kin (`weight_scale_inv`,
//! which is multiplied in spite of its name), compressed-tensors' block strategy, ModelOpt's FP8_PB_WO.
//!
//! value[r, c] = f32(code) · f32(scale[r / rows of a block, c / columns of a block]). Blocks at the edges may be
//! partial: the grid has ⌈rows/128⌉ × ⌈columns/128⌉ scales, and the block is 128, not rows over scales.

use super::{Encoding, Recognised, module_of, stack};
use crate::error::Result;
use crate::format::Dtype;
use crate::weight::Stored;
use crate::weight::codes::Code;
use crate::weight::float8::{Scaled, Writer};
use crate::weight::grid::Grid;
use crate::weight::model::Model;

pub(super) const ENCODING: Encoding =
    Encoding { name: "fp8_block", companions: &[".weight_scale_inv"], recognise };

/// Rows and columns of a block where no config says.
const BLOCK: (usize, usize) = (128, 128);

/// The scale of 8-bit floats, by the names it goes by, and whether the name alone says that it is a grid.
pub(super) fn scale_of(model: &Model<'_>, name: &str) -> Option<(Stored, bool)> {
    let names = match name.strip_suffix(".weight") {
        Some(module) => vec![
            (format!("{module}.weight_scale_inv"), true),
            (format!("{module}.qscale_weight"), false),
            (format!("{module}.weight_scale"), false),
            (format!("{module}.scale"), false),
        ],
        None => vec![(format!("{name}_scale_inv"), true), (format!("{name}_scale"), false)],
    };
    names.into_iter().find_map(|(name, grid)| Some((model.tensor(&name)?, grid)))
}

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some(code) = Code::of(stored.dtype).filter(|code| *code != Code::Int8) else {
        return Ok(None);
    };
    let Some((scale, named)) = scale_of(model, &stored.name) else { return Ok(None) };
    let Some((count, rows, columns)) = stack(&stored.shape) else { return Ok(None) };
    let module = module_of(&stored.name);
    let told = model.config.block(model.module(module));
    let block = match told {
        Some(block) => block,
        // A scalar that no config calls a grid is one for all.
        None if named && scale.elements() > 1 => BLOCK,
        None if is_grid(&scale, (rows, columns)) => BLOCK,
        None => return Ok(None),
    };
    let (part, size) = (scale.name.clone(), (rows, columns));
    let grid_size = [count, rows.div_ceil(block.0), columns.div_ceil(block.1)];
    // ModelOpt's old exports have dimensions of 1 between the two.
    let long = |shape: &[usize]| shape.iter().copied().filter(|n| *n != 1).collect::<Vec<_>>();
    let fits = long(&scale.shape) == long(&grid_size);
    let grid = Grid::blocks(scale.clone(), count, size, block).filter(|_| fits);
    let grid =
        grid.ok_or_else(|| scale.misfit(stored, format!("[{}, {}]", grid_size[1], grid_size[2])))?;
    let detail = format!("{}, blocks of {}×{}", stored.dtype, block.0, block.1);
    // DeepSeek-V3.1 has powers of two in f32, and its config says so.
    let powers = matches!(scale.dtype, Dtype::F8_E8M0 | Dtype::U8)
        || model.config.text("scale_fmt") == Some("ue8m0");
    let writer = match powers {
        true => Writer::Powers,
        // transformers names it so, and multiplies with reciprocals; all others divide.
        false if part.ends_with("_inv") => Writer::Reciprocal,
        false => Writer::Quotient,
    };
    let codes = Scaled { codes: stored.clone(), code, grid, columns, writer };
    let found = Recognised::written(stored.shape.clone(), detail, codes);
    Ok(Some(model.recognised(&stored.name, module, &[&stored.name, &part], found)))
}

/// Whether a scale has the shape of blocks of 128 and of nothing simpler: neither one for all, nor one a row, nor
/// one a group of columns.
fn is_grid(scale: &Stored, (rows, columns): (usize, usize)) -> bool {
    let grid = (rows.div_ceil(BLOCK.0), columns.div_ceil(BLOCK.1));
    match scale.shape.as_slice() {
        [.., r, c] => (*r, *c) == grid && *r > 1 && *r < rows,
        _ => false,
    }
}
