//! Cost of the exact low-rank engine by rank, for a 4096 × 4096 matrix: `cargo bench --bench low_rank`.
//!
//! Milliseconds for the singular values and for the best approximation of half the rank, the median of
//! several rounds, and the time over (m + n)·R²: flat while the factors' QR decides.
#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints")]

use std::hint::black_box;
use std::time::Instant;

use lora_tool::math::{LowRank, Matrix};

const SIZE: usize = 4096;

fn random(seed: &mut u64, rows: usize, columns: usize) -> Matrix {
    Matrix::from_fn(rows, columns, |_, _| {
        *seed =
            seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 33) as f64 / f64::from(1u32 << 30) - 1.0
    })
}

fn median_ms(rounds: usize, mut work: impl FnMut()) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[rounds / 2]
}

fn main() {
    let mut seed = 1;
    println!("   R   values, ms   rank R/2, ms   ns per (m + n)·R²");
    for rank in [16, 32, 64, 128, 256, 512] {
        let matrix = LowRank::new(random(&mut seed, SIZE, rank), random(&mut seed, rank, SIZE));
        let rounds = if rank > 128 { 3 } else { 9 };
        let values = median_ms(rounds, || {
            black_box(matrix.svd());
        });
        let whole = median_ms(rounds, || {
            black_box(matrix.svd().truncate(rank / 2));
        });
        let unit = (2 * SIZE * rank * rank) as f64;
        println!("{rank:4}   {values:10.2}   {whole:12.2}   {:10.4}", whole * 1e6 / unit);
    }
}
