//! Commands that put an adapter right, as they can be pasted into a shell.

use super::program::ProgramVersion;
use super::rule::Cure;
use super::subject::Subject;
use crate::adapter::convention::{self, Names, Output};
use crate::adapter::layout;
use crate::adapter::module::Module;
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
        // What nobody knows no verb takes.
        let strange = !self.subject.adapter.unknown.is_empty();
        if strange || cures.is_empty() || any(|cure| matches!(cure, Cure::None)) {
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
        let mut commands = Vec::new();
        let mut from = adapter;
        if extracts {
            let base = self.base().unwrap_or_else(|| "BASE".to_owned());
            let to = if last || rank.is_some() { "LORA" } else { "OUT" };
            commands.push(format!("lora-tool merge {base} {from} -o MERGED"));
            let policy = self.extraction();
            commands.push(format!("lora-tool extract {base} MERGED --rank {policy} -o {to}"));
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
            commands.push(self.convert(&from));
        }
        Some(commands.join(" && "))
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
    pub(super) fn convert(self, from: &str) -> String {
        let name = self.asked.target();
        let convention = self.convention();
        // Names of a known layout need no base, but for llama.cpp's, whose rows depend on it.
        let needs_base = match convention.names {
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
        format!("lora-tool convert {from} --for {name}{reference} -o {out}")
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
