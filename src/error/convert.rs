//! What can go wrong between conventions.

/// See [`ErrorKind::Convert`](super::ErrorKind::Convert).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Rows of a GGUF adapter in an order that depends on the base's heads.
    #[error(
        "llama.cpp reordered its rows by the base's attention heads, which the file does not say"
    )]
    UnknownHeads,
    /// A GGUF name without a counterpart.
    #[error("nothing in {architecture} has this name")]
    UnknownGgufName {
        /// The architecture.
        architecture: &'static str,
    },
    /// A name without a counterpart.
    #[error("its name in the {to} convention is unknown: {reason}")]
    Name {
        /// The other convention.
        to: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// A file for several models, where the convention holds one.
    #[error("the file is for several models ({models}), the target holds one")]
    SeveralModels {
        /// The models.
        models: String,
    },
    /// Nothing that the target can hold.
    #[error("nothing of it can be written in the {to} convention: {first}")]
    Nothing {
        /// The other convention.
        to: &'static str,
        /// The first loss.
        first: String,
    },
    /// What would not survive.
    #[error("the conversion would lose {}{}", losses.len(), list(losses))]
    Losses {
        /// Each module or tensor, and what of it.
        losses: Vec<String>,
        /// The commands that lose nothing, where there are some.
        instead: Option<String>,
    },
    /// A written file that is not what was to be written.
    #[error("its update is {error:e} away from the original's, relative to its size")]
    Differs {
        /// ‖written − original‖ / ‖original‖.
        error: f64,
    },
    /// Updates that the adapter alone does not say.
    #[error(
        "{modules} modules change the base's own weights ({family}), or leave their shapes to it; as a LoRA they \
             need the base"
    )]
    NeedsBase {
        /// How many.
        modules: usize,
        /// The family of the first.
        family: &'static str,
    },
    /// No reference, where one is needed.
    #[error("the {to} convention needs the base model's {what}, which the adapter does not say")]
    NoReference {
        /// The convention.
        to: &'static str,
        /// What of the base.
        what: &'static str,
    },
    /// An adapter of an output head that is the input embedding, for a program that has one tensor for both.
    #[error(
        "the base's output head is its input embedding (tie_word_embeddings), and llama.cpp has no tensor that an \
         adapter of the head alone is for"
    )]
    TiedHead,
    /// A base of which llama.cpp's names are not known.
    #[error(
        "{} model_type {model_type}",
        if *converted {
            "this version has no table of llama.cpp's names for"
        } else {
            "llama.cpp cannot run this model: its converter has no class for"
        }
    )]
    NoGgufNames {
        /// The base's.
        model_type: String,
        /// Whether llama.cpp's converter may have a class for it.
        converted: bool,
    },
    /// A reference without what is needed of it.
    #[error("its config.json does not say what the conversion needs: {reason}")]
    Reference {
        /// What is missing.
        reason: String,
    },
}

/// The first few, a line each.
fn list(losses: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = String::from(if losses.len() == 1 { " thing" } else { " things" });
    let lines = grouped(losses);
    for line in lines.iter().take(SHOWN) {
        text.push_str("\n  ");
        text.push_str(line);
    }
    if lines.len() > SHOWN {
        text.push_str("\n  … and more");
    }
    text
}

/// Losses as lines: many of one reason are one line.
fn grouped(losses: &[String]) -> Vec<String> {
    const MANY: usize = 4;
    let reason = |loss: &String| loss.split_once(": ").map(|(_, reason)| reason.to_owned());
    let alike = |of: &String| losses.iter().filter(|loss| reason(loss) == Some(of.clone())).count();
    let mut told: Vec<String> = Vec::new();
    let mut lines = Vec::new();
    for loss in losses {
        match loss.split_once(": ") {
            Some((_, reason)) if told.iter().any(|other| other == reason) => {}
            Some((first, reason)) if alike(&reason.to_owned()) >= MANY => {
                let count = alike(&reason.to_owned());
                lines.push(format!("{count} modules, such as {first}: {reason}"));
                told.push(reason.to_owned());
            }
            _ => lines.push(loss.clone()),
        }
    }
    lines
}

/// How [`ConvertError::Name`] goes on wherever it is listed.
const UNKNOWN_NAME: &str = "convention is unknown: ";

impl ConvertError {
    /// What the user can do about it.
    pub(super) fn hint(&self) -> String {
        let text = match self {
            Self::Losses { instead: Some(commands), .. } => {
                return format!("{commands}; `convert --allow-loss` leaves all of it out");
            }
            Self::NeedsBase { .. } => "give the model it was trained on: --reference BASE",
            Self::Name { .. } => {
                "give the model it was trained on: --reference BASE (a checkpoint, or a pipeline's directory)"
            }
            Self::SeveralModels { .. } => {
                "--to kohya, diffusers or comfyui keeps all of them; a file of one model alone can be had with combine --include '^lora_unet' (or '^lora_te1')"
            }
            Self::Losses { losses, .. }
                if losses.iter().any(|loss| loss.contains(UNKNOWN_NAME)) =>
            {
                "names may be in a base: --reference BASE; `convert --allow-loss` leaves all of it out"
            }
            Self::Losses { .. } => "`convert --allow-loss` leaves all of it out",
            Self::Nothing { .. } => {
                "is it an adapter of a model that the convention is for? kohya, diffusers and comfyui are for image models, gguf and mlx for language models"
            }
            Self::Differs { .. } => "nothing was written; this is a defect, please report it",
            Self::NoReference { .. } => {
                "--reference BASE, the base model's directory with its config.json"
            }
            Self::Reference { .. } => "give the base model's directory with its config.json",
            Self::NoGgufNames { converted: true, .. } => {
                "merge it into the base instead (lora-tool merge), and convert the merged model with llama.cpp"
            }
            Self::NoGgufNames { converted: false, .. } => {
                "convert it for a program that runs such models: --for vllm, sglang or mlx"
            }
            Self::TiedHead => {
                "merge it into the base instead (lora-tool merge), and convert the merged model with llama.cpp; or \
                 leave the module out (lora-tool resize --exclude lm_head)"
            }
            Self::UnknownHeads => {
                "convert it first: lora-tool convert --to peft --reference BASE, BASE the model's directory"
            }
            Self::UnknownGgufName { .. } => "was it made for a model of another architecture?",
        };
        text.to_owned()
    }
}
