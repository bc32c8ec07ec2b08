//! What a worker notes of one pair of tensors: what became of it, its numbers in a file beside the note.

use serde::{Deserialize, Serialize};

use super::compute::{Extracted, Fate};
use super::report::{LeftOut, ModuleReport};
use crate::adapter::convention::Part;
use crate::adapter::module::Replaces;
use crate::adapter::save::{NewModule, NewReplacement, PartTensor};
use crate::format::Dtype;

/// What became of a pair.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Said {
    Equal,
    LeftOut(LeftOut),
    Whole { module: String, tensor: Stored },
    Stored { module: String, tensor: Stored },
    Module(Box<Module>),
}

/// A tensor whose bytes lie in the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Stored {
    part: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

/// A module; of its numbers, those that are in no tensor.
#[derive(Serialize, Deserialize)]
pub(super) struct Module {
    name: String,
    rank: usize,
    scale: f64,
    alpha: Option<f64>,
    tensors: Vec<Stored>,
    report: ModuleReport,
    squared_norm: f64,
    squared_error: f64,
    parameters: u64,
}

/// Parts of what an extraction makes, by the names that notes have.
const PARTS: [(&str, Part); 8] = [
    ("down", Part::Down),
    ("up", Part::Up),
    ("embedding-down", Part::EmbeddingDown),
    ("embedding-up", Part::EmbeddingUp),
    ("weight", Part::Weight),
    ("bias", Part::Bias),
    ("diff", Part::Named("diff")),
    ("diff_b", Part::Named("diff_b")),
];

/// What became of a pair, as a note and the bytes of its tensors.
pub(super) fn split(made: Result<Extracted, Fate>) -> (Said, Vec<u8>) {
    let mut bytes = Vec::new();
    let mut store = |(part, dtype, shape, data): PartTensor| {
        bytes.extend_from_slice(&data);
        let name = PARTS.iter().find(|(_, known)| *known == part).map_or("", |(name, _)| name);
        Stored { part: name.to_owned(), dtype, shape, bytes: data.len() }
    };
    let said = match made {
        Err(Fate::LeftOut(tensor)) => Said::LeftOut(tensor),
        Err(Fate::Whole(NewReplacement { module, replaces, dtype, shape, bytes })) => {
            let part = if replaces == Replaces::Bias { Part::Bias } else { Part::Weight };
            Said::Whole { module, tensor: store((part, dtype, shape, bytes)) }
        }
        Err(Fate::Stored(module, tensor)) => Said::Stored { module, tensor: store(tensor) },
        // A module comes cut to its rank.
        Err(Fate::Equal | Fate::Module(_)) => Said::Equal,
        Ok(Extracted { module, report, squared_norm, squared_error, parameters }) => {
            let NewModule { name, rank, scale, alpha, tensors } = module;
            let tensors = tensors.into_iter().map(&mut store).collect();
            Said::Module(Box::new(Module {
                name,
                rank,
                scale,
                alpha,
                tensors,
                report,
                squared_norm,
                squared_error,
                parameters,
            }))
        }
    };
    (said, bytes)
}

/// What became of a pair, of a note and the bytes of its tensors; none if they do not fit.
pub(super) fn joined(said: Said, mut bytes: &[u8]) -> Option<Result<Extracted, Fate>> {
    let mut take = |stored: Stored| -> Option<PartTensor> {
        let (data, rest) = bytes.split_at_checked(stored.bytes)?;
        bytes = rest;
        let (_, part) = PARTS.iter().find(|(name, _)| *name == stored.part)?;
        Some((*part, stored.dtype, stored.shape, data.to_vec()))
    };
    Some(match said {
        Said::Equal => Err(Fate::Equal),
        Said::LeftOut(tensor) => Err(Fate::LeftOut(tensor)),
        Said::Stored { module, tensor } => Err(Fate::Stored(module, take(tensor)?)),
        Said::Whole { module, tensor } => {
            let (part, dtype, shape, bytes) = take(tensor)?;
            let replaces = if part == Part::Bias { Replaces::Bias } else { Replaces::Weight };
            Err(Fate::Whole(NewReplacement { module, replaces, dtype, shape, bytes }))
        }
        Said::Module(module) => {
            let Module { name, rank, scale, alpha, report, squared_norm, squared_error, .. } =
                *module;
            let tensors = module.tensors.into_iter().map(&mut take).collect::<Option<_>>()?;
            Ok(Extracted {
                module: NewModule { name, rank, scale, alpha, tensors },
                report,
                squared_norm,
                squared_error,
                parameters: module.parameters,
            })
        }
    })
}
