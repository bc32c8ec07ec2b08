//! Quantised bases that are spoiled: each is refused, and the error names the tensor.
#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail by panicking")]

use std::path::PathBuf;

use lora_tool::format::{Access, Checkpoint, Dtype};
use lora_tool::weight::Weights;
use serde_json::{Value, json};

use crate::common::{Bench, Tensors, fixture, read};

/// A golden case's tensors and config, to be spoiled.
pub(super) struct Case {
    bench: Bench,
    pub(super) tensors: Tensors,
    pub(super) config: Value,
}

impl Case {
    pub(super) fn of(name: &str) -> Self {
        let base = fixture("quant").join(name).join("base");
        let config = std::fs::read(base.join("config.json"));
        let config =
            config.map_or(Value::Null, |text| serde_json::from_slice(&text).expect("JSON"));
        let lone = std::fs::read_dir(&base).expect("a case").count() == 1;
        let file = std::fs::read_dir(&base).expect("a case").next().expect("a file");
        let path = if lone { file.expect("an entry").path() } else { base };
        let mut tensors = Tensors::new();
        for (name, tensor) in read(&path) {
            tensors = tensors.raw(&name, tensor.dtype, &tensor.shape, &tensor.bytes);
        }
        Self { bench: Bench::new(), tensors, config }
    }

    pub(super) fn new(tensors: Tensors, quantization: Value) -> Self {
        let config = match quantization {
            Value::Null => Value::Null,
            fields => json!({ "quantization_config": fields }),
        };
        Self { bench: Bench::new(), tensors, config }
    }

    pub(super) fn without(mut self, ending: &str) -> Self {
        let before = self.tensors.entries.len();
        self.tensors.entries.retain(|(name, ..)| !name.ends_with(ending));
        assert!(self.tensors.entries.len() < before, "no {ending}");
        self
    }

    fn entry(&mut self, ending: &str) -> &mut (String, Dtype, Vec<usize>, Vec<u8>) {
        let found = self.tensors.entries.iter_mut().find(|(name, ..)| name.ends_with(ending));
        found.unwrap_or_else(|| panic!("no {ending}"))
    }

    /// Puts bytes into a tensor, from element bytes `at` on.
    pub(super) fn bytes(mut self, ending: &str, at: usize, bytes: &[u8]) -> Self {
        self.entry(ending).3[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Cuts a tensor to a shape.
    fn cut(mut self, ending: &str, shape: &[usize]) -> Self {
        let entry = self.entry(ending);
        let size = entry.3.len() / entry.2.iter().product::<usize>();
        entry.3.truncate(shape.iter().product::<usize>() * size);
        entry.2 = shape.to_vec();
        self
    }

    pub(super) fn setting(mut self, key: &str, value: Value) -> Self {
        self.config["quantization_config"][key] = value;
        self
    }

    pub(super) fn path(&self) -> PathBuf {
        let directory = self.bench.path("base");
        let file = self.tensors.save(&directory.join("model.safetensors"));
        if self.config.is_null() {
            return file;
        }
        let text = serde_json::to_vec(&self.config).expect("JSON");
        std::fs::write(directory.join("config.json"), text).expect("written");
        directory
    }

    /// Reads every weight whole.
    pub(super) fn read(&self) -> Result<Vec<(String, Vec<f32>)>, lora_tool::Error> {
        let weights = Weights::of(&Checkpoint::open(&self.path(), Access::Map)?)?;
        let values = weights.iter().filter(|weight| weight.plain().is_none()).map(|weight| {
            let (rows, columns) = weight.matrix();
            let mut values = vec![f32::NAN; rows * columns];
            weight.rows(0..rows, &mut values)?;
            Ok((weight.name.clone(), values))
        });
        values.collect()
    }

    /// The values of the one quantised weight.
    pub(super) fn values(&self) -> Vec<f32> {
        let mut all = self.read().unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(all.len(), 1, "weights: {:?}", all.iter().map(|one| &one.0).collect::<Vec<_>>());
        all.remove(0).1
    }

    /// The refusal names a tensor that ends so, and says this.
    #[track_caller]
    pub(super) fn refused(&self, tensor: &str, says: &str) {
        let error = self.read().expect_err(tensor);
        let found = error.tensor().unwrap_or_default();
        assert!(found.ends_with(tensor), "it names `{found}`: {error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(error.hint().is_some(), "no advice: {error}");
        assert!(error.file().is_some(), "no file: {error}");
    }
}

const NAN: [u8; 4] = 0x7fc0_0000u32.to_le_bytes();

#[test]
fn a_scale_that_is_missing_or_left_over() {
    let block = || Case::of("fp8_block128_ragged");
    block().without("q_proj.weight_scale_inv").refused("q_proj.weight", "has no scale, though");
    block().without("q_proj.weight").refused("q_proj.weight_scale_inv", "is not in the checkpoint");
    let old = Case::of("comfy_scaled_fp8_old").without("img_attn.proj.scale_weight");
    old.refused("img_attn.proj.weight", "the model has scales");
    let new = Case::of("comfy_quant_fp8_new").without("img_attn.proj.weight_scale");
    new.refused("img_attn.proj.weight", "weight_scale` is nowhere");
    let int4 = || Case::of("int4_sym_g32_ct");
    int4().without("q_proj.weight_scale").refused("q_proj.weight_packed", "is nowhere");
    int4().without("q_proj.weight_shape").refused("q_proj.weight_packed", "is nowhere");
    int4()
        .without("q_proj.weight_packed")
        .refused("q_proj.weight_scale", "is not in the checkpoint");
    let nvfp4 = || Case::of("nvfp4_ct");
    nvfp4().without("q_proj.weight_global_scale").refused("q_proj.weight_packed", "is nowhere");
    nvfp4().without("q_proj.weight_scale").refused("q_proj.weight_packed", "is nowhere");
    let mxfp4 = Case::of("mxfp4_gptoss").without("down_proj_scales");
    mxfp4.refused("down_proj_blocks", "is nowhere");
    let nf4 = || Case::of("bnb_nf4_nested");
    nf4().without("q_proj.weight.absmax").refused("q_proj.weight", "is nowhere");
    nf4().without("q_proj.weight.nested_absmax").refused("q_proj.weight", "is nowhere");
    nf4().without("q_proj.weight.quant_map").refused("q_proj.weight", "is nowhere");
    nf4()
        .without("q_proj.weight.quant_state.bitsandbytes__nf4")
        .refused("q_proj.weight", "nowhere");
    let gptq = || Case::of("gptq_v1_sym");
    gptq().without("q_proj.qzeros").refused("q_proj.qweight", "is nowhere");
    gptq().without("q_proj.scales").refused("q_proj.qweight", "is nowhere");
    gptq().without("q_proj.qweight").refused("q_proj.qzeros", "is not in the checkpoint");
    let mlx = Case::of("mlx_q4_g64").without("q_proj.biases");
    mlx.refused("q_proj.weight", "is nowhere");
}

#[test]
fn a_grid_that_does_not_fit() {
    let block = Case::of("fp8_block128_ragged").cut("q_proj.weight_scale_inv", &[1, 2]);
    block.refused("q_proj.weight_scale_inv", "it should be [2, 2]");
    let row = Case::of("fp8_row_fbgemm").cut("q_proj.weight_scale", &[129, 1]);
    row.refused("q_proj.weight_scale", "it should be");
    let int4 = Case::of("int4_sym_g32_ct").cut("q_proj.weight_scale", &[130, 4]);
    int4.refused("q_proj.weight_scale", "it should be");
    let shape = Case::of("int4_sym_g32_ct").bytes("q_proj.weight_shape", 8, &168i64.to_le_bytes());
    shape.refused("q_proj.weight_packed", "168 columns");
    let shape = Case::of("int4_sym_g32_ct").bytes("q_proj.weight_shape", 0, &131i64.to_le_bytes());
    shape.refused("q_proj.weight_shape", "130 rows");
    let mxfp4 = Case::of("mxfp4_gptoss").cut("gate_up_proj_scales", &[2, 64, 2]);
    mxfp4.refused("gate_up_proj_scales", "[2, 64, 3]");
    let nvfp4 = Case::of("nvfp4_ct").cut("q_proj.weight_scale", &[130, 9]);
    nvfp4.refused("q_proj.weight_scale", "[130, 10]");
    let nf4 = Case::of("bnb_nf4_nested").cut("q_proj.weight.absmax", &[406]);
    nf4.refused("q_proj.weight.absmax", "[407]");
    let nf4 = Case::of("bnb_nf4_nested").cut("q_proj.weight", &[12_999, 1]);
    nf4.refused("q_proj.weight", "13000 bytes");
    let int8 = Case::of("bnb_int8").cut("q_proj.SCB", &[129]);
    int8.refused("q_proj.SCB", "[130]");
    let gptq = Case::of("gptq_v1_sym").cut("q_proj.qzeros", &[4, 16]);
    gptq.refused("q_proj.qzeros", "[5, 16]");
    let awq = Case::of("awq_gemm").cut("q_proj.qzeros", &[1, 20]);
    awq.refused("q_proj.qzeros", "[2, 20]");
    let mlx = Case::of("mlx_q4_g64").cut("q_proj.biases", &[130, 1]);
    mlx.refused("q_proj.biases", "[130, 2]");
}

#[test]
fn a_scale_or_a_code_that_is_no_number() {
    let block = Case::of("fp8_block128_ragged").bytes("q_proj.weight_scale_inv", 4, &NAN);
    block.refused("q_proj.weight_scale_inv", "element 1 of this scale is NaN");
    let infinite = f32::INFINITY.to_le_bytes();
    let tensor = Case::of("fp8_tensor_modelopt").bytes("q_proj.weight_scale", 0, &infinite);
    tensor.refused("q_proj.weight_scale", "is inf");
    let code = Case::of("fp8_row_fbgemm").bytes("q_proj.weight", 5, &[0x7f]);
    code.refused("q_proj.weight", "element 5 is not a finite number");
    let code = Case::of("fp8_plain_e4m3fn").bytes("img_mlp.0.weight", 9, &[0xff]);
    code.refused("img_mlp.0.weight", "element 9");
    let mxfp4 = Case::of("mxfp4_gptoss").bytes("down_proj_scales", 3, &[255]);
    mxfp4.refused("down_proj_scales", "element 3");
    let nested = Case::of("bnb_nf4_nested").bytes("q_proj.weight.nested_absmax", 0, &NAN);
    nested.refused("q_proj.weight.nested_absmax", "element 0");
    let nvfp4 = Case::of("nvfp4_ct").bytes("q_proj.weight_global_scale", 0, &[0; 4]);
    nvfp4.refused("q_proj.weight_packed", "no finite number");
    let scales = Case::of("gptq_v1_sym").bytes("q_proj.scales", 0, &[0, 0x7e]);
    scales.refused("q_proj.scales", "element 0");
}

#[test]
fn a_description_that_lies_or_is_cut() {
    let cut = Case::of("bnb_nf4_nested").cut("q_proj.weight.quant_state.bitsandbytes__nf4", &[85]);
    cut.refused("quant_state.bitsandbytes__nf4", "does not describe");
    let bits = Case::of("gptq_v1_sym").setting("bits", json!(8));
    bits.refused("qweight", "the config says 8 bit, the tensors say 4 bit");
    let group = Case::of("gptq_v1_sym").setting("group_size", json!(64));
    group.refused("scales", "it should be");
    let indices = Case::of("gptq_v1_sym").bytes("q_proj.g_idx", 0, &99i32.to_le_bytes());
    indices.refused("q_proj.g_idx", "column 0 names group 99, and there are 5");
    let bits = Case::of("awq_gemm").setting("bits", json!(8));
    bits.refused("qweight", "8 bit");
    let groups =
        json!({"group_0": {"targets": ["Linear"], "weights": {"num_bits": 8, "group_size": 32}}});
    let bits = Case::of("int4_sym_g32_ct").setting("config_groups", groups);
    bits.refused("weight_packed", "8 bit");
    let groups = json!({"group_0": {"targets": ["Linear"], "weights": {"strategy": "channel"}}});
    let strategy = Case::of("fp8_block_ct").setting("config_groups", groups);
    strategy.refused("q_proj.weight_scale", "strategy is channel");
    let mut mlx = Case::of("mlx_q4_g64");
    mlx.config["quantization"]["bits"] = json!(8);
    mlx.refused(".weight", "8 bit in groups of 64");
    let comfy = Case::new(
        Tensors::new()
            .raw("a.weight", Dtype::F8_E5M2, &[1, 2], &[1, 2])
            .f32("a.weight_scale", &[], &[1.0])
            .raw("a.comfy_quant", Dtype::U8, &[26], br#"{"format":"float8_e4m3fn"}"#),
        Value::Null,
    );
    comfy.refused("a.weight", "its format is float8_e4m3fn");
}

#[test]
fn what_is_not_read_is_refused_by_name() {
    let named = |ending: &str, says: &str| {
        let tensors = Tensors::new().raw(&format!("a{ending}"), Dtype::U8, &[2], &[1, 2]);
        Case::new(tensors, Value::Null).refused(ending, says);
    };
    named(".W_q", "HQQ");
    named(".trellis", "EXL3");
    named("._weight_qdata", "torchao");
    let comfy = |format: &str, says: &str| {
        let tensors = Tensors::new()
            .raw("a.weight", Dtype::I8, &[1, 2], &[1, 2])
            .f32("a.weight_scale", &[], &[1.0])
            .raw("a.comfy_quant", Dtype::U8, &[format.len()], format.as_bytes());
        Case::new(tensors, Value::Null).refused("a.weight", says);
    };
    comfy(r#"{"format":"convrot_w4a4"}"#, "convrot_w4a4");
    comfy(r#"{"format":"int8_tensorwise","convrot":true}"#, "rotated");
    Case::of("gptq_v1_sym")
        .setting("checkpoint_format", json!("marlin"))
        .refused("qweight", "marlin");
    Case::of("awq_gemm").setting("version", json!("gemv")).refused("qweight", "gemv");
    let rotated = json!({"config_groups": {"R1": {"type": "hadamard"}}});
    let case = Case::of("int4_sym_g32_ct").setting("transform_config", rotated);
    case.refused("weight_packed", "transform_config");
    let tiled = Case::of("bnb_int8").bytes("q_proj.weight_format", 0, &[1]);
    tiled.refused("q_proj.weight_format", "tiled");
    let mut smoothed = Case::of("nvfp4_ct");
    let pre = "model.layers.0.self_attn.q_proj.pre_quant_scale";
    smoothed.tensors = smoothed.tensors.f32(pre, &[1], &[1.0]);
    smoothed.refused("pre_quant_scale", "input is scaled too");
}
