//! Speed of the merge kernel on one core, beside a plain copy: `cargo bench --bench kernel`.
//!
//! GB/s of base weights (bf16 in, bf16 out), 256-row panels of a 4096-wide tensor; the median of
//! several rounds. A kernel that falls below a third of the figures in the README has lost its vector
//! code.
#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints")]

use std::hint::black_box;
use std::time::Instant;

use half::bf16;
use lora_tool::math::kernel::fused;
use lora_tool::math::{Factor, PackedLeft, PackedRight};

const ROWS: usize = 256;
const COLUMNS: usize = 4096;
const ROUNDS: usize = 41;

fn median_gb_per_s(bytes: usize, mut work: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    bytes as f64 / seconds[ROUNDS / 2] / 1e9
}

fn main() {
    let base: Vec<u8> = (0..ROWS * COLUMNS)
        .flat_map(|i| bf16::from_f32((i % 509) as f32 / 509.0 - 0.5).to_le_bytes())
        .collect();
    let mut out = vec![0u8; base.len()];
    let copy =
        median_gb_per_s(base.len(), || black_box(&mut out).copy_from_slice(black_box(&base)));
    println!("memcpy      {copy:6.2} GB/s");
    for depth in [0, 8, 16, 64, 128] {
        let up = Factor::new(ROWS, depth, vec![0.01; ROWS * depth]);
        let down = Factor::new(depth, COLUMNS, vec![0.02; depth * COLUMNS]);
        let right = PackedRight::new(COLUMNS, &[down]);
        let up = [(up, 0.5)];
        let speed = median_gb_per_s(base.len(), || {
            let left = PackedLeft::new(&up, 0, ROWS);
            let found = fused::merge_panel::<bf16, bf16>(&base, &mut out, &left, &right);
            black_box(found);
        });
        println!("rank {depth:4}   {speed:6.2} GB/s");
    }
}
