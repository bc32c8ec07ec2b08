//! Sums as peers have them: PEFT's `add_weighted_adapter` (`tuners/lora/model.py`) and kohya's
//! `networks/merge_lora.py`.

use super::{Dense, Problem};

/// Sums of factors, each times its own number.
fn factors(problem: &Problem, share: impl Fn(&super::Input) -> (f64, f64)) -> (Dense, Dense) {
    let first = &problem.inputs[0];
    let mut up = Dense::zeros(first.up.rows, first.up.columns);
    let mut down = Dense::zeros(first.down.rows, first.down.columns);
    for input in problem.inputs {
        let (on_up, on_down) = share(input);
        up = up.plus(&input.up.scaled(on_up));
        down = down.plus(&input.down.scaled(on_down));
    }
    (up, down)
}

/// (Σ √|c|·B)·(Σ ±√|c|·A) with c = w·s.
pub fn peft_linear(problem: &Problem) -> Dense {
    let (up, down) = factors(problem, |input| {
        let c = input.weight * input.scale;
        (c.abs().sqrt(), c.abs().sqrt() * if c < 0.0 { -1.0 } else { 1.0 })
    });
    up.times(&down)
}

/// s₁·(Σ |x|·B)·(Σ x·A) with x = ratio·√(αᵢ/α₁), of equal ranks.
pub fn kohya_linear(problem: &Problem) -> Dense {
    let base = problem.inputs[0].scale;
    let (up, down) = factors(problem, |input| {
        let x = (input.scale / base).sqrt() * input.weight;
        (x.abs(), x)
    });
    up.times(&down).scaled(base)
}

/// α₁/Σr · Σ |x|·B · x·A with x = ratio·√(αᵢ/α₁).
pub fn kohya_cat(problem: &Problem) -> Dense {
    let alpha = |input: &super::Input| input.scale * input.up.columns as f64;
    let base = alpha(&problem.inputs[0]);
    let rank: usize = problem.inputs.iter().map(|input| input.up.columns).sum();
    let mut sum = problem.zeros();
    for input in problem.inputs {
        let x = (alpha(input) / base).sqrt() * input.weight;
        sum = sum.plus(&input.up.times(&input.down).scaled(x * x.abs()));
    }
    sum.scaled(base / rank as f64)
}
