//! How wide and high a module's update is on the tensor that it lands on.

use super::step::TermForm;
use crate::adapter::module::{Kind, Module};

/// Whether an update of this rank is faster as factors in the kernel than made row by row.
pub(in crate::ops::merge) fn kernel_sized(rank: usize) -> bool {
    const LARGEST: usize = 128;
    rank <= LARGEST
}

/// (outputs, inputs) of a module on a stored tensor of rows × columns.
pub(in crate::ops) fn sides(
    module: &Module,
    source: TermForm,
    (rows, columns): (usize, usize),
) -> (usize, usize) {
    let (outputs, inputs) =
        if source == TermForm::Transposed { (columns, rows) } else { (rows, columns) };
    let known = |size: usize, otherwise| if size == 0 { otherwise } else { size };
    // Channels leave the kernel to the weight.
    let own = if module.kind == Kind::Channels { 0 } else { module.inputs };
    (known(module.outputs, outputs), known(own, inputs))
}
