//! One module of every family: random tensors by the endings that files give them, and the formula in
//! f64, by plain loops, of what they make of a weight.

use serde_json::{Value, json};

use super::dense::Dense;
use super::formulas::{
    block_diagonal, blocks, decomposed, diagonal, hadamard, identity, kronecker, permutation,
    rotation, skew, skew_of, tucker,
};
use super::{Random, Tensors};

/// What a module makes of a weight, outputs × (inputs · kernel).
pub type Formula = Box<dyn Fn(&Dense) -> Dense>;

/// A layer to adapt: outputs, inputs, kernel.
#[derive(Debug, Clone, Copy)]
pub struct Layer {
    pub outputs: usize,
    pub inputs: usize,
    pub kernel: &'static [usize],
}

impl Layer {
    pub fn columns(&self) -> usize {
        self.inputs * self.kernel.iter().product::<usize>()
    }

    pub fn shape(&self) -> Vec<usize> {
        [&[self.outputs, self.inputs], self.kernel].concat()
    }

    /// `first` × `second` and the kernel, or as many ones.
    fn with(&self, first: usize, second: usize, kernel: bool) -> Vec<usize> {
        let rest = self.kernel.iter().map(|size| if kernel { *size } else { 1 });
        [first, second].into_iter().chain(rest).collect()
    }
}

/// One module in the making.
pub struct Sample {
    random: Random,
    pub layer: Layer,
    /// Ending, shape, values.
    pub parts: Vec<(String, Vec<usize>, Vec<f32>)>,
    /// As [`Sample::parts`], of all modules of a file.
    pub shared: Vec<(String, Vec<usize>, Vec<f32>)>,
    pub formula: Formula,
    /// What is added to the bias.
    pub bias: Option<Vec<f64>>,
    /// What the config of a PEFT directory says beside the type.
    pub config: Value,
}

impl Sample {
    fn new(seed: u64, layer: Layer) -> Self {
        let formula: Formula = Box::new(Dense::clone);
        let (random, config) = (Random::new(seed), json!({}));
        Self { random, layer, parts: vec![], shared: vec![], formula, bias: None, config }
    }

    /// Adds a random tensor; as (first dimension) × (the others).
    fn tensor(&mut self, ending: &str, shape: &[usize], size: f32) -> Dense {
        let values = self.random.values(shape.iter().product(), size);
        self.add(ending, shape, &values)
    }

    fn add(&mut self, ending: &str, shape: &[usize], values: &[f32]) -> Dense {
        self.parts.push((ending.to_owned(), shape.to_vec(), values.to_vec()));
        let rest = shape.get(1..).unwrap_or_default().iter().product();
        let values = values.iter().map(|value| f64::from(*value)).collect();
        Dense::new(shape.first().copied().unwrap_or(1), rest, values)
    }

    fn plus(mut self, delta: Dense) -> Self {
        self.formula = Box::new(move |w| w.plus(&delta));
        self
    }

    fn becomes(mut self, formula: impl Fn(&Dense) -> Dense + 'static) -> Self {
        self.formula = Box::new(formula);
        self
    }

    /// All tensors, the module's behind its name and the shared ones behind `root`.
    pub fn save_in(&self, mut tensors: Tensors, name: &str, root: &str) -> Tensors {
        for (place, parts) in [(name, &self.parts), (root, &self.shared)] {
            for (ending, shape, values) in parts {
                let key = format!("{place}.{ending}");
                if !tensors.entries.iter().any(|entry| entry.0 == key) {
                    tensors = tensors.f32(&key, shape, values);
                }
            }
        }
        tensors
    }

    // Families that files of kohya's kind hold.

    /// B · A under any two endings; `alpha` is a tensor, or 1 · rank where there is none.
    pub fn low_rank(
        seed: u64,
        layer: Layer,
        endings: [&str; 2],
        rank: usize,
        alpha: Option<f32>,
    ) -> Self {
        let mut sample = Self::new(seed, layer);
        let down = sample.tensor(endings[0], &layer.with(rank, layer.inputs, true), 0.5);
        let up = sample.tensor(endings[1], &layer.with(layer.outputs, rank, false), 0.5);
        if let Some(alpha) = alpha {
            sample.add("alpha", &[], &[alpha]);
        }
        let scale = alpha.map_or(1.0, |alpha| f64::from(alpha) / rank as f64);
        sample.plus(up.times(&down).scaled(scale))
    }

    pub fn lora(seed: u64, layer: Layer) -> Self {
        Self::low_rank(seed, layer, KOHYA, 3, Some(2.0))
    }

    pub fn locon(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let down = sample.tensor("lora_down.weight", &layer.with(3, layer.inputs, false), 0.5);
        let up = sample.tensor("lora_up.weight", &layer.with(layer.outputs, 3, false), 0.5);
        let core = sample.tensor("lora_mid.weight", &layer.with(3, 3, true), 0.5);
        sample.add("alpha", &[], &[2.0]);
        sample.plus(tucker(&core, &up.transposed(), &down).scaled(2.0 / 3.0))
    }

    /// With LyCORIS' lengths of outputs, or of inputs (a convolution's channels).
    pub fn dora_scale(mut self, outputs: bool) -> Self {
        let layer = self.layer;
        let sizes = if outputs { (layer.outputs, 1) } else { (1, layer.inputs) };
        let lengths = self.tensor("dora_scale", &layer.with(sizes.0, sizes.1, false), 1.0).values;
        let group = (!outputs).then(|| layer.columns() / layer.inputs);
        let sum = std::mem::replace(&mut self.formula, Box::new(Dense::clone));
        let epsilon = f64::from(f32::EPSILON);
        self.becomes(move |w| decomposed(&sum(w), &lengths, group, epsilon))
    }

    /// With a difference of the bias beside it.
    pub fn diff_b(mut self) -> Self {
        self.bias = Some(self.tensor("diff_b", &[self.layer.outputs], 0.5).values);
        self
    }

    /// a · b as LoHa and LoKr store it.
    fn pair(&mut self, name: &str, (rows, rank, columns): (usize, usize, usize)) -> Dense {
        let a = self.tensor(&format!("{name}_a"), &[rows, rank], 0.5);
        a.times(&self.tensor(&format!("{name}_b"), &[rank, columns], 0.5))
    }

    pub fn loha(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let sizes = (layer.outputs, 2, layer.columns());
        let first = sample.pair("hada_w1", sizes);
        let delta = hadamard(&first, &sample.pair("hada_w2", sizes));
        sample.add("alpha", &[], &[3.0]);
        sample.plus(delta.scaled(3.0 / 2.0))
    }

    pub fn loha_with_cores(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let mut part = |number: usize| {
            let name = |end: &str| format!("hada_w{number}_{end}");
            let up = sample.tensor(&name("a"), &[2, layer.outputs], 0.5);
            let down = sample.tensor(&name("b"), &[2, layer.inputs], 0.5);
            let core = sample.tensor(&format!("hada_t{number}"), &layer.with(2, 2, true), 0.5);
            tucker(&core, &up, &down)
        };
        let delta = hadamard(&part(1), &part(2));
        sample.add("alpha", &[], &[3.0]);
        sample.plus(delta.scaled(3.0 / 2.0))
    }

    /// One of LoKr's matrices: whole at rank 0.
    fn lokr_part(&mut self, number: usize, rank: usize, size: (usize, usize)) -> Dense {
        let name = format!("lokr_w{number}");
        match rank {
            0 => self.tensor(&name, &[size.0, size.1], 0.5),
            rank => self.pair(&name, (size.0, rank, size.1)),
        }
    }

    /// 2 × 2 ⊗ the rest, each whole at rank 0. Where both are, kohya's world takes no scale.
    pub fn lokr(seed: u64, layer: Layer, ranks: (usize, usize)) -> Self {
        let mut sample = Self::new(seed, layer);
        let a = sample.lokr_part(1, ranks.0, (2, 2));
        let b = sample.lokr_part(2, ranks.1, (layer.outputs / 2, layer.columns() / 2));
        sample.add("alpha", &[], &[3.0]);
        let scale = match ranks {
            (0, 0) => 1.0,
            (first, 0) => 3.0 / first as f64,
            (_, second) => 3.0 / second as f64,
        };
        sample.plus(kronecker(&a, &b).scaled(scale))
    }

    /// With the second matrix a convolution's, whole or around a core.
    pub fn lokr_conv(seed: u64, layer: Layer, core: bool) -> Self {
        let mut sample = Self::new(seed, layer);
        let a = sample.lokr_part(1, 0, (2, 2));
        let (outputs, inputs) = (layer.outputs / 2, layer.inputs / 2);
        let b = if core {
            let up = sample.tensor("lokr_w2_a", &[2, outputs], 0.5);
            let down = sample.tensor("lokr_w2_b", &[2, inputs], 0.5);
            let core = sample.tensor("lokr_t2", &layer.with(2, 2, true), 0.5);
            tucker(&core, &up, &down)
        } else {
            sample.tensor("lokr_w2", &layer.with(outputs, inputs, true), 0.5)
        };
        sample.add("alpha", &[], &[3.0]);
        sample.plus(kronecker(&a, &b).scaled(if core { 3.0 / 2.0 } else { 1.0 }))
    }

    pub fn full(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let delta = sample.tensor("diff", &layer.shape(), 0.5);
        sample.plus(delta)
    }

    pub fn bias_only(seed: u64, layer: Layer) -> Self {
        Self::new(seed, layer).diff_b()
    }

    /// Of a layer whose weight is a vector.
    pub fn norm(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let delta = sample.tensor("w_norm", &[layer.outputs], 0.5);
        sample.bias = Some(sample.tensor("b_norm", &[layer.outputs], 0.5).values);
        sample.plus(Dense::new(layer.outputs, 1, delta.values))
    }

    pub fn glora(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let size = (layer.inputs, 2);
        let over = sample.tensor("a1.weight", &[size.0, size.1], 0.5);
        let over = over.times(&sample.tensor("a2.weight", &[2, layer.inputs], 0.5));
        let plus = sample.tensor("b1.weight", &[layer.outputs, 2], 0.5);
        let plus = plus.times(&sample.tensor("b2.weight", &[2, layer.inputs], 0.5));
        sample.add("alpha", &[], &[3.0]);
        sample.becomes(move |w| w.plus(&w.times(&over).plus(&plus).scaled(3.0 / 2.0)))
    }

    pub fn ia3_of_lycoris(seed: u64, layer: Layer, on_input: bool) -> Self {
        let mut sample = Self::new(seed, layer);
        let count = if on_input { layer.inputs } else { layer.outputs };
        let factors = sample.tensor("weight", &[count], 1.0).values;
        sample.add("on_input", &[], &[f32::from(u8::from(on_input))]);
        let factors: Vec<f64> = factors.iter().map(|value| 1.0 + value).collect();
        let factors = diagonal(&factors);
        sample.becomes(move |w| if on_input { w.times(&factors) } else { factors.times(w) })
    }

    /// R = (I + Q)·(I − Q)⁻¹, each block of outputs by Rᵀ, Q no longer than alpha · outputs.
    pub fn diag_oft(seed: u64, layer: Layer, rescaled: bool) -> Self {
        let mut sample = Self::new(seed, layer);
        let stored = sample.tensor("oft_blocks", &[layer.outputs / 4, 4, 4], 0.4);
        sample.add("alpha", &[], &[0.02]);
        let scales = if rescaled {
            sample.tensor("rescale", &layer.with(layer.outputs, 1, false), 1.0).values
        } else {
            vec![1.0; layer.outputs]
        };
        let q: Vec<Dense> = blocks(&stored, 4).iter().map(skew).collect();
        let norm = q.iter().map(|q| q.inner(q)).sum::<f64>().sqrt();
        let factor = (f64::from(0.02f32) * layer.outputs as f64 / norm).min(1.0);
        let turned = q.iter().map(|q| rotation(&q.scaled(-factor)).transposed());
        let r = diagonal(&scales).times(&block_diagonal(&turned.collect::<Vec<_>>()));
        sample.becomes(move |w| r.times(w))
    }

    pub fn boft_of_lycoris(seed: u64, layer: Layer) -> Self {
        let (mut sample, size) = (Self::new(seed, layer), layer.outputs);
        let stored = sample.tensor("oft_blocks", &[2, size / 4, 4, 4], 0.4);
        let mut l = identity(size);
        for (stage, own) in stored.values.chunks(4 * size).enumerate() {
            let own = Dense::new(size / 4, 16, own.to_vec());
            let turned =
                blocks(&own, 4).into_iter().map(|block| rotation(&skew(&block).scaled(-1.0)));
            // (c, g, k) → (c, k, g) with g = 2 and k = 2^stage · 2.
            let k = 2 << stage;
            let mut from = Vec::new();
            for c in 0..size / (2 * k) {
                for at in 0..k {
                    from.extend((0..2).map(|g| (c * 2 + g) * k + at));
                }
            }
            let p = permutation(&from);
            let turned = block_diagonal(&turned.collect::<Vec<_>>());
            l = p.transposed().times(&turned).times(&p).times(&l);
        }
        sample.becomes(move |w| l.times(w))
    }
}

/// Endings of plain factors: A's and B's.
pub const KOHYA: [&str; 2] = ["lora_down.weight", "lora_up.weight"];
pub const PEFT: [&str; 2] = ["lora_A.weight", "lora_B.weight"];

// What PEFT's directories hold.
impl Sample {
    fn said(mut self, config: Value) -> Self {
        self.config = config;
        self
    }

    /// Without a tensor of this ending, whose value a config says.
    fn without(mut self, ending: &str) -> Self {
        self.parts.retain(|part| part.0 != ending);
        self
    }

    pub fn peft_lora(seed: u64, layer: Layer) -> Self {
        let sample = Self::low_rank(seed, layer, PEFT, 4, Some(6.0)).without("alpha");
        sample.said(json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6}))
    }

    /// Adds scale times a bias.
    pub fn peft_bias(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::peft_lora(seed, layer);
        let bias = sample.tensor("lora_B.bias", &[layer.outputs], 0.5);
        sample.bias = Some(bias.scaled(6.0 / 4.0).values);
        let config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "lora_bias": true});
        sample.said(config)
    }

    pub fn peft_dora(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::peft_lora(seed, layer);
        let shape = match layer.kernel {
            [] => vec![layer.outputs],
            _ => layer.with(1, layer.outputs, false),
        };
        let lengths = sample.tensor("lora_magnitude_vector", &shape, 1.0).values;
        let sum = std::mem::replace(&mut sample.formula, Box::new(Dense::clone));
        let config = json!({"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_dora": true});
        sample.becomes(move |w| decomposed(&sum(w), &lengths, None, 0.0)).said(config)
    }

    /// The table is stored entries × dim, and so is the formula's weight.
    pub fn peft_embedding(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let down = sample.tensor("lora_embedding_A", &[3, layer.outputs], 0.5);
        let up = sample.tensor("lora_embedding_B", &[layer.inputs, 3], 0.5);
        let delta = up.times(&down).transposed().scaled(6.0 / 3.0);
        sample.plus(delta).said(json!({"peft_type": "LORA", "r": 3, "lora_alpha": 6}))
    }

    pub fn peft_loha(seed: u64, layer: Layer) -> Self {
        let sample = Self::loha(seed, layer).without("alpha");
        sample.said(json!({"peft_type": "LOHA", "r": 2, "alpha": 3}))
    }

    pub fn peft_loha_with_cores(seed: u64, layer: Layer) -> Self {
        let sample = Self::loha_with_cores(seed, layer).without("alpha");
        sample.said(json!({"peft_type": "LOHA", "r": 2, "alpha": 3}))
    }

    /// PEFT divides by its config's rank even where both matrices are whole.
    pub fn peft_lokr(seed: u64, layer: Layer, ranks: (usize, usize)) -> Self {
        let mut sample = Self::lokr(seed, layer, ranks).without("alpha");
        let rank = ranks.0.max(ranks.1).max(2);
        if ranks == (0, 0) {
            let sum = std::mem::replace(&mut sample.formula, Box::new(Dense::clone));
            sample = sample.becomes(move |w| w.plus(&sum(w).minus(w).scaled(3.0 / 2.0)));
        }
        sample.said(json!({"peft_type": "LOKR", "r": rank, "alpha": 3}))
    }

    pub fn adalora(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let down = sample.tensor("lora_A", &[3, layer.inputs], 0.5);
        let up = sample.tensor("lora_B", &[layer.outputs, 3], 0.5);
        let values = sample.tensor("lora_E", &[3, 1], 2.0);
        let scale = 5.0 / (12.0 + 1e-5);
        let delta = up.times(&diagonal(&values.values)).times(&down).scaled(scale);
        sample.plus(delta).said(json!({"peft_type": "ADALORA", "init_r": 12, "lora_alpha": 5}))
    }

    pub fn vera(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let outputs = sample.tensor("vera_lambda_b", &[layer.outputs], 1.0);
        let inner = sample.tensor("vera_lambda_d", &[3], 1.0);
        let mut random = Random::new(97);
        let mut shared = |name: &str, rows: usize, columns: usize| {
            let values = random.values(rows * columns, 0.5);
            let wide = values.iter().map(|value| f64::from(*value)).collect();
            sample.shared.push((name.to_owned(), vec![rows, columns], values));
            Dense::new(rows, columns, wide)
        };
        let (a, b) = (shared("vera_A", 3, 40), shared("vera_B", 40, 3));
        let mut delta = Dense::zeros(layer.outputs, layer.inputs);
        for row in 0..layer.outputs {
            for column in 0..layer.inputs {
                let term =
                    |level: usize| b.at(row, level) * inner.values[level] * a.at(level, column);
                delta.values[row * layer.inputs + column] =
                    outputs.values[row] * (0..3).map(term).sum::<f64>();
            }
        }
        sample.plus(delta).said(json!({"peft_type": "VERA", "r": 3, "save_projection": true}))
    }

    pub fn miss(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let block = sample.tensor("miss_block", &[4, layer.outputs], 0.5);
        let mut delta = Dense::zeros(layer.outputs, layer.inputs);
        for output in 0..layer.outputs {
            for input in 0..layer.inputs {
                delta.values[output * layer.inputs + input] = block.at(input % 4, output);
            }
        }
        sample.plus(delta).said(json!({"peft_type": "MISS", "r": 4, "init_weights": true}))
    }

    pub fn peft_ia3(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let factors = diagonal(&sample.tensor("ia3_l", &[1, layer.inputs], 2.0).values);
        let config = json!({"peft_type": "IA3", "feedforward_modules": []});
        sample.becomes(move |w| w.times(&factors)).said(config)
    }

    pub fn peft_oft(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let stored = sample.tensor("oft_R.weight", &[layer.inputs / 4, 6], 0.4);
        let turned = stored.values.chunks(6).map(|triangle| rotation(&skew_of(triangle, 4)));
        let r = block_diagonal(&turned.collect::<Vec<_>>()).transposed();
        let config = json!({
            "peft_type": "OFT", "r": 0, "oft_block_size": 4, "use_cayley_neumann": false,
            "peft_version": "0.21.2",
        });
        sample.becomes(move |w| w.times(&r)).said(config)
    }

    pub fn peft_boft(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let stored = sample.tensor("boft_R", &[1, layer.inputs / 4, 4, 4], 0.4);
        let scales = diagonal(&sample.tensor("boft_s", &[layer.outputs, 1], 1.0).values);
        let stored = Dense::new(layer.inputs / 4, 16, stored.values);
        let turned: Vec<Dense> =
            blocks(&stored, 4).iter().map(|block| rotation(&skew(block).scaled(0.5))).collect();
        let m = block_diagonal(&turned).transposed();
        let config = json!({"peft_type": "BOFT", "boft_block_size": 4});
        sample.becomes(move |w| scales.times(&w.times(&m))).said(config)
    }

    pub fn hra(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let u = sample.tensor("hra_u", &[layer.inputs, 3], 1.0);
        let mut m = identity(layer.inputs);
        for at in 0..3 {
            let own = (0..layer.inputs).map(|row| u.at(row, at)).collect();
            let own = Dense::new(layer.inputs, 1, own);
            let own = own.scaled(1.0 / own.norm());
            m = m.minus(&m.times(&own).times(&own.transposed()).scaled(2.0));
        }
        let config = json!({"peft_type": "HRA", "r": 3, "apply_GS": false});
        sample.becomes(move |w| w.times(&m)).said(config)
    }

    pub fn hira(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let down = sample.tensor("hira_A", &[2, layer.inputs], 0.5);
        let gate = sample.tensor("hira_B", &[layer.outputs, 2], 0.5).times(&down);
        let config = json!({"peft_type": "HIRA", "r": 2});
        sample.becomes(move |w| w.plus(&hadamard(w, &gate))).said(config)
    }

    /// Stored the other way round, scaled by a config that does not divide by the rank.
    pub fn mlx_lora(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::new(seed, layer);
        let down = sample.tensor("lora_a", &[layer.inputs, 4], 0.5);
        let up = sample.tensor("lora_b", &[4, layer.outputs], 0.5);
        let config = json!({
            "fine_tune_type": "lora", "num_layers": 2,
            "lora_parameters": {"rank": 4, "scale": 1.5, "dropout": 0.0},
        });
        sample.plus(down.times(&up).transposed().scaled(1.5)).said(config)
    }

    pub fn mlx_dora(seed: u64, layer: Layer) -> Self {
        let mut sample = Self::mlx_lora(seed, layer);
        let lengths = sample.tensor("m", &[layer.outputs], 1.0).values;
        sample.config["fine_tune_type"] = json!("dora");
        let sum = std::mem::replace(&mut sample.formula, Box::new(Dense::clone));
        sample.becomes(move |w| decomposed(&sum(w), &lengths, None, 0.0))
    }

    /// llama.cpp's; its file says alpha 6.
    pub fn gguf_lora(seed: u64, layer: Layer) -> Self {
        Self::low_rank(seed, layer, ["lora_a", "lora_b"], 4, Some(6.0)).without("alpha")
    }
}
