//! What the integration tests share: files built in a few words, the command, values read back.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its own part")]

pub mod dense;
pub mod made;
pub mod refusal;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::Command;
use lora_tool::adapter::tensor::element_type;
use lora_tool::format::{Access, Checkpoint, Dtype, Metadata, header};
use serde_json::{Map, Value, json};

/// The command under test.
pub fn lora_tool() -> Command {
    Command::cargo_bin("lora-tool").expect("the binary is built with the tests")
}

/// A path in `fixtures/`.
pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(path)
}

/// Numbers that look random and never change.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    /// Uniform in [-size, size).
    pub fn value(&mut self, size: f32) -> f32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * size
    }

    pub fn values(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.value(size)).collect()
    }
}

/// A safetensors file in the making; tensors keep the order they are added in.
#[derive(Debug, Clone, Default)]
pub struct Tensors {
    pub entries: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    pub metadata: Option<Metadata>,
}

impl Tensors {
    pub fn new() -> Self {
        let metadata = Metadata::from_iter([("format".to_owned(), "pt".to_owned())]);
        Self { entries: Vec::new(), metadata: Some(metadata) }
    }

    /// Adds values rounded to a floating-point dtype.
    pub fn float(mut self, name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "{name}");
        let element = element_type(dtype).expect("a floating-point dtype");
        let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
        let mut bytes = vec![0; values.len() * element.size()];
        element.encode(&wide, &mut bytes);
        self.entries.push((name.to_owned(), dtype, shape.to_vec(), bytes));
        self
    }

    pub fn f32(self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.float(name, Dtype::F32, shape, values)
    }

    /// Adds bytes of any dtype.
    pub fn raw(mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Self {
        self.entries.push((name.to_owned(), dtype, shape.to_vec(), bytes.to_vec()));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let tensors = self.entries.iter();
        let specs = header::lay_out(tensors.map(|(n, d, s, _)| (n.clone(), *d, s.clone())));
        let mut file = header::encode(self.metadata.as_ref(), &specs).expect("a short header");
        for (_, _, _, bytes) in &self.entries {
            file.extend_from_slice(bytes);
        }
        file
    }

    pub fn save(&self, path: &Path) -> PathBuf {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).expect("a directory");
        }
        std::fs::write(path, self.bytes()).expect("written");
        path.to_path_buf()
    }
}

/// A PEFT adapter in the making.
#[derive(Debug, Clone)]
pub struct Peft {
    pub config: Map<String, Value>,
    pub tensors: Tensors,
}

impl Peft {
    pub fn new(rank: usize, alpha: f64) -> Self {
        let config = json!({
            "peft_type": "LORA", "base_model_name_or_path": "base", "r": rank, "lora_alpha": alpha,
            "bias": "none", "fan_in_fan_out": false, "use_rslora": false, "use_dora": false,
            "target_modules": ["q_proj"], "rank_pattern": {}, "alpha_pattern": {},
        });
        let Value::Object(config) = config else { unreachable!() };
        Self { config, tensors: Tensors::new() }
    }

    pub fn field(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.config.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a linear module: `down` is rank × inputs, `up` is outputs × rank.
    pub fn linear(mut self, module: &str, rank: usize, down: &[f32], up: &[f32]) -> Self {
        let (inputs, outputs) = (down.len() / rank, up.len() / rank);
        let key = |part: &str| format!("base_model.model.{module}.{part}.weight");
        self.tensors = self.tensors.f32(&key("lora_A"), &[rank, inputs], down).f32(
            &key("lora_B"),
            &[outputs, rank],
            up,
        );
        self
    }

    /// Adds any tensor under `base_model.model.`.
    pub fn tensor(mut self, name: &str, shape: &[usize], values: &[f32]) -> Self {
        self.tensors = self.tensors.f32(&format!("base_model.model.{name}"), shape, values);
        self
    }

    /// Writes the directory.
    pub fn save(&self, directory: &Path) -> PathBuf {
        std::fs::create_dir_all(directory).expect("a directory");
        let config = serde_json::to_vec_pretty(&self.config).expect("JSON");
        std::fs::write(directory.join("adapter_config.json"), config).expect("written");
        self.tensors.save(&directory.join("adapter_model.safetensors"));
        directory.to_path_buf()
    }
}

/// A tensor read back.
#[derive(Debug, Clone, PartialEq)]
pub struct Read {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Read {
    pub fn values(&self) -> Vec<f64> {
        let element = element_type(self.dtype).expect("a floating-point dtype");
        let mut values = vec![0.0; self.bytes.len() / element.size()];
        element.decode(&self.bytes, &mut values);
        values
    }
}

/// All tensors of a checkpoint, by name.
pub fn read(path: &Path) -> BTreeMap<String, Read> {
    let checkpoint = Checkpoint::open(path, Access::Map).expect("a readable checkpoint");
    let mut tensors = BTreeMap::new();
    for name in checkpoint.names() {
        let view = checkpoint.tensor(name).expect("listed");
        let mut scratch = Vec::new();
        let bytes = view.all(&mut scratch).expect("readable").to_vec();
        let (dtype, shape) = (view.spec.dtype, view.spec.shape.clone());
        tensors.insert(name.to_owned(), Read { dtype, shape, bytes });
    }
    tensors
}
