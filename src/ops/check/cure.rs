//! Commands that put an adapter right, as they can be pasted into a shell.

use super::place::Found;
use super::program::ProgramVersion;
use super::rule::Cure;
use super::shared::{
    dora_flag, missing_layers, stackless_experts, towers, two_alphas, unconverted_class,
    unnamed_class, unnamed_modules,
};
use super::subject::Subject;
use crate::adapter::convention::{self, Key, Names, Output, Part};
use crate::adapter::layout;
use crate::adapter::module::{Kind, Module, Replaces};
use crate::adapter::sidecar::PeftConfig;
use crate::error::quoted;

/// The highest rank that every server takes.
const HIGHEST: usize = 512;

/// What commands are made of.
#[derive(Clone, Copy)]
pub(super) struct Cures<'a> {
    pub(super) subject: &'a Subject<'a>,
    pub(super) asked: &'a ProgramVersion,
}

impl Cures<'_> {
    /// The command for one finding.
    pub(super) fn one(self, cure: Cure) -> Option<String> {
        self.all(&[cure])
    }

    /// The one line that does all that some findings want; nothing if one of them has no cure.
    pub(super) fn all(self, cures: &[Cure]) -> Option<String> {
        let adapter = quoted(&self.subject.adapter.path);
        let any = |wanted: fn(&Cure) -> bool| cures.iter().any(wanted);
        if self.is_beyond() || cures.is_empty() || any(|cure| matches!(cure, Cure::None)) {
            return None;
        }
        let rank = cures.iter().find_map(|cure| match cure {
            Cure::Resize(rank) => Some(rank(self.subject)),
            _ => None,
        });
        let extracts = any(|cure| matches!(cure, Cure::Extract));
        let plain = self.asked.takes().reads_patterns;
        let converts = any(|cure| matches!(cure, Cure::Convert)) && !extracts;
        let last = converts || !plain;
        if converts && self.loses() {
            return None;
        }
        let mut commands = Vec::new();
        let mut from = adapter;
        if extracts {
            let base = self.base().unwrap_or_else(|| "BASE".to_owned());
            let to = if last || rank.is_some() { "LORA" } else { "OUT" };
            commands.push(format!("lora-tool merge {base} {from} -o MERGED"));
            let policy = self.extraction();
            let embeddings = if self.has_embeddings() { " --embeddings" } else { "" };
            commands.push(format!(
                "lora-tool extract {base} MERGED --rank {policy}{embeddings} -o {to}"
            ));
            to.clone_into(&mut from);
        }
        if let Some(rank) = rank {
            // A rank lies in PEFT's directory, or in a file as it was.
            let to = if last { "RESIZED".to_owned() } else { "OUT".to_owned() };
            let to = if self.is_file() && !extracts { format!("{to}.safetensors") } else { to };
            commands.push(format!("lora-tool resize {from} --rank {rank} -o {to}"));
            from = to;
        }
        if last {
            commands.push(self.convert(&from, extracts));
        }
        Some(commands.join(" && "))
    }

    /// Whether no verb takes the adapter: for what is in it, or for its base.
    fn is_beyond(self) -> bool {
        let Subject { adapter, base, .. } = self.subject;
        !adapter.unknown.is_empty()
            || adapter.modules.is_empty() && adapter.replacements.is_empty()
            || adapter.config.as_ref().is_some_and(PeftConfig::is_refused)
            || base.is_some_and(|base| base.refuses)
            || two_alphas(adapter).next().is_some()
            || self.is_unnamed()
    }

    /// Whether llama.cpp or mlx-lm has no name for the base or for something in the adapter.
    fn is_unnamed(self) -> bool {
        const LLAMA: &[fn(&Subject<'_>) -> Found] =
            &[unconverted_class, unnamed_class, unnamed_modules, towers];
        let missing: &[fn(&Subject<'_>) -> Found] = match self.convention() {
            own if own.names == Names::Gguf => LLAMA,
            own if own.has_stacks() => &[stackless_experts],
            _ => &[],
        };
        missing.iter().any(|finds| finds(self.subject).is_some())
    }

    /// Whether a conversion would leave out tensors that replace the base's.
    fn loses(self) -> bool {
        let (convention, factors_only) = (self.convention(), self.asked.takes().factors_only);
        self.subject.adapter.replacements.iter().any(|own| {
            let part = if own.replaces == Replaces::Bias { Part::Bias } else { Part::Weight };
            let key = Key { module: own.module.clone(), part };
            factors_only || convention.spell(&key).is_none()
        })
    }

    /// Whether it changes embeddings.
    fn has_embeddings(self) -> bool {
        let adapter = self.subject.adapter;
        let embeds = |name: &str| name.ends_with("embed_tokens") || name.ends_with("wte");
        adapter.replacements.iter().any(|own| embeds(&own.module))
            || adapter.modules.iter().any(|module| module.kind == Kind::Embedding)
    }

    /// Whether only the base says how large something is that a program wants written.
    fn needs_sizes(self) -> bool {
        let (subject, takes) = (self.subject, self.asked.takes());
        let shapeless =
            |module: &Module| module.family != "lora" && module.outputs.min(module.inputs) == 0;
        let lacking = |group: &&[&str]| {
            subject.siblings().values().any(|own| {
                let there = group.iter().filter(|name| own.contains_key(**name)).count();
                there > 0 && there < group.len()
            })
        };
        subject.adapter.modules.iter().any(shapeless)
            || takes.complete.iter().any(lacking)
            || takes.every_layer && missing_layers(subject).is_some()
    }

    /// The ranks of an extraction: all of them where none is too high for a server, else what stands out.
    fn extraction(self) -> &'static str {
        let least = |module: &Module| module.outputs.min(module.inputs);
        let modules = self.subject.adapter.modules.iter().map(least);
        let most = modules.chain(self.replaced()).max().unwrap_or(0);
        if most <= HIGHEST { "lossless" } else { "auto" }
    }

    /// The most ranks that differences of what is replaced can have.
    fn replaced(self) -> impl Iterator<Item = usize> {
        let adapter = self.subject.adapter;
        adapter.replacements.iter().filter_map(move |replacement| {
            let shape = &adapter.file.tensor(&replacement.tensor)?.spec.shape;
            shape.iter().copied().min().filter(|_| shape.len() == 2)
        })
    }

    /// `convert --for` the program.
    fn convert(self, from: &str, extracted: bool) -> String {
        let name = self.asked.target();
        let convention = self.convention();
        // Names of a known layout need no base, but for llama.cpp's, whose rows depend on it.
        let needs_base = match convention.names {
            _ if extracted || self.needs_sizes() => true,
            Names::Gguf => true,
            Names::Component | Names::Checkpoint => !layout::is_known(self.subject.adapter),
            Names::Dotted | Names::Flattened => false,
        };
        let base = self.base().or_else(|| needs_base.then(|| "BASE".to_owned()));
        let reference = base.map_or_else(String::new, |base| format!(" --reference {base}"));
        let out = match convention.output {
            Output::File(_) if self.asked.takes().modelfile => "OUT".to_owned(),
            Output::File(ending) => format!("OUT.{ending}"),
            _ => "OUT".to_owned(),
        };
        // Without magnitudes it is a plain LoRA, which the user says thereby.
        let plain = if dora_flag(self.subject).is_some() { " --ignore-field use_dora" } else { "" };
        format!("lora-tool convert {from} --for {name}{reference}{plain} -o {out}")
    }

    fn convention(self) -> &'static convention::Convention {
        let own = self.subject.adapter.convention.name;
        let takes = self.asked.takes().conventions;
        let name = takes.iter().find(|name| **name == own).or_else(|| takes.first());
        name.and_then(|name| convention::by_name(name)).unwrap_or(convention::peft())
    }

    fn base(self) -> Option<String> {
        self.subject.base.map(|base| quoted(&base.path))
    }

    fn is_file(self) -> bool {
        matches!(self.subject.adapter.convention.output, Output::File(_))
    }
}
