//! The spaces in which elementwise methods look: deltas, factors, Core Space, KnOTS.

use lora_tool::method::Space;

use super::super::svd::{Svd, side_by_side};
use super::elements::{Mix, Place, Trim};
use super::{Dense, Input, Problem};
use lora_tool::method::Compat;

/// Singular values this much smaller than the largest are rounding of factors in f32.
const NOTHING: f64 = 1.0 / 16_777_216.0;

pub fn in_space(space: Space, trim: Trim, mix: Mix, problem: &Problem) -> Dense {
    let place = |name: &str, matrices: Vec<Dense>, weights: Vec<f64>| {
        let rescaled = trim == Trim::Random && problem.compat == Some(Compat::Mergekit);
        let exact = problem.exact && trim != Trim::RandomByRank && !rescaled;
        Place { problem, name: name.to_owned(), matrices, weights, exact }.result(trim, mix)
    };
    let weights = || problem.inputs.iter().map(|input| input.weight).collect::<Vec<f64>>();
    match space {
        Space::Delta => {
            place(problem.name, problem.inputs.iter().map(Input::delta).collect(), weights())
        }
        Space::Factors => {
            // PEFT weights A and B by √|w·s|; here s is theirs, and w the weight.
            let peft = problem.compat == Some(Compat::Peft);
            let own = |input: &Input| if peft { 1.0 } else { input.scale.sqrt() };
            let root = |input: &Input| (input.weight.abs() * input.scale).sqrt() / own(input);
            let signed = |input: &Input| root(input) * input.weight.signum();
            let all = problem.inputs;
            let up = place(
                &format!("{}.B", problem.name),
                all.iter().map(|input| input.up.scaled(own(input))).collect(),
                all.iter().map(root).collect(),
            );
            let down = place(
                &format!("{}.A", problem.name),
                all.iter().map(|input| input.down.scaled(own(input))).collect(),
                all.iter().map(signed).collect(),
            );
            // λ multiplies the delta, not each factor.
            let lambda = problem.number("lambda");
            up.times(&down).scaled(if lambda == 0.0 { 1.0 } else { 1.0 / lambda })
        }
        Space::Core => {
            let (left, right) = (outputs(problem), inputs(problem));
            if left.columns * right.columns == 0 {
                return problem.zeros();
            }
            let core = |input: &Input| left.transposed().times(&input.delta()).times(&right);
            let cores = problem.inputs.iter().map(core).collect();
            left.times(&place(problem.name, cores, weights())).times(&right.transposed())
        }
        Space::Knots => {
            let columns = problem.inputs.iter().flat_map(|input| columns_of(&input.delta()));
            let left = basis(problem, &columns.collect::<Vec<_>>());
            if left.columns == 0 {
                return problem.zeros();
            }
            let part = |input: &Input| left.transposed().times(&input.delta());
            let parts = problem.inputs.iter().map(part).collect();
            left.times(&place(problem.name, parts, weights()))
        }
    }
}

fn columns_of(matrix: &Dense) -> Vec<Vec<f64>> {
    matrix.transposed().values.chunks(matrix.rows).map(<[f64]>::to_vec).collect()
}

/// Left singular vectors of columns side by side.
fn basis(problem: &Problem, columns: &[Vec<f64>]) -> Dense {
    let svd = Svd::of(&side_by_side(columns));
    let first = svd.values.first().copied().unwrap_or(0.0);
    for pair in svd.values.windows(2) {
        // Equal values have no directions of their own, and a rank must be clear.
        if pair[0] > NOTHING * first {
            problem.decided_by((pair[0] - pair[1]) / first);
        }
    }
    for value in svd.values.iter().filter(|value| **value > 0.0) {
        problem.decided_by((value / (NOTHING * first)).ln().abs() / 3e5);
    }
    svd.left_basis(svd.rank(NOTHING))
}

/// A basis of [√s₁·B₁ … √s_T·B_T].
fn outputs(problem: &Problem) -> Dense {
    let scaled = |input: &Input| columns_of(&input.up.scaled(input.scale.sqrt()));
    basis(problem, &problem.inputs.iter().flat_map(scaled).collect::<Vec<_>>())
}

/// A basis of [√s₁·A₁ᵀ … √s_T·A_Tᵀ].
fn inputs(problem: &Problem) -> Dense {
    let scaled = |input: &Input| columns_of(&input.down.scaled(input.scale.sqrt()).transposed());
    basis(problem, &problem.inputs.iter().flat_map(scaled).collect::<Vec<_>>())
}
