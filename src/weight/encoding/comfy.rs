//! ComfyUI's quantised files. The old ones have `scale_weight` beside 8-bit floats and a tensor `scaled_fp8` that
//! marks the file; the new ones describe each layer, in a tensor `comfy_quant` or in the header's metadata, and
//! store NVFP4 and MXFP8 in the order of NVIDIA's kernels: the high nibble first, scales in tiles of 128 × 4.
//!
//! value = f32(code) · scale.

use std::sync::Arc;

use serde_json::Value;

use super::fp8_scaled::grid;
use super::nvfp4::{GROUP, refuse_smoothed};
use super::{Encoding, InEightBits, Recognised, int_quantized, module_of};
use crate::error::{QuantError, Result};
use crate::format::Dtype;
use crate::weight::codes::Code;
use crate::weight::float8::{Scaled, Writer};
use crate::weight::fp4::{Constant, Fp4};
use crate::weight::grid::Grid;
use crate::weight::model::Model;
use crate::weight::{EightBit, Encode, Encoded, Panel, Part, Stored, Writing};

pub(super) const ENCODING: Encoding =
    Encoding { name: "comfy", companions: &[".scale_weight", ".comfy_quant"], recognise };

/// Columns that share a scale of MXFP8.
const MX_GROUP: usize = 32;
/// Rows whose scales lie in one row of tiles.
const TILE: usize = 128;
/// Both dimensions of an NVFP4 weight are padded to multiples of this.
const PADDING: usize = 16;

fn recognise(model: &Model<'_>, stored: &Stored) -> Result<Option<Recognised>> {
    let Some(module) = stored.name.strip_suffix(".weight") else { return Ok(None) };
    if let Some(settings) = model.comfy(module)? {
        return described(model, stored, module, &settings).map(Some);
    }
    let old = model.tensor(&format!("{module}.scale_weight"));
    match (Code::of(stored.dtype), old) {
        (Some(Code::E4m3 | Code::E5m2), Some(scale)) => scaled(model, stored, &scale).map(Some),
        _ => Ok(None),
    }
}

/// A layer that the file describes.
fn described(
    model: &Model<'_>,
    stored: &Stored,
    module: &str,
    settings: &Value,
) -> Result<Recognised> {
    let format = settings.get("format").and_then(Value::as_str).unwrap_or("no format");
    let dtype = match format {
        "float8_e4m3fn" | "mxfp8" => Dtype::F8_E4M3,
        "float8_e5m2" => Dtype::F8_E5M2,
        "nvfp4" => Dtype::U8,
        "int8_tensorwise" => Dtype::I8,
        _ => return Err(Model::unsupported(stored, format!("ComfyUI's format `{format}`"))),
    };
    if stored.dtype != dtype {
        let config = format!("its format is {format}");
        let tensors = format!("its dtype is {}", stored.dtype);
        return Err(stored.error(QuantError::Conflict { config, tensors }));
    }
    if settings.get("convrot").is_some_and(|convrot| convrot != false) {
        return Err(Model::unsupported(stored, "a weight that was rotated (convrot)"));
    }
    let scale = model.need(stored, &format!("{module}.weight_scale"), "scaled codes")?;
    let found = match format {
        "mxfp8" => mxfp8(model, stored, &scale),
        "nvfp4" => nvfp4(model, stored, module, &scale),
        "int8_tensorwise" => int_quantized::recognise(model, stored)?
            .map(|found| {
                finish(model, stored, &[&scale.name], Recognised { writer: None, ..found })
            })
            .ok_or_else(|| scale.misfit(stored, "[1] or one a row")),
        _ => scaled(model, stored, &scale),
    }?;
    let eight_bit = eight_bit(model, stored, &found, settings);
    Ok(Recognised { eight_bit, ..found })
}

/// The same layer in other formats of 8 bits, each with what describes it.
fn eight_bit(
    model: &Model<'_>,
    stored: &Stored,
    found: &Recognised,
    settings: &Value,
) -> InEightBits {
    let [rows, columns] = *found.shape.as_slice() else { return InEightBits::default() };
    let scale = |shape| stored.unwritten(format!("{}_scale", found.name), Dtype::F32, shape);
    let codes = |dtype| stored.unwritten(found.name.clone(), dtype, vec![rows, columns]);
    let own = model.tensor(&format!("{}.comfy_quant", module_of(&stored.name)));
    let described = |codes: Arc<dyn Encode>, kind: EightBit| -> Arc<dyn Encode> {
        let mut settings = settings.clone();
        settings["format"] = kind.format().into();
        let text = settings.to_string().into_bytes();
        let part = own.as_ref().map(|own| {
            let (name, shape) = (own.name.clone(), vec![text.len()]);
            Part { name, dtype: own.dtype, shape }
        });
        Arc::new(Described { codes, part, text })
    };
    let floats: Arc<dyn Encode> = Arc::new(Scaled {
        codes: codes(Dtype::F8_E4M3),
        code: Code::E4m3,
        grid: Grid::whole(scale(Vec::new()), (rows, columns)),
        columns,
        writer: Writer::Comfy,
    });
    let integers = int_quantized::rows(codes(Dtype::I8), scale(vec![rows, 1]), (rows, columns));
    InEightBits {
        integers: integers.map(|codes| described(codes, EightBit::Integers)),
        floats: Some(described(floats, EightBit::Floats)),
        in_file: true,
    }
}

/// Codes, and the tensor that says what they are; of a file whose header does, none.
#[derive(Debug)]
struct Described {
    codes: Arc<dyn Encode>,
    part: Option<Part>,
    text: Vec<u8>,
}

impl Encode for Described {
    fn parts(&self, writing: Writing) -> Vec<Part> {
        self.codes.parts(writing).into_iter().chain(self.part.clone()).collect()
    }

    fn grain(&self) -> usize {
        self.codes.grain()
    }

    fn surveys(&self, writing: Writing) -> bool {
        self.codes.surveys(writing)
    }

    fn survey(&self, values: &[f32]) -> Vec<f32> {
        self.codes.survey(values)
    }

    fn settle(&self, survey: &[f32]) -> Result<Vec<f32>> {
        self.codes.settle(survey)
    }

    fn rows(&self, panel: &Panel<'_>, out: &mut Encoded) -> Result<()> {
        self.codes.rows(panel, out)
    }

    fn rest(&self, writing: Writing, survey: &[f32], out: &mut Encoded) -> Result<()> {
        self.codes.rest(writing, survey, out)?;
        if self.part.is_some() {
            out.put(self.codes.parts(writing).len(), 0, self.text.clone());
        }
        Ok(())
    }
}

fn finish(model: &Model<'_>, stored: &Stored, parts: &[&str], found: Recognised) -> Recognised {
    let module = module_of(&stored.name);
    let description = format!("{module}.comfy_quant");
    let mut all = vec![stored.name.as_str(), description.as_str()];
    all.extend(parts);
    model.recognised(&stored.name, module, &all, found)
}

fn scaled(model: &Model<'_>, stored: &Stored, scale: &Stored) -> Result<Recognised> {
    let code = Code::of(stored.dtype).unwrap_or(Code::E4m3);
    let (grid, what) = grid(stored, scale)?;
    let columns = stored.shape.last().copied().unwrap_or(1);
    let codes = Scaled { codes: stored.clone(), code, grid, columns, writer: Writer::Comfy };
    let detail = format!("{}, {what}", stored.dtype);
    let found = Recognised::written(stored.shape.clone(), detail, codes);
    Ok(finish(model, stored, &[&scale.name], found))
}

fn mxfp8(model: &Model<'_>, stored: &Stored, scale: &Stored) -> Result<Recognised> {
    let [rows, columns] = *stored.shape.as_slice() else {
        return Err(stored.misfit(scale, "a matrix"));
    };
    let grid = Grid::tiles(scale.clone(), (rows, columns), MX_GROUP);
    let grid = grid.ok_or_else(|| scale.misfit(stored, "whole tiles of 128 × 4 scales"))?;
    let (code, writer) = (Code::E4m3, Writer::Comfy);
    let codes = Scaled { codes: stored.clone(), code, grid, columns, writer };
    let detail = format!("MXFP8, groups of {MX_GROUP}");
    let found = Recognised::new(stored.shape.clone(), detail, codes);
    Ok(finish(model, stored, &[&scale.name], found))
}

fn nvfp4(model: &Model<'_>, stored: &Stored, module: &str, scale: &Stored) -> Result<Recognised> {
    refuse_smoothed(model, module)?;
    let [padded, bytes] = *stored.shape.as_slice() else {
        return Err(stored.misfit(scale, "a matrix"));
    };
    let constant = model.need(stored, &format!("{module}.weight_scale_2"), "NVFP4")?;
    let columns = bytes * 2;
    let grid = Grid::tiles(scale.clone(), (padded, columns), GROUP);
    let grid = grid.ok_or_else(|| scale.misfit(stored, "whole tiles of 128 × 4 scales"))?;
    // A weight of other than multiples of 16 rows is padded; its bias is not.
    let bias = model.tensor(&format!("{module}.bias")).and_then(|bias| bias.shape.first().copied());
    let rows = bias.filter(|rows| rows.next_multiple_of(PADDING) == padded).unwrap_or(padded);
    let codes = Fp4 {
        codes: stored.clone(),
        grid,
        constant: Constant::Multiply(constant.clone()),
        columns,
        high_first: true,
        grain: TILE,
    };
    let found = Recognised::new(vec![rows, columns], "NVFP4 in tiles".to_owned(), codes);
    Ok(finish(model, stored, &[&scale.name, &constant.name], found))
}
