//! Whether everything that an extraction may write has a place in the convention that is asked for,
//! before anything is computed.

use std::collections::BTreeMap;

use super::compute::{spatial, spells, views};
use super::open::Extract;
use super::pair::{Form, Pair};
use crate::adapter::convention::{Key, Part};
use crate::adapter::module::{Kind, Replaces};
use crate::adapter::save::{NewAdapter, NewModule, NewReplacement};
use crate::error::Result;
use crate::format::Dtype;
use crate::math::{LowRank, Matrix};

impl Extract {
    /// Fails as writing would. Names alone are looked at first; if one has no place, the tensors decide
    /// that are certain to differ, since those of no difference are not written.
    pub(super) fn rehearse(&self) -> Result<()> {
        let destination = self.destination();
        if destination.is_native() {
            return Ok(());
        }
        let all: Vec<&Pair> = self.plan.pairs.iter().collect();
        let Err(first) = destination.rehearse(self.zeros(&all)?) else { return Ok(()) };
        let mut differing = Vec::new();
        for pair in all {
            if self.differs(pair)? {
                differing.push(pair);
            }
        }
        match differing.len() {
            // Nothing to write at all has an error of its own.
            0 => Ok(()),
            all if all == self.plan.pairs.len() => Err(first),
            _ => destination.rehearse(self.zeros(&differing)?),
        }
    }

    /// Whether a pair is sure to be more than rounding: not if other bytes may be the same numbers.
    fn differs(&self, pair: &Pair) -> Result<bool> {
        let (base, tuned) = views(self, pair)?;
        let alike = base.spec.dtype == tuned.spec.dtype && self.options.min_diff == 0.0;
        Ok(alike && !base.same_bytes(tuned)?)
    }

    /// An adapter of the modules and replacements that these would be, all of them zero.
    fn zeros(&self, pairs: &[&Pair]) -> Result<NewAdapter> {
        let (mut modules, mut replacements) = (Vec::new(), Vec::new());
        for pair in pairs {
            let turned = matches!(pair.form, Form::Factors { turned: true, .. });
            match &pair.form {
                Form::Factors { kind, .. }
                    if *kind != Kind::Embedding || self.options.embeddings =>
                {
                    let unranked =
                        spatial(kind) && self.options.kohya && self.options.conv_rank.is_none();
                    if unranked || !spells(self, pair, kind) {
                        continue;
                    }
                    let (outputs, inputs) =
                        if turned { (pair.columns, pair.rows) } else { (pair.rows, pair.columns) };
                    let factors = LowRank::new(Matrix::zeros(outputs, 1), Matrix::zeros(1, inputs));
                    modules.push(NewModule::new(
                        &pair.module,
                        kind,
                        &factors,
                        1.0,
                        None,
                        self.dtype,
                    )?);
                }
                _ if self.options.full_norms => replacements.extend(self.replacement(pair)),
                _ => {}
            }
        }
        Ok(NewAdapter {
            modules,
            replacements,
            metadata: self.metadata(),
            config: Some(self.config(false)?),
            stacks: BTreeMap::new(),
            target_modules: None,
            kept: None,
        })
    }

    /// What stands for a tensor that is stored whole; none where it is not.
    fn replacement(&self, pair: &Pair) -> Option<NewReplacement> {
        let (replaces, part) = match pair.base.rsplit_once('.')?.1 {
            "bias" => (Replaces::Bias, Part::Bias),
            "weight" => (Replaces::Weight, Part::Weight),
            _ => return None,
        };
        self.convention.spell(&Key { module: pair.module.clone(), part })?;
        let (module, bytes) = (pair.module.clone(), vec![0; 4]);
        Some(NewReplacement { module, replaces, dtype: Dtype::F32, shape: vec![1], bytes })
    }
}
