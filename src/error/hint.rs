//! What a user can do about each kind of error.

use std::io;

use super::ErrorKind;
use super::look::{LINK_LOOP, is_link_loop};

impl ErrorKind {
    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io(error) if error.kind() == io::ErrorKind::StorageFull => {
                "nothing was left behind; free some space or write to another disk"
            }
            Self::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded
                ) =>
            {
                "nothing was left behind; a limit (ulimit -f, a quota, the file system's own) is in the way"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "this user may not do that; `ls -ld` shows who may"
            }
            Self::Io(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                "choose an output on a disk that can be written"
            }
            Self::Io(error) if is_link_loop(error) => LINK_LOOP,
            Self::TooMany { .. } => {
                "the file is damaged or was made to mislead; get it from its source again"
            }
            Self::MissingShard { .. } | Self::MissingTensor { .. } => {
                "the checkpoint is incomplete; fetch the missing shard"
            }
            Self::BadIndex { .. } => "the file is damaged; get it from its source again",
            Self::TensorTwice { .. } => {
                "one of the files is stale, left over from another save; move it away"
            }
            Self::IndexEscapes { .. } => "shards must lie in the index's own directory",
            Self::Pickle => {
                "convert it where it is trusted: \
                 python -c \"import sys, torch, safetensors.torch as s; \
                 s.save_file(torch.load(sys.argv[1], weights_only=True), sys.argv[2])\" IN.bin OUT.safetensors"
            }
            Self::NoCheckpoint { .. } => {
                "a checkpoint is a .safetensors file, an index (*.safetensors.index.json), or a directory with one of them"
            }
            Self::Model(error) => error.hint(),
            Self::Location(error) => return Some(error.hint()),
            Self::Changed => "nothing was written; run again when nobody writes to the inputs",
            Self::NoAdapter { .. } => {
                "an adapter is a .safetensors file, or a PEFT directory with adapter_config.json and adapter_model.safetensors"
            }
            Self::UnsupportedField { field, .. } if field == "init_lora_weights" => {
                "save it with PEFT's path_initial_model_for_weight_conversion, or pass --residual-base if BASE is the residual model it was trained on"
            }
            Self::UnsupportedType { .. }
            | Self::UnsupportedField { .. }
            | Self::UnsupportedFamily { .. } => {
                "load it beside the base, unmerged, with the library that trained it"
            }
            Self::UnknownKeys { .. } => {
                "is it an adapter, and a whole one? `lora-tool inspect FILE` shows what a checkpoint holds"
            }
            Self::UnknownField { .. } => {
                "pass --ignore-field NAME if you know that it does not change the weights"
            }
            Self::BadConfig { .. } => "correct it, or save the adapter again",
            Self::ScaleConflict { .. } => {
                "correct the one that is wrong; the factors cannot tell which"
            }
            Self::SameTarget { .. } => "save the adapter again with one of them only",
            Self::FlatCollision { .. } => {
                "convert the adapter to a format with dotted names, such as PEFT's"
            }
            Self::BadDtype { .. } | Self::TargetDtype { .. } => {
                "store it as F32, F16 or BF16 first"
            }
            Self::NothingSelected => {
                "`lora-tool inspect ADAPTER --modules` lists the names they are matched with"
            }
            Self::UnknownScale => {
                "pass --alpha ALPHA (scale = alpha/rank, with --rslora alpha/√rank) or --scale SCALE"
            }
            Self::EmptyFactor { .. } => {
                "ZeRO-3 and FSDP leave such tensors when the adapter is saved without gathering; save it again from the gathered state"
            }
            Self::Family(error) => error.hint(),
            Self::Experts(error) => error.hint(),
            Self::Pair(error) => error.hint(),
            Self::Collection(error) => error.hint(),
            Self::Header(error) => error.hint(),
            Self::Job(error) => error.hint(),
            Self::Quant(error) => error.hint(),
            Self::Receipt(error) => error.hint(),
            Self::Recipe(error) => return error.hint(),
            Self::Rule(error) => error.hint(),
            Self::MissingFactor { .. } => "the file is incomplete; save the adapter again",
            Self::RankMismatch { .. } | Self::RankConfig { .. } => {
                "the factors and the config come from different runs, or one was edited"
            }
            Self::Threads(_) => {
                "lower --threads; a limit of the system (ulimit -u, ulimit -v) is in the way"
            }
            Self::CutWhileMapped => {
                "no temporary was left behind; run again when nobody writes to the inputs, or with --no-mmap"
            }
            Self::NoParent { parent } => {
                return Some(format!("make it first: mkdir -p {}", parent.display()));
            }
            Self::UpdateNotFinite { .. } => {
                "one of the adapters is far larger than any weight; look at it with inspect --spectrum"
            }
            Self::BeyondF32 { .. } => {
                "no weight is as large: the file is damaged, or was made to mislead"
            }
            Self::NonFinite { .. } => "the training diverged; use an earlier checkpoint",
            Self::Unmatched { guess, .. } => {
                return Some(match guess {
                    Some(guess) => guess.clone(),
                    None => "is this the base the adapter was trained on? `inspect ADAPTER --against BASE` lists \
                             every module; --allow-unmatched merges the rest"
                        .to_owned(),
                });
            }
            Self::ShapeMismatch { .. } => "is this the base the adapter was trained on?",
            Self::Quantised { .. } => {
                "merge into the 16-bit or 32-bit original, then quantise again"
            }
            Self::ReplaceConflict { .. } => {
                "leave it to one of them: merge one at a time, or use --exclude"
            }
            Self::ReplacementsDiffer { .. } => {
                "say which to take: --on-conflict first, average or drop"
            }
            Self::NotAdditive { .. } => crate::error::family::FACTORS_NEED_BASE,
            Self::UnknownMethod { near: Some(near), .. } => {
                return Some(format!("did you mean `{near}`?"));
            }
            Self::BudgetTooSmall { least, .. } => {
                return Some(format!("the least budget is {least}"));
            }
            Self::Convert(error) => return Some(error.hint()),
            Self::WeightCount { .. } => {
                "give one weight per adapter, in order: -w 0.7 0.3 or -w 0.7,0.3"
            }
            Self::Tuned(error) => error.hint(),
            Self::OutputExists => "pass --force to replace it",
            Self::OutputBusy => "wait for it, or stop it",
            Self::Kept { error, directory } => {
                let again = match error.kind() {
                    Self::OutputExists => "the same command with --force",
                    _ => "the same command",
                };
                return Some(format!(
                    "finished files are kept in {}: {again} goes on from there; remove it to give up",
                    directory.display()
                ));
            }
            Self::OutputInInput { .. } => "choose an output path elsewhere",
            Self::DiskFull { .. } => "free some space or write to another disk",
            Self::Overflow { .. } => {
                "write a wider type (--dtype bf16 or f32), or lower the weight"
            }
            Self::Underflow { .. } => {
                "raise the scale or the weight, or write a wider type (--dtype f32)"
            }
            Self::Orientation(error) => return Some(error.hint()),
            Self::NonFiniteBase { .. } => "the base itself is damaged there",
            Self::Ambiguous { .. } => {
                "point at the component itself (for example BASE/unet) instead of the whole"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}
