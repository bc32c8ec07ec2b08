//! What the integration tests share: files built in a few words, the command, values read back.
#![allow(dead_code, missing_docs, unreachable_pub, reason = "each test binary uses its own part")]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that cannot be set up has failed")]

pub mod alternating;
pub mod bench;
pub mod cases;
pub mod deltas;
pub mod dense;
pub mod formulas;
#[cfg(feature = "hub")]
pub mod hub_server;
pub mod keys;
pub mod made;
pub mod models;
pub mod quant;
pub mod reference;
pub mod refusal;
pub mod renames;
pub mod samples;
pub mod svd;

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

/// All files below a directory, by their paths in it, with their bytes.
pub fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = PathBuf::from(path.file_name().expect("a name"));
        if path.is_dir() {
            let below = files(&path).into_iter();
            found.extend(below.map(|(file, bytes)| (name.join(file), bytes)));
        } else {
            found.insert(name, std::fs::read(path).expect("a file"));
        }
    }
    found
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

/// A test's own directory: inputs are built in it, outputs get fresh names in it.
pub struct Bench {
    root: tempfile::TempDir,
    outputs: std::cell::Cell<usize>,
}

impl Bench {
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        Self { root, outputs: std::cell::Cell::new(0) }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs `lora-tool merge` with options as they are typed; the output's path, and what it said.
    /// The output is a directory that did not exist, unless `-o` is among the options.
    pub fn run(
        &self,
        base: &Path,
        adapters: &[&Path],
        options: &str,
    ) -> (PathBuf, std::process::Output) {
        self.outputs.set(self.outputs.get() + 1);
        let out = self.path(&format!("out-{}", self.outputs.get()));
        let mut command = lora_tool();
        command.arg("merge").arg(base).args(adapters).args(options.split_whitespace());
        if !options.contains("-o ") {
            command.arg("-o").arg(&out);
        }
        (out, command.output().expect("it runs"))
    }

    /// A merge that must succeed: the output's path.
    pub fn merge(&self, base: &Path, adapters: &[&Path], options: &str) -> PathBuf {
        let (out, done) = self.run(base, adapters, options);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(0), "merge {adapters:?} {options}: {said}");
        out
    }

    /// A merge that must be refused, and leave nothing: what it said.
    pub fn refuse(&self, base: &Path, adapters: &[&Path], options: &str) -> String {
        let (out, done) = self.run(base, adapters, options);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(2), "merge {adapters:?} {options}: {said}");
        assert!(!out.exists(), "something was left of {adapters:?} {options}");
        said
    }
}

/// The distance between a dtype's numbers around `value`.
pub fn ulp(dtype: Dtype, value: f64) -> f64 {
    let (digits, lowest) = match dtype {
        Dtype::BF16 => (7, -126),
        Dtype::F16 => (10, -14),
        Dtype::F32 => (23, -126),
        _ => (52, -1022),
    };
    let exponent = (value.abs().to_bits() >> 52) as i32 - 1023;
    2f64.powi(exponent.max(lowest) - digits)
}

/// The number of a dtype that is nearest to `value`, ties to even.
pub fn rounded(dtype: Dtype, value: f64) -> f64 {
    let ulp = ulp(dtype, value);
    (value / ulp).round_ties_even() * ulp
}

/// up (outputs × rank) · down (rank × inputs) in f64.
pub fn product(up: &[f32], down: &[f32], rank: usize) -> Vec<f64> {
    let inputs = down.len() / rank;
    let mut values = vec![0.0; up.len() / rank * inputs];
    for (row, factors) in values.chunks_mut(inputs).zip(up.chunks(rank)) {
        for (level, factor) in factors.iter().enumerate() {
            for (value, other) in row.iter_mut().zip(&down[level * inputs..]) {
                *value += f64::from(*factor) * f64::from(*other);
            }
        }
    }
    values
}

/// Results against exact values: how many are correctly rounded, and how far the worst is off.
#[derive(Debug, Default)]
pub struct Tally {
    elements: usize,
    equal: usize,
    worst: f64,
    place: String,
}

impl Tally {
    /// A unit is the dtype's last place at the exact value, but never less than f32's last place at
    /// the tensor's largest value: sums are accumulated in f32, and terms may cancel.
    pub fn add(&mut self, name: &str, got: &Read, exact: &[f64]) {
        let values = got.values();
        assert_eq!(values.len(), exact.len(), "elements of {name}");
        self.elements += values.len();
        let largest = exact.iter().fold(0f64, |largest, value| largest.max(value.abs()));
        for (at, (value, exact)) in values.iter().zip(exact).enumerate() {
            let best = rounded(got.dtype, *exact);
            let off = (value - best).abs() / ulp(got.dtype, best).max(ulp(Dtype::F32, largest));
            let wide = matches!(got.dtype, Dtype::F32 | Dtype::F64);
            self.equal += usize::from(off == 0.0 || (wide && off <= 1.0));
            if off.is_nan() || off > self.worst {
                self.worst = if off.is_nan() { f64::INFINITY } else { off };
                self.place = format!("{name}[{at}] is {value}, exactly {exact}");
            }
        }
    }

    /// At least 99.9 % of all elements are the correctly rounded ones (of f32 and f64: within a
    /// unit of them), and none is more than a unit off.
    pub fn check(&self, label: &str) {
        let share = self.equal as f64 / self.elements as f64;
        assert!(share >= 0.999, "{label}: {share} of {} agree; {}", self.elements, self.place);
        assert!(self.worst <= 1.0, "{label}: {} units off: {}", self.worst, self.place);
    }
}

/// A checkpoint of holes in BF16, whose header alone is read; its tensors are rows × columns.
pub fn hollow(path: &Path, tensors: &BTreeMap<String, (usize, usize)>) -> PathBuf {
    let mut header = Map::new();
    let mut at = 0usize;
    for (name, (rows, columns)) in tensors {
        let end = at + rows * columns * 2;
        let entry = json!({ "dtype": "BF16", "shape": [rows, columns], "data_offsets": [at, end] });
        header.insert(name.clone(), entry);
        at = end;
    }
    let mut text = Value::Object(header).to_string();
    text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    let length = (bytes.len() + at) as u64;
    std::fs::write(path, bytes).expect("written");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("opens");
    file.set_len(length).expect("holes");
    path.to_owned()
}
