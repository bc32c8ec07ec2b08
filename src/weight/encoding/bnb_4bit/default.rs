//! bitsandbytes' 4-bit encodings of a weight that no file has in them yet, as transformers' `BitsAndBytesConfig` asks for
//! them: blocks of 64, nested in blocks of 256.

use std::sync::Arc;

use super::{Blocks, Nested};
use crate::format::Dtype;
use crate::weight::encoding::Setting;
use crate::weight::{Encode, Stored};

/// Elements of a block (`functional.py`, quantize_4bit).
const BLOCK: usize = 64;
/// Blocks whose magnitudes have one of their own (quantize_blockwise).
const NESTED_BLOCK: usize = 256;

/// Quantiles of the normal distribution (`functional.py`, get_4bit_type; Dettmers and others 2023, "QLoRA").
const NF4_TABLE: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

/// Floats of 3 bits and a sign, over 12 (the same function).
const FP4_TABLE: [f32; 16] = {
    let numbers = [0.0, 0.0625, 8.0, 12.0, 4.0, 6.0, 2.0, 3.0];
    let (mut table, mut at) = ([0.0; 16], 1);
    while at < numbers.len() {
        table[at] = numbers[at] / 12.0;
        table[at + 8] = -table[at];
        at += 1;
    }
    table
};

pub(in crate::weight::encoding) const NF4: Setting =
    Setting { name: "nf4", writer: |weight, size| Some(blocks(weight, size, NF4_TABLE, false)) };

pub(in crate::weight::encoding) const NF4_NESTED: Setting = Setting {
    name: "nf4-nested",
    writer: |weight, size| Some(blocks(weight, size, NF4_TABLE, true)),
};

pub(in crate::weight::encoding) const FP4: Setting =
    Setting { name: "fp4", writer: |weight, size| Some(blocks(weight, size, FP4_TABLE, false)) };

pub(in crate::weight::encoding) const FP4_NESTED: Setting = Setting {
    name: "fp4-nested",
    writer: |weight, size| Some(blocks(weight, size, FP4_TABLE, true)),
};

fn blocks(
    weight: &Stored,
    (rows, columns): (usize, usize),
    table: [f32; 16],
    nested: bool,
) -> Arc<dyn Encode> {
    let count = rows * columns;
    let blocks = count.div_ceil(BLOCK);
    let part = |ending: &str, dtype: Dtype, size: usize| {
        weight.unwritten(format!("{}.{ending}", weight.name), dtype, vec![size])
    };
    let nested = nested.then(|| Nested {
        largest: part("nested_absmax", Dtype::F32, blocks.div_ceil(NESTED_BLOCK)),
        table: dynamic_map(),
        block: NESTED_BLOCK,
        offset: 0.0,
    });
    let magnitudes = if nested.is_some() { Dtype::U8 } else { Dtype::F32 };
    Arc::new(Blocks {
        codes: weight.unwritten(weight.name.clone(), Dtype::U8, vec![count.div_ceil(2), 1]),
        largest: part("absmax", magnitudes, blocks),
        table: table.to_vec(),
        nested,
        state: part("quant_state", Dtype::U8, 0),
        block: BLOCK,
        columns,
    })
}

/// The numbers of bytes that stand for magnitudes (`functional.py`, create_dynamic_map): for each power of ten from
/// 10⁻⁶ to 1 twice as many steps between a tenth of it and it, in torch's f32.
fn dynamic_map() -> Vec<f32> {
    let mut numbers = vec![0.0, 1.0];
    let mut power = 1e-6f64;
    for steps in (0..7).map(|level| 1u16 << level) {
        let (low, size) = (0.1f32, (1.0 - 0.1f32) / f32::from(steps));
        // torch.linspace counts from both ends, with one rounding a number.
        let edge = |at: u16| match at < steps.div_ceil(2) {
            true => size.mul_add(f32::from(at), low),
            false => (-size).mul_add(f32::from(steps - at), 1.0),
        };
        for at in 0..steps {
            let number = power as f32 * f32::midpoint(edge(at), edge(at + 1));
            numbers.extend([number, -number]);
        }
        power *= 10.0;
    }
    numbers.sort_by(f32::total_cmp);
    numbers
}
