//! Which way round a base stores a layer's weight: outputs × inputs as torch's Linear, or inputs ×
//! outputs as GPT-2's Conv1D (transformers `pytorch_utils.py`).
//!
//! Where the sizes of a weight do not tell, each module is decided for itself: by what the user says,
//! by the layers beside it, by its name and the adapter's config. Every verb asks here.

use std::collections::BTreeMap;
use std::str::FromStr;

use regex::Regex;

use super::Adapter;
use super::module::{Kind, Module};
use super::place::Placement;
use crate::error::{OrientationError, Result, RuleError};
use crate::format::Checkpoint;

/// What a user says of the weights whose names match.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct OrientationRule {
    /// Which tensors of the base.
    #[serde(with = "crate::format::pattern")]
    pub filter: Regex,
    /// Whether they are stored inputs × outputs.
    pub turned: bool,
}

impl FromStr for OrientationRule {
    type Err = String;

    /// From `REGEX=in-out` or `REGEX=out-in`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (regex, way) = text.rsplit_once('=').ok_or("it has no `=`")?;
        let turned = match way {
            "in-out" => true,
            "out-in" => false,
            _ => return Err(format!("`{way}` is neither in-out nor out-in")),
        };
        let filter = Regex::new(regex).map_err(|error| error.to_string())?;
        Ok(Self { filter, turned })
    }
}

/// Names of the layers that are Conv1D in transformers' GPT, GPT-2, `ImageGPT`, Decision Transformer, CLVP
/// and Jukebox. In `GPTBigCode`, GPT-Neo, StarCoder2 and `open_clip` the same names are Linear layers.
const CONV1D_NAMES: [&str; 5] = ["c_attn", "c_proj", "c_fc", "q_attn", "c_enc_kv"];

/// Of those, the ones with more outputs than inputs in every model.
const WIDENING: [&str; 3] = ["c_attn", "c_fc", "c_enc_kv"];

/// Layers that can stand for one another: Conv1D and Linear are mixed within one model (an encoder of the one
/// with a decoder of the other; CLVP has Linear attention beside Conv1D feed-forward), but not
/// within one of these groups in one stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Conv1dNames,
    Others,
}

/// Below one prefix, whether any weight is known to be stored either way.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    straight: bool,
    turned: bool,
}

/// What is known of the orientation of a base's weights.
#[derive(Debug, Clone)]
pub struct Orientations {
    rules: Vec<OrientationRule>,
    /// By group, and by the path of a layer or of anything it lies in, up to its stack.
    seen: BTreeMap<(Group, String), Evidence>,
}

impl Orientations {
    /// What a base's own sizes tell: a bias is as long as there are outputs, and some layers widen in
    /// every model.
    ///
    /// # Errors
    /// If no tensor matches a rule.
    pub fn of(base: &Checkpoint, rules: &[OrientationRule]) -> Result<Self> {
        for rule in rules {
            if !base.names().any(|name| rule.filter.is_match(name)) {
                let rule = rule.filter.to_string();
                return Err(RuleError::Unused { rule, of: "orientation" }.into());
            }
        }
        let mut known = Self { rules: rules.to_vec(), seen: BTreeMap::new() };
        for name in base.names() {
            let Some([rows, columns]) = base.tensor(name).map(|view| &view.spec.shape[..]) else {
                continue;
            };
            let path = path(name);
            let bias = base.tensor(&format!("{path}.bias")).map(|view| &view.spec.shape[..]);
            let turned = match bias {
                _ if rows == columns || path == name => None,
                Some([length]) if length == columns => Some(true),
                Some([length]) if length == rows => Some(false),
                _ if WIDENING.contains(&last(path)) => Some(columns > rows),
                _ => None,
            };
            if let Some(turned) = turned {
                known.add(name, turned);
            }
        }
        Ok(known)
    }

    /// Notes that a weight is stored this way.
    fn add(&mut self, tensor: &str, turned: bool) {
        let group = group(tensor);
        for above in levels(path(tensor)) {
            let seen = self.seen.entry((group, above.to_owned())).or_default();
            seen.turned |= turned;
            seen.straight |= !turned;
        }
    }

    /// Whether a weight is stored inputs × outputs: by the first rule that matches, else as the nearest
    /// weights of its group are (the layer's own, its block's, its stack's). None if neither
    /// tells.
    fn near(&self, tensor: &str) -> Option<bool> {
        if let Some(rule) = self.rules.iter().find(|rule| rule.filter.is_match(tensor)) {
            return Some(rule.turned);
        }
        let group = group(tensor);
        let mut seen = levels(path(tensor)).filter_map(|at| self.seen.get(&(group, at.to_owned())));
        let Evidence { straight, turned } = seen.next()?;
        (straight != turned).then_some(*turned)
    }

    /// Whether a two-dimensional weight without an adapter is stored inputs × outputs.
    ///
    /// # Errors
    /// [`OrientationError`] if nothing tells.
    pub fn weight(&self, tensor: &str) -> Result<bool> {
        match (self.near(tensor), group(tensor)) {
            (Some(turned), _) => Ok(turned),
            (None, Group::Others) => Ok(false),
            (None, Group::Conv1dNames) => Err(undecided(tensor)),
        }
    }

    /// Settles the orientation of all places whose module fits them both ways round; those that nothing
    /// tells are left open.
    pub(super) fn settle(
        mut self,
        adapter: &Adapter,
        base: &Checkpoint,
        places: &mut [Vec<Placement>],
    ) {
        // Whether any of the adapter's layers is stored inputs × outputs.
        let mut any_turned = false;
        let mut open = Vec::new();
        for (module, places) in adapter.modules.iter().zip(places) {
            for place in places.iter_mut().filter(|place| place.turned.is_none()) {
                let Some(view) = base.tensor(&place.tensor) else {
                    // The head that is its embedding's twin.
                    place.turned = Some(false);
                    continue;
                };
                match ways(module, &place.shape(&view.spec.shape)) {
                    Some((true, true)) => open.push(place),
                    Some((straight, turned)) if straight != turned => {
                        self.add(&place.tensor, turned);
                        any_turned |= turned;
                    }
                    _ => {}
                }
            }
        }
        let says = adapter.config.as_ref().and_then(|config| config.fan_in_fan_out);
        for place in &mut open {
            place.turned = self.near(&place.tensor).or_else(|| match group(&place.tensor) {
                // PEFT corrects the flag by the class of the layer that it wraps last.
                Group::Conv1dNames => says,
                Group::Others => None,
            });
            any_turned |= place.turned == Some(true);
        }
        for place in open {
            let left = place.turned.is_none() && group(&place.tensor) == Group::Others;
            // A flag that other layers of the adapter account for says nothing of these.
            if left && (says != Some(true) || any_turned) {
                place.turned = Some(false);
            }
        }
    }
}

/// The error for a weight whose orientation nothing tells.
pub fn undecided(tensor: &str) -> crate::Error {
    let tensor = regex::escape(tensor);
    OrientationError { tensor }.into()
}

/// Whether a module fits a stored matrix as it is, and turned; nothing for what is no matrix product.
pub fn ways(module: &Module, stored: &[usize]) -> Option<(bool, bool)> {
    let ([rows, columns], Kind::Linear) = (stored, &module.kind) else { return None };
    let is = |known: usize, size: usize| known == 0 || known == size;
    Some((
        is(module.outputs, *rows) && is(module.inputs, *columns),
        is(module.outputs, *columns) && is(module.inputs, *rows),
    ))
}

/// Whether a matrix is stored inputs × outputs at a place; nothing if neither sizes nor anything else
/// tells.
pub fn is_turned(module: &Module, place: &Placement, base: &Checkpoint) -> Option<bool> {
    let stored = base.tensor(&place.tensor).map(|view| view.spec.shape.as_slice());
    match ways(module, &place.shape(stored.unwrap_or_default())) {
        Some((true, true)) => place.turned,
        Some((straight, turned)) => Some(turned && !straight),
        None => Some(false),
    }
}

/// A layer's path: its weight's name without `.weight`.
fn path(tensor: &str) -> &str {
    tensor.strip_suffix(".weight").unwrap_or(tensor)
}

fn last(path: &str) -> &str {
    path.rsplit(['.', '/']).next().unwrap_or(path)
}

fn group(tensor: &str) -> Group {
    match CONV1D_NAMES.contains(&last(path(tensor))) {
        true => Group::Conv1dNames,
        false => Group::Others,
    }
}

/// A layer's path and all it lies in, from the inside out, up to the first part before a number: the
/// stack. Without a number, up to what it lies in itself.
fn levels(path: &str) -> impl Iterator<Item = &str> {
    let numbered = path.split('.').any(is_number);
    let mut done = false;
    let all = std::iter::successors(Some(path), move |at| {
        if done {
            return None;
        }
        let (above, _) = at.rsplit_once('.')?;
        done = if numbered { !above.split('.').any(is_number) } else { true };
        Some(above)
    });
    // A whole model is no block.
    all.filter(|level| !level.is_empty())
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_end_with_the_stack() {
        let of = |path| levels(path).collect::<Vec<_>>();
        assert_eq!(of("a.h.0.attn.q"), ["a.h.0.attn.q", "a.h.0.attn", "a.h.0", "a.h"]);
        assert_eq!(of("a.b.q"), ["a.b.q", "a.b"]);
        assert_eq!(of("q"), ["q"]);
    }
}
