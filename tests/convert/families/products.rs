//! Products of smaller matrices: LoCon, LoHa, LoKr, and what decompositions make of them.

use super::case::{Case, config, loha, lokr_part};
use crate::common::formulas::{decomposed, hadamard, kronecker, tucker};
use serde_json::json;

#[test]
fn locon_with_a_core() {
    let mut case = Case::kohya(1);
    case.add("alpha", &[], &[3.0]);
    let down = case.tensor("lora_down.weight", &[4, 6, 1, 1], 0.5);
    let up = case.tensor("lora_up.weight", &[10, 4, 1, 1], 0.5);
    let core = case.tensor("lora_mid.weight", &[4, 4, 3, 3], 0.5);
    let delta = tucker(&core, &up.transposed(), &down).scaled(3.0 / 4.0);
    case.check(&[10, 6, 3, 3], false, &|w| w.plus(&delta));
}

#[test]
fn loha_small_large_and_flattened() {
    for rank in [2, 12] {
        let mut case = Case::kohya(2);
        case.add("alpha", &[], &[5.0]);
        let delta = loha(&mut case, (20, rank, 36)).scaled(5.0 / rank as f64);
        case.check(&[20, 36], false, &|w| w.plus(&delta));
        // A convolution's factors do not tell its kernel.
        case.check(&[20, 4, 3, 3], false, &|w| w.plus(&delta));
        case.check(&[36, 20], true, &|w| w.plus(&delta));
    }
}

#[test]
fn loha_with_cores() {
    let mut case = Case::kohya(3);
    let mut part = |number: usize| {
        let name = |end: &str| format!("hada_w{number}_{end}");
        let up = case.tensor(&name("a"), &[3, 10], 0.5);
        let down = case.tensor(&name("b"), &[3, 6], 0.5);
        let core = case.tensor(&format!("hada_t{number}"), &[3, 3, 2, 5], 0.5);
        tucker(&core, &up, &down)
    };
    // Without alpha the scale is 1.
    let delta = hadamard(&part(1), &part(2));
    case.check(&[10, 6, 2, 5], false, &|w| w.plus(&delta));
}

#[test]
fn lokr_in_all_forms() {
    for (first, second) in [(0, 0), (0, 3), (2, 0), (2, 3)] {
        let mut case = Case::kohya(4);
        case.add("alpha", &[], &[5.0]);
        let a = lokr_part(&mut case, 1, first, (4, 3));
        let b = lokr_part(&mut case, 2, second, (6, 10));
        // Where both are whole, alpha says nothing.
        let scale = match (first, second) {
            (0, 0) => 1.0,
            (first, 0) => 5.0 / first as f64,
            (_, second) => 5.0 / second as f64,
        };
        let delta = kronecker(&a, &b).scaled(scale);
        case.check(&[24, 30], false, &|w| w.plus(&delta));
        case.check(&[30, 24], true, &|w| w.plus(&delta));
        case.check(&[24, 5, 2, 3], false, &|w| w.plus(&delta));
    }
}

#[test]
fn lokr_by_config_and_too_large_for_the_kernel() {
    // PEFT divides by the config's rank even where both parts are whole.
    let mut case = Case::peft(5, config("LOKR", json!({"r": 8, "alpha": 3})));
    let a = lokr_part(&mut case, 1, 0, (9, 8));
    let b = lokr_part(&mut case, 2, 0, (20, 24));
    let delta = kronecker(&a, &b).scaled(3.0 / 8.0);
    case.check(&[180, 192], false, &|w| w.plus(&delta));
    case.check(&[192, 180], true, &|w| w.plus(&delta));
}

#[test]
fn lokr_of_convolutions() {
    let mut case = Case::kohya(6);
    case.add("alpha", &[], &[2.0]);
    let a = lokr_part(&mut case, 1, 0, (2, 3));
    let up = case.tensor("lokr_w2_a", &[2, 5], 0.5);
    let down = case.tensor("lokr_w2_b", &[2, 4], 0.5);
    let core = case.tensor("lokr_t2", &[2, 2, 3, 3], 0.5);
    let delta = kronecker(&a, &tucker(&core, &up, &down));
    case.check(&[10, 12, 3, 3], false, &|w| w.plus(&delta));

    let mut case = Case::kohya(7);
    let a = lokr_part(&mut case, 1, 0, (2, 3));
    let b = case.tensor("lokr_w2", &[5, 4, 3, 3], 0.5);
    case.check(&[10, 12, 3, 3], false, &|w| w.plus(&kronecker(&a, &b)));
}

#[test]
fn decompositions_of_either_side_over_any_sum() {
    let epsilon = f64::from(f32::EPSILON);
    for seed in 8..11 {
        for (shape, lengths, group) in [
            (vec![12, 10], vec![12, 1], None),
            (vec![12, 10], vec![1, 10], Some(1)),
            (vec![12, 5, 2, 1], vec![12, 1, 1, 1], None),
            (vec![12, 5, 2, 1], vec![1, 5, 1, 1], Some(2)),
        ] {
            let mut case = Case::kohya(seed);
            case.add("alpha", &[], &[3.0]);
            let delta = match seed {
                8 => {
                    let down = [vec![2], shape[1..].to_vec()].concat();
                    let down = case.tensor("lora_down.weight", &down, 0.5);
                    let ones = vec![1; shape.len() - 2];
                    let up = [vec![12, 2], ones].concat();
                    case.tensor("lora_up.weight", &up, 0.5).times(&down).scaled(3.0 / 2.0)
                }
                9 => loha(&mut case, (12, 3, 10)),
                _ => {
                    let a = lokr_part(&mut case, 1, 0, (3, 2));
                    kronecker(&a, &lokr_part(&mut case, 2, 1, (4, 5))).scaled(3.0)
                }
            };
            let lengths = case.tensor("dora_scale", &lengths, 1.0).values;
            case.check(&shape, false, &|w| decomposed(&w.plus(&delta), &lengths, group, epsilon));
        }
    }
}
