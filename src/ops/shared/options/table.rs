//! The table itself. An option that means another thing to another verb has a line for each.

use super::spec::Kind::{
    Count, Flag, Number, NumberLists, Numbers, Path, Paths, Rank, Regex, RegexNumbers, Size, Text,
    Texts, Word,
};
use super::spec::{Kind, OptionSpec, Recipe};
use crate::weight::TRAINED_NAMES;

/// Verbs that make what `run` can make too.
const BOTH: &[&str] = &["merge", "combine"];
/// As [`BOTH`], and `verify`, which is told how the merge was made.
const WEIGHING: &[&str] = &["merge", "verify", "combine"];
const MERGING: &[&str] = &["merge", "verify"];
const MODULES: &[&str] = &["merge", "verify", "combine", "resize"];
/// Verbs whose options of this name no recipe says.
const OTHERS: &[&str] = &["resize", "extract", "convert", "run"];
const OPENING: &[&str] = &[
    "merge", "verify", "combine", "resize", "convert", "inspect", "list", "compare", "diff",
    "check", "collect",
];
const ORIENTING: &[&str] = &["merge", "verify", "extract", "inspect"];

/// What can be asked of the types of a GGUF result.
pub const GGUF_TYPES: [&str; 21] = [
    "auto", "keep", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
    "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "tq1_0", "tq2_0", "f16", "bf16", "f32",
];
const DTYPES: Kind = Word(&["keep", "f32", "f16", "bf16"]);
const OUTPUTS: &[&str] = &["save-to", "out-path", "save-path", "save-merged-model"];

/// A line of the table: an option of `verbs`, that a recipe says in this place.
const fn option(
    name: &'static str,
    (verbs, recipe): (&'static [&'static str], Recipe),
    (kind, value): (Kind, &'static str),
    help: &'static str,
) -> OptionSpec {
    OptionSpec { name, verbs, recipe, kind, value, default: "", help, aliases: &[] }
}

impl OptionSpec {
    const fn or(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    const fn also(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }
}

/// All options of the verbs that write weights or adapters, in the order in which they are shown.
#[rustfmt::skip]
pub const OPTIONS: &[OptionSpec] = &[
    // Inputs and output.
    option("base", (&["merge"], Recipe::Key), (Path, "BASE"),
        "The base checkpoint: a .safetensors file, an index, or a directory"),
    option("base", (&["extract"], Recipe::Key), (Path, "BASE"),
        "The checkpoint before fine-tuning: a file, an index, or a directory"),
    option("tuned", (&["extract"], Recipe::Key), (Path, "TUNED"),
        "The fine-tuned checkpoint"),
    option("adapters", (&["merge"], Recipe::Key), (Paths, "ADAPTER"),
        "PEFT directories or .safetensors files, each with its weight after a colon if it has one \
         (style:0.7); also fine-tuned checkpoints of the same base"),
    option("adapters", (&["combine"], Recipe::Key), (Paths, "ADAPTER"),
        "PEFT directories or .safetensors files, each with its weight after a colon if it has one (style:0.7)"),
    option("adapter", (&["resize", "convert"], Recipe::Key), (Path, "ADAPTER"),
        "The adapter: a PEFT directory or a file of any convention"),
    option("output", (&["merge"], Recipe::Key), (Path, "OUT"),
        "Where the result goes: one file if it ends in .safetensors or .gguf, otherwise a directory").also(OUTPUTS),
    option("output", (&["combine"], Recipe::Key), (Path, "OUT"),
        "Where the result goes: a directory for peft and mlx, a .safetensors or .gguf file for others").also(OUTPUTS),
    option("output", (&["resize"], Recipe::Key), (Path, "OUT"),
        "Where the result goes: a directory for peft and mlx, a .safetensors or .gguf file for others").also(OUTPUTS),
    option("output", (&["extract"], Recipe::Key), (Path, "OUT"),
        "Where the adapter goes: a .safetensors file is written in kohya's convention, a directory in PEFT's")
        .also(&["save-to", "out-path"]),
    option("output", (&["convert"], Recipe::Key), (Path, "OUT"),
        "Where the result goes: a directory for peft, mlx and ollama, a .safetensors or .gguf file for others"),
    // How the adapters are put together.
    option("weights", (WEIGHING, Recipe::Adapter("weight")), (Numbers, "W"),
        "One weight per adapter, in order").or("1 each").also(&["ratios", "lora-multiplier"]),
    option("method", (MERGING, Recipe::Key), (Text, "METHOD"),
        "How to add several adapters: linear is the exact weighted sum, auto chooses by what they write over each \
         other; `lora-tool methods` lists all")
        .or("linear").also(&["combination-type"]),
    option("method", (&["combine"], Recipe::Key), (Text, "METHOD"),
        "How to combine: linear is the exact weighted sum, auto chooses by what they write over each other; \
         `lora-tool methods` lists all")
        .or("linear").also(&["combination-type"]),
    option("compat", (WEIGHING, Recipe::Key), (Word(&["peft", "kohya", "mergekit"]), "PROGRAM"),
        "Reproduce another program's arithmetic instead of the exact one"),
    option("compat", (&["extract"], Recipe::Key), (Word(&["kohya"]), "PROGRAM"),
        "Choose modules as another program does"),
    option("space", (&["combine"], Recipe::Key), (Word(&["delta", "core", "knots", "factors"]), "SPACE"),
        "Which elements an elementwise method works on").or("delta"),
    option("module_weight", (WEIGHING, Recipe::Key), (RegexNumbers, "REGEX=W"),
        "Multiply the weight of modules whose names match; if several match, the last one given wins"),
    option("lbw", (&["combine"], Recipe::Adapter("lbw")), (NumberLists, "W1,…,Wn"),
        "kohya's block weights, one list per adapter in order. 12 numbers (SDXL): BASE, IN04, IN05, IN07, IN08, MID, \
         OUT00–OUT05; 17 (SD 1.x): BASE, IN01, IN02, IN04, IN05, IN07, IN08, MID, OUT03–OUT11; 20 (LyCORIS for SDXL): \
         BASE, IN00–IN08, MID, OUT00–OUT08; 26: all blocks").also(&["lbws"]),
    option("include", (MODULES, Recipe::Key), (Regex, "REGEX"),
        "Use only modules whose names match"),
    option("include", (&["extract"], Recipe::Key), (Regex, "REGEX"),
        "Use only tensors whose names match"),
    option("exclude", (MODULES, Recipe::Key), (Regex, "REGEX"),
        "Leave out modules whose names match"),
    option("exclude", (&["extract"], Recipe::Key), (Regex, "REGEX"),
        "Leave out tensors whose names match"),
    option("on_conflict", (&["combine"], Recipe::Key), (Word(&["first", "average", "drop"]), "WHAT"),
        "What to do if several adapters replace the same tensor with different values").or("an error"),
    option("allow_disjoint", (&["combine"], Recipe::Key), (Flag, ""),
        "Combine adapters even if they share no module and name different base models"),
    option("allow_unmatched", (MERGING, Recipe::Key), (Flag, ""),
        "Merge the rest if some adapter tensors fit nothing in the base"),
    option("add_new", (MERGING, Recipe::Key), (Flag, ""),
        "Add tensors that the base does not have, also those that are not in a config's modules_to_save"),
    option("keep_tied", (MERGING, Recipe::Key), (Flag, ""),
        "Keep tied embeddings tied even if the adapter changes only one of the two"),
    // Ranks.
    option("rank", (&["combine"], Recipe::Key), (Rank, "POLICY"),
        "Rank of the result: 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, \
         size:32MiB, params:2M, mp, sv_ratio:…, sv_fro:…, sv_cumulative:…").or("lossless").also(&["new-rank", "svd-rank"]),
    option("rank", (&["resize"], Recipe::Key), (Rank, "POLICY"),
        "Rank of the result: 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, \
         size:32MiB, params:2M, mp, sv_ratio:…, sv_fro:…, sv_cumulative:…").also(&["new-rank"]),
    option("rank", (&["extract"], Recipe::Key), (Rank, "POLICY"),
        "Rank of the adapter: auto finds the rank of an adapter that was merged in; or 16, lossless, energy:0.99, \
         fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, size:32MiB, params:2M").also(&["dim"]),
    option("explore", (&["resize"], Recipe::None), (Flag, ""),
        "Write nothing: show what error, size and server limit other ranks would give"),
    option("conv_rank", (&["combine"], Recipe::Key), (Rank, "POLICY"),
        "Rank of convolutions with kernels above 1 × 1").or("as --rank").also(&["new-conv-rank"]),
    option("conv_rank", (&["resize"], Recipe::Key), (Rank, "POLICY"),
        "Rank of convolutions, 1 × 1 too").or("as --rank").also(&["new-conv-rank"]),
    option("conv_rank", (&["extract"], Recipe::Key), (Rank, "POLICY"),
        "Rank of convolutions with a kernel").or("as --rank").also(&["conv-dim"]),
    option("dynamic_method", (&["resize"], Recipe::Key), (Text, "NAME"),
        "kohya's criterion: sv_ratio, sv_fro or sv_cumulative; --rank and --conv-rank are then the highest ranks"),
    option("dynamic_param", (&["resize"], Recipe::Key), (Number, "X"),
        "The number that --dynamic-method takes"),
    option("max_rank", (&["combine"], Recipe::Key), (Count, "R"),
        "The highest rank of any module"),
    option("max_rank", (&["resize", "extract"], Recipe::Key), (Count, "R"),
        "The highest rank of any module"),
    option("uniform", (&["combine"], Recipe::Key), (Flag, ""),
        "Pad every module with zeros to one rank, for programs that need the same rank everywhere"),
    option("uniform", (&["resize"], Recipe::Key), (Flag, ""),
        "Pad every module with zeros to one rank, for programs that need the same rank everywhere"),
    // What an extraction takes.
    option("embeddings", (&["extract"], Recipe::Key), (Flag, ""),
        "Make modules of embeddings too"),
    option("full_norms", (&["extract"], Recipe::Key), (Flag, ""),
        "Store norms, biases and embeddings that changed as whole tensors, where the convention can"),
    option("min_diff", (&["extract"], Recipe::Key), (Number, "X"),
        "Leave out modules none of whose elements differs by more than this").or("0"),
    option("exact", (&["extract"], Recipe::Key), (Flag, ""),
        "Decompose whole differences in f64: slow, and needs memory for one difference per thread"),
    option("clamp_quantile", (&["extract"], Recipe::Key), (Number, "Q"),
        "Clamp the factors to ± this quantile of their values, as kohya's script does by default"),
    option("seed", (&["extract"], Recipe::Key), (Count, "N"),
        "Seed of the random columns in the decomposition").or("0"),
    // What is written.
    option("dtype", (MERGING, Recipe::Key), (DTYPES, "DTYPE"),
        "Dtype of the result's floating-point tensors; keep is each tensor's own in the base")
        .or("keep").also(&["save-precision"]),
    option("dtype", (&["combine"], Recipe::Key), (DTYPES, "DTYPE"),
        "Dtype of the factors; keep is the widest among the inputs").or("keep").also(&["save-precision"]),
    option("dtype", (&["resize"], Recipe::Key), (DTYPES, "DTYPE"),
        "Dtype of the factors; keep is the adapter's own").or("keep").also(&["save-precision"]),
    option("dtype", (&["extract"], Recipe::Key), (DTYPES, "DTYPE"),
        "Dtype of the factors").or("f32").also(&["save-precision"]),
    option("quantized", (MERGING, Recipe::Key), (Word(&["16bit", "requantize", "hybrid", "refuse"]), "WHAT"),
        "What to do where a quantised weight of the base changes: write all quantised weights as plain numbers, in \
         --dtype or the config's dtype; quantise again what changes; write only what changes (and what programs load as \
         one with it) as plain numbers; or refuse the merge").or("16bit").also(&["quantised"]),
    option("touched", (MERGING, Recipe::Key), (Word(&["16bit", "int8", "fp8", "q8_0"]), "TYPE"),
        "What --quantized hybrid makes of what changes: plain numbers, or codes of 8 bits where the container has a type \
         per weight (compressed-tensors, MLX; in GGUF it is --types q8_0)").or("16bit"),
    option("quantize_like", (MERGING, Recipe::Key), (Path, "QBASE"),
        "A quantised checkpoint of the base's model: the merge of a 16-bit base is quantised once, in QBASE's scheme, \
         and has its names, dtypes and config, so that it loads where QBASE does").also(&["quantise-like"]),
    option("as_trained", (MERGING, Recipe::Key), (Word(&TRAINED_NAMES), "SCHEME"),
        "Read the linear layers of a 16-bit base as a trainer did that kept it in this scheme of bitsandbytes (QLoRA), \
         and write that plus the update in the base's dtype"),
    option("scales", (MERGING, Recipe::Key), (Word(&["fresh", "reuse"]), "WHICH"),
        "Scales of what is quantised again: made of the new values, or the base's").or("fresh"),
    option("rounding", (MERGING, Recipe::Key), (Word(&["nearest", "stochastic"]), "HOW"),
        "How what is quantised again is rounded: to the nearest code, or at random with chances that keep the mean, \
         so that updates smaller than a step of 4 bits survive").or("nearest"),
    option("rounding_seed", (MERGING, Recipe::Key), (Count, "N"),
        "Seed of --rounding stochastic").or("0"),
    option("min_survival", (MERGING, Recipe::Key), (Number, "SHARE"),
        "The least share of an update that must survive in every weight that is quantised again; else nothing is written")
        .or("0.9"),
    option("residual", (&["merge"], Recipe::Key), (Path, "DIR"),
        "Also write the PEFT adapter that gives back what quantising takes from the merge; with it, that is no longer \
         lost to --min-survival"),
    option("residual_rank", (&["merge"], Recipe::Key), (Count, "R"),
        "Rank of --residual").or("the adapters' largest"),
    option("types", (MERGING, Recipe::Key), (Word(&GGUF_TYPES), "TYPE"),
        "Types of what changes in a GGUF result, -o OUT.gguf or a directory (which gets the base's set of files, or one \
         by --max-shard-size): for each the smallest from its own upwards in which \
         --min-survival of its update survives, its own, or one for all; everything else keeps its bytes").or("auto"),
    option("to", (&["combine"], Recipe::Key), (Text, "CONVENTION"),
        "The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf").or("the inputs'"),
    option("to", (&["resize"], Recipe::Key), (Text, "CONVENTION"),
        "The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf").or("the adapter's"),
    option("to", (&["extract", "convert"], Recipe::Key), (Text, "CONVENTION"),
        "The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf"),
    option("for", (&["convert"], Recipe::Key), (Text, "PROGRAM"),
        "Write what this program loads, such as vllm, llama.cpp or comfyui; `lora-tool check --help` lists all"),
    option("as", (&["convert"], Recipe::Key), (Word(&["lora"]), "FAMILY"),
        "Write every module as plain LoRA of --rank, whatever its family; the error of each update is measured and \
         reported, and what depends on the base's weights (DoRA, OFT, IA3, …) needs --reference"),
    option("rank", (&["convert"], Recipe::Key), (Rank, "POLICY"),
        "Rank of the result of --as lora: 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, \
         error:0.05, size:32MiB, params:2M"),
    option("reference", (MERGING, Recipe::Key), (Path, "BASE"),
        "The same base in the other container: a checkpoint of transformers' whose names and files the result of a GGUF \
         base has, or the GGUF file whose names, metadata, tokenizer and types the -o OUT.gguf of another base has"),
    option("reference", (&["combine"], Recipe::Key), (Path, "BASE"),
        "The base model, if --to needs its module names, or for gguf its architecture"),
    option("reference", (&["resize"], Recipe::Key), (Path, "BASE"),
        "The base model, if --to needs its module names, or for gguf its architecture"),
    option("reference", (&["convert"], Recipe::Key), (Path, "BASE"),
        "The base model: its module names where a flattened name is ambiguous, its architecture for gguf, its \
         shapes and experts for servers"),
    option("allow_loss", (&["convert"], Recipe::Key), (Flag, ""),
        "Leave out what the target cannot hold"),
    option("title", (&["combine"], Recipe::Key), (Text, "TEXT"),
        "Title in the result's header").or("OUT's name, if the adapters have titles"),
    option("trigger", (&["combine"], Recipe::Key), (Text, "WORDS"),
        "Trigger words in the result's header").or("those of all adapters"),
    option("max_shard_size", (&["merge"], Recipe::Key), (Size, "SIZE|keep"),
        "Largest shard, such as 5GB or 500MiB; keep is the base's own shards").or("keep"),
    option("verify", (&["merge"], Recipe::Key), (Flag, ""),
        "Open the result again and compare it with a recomputation in f64"),
    option("receipt", (&["merge"], Recipe::Key), (Path, "FILE"),
        "Also write this file, from which `undo` restores the base bit for bit"),
    option("card", (BOTH, Recipe::Key), (Flag, ""),
        "Also write a model card: README.md in a directory, else OUT's name with .md, with base, adapters, weights, \
         method, figures, and the licences that the inputs name"),
    option("no_provenance", (&["merge"], Recipe::Key), (Flag, ""),
        "Do not say in the result's header which adapters it was made of, with their hashes and weights, and how; \
         `verify` then needs --base and --adapter"),
    option("resume", (&["merge"], Recipe::Key), (Flag, ""),
        "Continue an interrupted merge: reuse the shards that an earlier --resume run of this same merge finished, \
         and keep this run's if it is interrupted"),
    option("plan", (&["merge"], Recipe::Run), (Path, "FILE"),
        "Merge nothing: write the plan to this file, for workers on other machines (`work`) and `commit`"),
    option("plan", (&["extract"], Recipe::Run), (Path, "FILE"),
        "Extract nothing: write the plan to this file, for workers on other machines (`work`) and `commit`"),
    option("plan", (&["run"], Recipe::None), (Path, "FILE"),
        "Merge nothing: write the plan to this file, for workers on other machines (`work`) and `commit`"),
    option("workers", (&["merge"], Recipe::Run), (Count, "N"),
        "With --plan: share the shards out for this many workers"),
    option("workers", (&["extract"], Recipe::Run), (Count, "N"),
        "With --plan: share the tensors out for this many workers"),
    option("workers", (&["run"], Recipe::None), (Count, "N"),
        "With --plan: share the shards out for this many workers"),
    option("force", (BOTH, Recipe::Run), (Flag, ""),
        "Replace an existing OUT"),
    option("force", (OTHERS, Recipe::Run), (Flag, ""),
        "Replace an existing OUT"),
    option("dry_run", (BOTH, Recipe::Run), (Flag, ""),
        "Check everything and print the plan; write nothing"),
    option("dry_run", (OTHERS, Recipe::Run), (Flag, ""),
        "Do everything but write: show what would be written, with its ranks, size and errors"),
    // How inputs are read.
    option("alpha", (OPENING, Recipe::Key), (Number, "ALPHA"),
        "Alpha to assume where an adapter does not store it (scale = alpha/rank)"),
    option("rslora", (OPENING, Recipe::Key), (Flag, ""),
        "With --alpha: scale = alpha/√rank"),
    option("scale", (OPENING, Recipe::Key), (Number, "SCALE"),
        "Scale to assume where an adapter does not store it"),
    option("convention", (OPENING, Recipe::Key), (Text, "NAME"),
        "Force the file format (peft, kohya, diffusers, comfyui, …) instead of detecting it from the keys"),
    option("ignore_field", (OPENING, Recipe::Key), (Texts, "NAME"),
        "Accept this unknown field of adapter_config.json as one that changes nothing"),
    option("residual_base", (OPENING, Recipe::Key), (Flag, ""),
        "BASE is the modified base that PiSSA, OLoRA or CorDA saved beside the adapter, not the original"),
    option("orientation", (ORIENTING, Recipe::Key), (Texts, "REGEX=in-out|out-in"),
        "How the base stores weights whose names match: out-in as torch's Linear, in-out as GPT-2's Conv1D. Needed \
         only where an error asks for it; the first match wins"),
    option("no_mmap", (BOTH, Recipe::Run), (Flag, ""),
        "Read inputs instead of memory-mapping them, for network file systems"),
    option("no_mmap", (&["verify", "resize", "extract", "convert", "run", "inspect", "list", "compare", "diff", "check",
        "collect"], Recipe::Run), (Flag, ""),
        "Read inputs instead of memory-mapping them, for network file systems"),
    // What is printed.
    option("modules", (&["combine"], Recipe::Run), (Flag, ""),
        "List every module in the report (-v does too)"),
    option("modules", (OTHERS, Recipe::Run), (Flag, ""),
        "List every module in the report (-v does too)"),
    option("json", (BOTH, Recipe::Run), (Flag, ""),
        "Print the report as one JSON object"),
    option("json", (OTHERS, Recipe::Run), (Flag, ""),
        "Print the report as one JSON object"),
];
