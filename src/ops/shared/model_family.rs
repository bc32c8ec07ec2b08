//! What model an adapter is for, as far as its names, widths and header say.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use crate::adapter::Adapter;
use crate::adapter::layout::architectures;
use crate::format::hash::Hasher;

/// Architectures that tell of a text encoder or of layers that many models have.
const PARTS: [&str; 6] = ["clip", "t5", "language", "experts", "releases", "ltx2_connectors"];

/// Entries of a header that name the model.
const ENTRIES: [&str; 2] = ["modelspec.architecture", "ss_base_model_version"];

/// Widths of the text that a U-Net attends to, and the model that has it.
const CONTEXTS: [(usize, &str); 3] = [(768, "SD 1.x"), (1024, "SD 2.x"), (2048, "SDXL")];

/// How the header names them.
const NAMED: [(&str, &str); 6] = [
    ("stable-diffusion-xl", "SDXL"),
    ("sdxl", "SDXL"),
    ("stable-diffusion-v2", "SD 2.x"),
    ("sd_v2", "SD 2.x"),
    ("stable-diffusion-v1", "SD 1.x"),
    ("sd_v1", "SD 1.x"),
];

/// What modules were found to be of, by a hash of their names and sizes: files of a folder have few different sets
/// of them, and to recognise one takes longer than to read its header.
#[derive(Debug, Default)]
pub(in crate::ops) struct Seen(Mutex<BTreeMap<String, BTreeSet<&'static str>>>);

impl Seen {
    fn architectures(&self, adapter: &Adapter) -> BTreeSet<&'static str> {
        let mut hash = Hasher::default();
        hash.update(adapter.convention.name);
        for module in &adapter.modules {
            hash.update(format!("\0{}\0{} {}", module.name, module.outputs, module.inputs));
            // Of a bias alone its length is the outputs.
            let bias = module.bias.as_ref().map_or(0, |bias| bias.length);
            hash.update(bias.to_le_bytes());
        }
        let key = hash.finish();
        let seen = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = seen().get(&key) {
            return found.clone();
        }
        // Two threads may look at the same set at once, and find the same.
        let found = architectures(adapter);
        seen().insert(key, found.clone());
        found
    }
}

/// The family of models, if anything tells it.
pub(in crate::ops) fn family(adapter: &Adapter, seen: &Seen) -> Option<String> {
    let found = seen.architectures(adapter);
    let known = found.iter().find(|name| !PARTS.contains(name));
    match known {
        // Which U-Net it is, the widths of the text tell, or else the header.
        Some(&"unet") => {
            if let Some(version) = unet(adapter).or_else(|| named_unet(adapter)) {
                return Some(version.to_owned());
            }
        }
        Some(known) => return Some((*known).to_owned()),
        None => {}
    }
    let header = adapter.file.shards.first().and_then(|shard| shard.header.metadata.as_ref());
    let said = ENTRIES.iter().find_map(|entry| header?.get(*entry));
    if let Some(said) = said {
        return Some(said.split('/').next().unwrap_or_default().to_owned());
    }
    let base = adapter.base_model().map(|base| base.trim_end_matches('/'));
    let base = base.and_then(|base| base.rsplit('/').next()).filter(|base| !base.is_empty());
    let found = known.or_else(|| found.first());
    base.map(str::to_owned).or_else(|| found.map(|&part| part.to_owned()))
}

/// Which Stable Diffusion the header names.
fn named_unet(adapter: &Adapter) -> Option<&'static str> {
    let header = adapter.file.shards.first()?.header.metadata.as_ref()?;
    let said = ENTRIES.iter().filter_map(|entry| header.get(*entry));
    let version = |said: &String| NAMED.iter().find(|(start, _)| said.starts_with(start));
    said.filter_map(version).map(|(_, name)| *name).next()
}

/// Which Stable Diffusion a U-Net is of, by the text that its cross-attention reads.
fn unet(adapter: &Adapter) -> Option<&'static str> {
    let reads_text = |name: &str| name.contains("attn2") && name.contains("to_k");
    let module = adapter.modules.iter().find(|module| reads_text(&module.name))?;
    CONTEXTS.iter().find(|(width, _)| *width == module.inputs).map(|(_, name)| *name)
}
