//! Which tensors of two checkpoints are the same one, and what kind of module each could become.

use serde::{Deserialize, Serialize};

use super::options::Options;
use crate::adapter::convention::{Convention, Names};
use crate::adapter::module::Kind;
use crate::adapter::orientation::{OrientationRule, Orientations};
use crate::adapter::target::flat_module;
use crate::error::{ErrorKind, Locate, PairError, Result};
use crate::format::Checkpoint;
use crate::ops::shared::names::is_embedding;
use crate::ops::shared::pairing;
use crate::ops::shared::selection::{Selection, Usage};
use crate::weight::element::is_float;
use crate::weight::pair::Paired;
use crate::weight::{self, as_matrix, quantisation};

/// What a tensor's difference can be stored as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// Low-rank factors of a module of this kind; `turned` if the base stores in × out.
    Factors {
        /// The kind of layer.
        kind: Kind,
        /// Whether the base stores the transpose.
        turned: bool,
    },
    /// The tuned tensor whole, if that is asked for.
    Whole,
}

/// One tensor of both checkpoints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Pair {
    /// The base's name.
    pub base: String,
    /// The tuned checkpoint's name.
    pub tuned: String,
    /// The module it would be, as the output's convention calls it.
    pub module: String,
    /// What its difference can be stored as.
    pub form: Form,
    /// Rows of the stored tensor.
    pub rows: usize,
    /// Columns of the stored tensor, all other dimensions.
    pub columns: usize,
}

/// Pairs all tensors by name, below whatever roots the two have.
///
/// # Errors
/// Names that only one of them has, shapes that differ, quantised tensors.
pub(super) fn pairs(
    options: &Options,
    base: &Checkpoint,
    tuned: &Checkpoint,
    output: &Convention,
) -> Result<Vec<Pair>> {
    let selection = Selection {
        include: options.include.as_ref(),
        exclude: options.exclude.as_ref(),
        module_weights: &[],
    };
    let mut usage = Usage::default();
    for name in base.names().chain(tuned.names()) {
        selection.note([name; 2], &mut usage);
    }
    selection.check(&usage)?;
    let selected = |name: &str| selection.selects([name; 2]);
    let paired = pairing::paired(base, tuned)?;
    let unlike = |names: &[String]| -> Vec<String> {
        names.iter().filter(|name| selected(name)).cloned().collect()
    };
    let (missing, extra) = (unlike(&paired.only_base), unlike(&paired.only_tuned));
    if let Some(first) = missing.first().or(extra.first()) {
        let (missing, extra, first) = (missing.len(), extra.len(), first.clone());
        return Err(PairError::Unlike { missing, extra, first }.into());
    }
    let known = Orientations::of(base, &options.orientation)?;
    let stored = paired.pairs.iter().map(|pair| (pair.base.as_str(), pair.clone()));
    // A head that has parted from its embedding started as the base's.
    let parted = paired.head.as_ref().filter(|head| head.parted).map(|head| {
        let (base, tuned) = (head.embedding.clone(), head.tuned.clone());
        (head.name.as_str(), weight::pair::Pair { base, tuned })
    });
    let mut pairs = Vec::with_capacity(paired.pairs.len());
    for (name, both) in stored.chain(parted).filter(|(name, _)| selected(name)) {
        if let Some(pair) = pair(options, &paired, (name, &both), output, &known)? {
            pairs.push(pair);
        }
    }
    Ok(pairs)
}

/// What becomes of two tensors; `name` is what the base calls them, or would.
fn pair(
    options: &Options,
    paired: &Paired<'_>,
    (name, both): (&str, &weight::pair::Pair),
    output: &Convention,
    known: &Orientations,
) -> Result<Option<Pair>> {
    let (base, tuned) = (paired.base, paired.tuned);
    let (first, second) = paired.views(both)?;
    for (checkpoint, name) in [(base, both.base.as_str()), (tuned, both.tuned.as_str())] {
        if let Some(scheme) = quantisation(checkpoint, name) {
            let base_tensor = name.to_owned();
            return Err(ErrorKind::Quantised { base_tensor, scheme }).in_file(&checkpoint.path);
        }
    }
    // Counters and masks are no weights; a copy of them says nothing.
    if !is_float(first.spec.dtype) && first.spec.dtype == second.spec.dtype {
        return Ok(None);
    }
    for (view, checkpoint) in [(first, base), (second, tuned)] {
        if !is_float(view.spec.dtype) {
            let (base_tensor, dtype) = (view.spec.name.clone(), view.spec.dtype.to_string());
            return Err(ErrorKind::TargetDtype { base_tensor, dtype }).in_file(&checkpoint.path);
        }
    }
    let (shape, others) = (&first.spec.shape, &second.spec.shape);
    let form = if shape == others {
        form(name, shape, known)
    } else {
        grown(options, shape, others, output)
    };
    let form = form.map_err(|error| error.in_tensor(name))?;
    let (rows, columns) = as_matrix(shape);
    let module = module_name(name, output, base);
    let (base, tuned) = (both.base.clone(), both.tuned.clone());
    Ok(Some(Pair { base, tuned, module, form, rows, columns }))
}

/// A vocabulary that has grown is stored whole, where that is asked for and possible.
fn grown(options: &Options, base: &[usize], tuned: &[usize], output: &Convention) -> Result<Form> {
    match (base, tuned) {
        ([rows, rest @ ..], [more, others @ ..]) if rest == others && more > rows => {
            if options.full_norms && output.holds.replacements {
                return Ok(Form::Whole);
            }
            Err(PairError::Grown { base: *rows, tuned: *more }.into())
        }
        _ => Err(PairError::Shapes { base: base.to_vec(), tuned: tuned.to_vec() }.into()),
    }
}

fn form(name: &str, shape: &[usize], known: &Orientations) -> Result<Form> {
    let factors = |kind, turned| Form::Factors { kind, turned };
    let Some(path) = name.strip_suffix(".weight") else { return Ok(Form::Whole) };
    let last = path.rsplit(['.', '/']).next().unwrap_or(path);
    Ok(match shape {
        [_, _] if is_embedding(last) => factors(Kind::Embedding, true),
        [_, _] => factors(Kind::Linear, known.weight(name)?),
        // Stacked experts have three dimensions too, and no kernel.
        [_, _, kernel @ ..] if !kernel.is_empty() && !path.contains("experts") => {
            factors(Kind::Conv(kernel.to_vec()), false)
        }
        _ => Form::Whole,
    })
}

/// The module's name as a convention spells modules.
fn module_name(name: &str, output: &Convention, base: &Checkpoint) -> String {
    let path = ["weight", "bias"]
        .iter()
        .find_map(|end| name.strip_suffix(end)?.strip_suffix('.'))
        .unwrap_or(name);
    match output.names {
        Names::Flattened => {
            let encoders = base.components.iter().filter(|c| c.prefix.starts_with("text_encoder"));
            flat_module(path, encoders.count() > 1)
        }
        Names::Checkpoint => {
            let roots = ["model.diffusion_model.", "diffusion_model."];
            let below = roots.iter().find_map(|root| path.strip_prefix(root));
            format!("diffusion_model.{}", below.unwrap_or(path))
        }
        _ => path.replace('/', "."),
    }
}

/// What each tensor of a model would be as a module of an adapter in a convention.
///
/// # Errors
/// If nothing decides which way round a layer lies.
pub(in crate::ops) fn modules_of(
    base: &Checkpoint,
    orientation: &[OrientationRule],
    output: &Convention,
) -> Result<Vec<Pair>> {
    let options = Options { orientation: orientation.to_vec(), ..Options::default() };
    pairs(&options, base, base, output)
}
