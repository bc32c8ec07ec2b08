"""The verbs that write weights or adapters. Made from the table of options by a test; not to be edited."""

from __future__ import annotations

from typing import Iterable, Literal, Mapping, cast

from ._call import Path, Paths, Progress, call, joined, paths
from ._reports import CombineReport, ConvertReport, ExtractReport, MergeReport


def merge(
    base: Path,
    adapters: Paths,
    output: Path,
    *,
    weights: Iterable[float] | None = None,
    method: str | None = None,
    compat: Literal["peft", "kohya", "mergekit"] | None = None,
    module_weight: Mapping[str, float] | None = None,
    include: str | None = None,
    exclude: str | None = None,
    allow_unmatched: bool = False,
    add_new: bool = False,
    keep_tied: bool = False,
    dtype: Literal["keep", "f32", "f16", "bf16"] | None = None,
    quantized: Literal["16bit", "requantize", "hybrid", "refuse"] | None = None,
    touched: Literal["16bit", "int8", "fp8", "q8_0"] | None = None,
    quantize_like: Path | None = None,
    as_trained: Literal["nf4", "nf4-nested", "fp4", "fp4-nested", "int8"] | None = None,
    scales: Literal["fresh", "reuse"] | None = None,
    rounding: Literal["nearest", "stochastic"] | None = None,
    rounding_seed: int | None = None,
    min_survival: float | None = None,
    residual: Path | None = None,
    residual_rank: int | None = None,
    types: Literal["auto", "keep", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "iq4_nl", "iq4_xs", "mxfp4", "nvfp4", "tq1_0", "tq2_0", "f16", "bf16", "f32"] | None = None,
    reference: Path | None = None,
    max_shard_size: int | str | None = None,
    verify: bool = False,
    receipt: Path | None = None,
    card: bool = False,
    no_provenance: bool = False,
    resume: bool = False,
    plan: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    dry_run: bool = False,
    alpha: float | None = None,
    rslora: bool = False,
    scale: float | None = None,
    convention: str | None = None,
    ignore_field: str | Iterable[str] | None = None,
    residual_base: bool = False,
    orientation: str | Iterable[str] | None = None,
    no_mmap: bool = False,
    density: float | Iterable[float] | None = None,
    lambda_: float | None = None,
    majority_sign: Literal["total", "frequency"] | None = None,
    reduce: Literal["mean", "sum"] | None = None,
    gamma: float | Iterable[float] | None = None,
    epsilon: float | Iterable[float] | None = None,
    overlap_gain: float | None = None,
    overlap_cap: float | None = None,
    t: float | None = None,
    beta: float | None = None,
    eta: float | None = None,
    common: float | None = None,
    side: Literal["out", "in"] | None = None,
    ridge: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> MergeReport:
    """Bakes adapters into base weights, in one pass and with one rounding.

    base: The base checkpoint: a .safetensors file, an index, or a directory
    adapters: PEFT directories or .safetensors files, each with its weight after a colon if it has one (style:0.7); also fine-tuned checkpoints of the same base
    output: Where the result goes: one file if it ends in .safetensors or .gguf, otherwise a directory
    weights: One weight per adapter, in order [default: 1 each]
    method: How to add several adapters: linear is the exact weighted sum, auto chooses by what they write over each other; `lora-tool methods` lists all [default: linear]
    compat: Reproduce another program's arithmetic instead of the exact one
    module_weight: Multiply the weight of modules whose names match; if several match, the last one given wins
    include: Use only modules whose names match
    exclude: Leave out modules whose names match
    allow_unmatched: Merge the rest if some adapter tensors fit nothing in the base
    add_new: Add tensors that the base does not have, also those that are not in a config's modules_to_save
    keep_tied: Keep tied embeddings tied even if the adapter changes only one of the two
    dtype: Dtype of the result's floating-point tensors; keep is each tensor's own in the base [default: keep]
    quantized: What to do where a quantised weight of the base changes: write all quantised weights as plain numbers, in --dtype or the config's dtype; quantise again what changes; write only what changes (and what programs load as one with it) as plain numbers; or refuse the merge [default: 16bit]
    touched: What --quantized hybrid makes of what changes: plain numbers, or codes of 8 bits where the container has a type per weight (compressed-tensors, MLX; in GGUF it is --types q8_0) [default: 16bit]
    quantize_like: A quantised checkpoint of the base's model: the merge of a 16-bit base is quantised once, in QBASE's scheme, and has its names, dtypes and config, so that it loads where QBASE does
    as_trained: Read the linear layers of a 16-bit base as a trainer did that kept it in this scheme of bitsandbytes (QLoRA), and write that plus the update in the base's dtype
    scales: Scales of what is quantised again: made of the new values, or the base's [default: fresh]
    rounding: How what is quantised again is rounded: to the nearest code, or at random with chances that keep the mean, so that updates smaller than a step of 4 bits survive [default: nearest]
    rounding_seed: Seed of --rounding stochastic [default: 0]
    min_survival: The least share of an update that must survive in every weight that is quantised again; else nothing is written [default: 0.9]
    residual: Also write the PEFT adapter that gives back what quantising takes from the merge; with it, that is no longer lost to --min-survival
    residual_rank: Rank of --residual [default: the adapters' largest]
    types: Types of what changes in a GGUF result, -o OUT.gguf or a directory (which gets the base's set of files, or one by --max-shard-size): for each the smallest from its own upwards in which --min-survival of its update survives, its own, or one for all; everything else keeps its bytes [default: auto]
    reference: The same base in the other container: a checkpoint of transformers' whose names and files the result of a GGUF base has, or the GGUF file whose names, metadata, tokenizer and types the -o OUT.gguf of another base has
    max_shard_size: Largest shard, such as 5GB or 500MiB; keep is the base's own shards [default: keep]
    verify: Open the result again and compare it with a recomputation in f64
    receipt: Also write this file, from which `undo` restores the base bit for bit
    card: Also write a model card: README.md in a directory, else OUT's name with .md, with base, adapters, weights, method, figures, and the licences that the inputs name
    no_provenance: Do not say in the result's header which adapters it was made of, with their hashes and weights, and how; `verify` then needs --base and --adapter
    resume: Continue an interrupted merge: reuse the shards that an earlier --resume run of this same merge finished, and keep this run's if it is interrupted
    plan: Merge nothing: write the plan to this file, for workers on other machines (`work`) and `commit`
    workers: With --plan: share the shards out for this many workers
    force: Replace an existing OUT
    dry_run: Check everything and print the plan; write nothing
    alpha: Alpha to assume where an adapter does not store it (scale = alpha/rank)
    rslora: With --alpha: scale = alpha/√rank
    scale: Scale to assume where an adapter does not store it
    convention: Force the file format (peft, kohya, diffusers, comfyui, …) instead of detecting it from the keys
    ignore_field: Accept this unknown field of adapter_config.json as one that changes nothing
    residual_base: BASE is the modified base that PiSSA, OLoRA or CorDA saved beside the adapter, not the original
    orientation: How the base stores weights whose names match: out-in as torch's Linear, in-out as GPT-2's Conv1D. Needed only where an error asks for it; the first match wins
    no_mmap: Read inputs instead of memory-mapping them, for network file systems
    density: Of methods that take it: share of each delta's elements that is kept; one number, or one per adapter: 0.5,0.3
    lambda_: Of methods that take it: multiplies the combined delta
    majority_sign: Of methods that take it: whose sign wins where deltas disagree: that of their sum, or the more frequent
    reduce: Of methods that take it: what becomes of the elements that agree: their weighted mean, or their sum
    gamma: Of methods that take it: share of each delta's largest elements that is dropped; one number, or one per adapter: 0.5,0.3
    epsilon: Of methods that take it: della: how far the chance to be kept varies with the magnitude, to either side of the density; ram: up to what size an element counts as 0; one number, or one per adapter: 0.5,0.3
    overlap_gain: Of methods that take it: how much the elements that an adapter alone changes are raised, relative to its overlap with others; mergekit's r
    overlap_cap: Of methods that take it: the most overlap that counts for that; mergekit's alpha
    t: Of methods that take it: where between the first adapter (0) and the second (1)
    beta: Of methods that take it: share of the average so far that the next checkpoint leaves
    eta: Of methods that take it: share of each delta's nuclear norm that its truncation keeps
    common: Of methods that take it: share of the directions that are the sum's; the others are the deltas' own
    side: Of methods that take it: what deltas share: the outputs that they write to, or the inputs that they read
    ridge: Of methods that take it: pull towards the plain sum, as a share of the deltas' own
    seed: Of methods that take it: chooses the random numbers
    threads: Threads that compute [default: one per core]
    progress: Called with the phase, what of it is done, and all of it, a few times a second
    """
    return cast(MergeReport, call(
        "merge", base, *paths(adapters),
        output=output,
        weights=weights,
        method=method,
        compat=compat,
        module_weight=module_weight,
        include=include,
        exclude=exclude,
        allow_unmatched=allow_unmatched,
        add_new=add_new,
        keep_tied=keep_tied,
        dtype=dtype,
        quantized=quantized,
        touched=touched,
        quantize_like=quantize_like,
        as_trained=as_trained,
        scales=scales,
        rounding=rounding,
        rounding_seed=rounding_seed,
        min_survival=min_survival,
        residual=residual,
        residual_rank=residual_rank,
        types=types,
        reference=reference,
        max_shard_size=max_shard_size,
        verify=verify,
        receipt=receipt,
        card=card,
        no_provenance=no_provenance,
        resume=resume,
        plan=plan,
        workers=workers,
        force=force,
        dry_run=dry_run,
        alpha=alpha,
        rslora=rslora,
        scale=scale,
        convention=convention,
        ignore_field=ignore_field,
        residual_base=residual_base,
        orientation=orientation,
        no_mmap=no_mmap,
        density=joined(density),
        lambda_=lambda_,
        majority_sign=majority_sign,
        reduce=reduce,
        gamma=joined(gamma),
        epsilon=joined(epsilon),
        overlap_gain=overlap_gain,
        overlap_cap=overlap_cap,
        t=t,
        beta=beta,
        eta=eta,
        common=common,
        side=side,
        ridge=ridge,
        seed=seed,
        threads=threads,
        progress=progress,
    ))


def combine(
    adapters: Paths,
    output: Path,
    *,
    weights: Iterable[float] | None = None,
    method: str | None = None,
    compat: Literal["peft", "kohya", "mergekit"] | None = None,
    space: Literal["delta", "core", "knots", "factors"] | None = None,
    module_weight: Mapping[str, float] | None = None,
    lbw: Iterable[Iterable[float]] | None = None,
    include: str | None = None,
    exclude: str | None = None,
    on_conflict: Literal["first", "average", "drop"] | None = None,
    allow_disjoint: bool = False,
    rank: int | str | None = None,
    conv_rank: int | str | None = None,
    max_rank: int | None = None,
    uniform: bool = False,
    dtype: Literal["keep", "f32", "f16", "bf16"] | None = None,
    to: str | None = None,
    reference: Path | None = None,
    title: str | None = None,
    trigger: str | None = None,
    card: bool = False,
    force: bool = False,
    dry_run: bool = False,
    alpha: float | None = None,
    rslora: bool = False,
    scale: float | None = None,
    convention: str | None = None,
    ignore_field: str | Iterable[str] | None = None,
    residual_base: bool = False,
    no_mmap: bool = False,
    density: float | Iterable[float] | None = None,
    lambda_: float | None = None,
    majority_sign: Literal["total", "frequency"] | None = None,
    reduce: Literal["mean", "sum"] | None = None,
    gamma: float | Iterable[float] | None = None,
    epsilon: float | Iterable[float] | None = None,
    overlap_gain: float | None = None,
    overlap_cap: float | None = None,
    t: float | None = None,
    beta: float | None = None,
    eta: float | None = None,
    common: float | None = None,
    side: Literal["out", "in"] | None = None,
    ridge: float | None = None,
    seed: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CombineReport:
    """Makes one adapter of several: by default the exact weighted sum of their updates.

    adapters: PEFT directories or .safetensors files, each with its weight after a colon if it has one (style:0.7)
    output: Where the result goes: a directory for peft and mlx, a .safetensors or .gguf file for others
    weights: One weight per adapter, in order [default: 1 each]
    method: How to combine: linear is the exact weighted sum, auto chooses by what they write over each other; `lora-tool methods` lists all [default: linear]
    compat: Reproduce another program's arithmetic instead of the exact one
    space: Which elements an elementwise method works on [default: delta]
    module_weight: Multiply the weight of modules whose names match; if several match, the last one given wins
    lbw: kohya's block weights, one list per adapter in order. 12 numbers (SDXL): BASE, IN04, IN05, IN07, IN08, MID, OUT00–OUT05; 17 (SD 1.x): BASE, IN01, IN02, IN04, IN05, IN07, IN08, MID, OUT03–OUT11; 20 (LyCORIS for SDXL): BASE, IN00–IN08, MID, OUT00–OUT08; 26: all blocks
    include: Use only modules whose names match
    exclude: Leave out modules whose names match
    on_conflict: What to do if several adapters replace the same tensor with different values [default: an error]
    allow_disjoint: Combine adapters even if they share no module and name different base models
    rank: Rank of the result: 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, size:32MiB, params:2M, mp, sv_ratio:…, sv_fro:…, sv_cumulative:… [default: lossless]
    conv_rank: Rank of convolutions with kernels above 1 × 1 [default: as --rank]
    max_rank: The highest rank of any module
    uniform: Pad every module with zeros to one rank, for programs that need the same rank everywhere
    dtype: Dtype of the factors; keep is the widest among the inputs [default: keep]
    to: The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf [default: the inputs']
    reference: The base model, if --to needs its module names, or for gguf its architecture
    title: Title in the result's header [default: OUT's name, if the adapters have titles]
    trigger: Trigger words in the result's header [default: those of all adapters]
    card: Also write a model card: README.md in a directory, else OUT's name with .md, with base, adapters, weights, method, figures, and the licences that the inputs name
    force: Replace an existing OUT
    dry_run: Check everything and print the plan; write nothing
    alpha: Alpha to assume where an adapter does not store it (scale = alpha/rank)
    rslora: With --alpha: scale = alpha/√rank
    scale: Scale to assume where an adapter does not store it
    convention: Force the file format (peft, kohya, diffusers, comfyui, …) instead of detecting it from the keys
    ignore_field: Accept this unknown field of adapter_config.json as one that changes nothing
    residual_base: BASE is the modified base that PiSSA, OLoRA or CorDA saved beside the adapter, not the original
    no_mmap: Read inputs instead of memory-mapping them, for network file systems
    density: Of methods that take it: share of each delta's elements that is kept; one number, or one per adapter: 0.5,0.3
    lambda_: Of methods that take it: multiplies the combined delta
    majority_sign: Of methods that take it: whose sign wins where deltas disagree: that of their sum, or the more frequent
    reduce: Of methods that take it: what becomes of the elements that agree: their weighted mean, or their sum
    gamma: Of methods that take it: share of each delta's largest elements that is dropped; one number, or one per adapter: 0.5,0.3
    epsilon: Of methods that take it: della: how far the chance to be kept varies with the magnitude, to either side of the density; ram: up to what size an element counts as 0; one number, or one per adapter: 0.5,0.3
    overlap_gain: Of methods that take it: how much the elements that an adapter alone changes are raised, relative to its overlap with others; mergekit's r
    overlap_cap: Of methods that take it: the most overlap that counts for that; mergekit's alpha
    t: Of methods that take it: where between the first adapter (0) and the second (1)
    beta: Of methods that take it: share of the average so far that the next checkpoint leaves
    eta: Of methods that take it: share of each delta's nuclear norm that its truncation keeps
    common: Of methods that take it: share of the directions that are the sum's; the others are the deltas' own
    side: Of methods that take it: what deltas share: the outputs that they write to, or the inputs that they read
    ridge: Of methods that take it: pull towards the plain sum, as a share of the deltas' own
    seed: Of methods that take it: chooses the random numbers
    threads: Threads that compute [default: one per core]
    progress: Called with the phase, what of it is done, and all of it, a few times a second
    """
    return cast(CombineReport, call(
        "combine", *paths(adapters),
        output=output,
        weights=weights,
        method=method,
        compat=compat,
        space=space,
        module_weight=module_weight,
        lbw=None if lbw is None else [joined(numbers) for numbers in lbw],
        include=include,
        exclude=exclude,
        on_conflict=on_conflict,
        allow_disjoint=allow_disjoint,
        rank=rank,
        conv_rank=conv_rank,
        max_rank=max_rank,
        uniform=uniform,
        dtype=dtype,
        to=to,
        reference=reference,
        title=title,
        trigger=trigger,
        card=card,
        force=force,
        dry_run=dry_run,
        alpha=alpha,
        rslora=rslora,
        scale=scale,
        convention=convention,
        ignore_field=ignore_field,
        residual_base=residual_base,
        no_mmap=no_mmap,
        density=joined(density),
        lambda_=lambda_,
        majority_sign=majority_sign,
        reduce=reduce,
        gamma=joined(gamma),
        epsilon=joined(epsilon),
        overlap_gain=overlap_gain,
        overlap_cap=overlap_cap,
        t=t,
        beta=beta,
        eta=eta,
        common=common,
        side=side,
        ridge=ridge,
        seed=seed,
        threads=threads,
        progress=progress,
    ))


def resize(
    adapter: Path,
    output: Path,
    rank: int | str | None = None,
    *,
    include: str | None = None,
    exclude: str | None = None,
    conv_rank: int | str | None = None,
    dynamic_method: str | None = None,
    dynamic_param: float | None = None,
    max_rank: int | None = None,
    uniform: bool = False,
    dtype: Literal["keep", "f32", "f16", "bf16"] | None = None,
    to: str | None = None,
    reference: Path | None = None,
    force: bool = False,
    dry_run: bool = False,
    alpha: float | None = None,
    rslora: bool = False,
    scale: float | None = None,
    convention: str | None = None,
    ignore_field: str | Iterable[str] | None = None,
    residual_base: bool = False,
    no_mmap: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> CombineReport:
    """Lowers an adapter's rank, or fits it to an energy, an error or a size.

    adapter: The adapter: a PEFT directory or a file of any convention
    output: Where the result goes: a directory for peft and mlx, a .safetensors or .gguf file for others
    rank: Rank of the result: 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, size:32MiB, params:2M, mp, sv_ratio:…, sv_fro:…, sv_cumulative:…
    include: Use only modules whose names match
    exclude: Leave out modules whose names match
    conv_rank: Rank of convolutions, 1 × 1 too [default: as --rank]
    dynamic_method: kohya's criterion: sv_ratio, sv_fro or sv_cumulative; --rank and --conv-rank are then the highest ranks
    dynamic_param: The number that --dynamic-method takes
    max_rank: The highest rank of any module
    uniform: Pad every module with zeros to one rank, for programs that need the same rank everywhere
    dtype: Dtype of the factors; keep is the adapter's own [default: keep]
    to: The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf [default: the adapter's]
    reference: The base model, if --to needs its module names, or for gguf its architecture
    force: Replace an existing OUT
    dry_run: Do everything but write: show what would be written, with its ranks, size and errors
    alpha: Alpha to assume where an adapter does not store it (scale = alpha/rank)
    rslora: With --alpha: scale = alpha/√rank
    scale: Scale to assume where an adapter does not store it
    convention: Force the file format (peft, kohya, diffusers, comfyui, …) instead of detecting it from the keys
    ignore_field: Accept this unknown field of adapter_config.json as one that changes nothing
    residual_base: BASE is the modified base that PiSSA, OLoRA or CorDA saved beside the adapter, not the original
    no_mmap: Read inputs instead of memory-mapping them, for network file systems
    threads: Threads that compute [default: one per core]
    progress: Called with the phase, what of it is done, and all of it, a few times a second
    """
    return cast(CombineReport, call(
        "resize", adapter,
        output=output,
        rank=rank,
        include=include,
        exclude=exclude,
        conv_rank=conv_rank,
        dynamic_method=dynamic_method,
        dynamic_param=dynamic_param,
        max_rank=max_rank,
        uniform=uniform,
        dtype=dtype,
        to=to,
        reference=reference,
        force=force,
        dry_run=dry_run,
        alpha=alpha,
        rslora=rslora,
        scale=scale,
        convention=convention,
        ignore_field=ignore_field,
        residual_base=residual_base,
        no_mmap=no_mmap,
        threads=threads,
        progress=progress,
    ))


def extract(
    base: Path,
    tuned: Path,
    output: Path,
    rank: int | str,
    *,
    compat: Literal["kohya"] | None = None,
    include: str | None = None,
    exclude: str | None = None,
    conv_rank: int | str | None = None,
    max_rank: int | None = None,
    embeddings: bool = False,
    full_norms: bool = False,
    min_diff: float | None = None,
    exact: bool = False,
    clamp_quantile: float | None = None,
    seed: int | None = None,
    dtype: Literal["keep", "f32", "f16", "bf16"] | None = None,
    to: str | None = None,
    plan: Path | None = None,
    workers: int | None = None,
    force: bool = False,
    dry_run: bool = False,
    orientation: str | Iterable[str] | None = None,
    no_mmap: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Makes an adapter of what fine-tuning changed.

    base: The checkpoint before fine-tuning: a file, an index, or a directory
    tuned: The fine-tuned checkpoint
    output: Where the adapter goes: a .safetensors file is written in kohya's convention, a directory in PEFT's
    rank: Rank of the adapter: auto finds the rank of an adapter that was merged in; or 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, size:32MiB, params:2M
    compat: Choose modules as another program does
    include: Use only tensors whose names match
    exclude: Leave out tensors whose names match
    conv_rank: Rank of convolutions with a kernel [default: as --rank]
    max_rank: The highest rank of any module
    embeddings: Make modules of embeddings too
    full_norms: Store norms, biases and embeddings that changed as whole tensors, where the convention can
    min_diff: Leave out modules none of whose elements differs by more than this [default: 0]
    exact: Decompose whole differences in f64: slow, and needs memory for one difference per thread
    clamp_quantile: Clamp the factors to ± this quantile of their values, as kohya's script does by default
    seed: Seed of the random columns in the decomposition [default: 0]
    dtype: Dtype of the factors [default: f32]
    to: The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf
    plan: Extract nothing: write the plan to this file, for workers on other machines (`work`) and `commit`
    workers: With --plan: share the tensors out for this many workers
    force: Replace an existing OUT
    dry_run: Do everything but write: show what would be written, with its ranks, size and errors
    orientation: How the base stores weights whose names match: out-in as torch's Linear, in-out as GPT-2's Conv1D. Needed only where an error asks for it; the first match wins
    no_mmap: Read inputs instead of memory-mapping them, for network file systems
    threads: Threads that compute [default: one per core]
    progress: Called with the phase, what of it is done, and all of it, a few times a second
    """
    return cast(ExtractReport, call(
        "extract", base, tuned,
        output=output,
        rank=rank,
        compat=compat,
        include=include,
        exclude=exclude,
        conv_rank=conv_rank,
        max_rank=max_rank,
        embeddings=embeddings,
        full_norms=full_norms,
        min_diff=min_diff,
        exact=exact,
        clamp_quantile=clamp_quantile,
        seed=seed,
        dtype=dtype,
        to=to,
        plan=plan,
        workers=workers,
        force=force,
        dry_run=dry_run,
        orientation=orientation,
        no_mmap=no_mmap,
        threads=threads,
        progress=progress,
    ))


def convert(
    adapter: Path,
    output: Path,
    to: str | None = None,
    *,
    for_: str | None = None,
    as_: Literal["lora"] | None = None,
    rank: int | str | None = None,
    reference: Path | None = None,
    allow_loss: bool = False,
    force: bool = False,
    dry_run: bool = False,
    alpha: float | None = None,
    rslora: bool = False,
    scale: float | None = None,
    convention: str | None = None,
    ignore_field: str | Iterable[str] | None = None,
    residual_base: bool = False,
    no_mmap: bool = False,
    threads: int | None = None,
    progress: Progress | None = None,
) -> ConvertReport:
    """Writes the same update in another convention, or as a program loads it.

    adapter: The adapter: a PEFT directory or a file of any convention
    output: Where the result goes: a directory for peft, mlx and ollama, a .safetensors or .gguf file for others
    to: The convention to write: peft, kohya, diffusers, comfyui, mlx, gguf
    for_: Write what this program loads, such as vllm, llama.cpp or comfyui; `lora-tool check --help` lists all
    as_: Write every module as plain LoRA of --rank, whatever its family; the error of each update is measured and reported, and what depends on the base's weights (DoRA, OFT, IA3, …) needs --reference
    rank: Rank of the result of --as lora: 16, lossless, energy:0.99, fro:0.9, nuclear:0.9, ratio:10, abs:1e-3, error:0.05, size:32MiB, params:2M
    reference: The base model: its module names where a flattened name is ambiguous, its architecture for gguf, its shapes and experts for servers
    allow_loss: Leave out what the target cannot hold
    force: Replace an existing OUT
    dry_run: Do everything but write: show what would be written, with its ranks, size and errors
    alpha: Alpha to assume where an adapter does not store it (scale = alpha/rank)
    rslora: With --alpha: scale = alpha/√rank
    scale: Scale to assume where an adapter does not store it
    convention: Force the file format (peft, kohya, diffusers, comfyui, …) instead of detecting it from the keys
    ignore_field: Accept this unknown field of adapter_config.json as one that changes nothing
    residual_base: BASE is the modified base that PiSSA, OLoRA or CorDA saved beside the adapter, not the original
    no_mmap: Read inputs instead of memory-mapping them, for network file systems
    threads: Threads that compute [default: one per core]
    progress: Called with the phase, what of it is done, and all of it, a few times a second
    """
    return cast(ConvertReport, call(
        "convert", adapter,
        output=output,
        to=to,
        for_=for_,
        as_=as_,
        rank=rank,
        reference=reference,
        allow_loss=allow_loss,
        force=force,
        dry_run=dry_run,
        alpha=alpha,
        rslora=rslora,
        scale=scale,
        convention=convention,
        ignore_field=ignore_field,
        residual_base=residual_base,
        no_mmap=no_mmap,
        threads=threads,
        progress=progress,
    ))
