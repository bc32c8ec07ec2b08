//! GLoRA (Chavan et al. 2023, <https://arxiv.org/abs/2306.07967>) as PEFT has it (`tuners/glora/layer.py`):
//! W + W ⊙ A + B and b + b ⊙ D + E. A and B are factors Xd · Xu, a number an output, or one for all; D and E a number an
//! output, or one for all. A path that is not there is stored as zeros.
//!
//! C adds W·C to the bias, which no step of a bias knows the weight for; a file that has it is refused.

use std::sync::Arc;

use super::prelude::*;
use crate::adapter::module::{Bias, BiasEffect};
use crate::math::Transform;

/// X, Xd, Xu and zeros of a path.
type Names = [&'static str; 4];

const A: Names = ["glora_A.X", "glora_A.Xd", "glora_A.Xu", "glora_A.zeros"];
const B: Names = ["glora_B.X", "glora_B.Xd", "glora_B.Xu", "glora_B.zeros"];
const C: Names = ["glora_C.X", "glora_C.Xd", "glora_C.Xu", "glora_C.zeros"];
const D: Names = ["glora_D.X", "glora_D.Xd", "glora_D.Xu", "glora_D.zeros"];
const E: Names = ["glora_E.X", "glora_E.Xd", "glora_E.Xu", "glora_E.zeros"];

pub(super) static FAMILY: Family = Family {
    name: "glora",
    signs: &[
        Part::Named(A[0]),
        Part::Named(A[1]),
        Part::Named(A[2]),
        Part::Named(A[3]),
        Part::Named(B[0]),
        Part::Named(B[1]),
        Part::Named(B[2]),
        Part::Named(B[3]),
    ],
    parts: &[
        Part::Named(C[0]),
        Part::Named(C[1]),
        Part::Named(C[2]),
        Part::Named(C[3]),
        Part::Named(D[0]),
        Part::Named(D[3]),
        Part::Named(E[0]),
        Part::Named(E[3]),
    ],
    build,
};

/// A matrix of a path.
#[derive(Debug, Clone)]
enum Path {
    Nothing,
    /// Xd: rows × rank, and Xu: rank × columns.
    Factors {
        left: String,
        right: String,
        rank: usize,
    },
    /// One number an output.
    Outputs(String),
    /// One number for all.
    All(String),
}

impl Path {
    fn of(source: &Source<'_>, [vector, left, right, zeros]: Names) -> Result<Self> {
        if source.named(vector).is_none() && source.named(left).or(source.named(right)).is_some() {
            let (left, right) = (source.required(left, right)?, source.required(right, left)?);
            let (rows, rank, _) = source.matrix(left)?;
            let (_, columns, _) = source.matrix(right)?;
            source.expect(left, rows, rank, &[])?;
            source.expect(right, rank, columns, &[])?;
            return Ok(Self::Factors { left: left.to_owned(), right: right.to_owned(), rank });
        }
        let present = [source.named(left), source.named(right)].into_iter().flatten().next();
        match (source.named(vector), source.named(zeros), present) {
            (Some(vector), None, None) => match source.view(vector)?.spec.shape.as_slice() {
                [1] => Ok(Self::All(vector.to_owned())),
                [_] | [_, 1] => Ok(Self::Outputs(vector.to_owned())),
                shape => {
                    let expected = "[1], [out] or [out, 1]".to_owned();
                    Err(ErrorKind::BadShape { expected, found: shape.to_vec() }).in_tensor(vector)
                }
            },
            (None, Some(_), None) => Ok(Self::Nothing),
            (None, None, None) => {
                Err(ErrorKind::MissingFactor { present: "other paths of GLoRA", missing: vector }
                    .into())
            }
            (_, Some(stray), _) | (_, None, Some(stray)) => Err(FAMILY.stray(stray)),
        }
    }

    fn tensors(&self) -> impl Iterator<Item = &str> {
        let (first, second) = match self {
            Self::Nothing => (None, None),
            Self::Factors { left, right, .. } => (Some(left.as_str()), Some(right.as_str())),
            Self::Outputs(vector) | Self::All(vector) => (Some(vector.as_str()), None),
        };
        first.into_iter().chain(second)
    }

    /// (rows, columns), 0 where the path does not tell.
    fn size(&self, source: &Source<'_>) -> Result<(usize, usize)> {
        Ok(match self {
            Self::Nothing | Self::All(_) => (0, 0),
            Self::Factors { left, right, .. } => (source.matrix(left)?.0, source.matrix(right)?.1),
            Self::Outputs(vector) => (source.view(vector)?.spec.elements(), 0),
        })
    }

    fn read(&self, file: &Checkpoint, (rows, columns): (usize, usize)) -> Result<LowRank> {
        let ones = || Matrix::from_element(1, columns, 1.0);
        Ok(match self {
            Self::Nothing => LowRank::zero(rows, columns),
            Self::Factors { left, right, rank } => LowRank::new(
                read_matrix(file, left, rows, *rank)?,
                read_matrix(file, right, *rank, columns)?,
            ),
            Self::Outputs(vector) => LowRank::new(read_matrix(file, vector, rows, 1)?, ones()),
            Self::All(number) => {
                let number: f64 = read_f64(find(file, number)?, 0, 1)?.iter().sum();
                LowRank::new(Matrix::from_element(rows, 1, number), ones())
            }
        })
    }
}

#[derive(Debug)]
struct Glora {
    /// A, B, D and E.
    paths: [Path; 4],
}

impl Form for Glora {
    fn tensors(&self) -> Vec<&str> {
        self.paths.iter().flat_map(Path::tensors).collect()
    }

    fn nature(&self) -> Nature {
        Nature::Dependent
    }

    fn bound(&self) -> Option<Bound> {
        Some(Bound::PEFT_ALONE)
    }

    fn load(&self, file: &Checkpoint, shape: (usize, usize)) -> Result<Update> {
        let [by, plus, _, _] = &self.paths;
        let (by, plus) = (by.read(file, shape)?, Some(plus.read(file, shape)?));
        Ok(Update::Transform(Transform::Gate { by, plus }))
    }

    fn bias(&self, file: &Checkpoint, outputs: usize) -> Result<Transform> {
        let [_, _, by, plus] = &self.paths;
        // A bias is a row here.
        let by = by.read(file, (outputs, 1))?.transposed();
        let plus = Some(plus.read(file, (outputs, 1))?.transposed());
        Ok(Transform::Gate { by, plus })
    }
}

fn build(source: &Source<'_>) -> Result<Module> {
    let (by, plus) = (Path::of(source, A)?, Path::of(source, B)?);
    if !matches!(Path::of(source, C)?, Path::Nothing) {
        let family = "PEFT's GLoRA with a path C, which adds W·C to the bias";
        return Err(ErrorKind::UnsupportedFamily { family }.into());
    }
    let paths = [by, plus, Path::of(source, D)?, Path::of(source, E)?];
    let (mut outputs, mut inputs) = (0, 0);
    for path in &paths {
        let (rows, columns) = path.size(source)?;
        let differ = |known: usize, found: usize| known != 0 && found != 0 && known != found;
        if differ(outputs, rows) || differ(inputs, columns) {
            let name = path.tensors().next().unwrap_or_default();
            check_length(source.view(name)?, outputs)?;
        }
        outputs = outputs.max(rows);
        inputs = inputs.max(columns);
    }
    let rank = paths.iter().map(|path| match path {
        Path::Factors { rank, .. } => *rank,
        _ => 0,
    });
    let changes_bias = |path: &Path| path.tensors().next().map(str::to_owned);
    let [_, _, by, plus] = &paths;
    let bias = changes_bias(by).or(changes_bias(plus));
    let effect = BiasEffect::Transform;
    Ok(Module {
        name: source.name.to_owned(),
        family: FAMILY.name,
        kind: Kind::Linear,
        rank: rank.max().unwrap_or(0),
        inputs,
        outputs,
        scale: Scale::of_family(1.0, None),
        bias: bias.map(|tensor| Bias { tensor, length: outputs, effect }),
        form: Arc::new(Glora { paths }),
        magnitude: None,
    })
}
