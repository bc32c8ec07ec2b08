//! Whether a stored tensor is a quantised weight that nothing has decoded.

use crate::format::{Checkpoint, Dtype};

/// How a base tensor is quantised, if it is; by its dtype and its companions.
pub(crate) fn quantisation(base: &Checkpoint, name: &str) -> Option<String> {
    let view = base.tensor(name)?;
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let has = |ending: &str| base.tensor(&format!("{module}{ending}")).is_some();
    let scaled = [".weight_scale", ".weight_scale_inv", ".scale_weight", ".scales", ".SCB"]
        .iter()
        .find(|ending| has(ending));
    let dtype = view.spec.dtype;
    let scheme = match (dtype, scaled) {
        (Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64, _) => return None,
        (Dtype::U8, _) if has(".weight.absmax") => "bitsandbytes 4-bit".to_owned(),
        (_, Some(scale)) => format!("{dtype} with `{}`", scale.trim_start_matches('.')),
        (Dtype::F8_E4M3 | Dtype::F8_E5M2, None) => format!("{dtype}"),
        (Dtype::U8 | Dtype::I8 | Dtype::I32 | Dtype::U32, None) => format!("packed in {dtype}"),
        _ => return None,
    };
    Some(scheme)
}
