//! What can go wrong, with the facts: expected and found.

use std::io;
use std::path::PathBuf;

use super::{
    CollectionError, ConvertError, ExpertsError, FamilyError, HeaderError, JobError, LocationError,
    ModelError, OrientationError, PairError, QuantError, ReceiptError, RecipeError, RuleError,
    TunedError, UnmatchedName, count::exact_amount, count::human_bytes, counted,
    unmatched::list_unmatched,
};

/// What can go wrong. Shapes are in the order they are stored in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// Threads that the system does not start.
    #[error("threads cannot be started: {0}")]
    Threads(String),
    /// A mapped input that lost bytes in the moment they were read.
    #[error("an input file became shorter while it was read")]
    CutWhileMapped,
    /// A directory that is not there to put an output in.
    #[error("its directory {} does not exist", parent.display())]
    NoParent {
        /// The directory.
        parent: PathBuf,
    },
    /// A GGUF file that breaks a rule of its format, or holds what is not read.
    #[error("not a GGUF file that can be read: {reason}")]
    BadGguf {
        /// What the parser met.
        reason: String,
    },
    /// An index that cannot be read.
    #[error("not a checkpoint index: {reason}")]
    BadIndex {
        /// What is wrong.
        reason: String,
    },
    /// The index names a shard outside its directory.
    #[error("the index names shard `{shard}`, which leads outside the directory")]
    IndexEscapes {
        /// The shard's name.
        shard: String,
    },
    /// The index names a shard that is not there.
    #[error("the index names shard `{shard}`, which is missing")]
    MissingShard {
        /// The shard's name.
        shard: String,
    },
    /// The index places a tensor in a shard that lacks it.
    #[error("the index places it in `{shard}`, which does not hold it")]
    MissingTensor {
        /// The shard's name.
        shard: String,
    },
    /// Two shards hold one tensor.
    #[error("both `{first}` and `{second}` hold it")]
    TensorTwice {
        /// The first file.
        first: String,
        /// The second file.
        second: String,
    },
    /// A pickle, which could run code.
    #[error("this is a pickle file, which can run code when it is opened; it is not read")]
    Pickle,
    /// A directory without weights we know.
    #[error("no checkpoint here: {reason}")]
    NoCheckpoint {
        /// What was looked for.
        reason: String,
    },
    /// An adapter, or nothing, where a model's checkpoint is wanted.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A location that is not read, or not there.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// An input changed under our eyes.
    #[error("the file changed while it was read")]
    Changed,
    /// A config that does not parse.
    #[error("{reason}")]
    BadConfig {
        /// What is wrong.
        reason: String,
    },
    /// No adapter in a directory.
    #[error("no adapter here: {reason}")]
    NoAdapter {
        /// What was looked for.
        reason: String,
    },
    /// A `peft_type` that cannot be merged, or that is not known.
    #[error("adapters of type {peft_type} cannot be merged: {reason}")]
    UnsupportedType {
        /// The config's `peft_type`.
        peft_type: String,
        /// Why.
        reason: String,
    },
    /// A config field that changes the mathematics in a way we do not do.
    #[error("`{field}` is set: {reason}")]
    UnsupportedField {
        /// The field.
        field: String,
        /// Why it cannot be merged.
        reason: String,
    },
    /// A config field nobody told us about.
    #[error("`{field}` is set to {value}, and this version does not know what it changes")]
    UnknownField {
        /// The field.
        field: String,
        /// Its value, shortened.
        value: String,
    },
    /// A key no grammar explains.
    #[error("{count} of {total} keys belong to no known adapter format, such as `{first}`")]
    UnknownKeys {
        /// How many.
        count: usize,
        /// Of how many.
        total: usize,
        /// The first of them.
        first: String,
    },
    /// A family that is not read.
    #[error("it is a {family} module, which this version cannot apply")]
    UnsupportedFamily {
        /// The family's name.
        family: &'static str,
    },
    /// A fine-tuned checkpoint that does not go with the base.
    #[error(transparent)]
    Tuned(#[from] TunedError),
    /// What a family cannot do.
    #[error(transparent)]
    Family(#[from] FamilyError),
    /// What an adapter of whole parameters says does not go together.
    #[error(transparent)]
    Experts(#[from] ExpertsError),
    /// What another convention cannot say.
    #[error(transparent)]
    Convert(#[from] ConvertError),
    /// A collection of adapters that share their directions.
    #[error(transparent)]
    Collection(#[from] CollectionError),
    /// Two checkpoints that should be one model.
    #[error(transparent)]
    Pair(#[from] PairError),
    /// A header that breaks a rule of its format.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// Quantised weights that cannot be read.
    #[error(transparent)]
    Quant(#[from] QuantError),
    /// A recipe that is not one.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Work of several machines that does not go on.
    #[error(transparent)]
    Job(#[from] JobError),
    /// Rules about modules that do not fit them.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// A receipt that does not fit.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// One factor without the other.
    #[error("it has {present} but no {missing}")]
    MissingFactor {
        /// The factor that is there.
        present: &'static str,
        /// The factor that is not.
        missing: &'static str,
    },
    /// A factor of zero size.
    #[error("the factor is empty, shape {shape:?}")]
    EmptyFactor {
        /// Its shape.
        shape: Vec<usize>,
    },
    /// Factors whose ranks differ.
    #[error("rank of A and B differ: A is {down:?}, B is {up:?}")]
    RankMismatch {
        /// A's shape.
        down: Vec<usize>,
        /// B's shape.
        up: Vec<usize>,
    },
    /// Factors and config disagree.
    #[error("the factors have rank {found}, the config says {expected}")]
    RankConfig {
        /// The config's rank.
        expected: usize,
        /// The factors'.
        found: usize,
    },
    /// A shape that makes no sense for what the tensor is.
    #[error("shape {found:?} does not fit: expected {expected}")]
    BadShape {
        /// What would fit.
        expected: String,
        /// What is there.
        found: Vec<usize>,
    },
    /// A dtype that cannot hold numbers of a factor.
    #[error("dtype {dtype} cannot be used for arithmetic")]
    BadDtype {
        /// The dtype.
        dtype: String,
    },
    /// NaN or infinity in an adapter.
    #[error("element {index} is {value}")]
    NonFinite {
        /// Flat index.
        index: usize,
        /// What it is.
        value: String,
    },
    /// A scale nobody wrote down.
    #[error("the scale is unknown: there is no adapter_config.json beside it")]
    UnknownScale,
    /// Two sources of the scale disagree.
    #[error("alpha is {first} by {first_source}, {second} by {second_source}")]
    ScaleConflict {
        /// One value.
        first: f64,
        /// Its source.
        first_source: &'static str,
        /// The other.
        second: f64,
        /// Its source.
        second_source: &'static str,
    },
    /// Modules that fit nothing in the base.
    #[error("{} of {total} adapter tensors fit nothing in {}{}", unmatched.len(), base.display(), list_unmatched(unmatched))]
    Unmatched {
        /// The ones without a place.
        unmatched: Vec<UnmatchedName>,
        /// How many there are in all.
        total: usize,
        /// The base.
        base: PathBuf,
        /// What may be the reason.
        guess: Option<String>,
    },
    /// Names that fit in several ways.
    #[error("the adapter's names fit the base in two ways: `{first}` or `{second}`")]
    Ambiguous {
        /// One reading.
        first: String,
        /// The other.
        second: String,
    },
    /// Two base names that flatten to one.
    #[error("`{first}` and `{second}` of the base both flatten to this name")]
    FlatCollision {
        /// One base name.
        first: String,
        /// The other.
        second: String,
    },
    /// Two modules of one adapter, one tensor.
    #[error("modules `{first}` and `{second}` of one adapter land on it")]
    SameTarget {
        /// One module.
        first: String,
        /// The other.
        second: String,
    },
    /// The delta does not fit the base's tensor.
    #[error("the adapter's update is {delta:?}, the base's `{base_tensor}` is {found:?}")]
    ShapeMismatch {
        /// The update's shape.
        delta: Vec<usize>,
        /// The base tensor's name.
        base_tensor: String,
        /// The base tensor's shape.
        found: Vec<usize>,
    },
    /// A quantised target.
    #[error(
        "the base's `{base_tensor}` is quantised ({scheme}); adding to its codes would destroy it"
    )]
    Quantised {
        /// The base tensor.
        base_tensor: String,
        /// How it is quantised.
        scheme: String,
    },
    /// A target that holds no numbers we can add to.
    #[error("the base's `{base_tensor}` is {dtype}, which cannot take an update")]
    TargetDtype {
        /// The base tensor.
        base_tensor: String,
        /// Its dtype.
        dtype: String,
    },
    /// Several adapters replace one tensor, differently.
    #[error("both {} and {} replace it, with different values", first.display(), second.display())]
    ReplaceConflict {
        /// One adapter.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// Replaced tensors of a combination that are not the same.
    #[error("{} and {} replace it with different values", first.display(), second.display())]
    ReplacementsDiffer {
        /// One adapter.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// A family whose update depends on the base.
    #[error("{family} updates depend on the base's weights, so they do not add up")]
    NotAdditive {
        /// The family.
        family: &'static str,
    },
    /// A method nobody knows.
    #[error("there is no method `{name}`; there are {all}")]
    UnknownMethod {
        /// What was asked for.
        name: String,
        /// The name most like it.
        near: Option<String>,
        /// All names.
        all: String,
    },
    /// A budget below one rank everywhere.
    #[error("{budget} is too small: rank 1 in every module takes {}", exact_amount(*least, unit))]
    BudgetTooSmall {
        /// The policy.
        budget: String,
        /// What rank 1 everywhere takes.
        least: u64,
        /// Bytes or parameters.
        unit: &'static str,
    },
    /// Selections and weights that leave nothing.
    #[error("no module of any adapter is left after --include, --exclude and weights of 0")]
    NothingSelected,
    /// Weights and adapters differ in number.
    #[error("{} for {}", counted(*weights, "weight"), counted(*adapters, "adapter"))]
    WeightCount {
        /// How many weights.
        weights: usize,
        /// How many adapters.
        adapters: usize,
    },
    /// A weight that is no number.
    #[error("weight {0} is not a finite number")]
    BadWeight(f64),
    /// An option that does not parse or does not fit.
    #[error("{0}")]
    BadOption(String),
    /// The output is there already.
    #[error("it exists already")]
    OutputExists,
    /// Another run is building it.
    #[error("another run is building this output")]
    OutputBusy,
    /// A run that failed, and left its finished files to be used again.
    #[error("{error}")]
    Kept {
        /// Why it failed.
        error: Box<super::Error>,
        /// Where they are.
        directory: PathBuf,
    },
    /// The output is, holds, or lies in an input.
    #[error("the output is, contains or lies inside the input {}", input.display())]
    OutputInInput {
        /// The input.
        input: PathBuf,
    },
    /// The disk cannot take it.
    #[error("the output needs {}, the disk has {} free", human_bytes(*needed), human_bytes(*free))]
    DiskFull {
        /// Bytes to write.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// A result outside the output's range.
    #[error("element {index} of the result is {value:e}, outside the range of {dtype}")]
    Overflow {
        /// Flat index in the tensor.
        index: usize,
        /// The exact result.
        value: f64,
        /// The output's dtype.
        dtype: String,
    },
    /// A result of which the output's dtype holds only zeros.
    #[error("an update times {value:e} is zero in {dtype}: nothing would be left of it")]
    Underflow {
        /// The scale, times the weight where there is one.
        value: f64,
        /// The output's dtype.
        dtype: String,
    },
    /// A computed update that is not finite.
    #[error("the combined update is not finite: its values leave the range of {dtype}")]
    UpdateNotFinite {
        /// The dtype that it is computed in.
        dtype: &'static str,
    },
    /// A factor's value that only f64 holds.
    #[error(
        "element {index} is {value:e}, outside the range of f32, in which factors are computed"
    )]
    BeyondF32 {
        /// Flat index.
        index: usize,
        /// What it is.
        value: f64,
    },
    /// A file whose names or counts are beyond what any sound file has.
    #[error("it has more than {limit} {what}, which no sound file has")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are read.
        limit: u64,
    },
    /// A weight of which nothing tells which way round it lies.
    #[error(transparent)]
    Orientation(#[from] OrientationError),
    /// The base holds a NaN or an infinity.
    #[error("element {index} of the base tensor is {value}")]
    NonFiniteBase {
        /// Flat index in the tensor.
        index: usize,
        /// What it is.
        value: String,
    },
}
