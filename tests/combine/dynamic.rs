//! kohya's `--dynamic_method` with a cap of its own for convolutions, against the rule of its
//! `networks/resize_lora.py` written out.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use crate::common::deltas::Deltas;
use crate::common::{Bench, Tensors, lora_tool};

/// A module whose delta has these singular values: its name, its kernel's side (none of a linear layer), and the
/// values.
type Layer<'a> = (&'a str, Option<usize>, &'a [f32]);

const LAYERS: [Layer<'static>; 5] = [
    ("lora_unet_linear_many", None, &[8.0, 7.0, 6.0, 5.0, 4.5, 1.0]),
    ("lora_unet_linear_few", None, &[8.0, 3.0, 1.0, 0.5, 0.2, 0.1]),
    ("lora_unet_conv_many", Some(3), &[8.0, 7.0, 6.0, 5.0, 1.0, 0.5]),
    ("lora_unet_conv_few", Some(3), &[8.0, 3.0, 1.0, 0.5, 0.2, 0.1]),
    ("lora_unet_conv_point", Some(1), &[8.0, 7.0, 6.0, 5.0, 1.0, 0.5]),
];

const OUTPUTS: usize = 8;
const CHANNELS: usize = 12;

fn save(bench: &Bench) {
    let mut file = Tensors::new();
    for (name, kernel, values) in LAYERS {
        let rank = values.len();
        let side = kernel.unwrap_or(1);
        let columns = CHANNELS * side * side;
        let mut down = vec![0.0; rank * columns];
        let mut up = vec![0.0; OUTPUTS * rank];
        for (at, value) in values.iter().enumerate() {
            down[at * columns + at] = *value;
            up[at * rank + at] = 1.0;
        }
        let (down_shape, up_shape) = match kernel {
            Some(side) => (vec![rank, CHANNELS, side, side], vec![OUTPUTS, rank, 1, 1]),
            None => (vec![rank, columns], vec![OUTPUTS, rank]),
        };
        file = file
            .f32(&format!("{name}.lora_down.weight"), &down_shape, &down)
            .f32(&format!("{name}.lora_up.weight"), &up_shape, &up)
            .f32(&format!("{name}.alpha"), &[], &[rank as f32]);
    }
    file.save(&bench.path("in.safetensors"));
}

/// kohya's rank of a module: by `sv_ratio`, one more, at most what its kind may have.
fn expected(values: &[f32], ratio: f32, cap: usize) -> usize {
    let kept = values.iter().filter(|value| **value > values[0] / ratio).count();
    // The dense matrix has as many singular values as outputs; the index is one less at most.
    (kept.clamp(1, OUTPUTS - 1) + 1).min(cap)
}

#[test]
fn each_kind_of_module_has_its_own_cap() {
    let bench = Bench::new();
    save(&bench);
    for (flags, linear, conv) in [
        ("--rank 4 --conv-rank 3 --dynamic-method sv_ratio --dynamic-param 2", 4, 3),
        ("--new_rank 3 --new_conv_rank 5 --dynamic_method sv_ratio --dynamic_param 2", 3, 5),
        ("--rank 4 --dynamic-method sv_ratio --dynamic-param 2", 4, 4),
        ("--rank 4 --conv-rank 6 --max-rank 2 --dynamic-method sv_ratio --dynamic-param 2", 2, 2),
        ("--dynamic-method sv_ratio --dynamic-param 2", 8, 8),
    ] {
        let out = bench.path("out.safetensors");
        let mut command = lora_tool();
        command.arg("resize").arg(bench.path("in.safetensors")).args(flags.split(' '));
        let done = command.args(["--force", "-o"]).arg(&out).output().expect("it runs");
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
        let found = Deltas::of(&out).0;
        for (name, kernel, values) in LAYERS {
            let cap = if kernel.is_some() { conv } else { linear };
            let rank = expected(values, 2.0, cap);
            let delta = &found[name];
            assert_eq!(delta.up.ncols(), rank, "{name} with {flags}");
            let kept: f64 = values[..rank.min(values.len())].iter().map(|v| f64::from(v * v)).sum();
            let norm = delta.squared_norm();
            assert!((norm / kept - 1.0).abs() < 1e-5, "{name} with {flags}: {norm}, not {kept}");
        }
    }
}
