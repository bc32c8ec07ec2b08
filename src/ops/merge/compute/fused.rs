//! The merge kernel for the types that a tensor has and shall have.

use half::{bf16, f16};

use crate::math::kernel::fused::{self, PanelResult};
use crate::math::{Element, ElementType, PackedLeft, PackedRight};

/// The fused kernel for a pair of types.
pub(super) fn merge_panel(
    types: (ElementType, ElementType),
    base: &[u8],
    out: &mut [u8],
    left: &PackedLeft,
    right: &PackedRight,
) -> PanelResult {
    fn to<I: Element>(
        output: ElementType,
        base: &[u8],
        out: &mut [u8],
        left: &PackedLeft,
        right: &PackedRight,
    ) -> PanelResult {
        match output {
            ElementType::Bf16 => fused::merge_panel::<I, bf16>(base, out, left, right),
            ElementType::F16 => fused::merge_panel::<I, f16>(base, out, left, right),
            ElementType::F32 => fused::merge_panel::<I, f32>(base, out, left, right),
            ElementType::F64 => unreachable!("f64 is computed in stages"),
        }
    }
    match types.0 {
        ElementType::Bf16 => to::<bf16>(types.1, base, out, left, right),
        ElementType::F16 => to::<f16>(types.1, base, out, left, right),
        ElementType::F32 => to::<f32>(types.1, base, out, left, right),
        ElementType::F64 => unreachable!("f64 is computed in stages"),
    }
}
