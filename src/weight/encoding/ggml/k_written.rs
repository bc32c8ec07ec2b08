//! K types for new values: blocks of 256 whose groups' scales are looked for (`search.rs`), put in a few bits, and read
//! again before the codes are rounded (ggml's `quantize_row_q*_K_ref`).

use half::f16;

use super::half;
use super::k_quants::{six_bits, three_bit_scale};
use super::search::{Draw, LEAST, Search, nearest, refined, symmetric};
use crate::weight::rounding::whole;

/// Elements of a block.
const BLOCK: usize = 256;

/// Codes from 0 to `most` of a group: values plus `least`, in `step`; what they were if the step is 0.
fn recode(
    (values, codes): (&[f32], &mut [u8]),
    (step, least): (f32, f32),
    (middle, most): (i32, i32),
    draw: impl Fn(usize) -> Option<f32>,
) {
    if step == 0.0 {
        return;
    }
    for (at, (value, slot)) in values.iter().zip(codes).enumerate() {
        let scaled = (value + least) / step;
        let code = match draw(at) {
            None => nearest(scaled),
            draw => whole(scaled, draw) as i32,
        };
        *slot = code.clamp(-middle, most - middle).wrapping_add(middle) as u8;
    }
}

fn put_half(value: f32, at: usize, out: &mut [u8]) {
    out[at..at + 2].copy_from_slice(&f16::from_f32(value).to_le_bytes());
}

/// Two bits of 256 codes in 64 bytes: 128 elements share 32.
fn put_pairs(codes: &[u8; BLOCK], out: &mut [u8]) {
    for (half, bytes) in codes.chunks_exact(128).zip(out.chunks_exact_mut(32)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            let pair = |line: usize| (half[32 * line + at] & 3) << (2 * line);
            *byte = pair(0) | pair(1) | pair(2) | pair(3);
        }
    }
}

/// Four bits of 256 codes in 128 bytes: 64 elements share 32.
fn put_nibbles(codes: &[u8; BLOCK], out: &mut [u8]) {
    for (lines, bytes) in codes.chunks_exact(64).zip(out.chunks_exact_mut(32)) {
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = lines[at] & 15 | lines[at + 32] << 4;
        }
    }
}

/// Q2_K.
pub(super) fn q2_k(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let mut codes = [0; BLOCK];
    match stored {
        Some(block) => out.copy_from_slice(block),
        None => q2_k_scales(values, &mut codes, out),
    }
    let (d, least) = (half(out, 80), half(out, 82));
    let groups = values.chunks_exact(16).zip(codes.chunks_exact_mut(16));
    for (group, pair) in groups.enumerate() {
        let grid = (d * f32::from(out[group] & 15), least * f32::from(out[group] >> 4));
        recode(pair, grid, (0, 3), |at| draw(group * 16 + at));
    }
    put_pairs(&codes, &mut out[16..80]);
}

fn q2_k_scales(values: &[f32], codes: &mut [u8; BLOCK], out: &mut [u8]) {
    const SEARCH: Search = Search { most: 3, from: -0.5, steps: 15, by_size: true };
    let mut found = [(0.0_f32, 0.0_f32); 16];
    let groups = values.chunks_exact(16).zip(codes.chunks_exact_mut(16));
    for (slot, (values, codes)) in found.iter_mut().zip(groups) {
        let mut weights = [0.0; 16];
        weights.iter_mut().zip(values).for_each(|(weight, value)| *weight = value.abs());
        *slot = SEARCH.run(values, &weights, codes);
    }
    let (scale, least) = largest(&found);
    for (byte, (own, off)) in out[..16].iter_mut().zip(found) {
        let low = if scale > 0.0 { nearest(15.0 / scale * own) as u8 } else { 0 };
        let high = if least > 0.0 { (nearest(15.0 / least * off) as u8) << 4 } else { 0 };
        *byte = low | high;
    }
    put_half(if scale > 0.0 { scale / 15.0 } else { 0.0 }, 80, out);
    put_half(if least > 0.0 { least / 15.0 } else { 0.0 }, 82, out);
}

/// The largest of scales and of what is taken off; at least 0.
fn largest(found: &[(f32, f32)]) -> (f32, f32) {
    let larger = |most: f32, value: f32| if value > most { value } else { most };
    found.iter().fold((0.0, 0.0), |most, own| (larger(most.0, own.0), larger(most.1, own.1)))
}

/// Q3_K.
pub(super) fn q3_k(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let mut codes = [0; BLOCK];
    match stored {
        Some(block) => out.copy_from_slice(block),
        None => q3_k_scales(values, &mut codes, out),
    }
    let d = half(out, 108);
    let groups = values.chunks_exact(16).zip(codes.chunks_exact_mut(16));
    for (group, pair) in groups.enumerate() {
        let step = d * three_bit_scale(&out[96..108], group);
        recode(pair, (step, 0.0), (4, 7), |at| draw(group * 16 + at));
    }
    out[..32].fill(0);
    for (at, code) in codes.iter().enumerate() {
        out[at % 32] |= (code >> 2) << (at / 32);
    }
    put_pairs(&codes, &mut out[32..96]);
}

fn q3_k_scales(values: &[f32], codes: &mut [u8; BLOCK], out: &mut [u8]) {
    let mut scales = [0.0_f32; 16];
    let groups = values.chunks_exact(16).zip(codes.chunks_exact_mut(16));
    for (slot, (values, codes)) in scales.iter_mut().zip(groups) {
        *slot = refined(values, codes);
    }
    let (extreme, _) = super::search::extreme(&scales);
    out[96..108].fill(0);
    if extreme == 0.0 {
        put_half(0.0, 108, out);
        return;
    }
    let inverse = -32.0 / extreme;
    for (group, scale) in scales.iter().enumerate() {
        let code = (nearest(inverse * scale) as i8).clamp(-32, 31) + 32;
        let code = code.cast_unsigned();
        out[96 + group % 8] |= (code & 15) << (group / 8 * 4);
        out[104 + group % 4] |= (code >> 4) << (group / 4 * 2);
    }
    put_half(1.0 / inverse, 108, out);
}

/// Scales and least values in six bits each: Q4_K, Q5_K.
fn with_six_bits(
    (values, codes): (&[f32], &mut [u8; BLOCK]),
    stored: Option<&[u8]>,
    search: Search,
    draw: Draw<'_>,
    out: &mut [u8],
) {
    match stored {
        Some(block) => out.copy_from_slice(block),
        None => six_bit_scales(values, codes, search, out),
    }
    let (d, least) = (half(out, 0), half(out, 2));
    let groups = values.chunks_exact(32).zip(codes.chunks_exact_mut(32));
    for (group, pair) in groups.enumerate() {
        let (scale, off) = six_bits(&out[4..16], group);
        recode(pair, (d * scale, least * off), (0, search.most), |at| draw(group * 32 + at));
    }
}

fn six_bit_scales(values: &[f32], codes: &mut [u8; BLOCK], search: Search, out: &mut [u8]) {
    let mut found = [(0.0_f32, 0.0_f32); 8];
    let groups = values.chunks_exact(32).zip(codes.chunks_exact_mut(32));
    for (slot, (values, codes)) in found.iter_mut().zip(groups) {
        let squares = values.iter().fold(0.0_f32, |sum, value| sum + value * value);
        let mean = (squares / 32.0).sqrt();
        let mut weights = [0.0; 32];
        weights.iter_mut().zip(values).for_each(|(weight, value)| *weight = mean + value.abs());
        *slot = search.run(values, &weights, codes);
    }
    let (scale, least) = largest(&found);
    let inverse = |most: f32| if most > 0.0 { 63.0 / most } else { 0.0 };
    let (of_scale, of_least) = (inverse(scale), inverse(least));
    let packed = &mut out[4..16];
    for (group, (own, off)) in found.into_iter().enumerate() {
        let own = (nearest(of_scale * own) as u8).min(63);
        let off = (nearest(of_least * off) as u8).min(63);
        if group < 4 {
            (packed[group], packed[group + 4]) = (own, off);
        } else {
            packed[group + 4] = own & 15 | off << 4;
            packed[group - 4] |= own >> 4 << 6;
            packed[group] |= off >> 4 << 6;
        }
    }
    put_half(scale / 63.0, 0, out);
    put_half(least / 63.0, 2, out);
}

/// Q4_K.
pub(super) fn q4_k(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    const SEARCH: Search = Search { most: 15, from: -1.0, steps: 20, by_size: false };
    let mut codes = [0; BLOCK];
    with_six_bits((values, &mut codes), stored, SEARCH, draw, out);
    put_nibbles(&codes, &mut out[16..144]);
}

/// Q5_K.
pub(super) fn q5_k(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    const SEARCH: Search = Search { most: 31, from: -0.5, steps: 15, by_size: false };
    let mut codes = [0; BLOCK];
    with_six_bits((values, &mut codes), stored, SEARCH, draw, out);
    out[16..48].fill(0);
    for (at, code) in codes.iter().enumerate() {
        out[16 + at % 32] |= (code >> 4) << (at / 32);
    }
    put_nibbles(&codes, &mut out[48..176]);
}

/// Q6_K.
pub(super) fn q6_k(values: &[f32], stored: Option<&[u8]>, draw: Draw<'_>, out: &mut [u8]) {
    let mut codes = [0; BLOCK];
    match stored {
        Some(block) => out.copy_from_slice(block),
        None => {
            let mut scales = [0.0_f32; 16];
            let groups = values.chunks_exact(16).zip(codes.chunks_exact_mut(16));
            for (slot, (values, codes)) in scales.iter_mut().zip(groups) {
                *slot = symmetric(values, 32, codes);
            }
            let (extreme, size) = super::search::extreme(&scales);
            if size < LEAST {
                out.fill(0);
                return;
            }
            let inverse = -128.0 / extreme;
            put_half(1.0 / inverse, 208, out);
            for (byte, scale) in out[192..208].iter_mut().zip(scales) {
                *byte = (nearest(inverse * scale).min(127) as i8).cast_unsigned();
            }
        }
    }
    let d = half(out, 208);
    let groups = values.chunks_exact(16).zip(codes.chunks_exact_mut(16));
    for (group, pair) in groups.enumerate() {
        let step = d * f32::from(out[192 + group].cast_signed());
        recode(pair, (step, 0.0), (32, 63), |at| draw(group * 16 + at));
    }
    for (part, lines) in codes.chunks_exact(128).enumerate() {
        for at in 0..32 {
            let line = |number: usize| lines[32 * number + at];
            out[part * 64 + at] = line(0) & 15 | (line(2) & 15) << 4;
            out[part * 64 + 32 + at] = line(1) & 15 | (line(3) & 15) << 4;
            let high = |number: usize| (line(number) >> 4) << (2 * number);
            out[128 + part * 32 + at] = high(0) | high(1) | high(2) | high(3);
        }
    }
}
