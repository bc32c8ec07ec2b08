//! Merging against the sum computed densely: any small shape, rank, dtype, weight and values.
#![no_main]

use std::path::{Path, PathBuf};

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use lora_tool::adapter::tensor::{element_type, read_f64};
use lora_tool::format::{Access, Checkpoint, Dtype, header};
use lora_tool::ops::merge::{self, AdapterInput, Options};

#[derive(Debug, Arbitrary)]
struct Case {
    outputs: u8,
    inputs: u8,
    rank: u8,
    dtype: u8,
    alpha: i8,
    weight: i8,
    threads: u8,
    values: Vec<i8>,
}

/// One file of f32 tensors, or of `dtype`.
fn save(path: &Path, tensors: &[(&str, Dtype, [usize; 2], &[f64])]) {
    let shapes = tensors.iter().map(|(name, dtype, shape, _)| {
        ((*name).to_owned(), *dtype, shape.iter().copied().filter(|n| *n > 0).collect())
    });
    let mut file = header::encode(None, &header::lay_out(shapes)).expect("a short header");
    for (_, dtype, _, values) in tensors {
        let element = element_type(*dtype).expect("a floating-point dtype");
        let mut bytes = vec![0; values.len() * element.size()];
        element.encode(values, &mut bytes);
        file.extend_from_slice(&bytes);
    }
    std::fs::write(path, file).expect("a file in memory");
}

fuzz_target!(|case: Case| {
    let root = PathBuf::from(format!("/dev/shm/lora-tool-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&root).expect("a directory in memory");
    let (outputs, inputs) = (case.outputs as usize % 40 + 1, case.inputs as usize % 40 + 1);
    let rank = case.rank as usize % 20 + 1;
    let dtype = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64][case.dtype as usize % 4];
    let (alpha, weight) = (f64::from(case.alpha) / 8.0, f64::from(case.weight) / 16.0);
    // Eighths and sixteenths: every product is exact, so that only sums are rounded.
    let value = |at: usize| f64::from(*case.values.get(at % case.values.len().max(1)).unwrap_or(&1));
    let fill = |count: usize, from: usize| -> Vec<f64> {
        (0..count).map(|at| value(at * 7 + from) / 16.0).collect()
    };
    let (base, down, up) =
        (fill(outputs * inputs, 0), fill(rank * inputs, 3), fill(outputs * rank, 5));
    save(&root.join("base.safetensors"), &[("x.q.weight", dtype, [outputs, inputs], &base)]);
    save(
        &root.join("lora.safetensors"),
        &[
            ("x.q.lora_down.weight", Dtype::F32, [rank, inputs], &down),
            ("x.q.lora_up.weight", Dtype::F32, [outputs, rank], &up),
            ("x.q.alpha", Dtype::F32, [0, 0], &[alpha]),
        ],
    );
    let output = root.join("out.safetensors");
    let _ = std::fs::remove_file(&output);
    let options = Options {
        base: root.join("base.safetensors"),
        adapters: vec![AdapterInput::new(root.join("lora.safetensors"), weight)],
        output: output.clone(),
        threads: case.threads as usize % 2 + 1,
        verify: true,
        ..Options::default()
    };
    let merge = match merge::plan(&options) {
        Ok(merge) => merge,
        // Nothing is left to merge then.
        Err(error) if weight == 0.0 => return drop(error),
        Err(error) => panic!("{error}"),
    };
    let report = match merge.run(&()) {
        Ok(report) => report,
        Err(error) if dtype == Dtype::F16 && error.to_string().contains("outside the range") => return,
        Err(error) => panic!("{error}"),
    };
    assert!(report.verification.is_some_and(|found| found.ok), "its own verification fails");
    let merged = Checkpoint::open(&output, Access::Read).expect("what we write we read");
    let found = read_f64(merged.tensor("x.q.weight").expect("there"), 0, outputs * inputs);
    let scale = weight * alpha / rank as f64;
    let element = element_type(dtype).expect("a floating-point dtype");
    for (at, found) in found.expect("readable").into_iter().enumerate() {
        let (row, column) = (at / inputs, at % inputs);
        let mut exact = base[at];
        let mut size = base[at].abs();
        for level in 0..rank {
            let term = scale * up[row * rank + level] * down[level * inputs + column];
            exact += term;
            size += term.abs();
        }
        let allowed = element.ulp(exact) * 0.5001 + size * rank as f64 * f64::from(f32::EPSILON);
        assert!((found - exact).abs() <= allowed, "[{row}, {column}] is {found}, exactly {exact}");
    }
});
