//! Which method combines the deltas, where they are not just added.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Result};
use crate::method::params::LAMBDA;
use crate::method::{self, Compat, Kind, Method, Settings, Sketch};
use crate::ops::combine;
use crate::ops::combine::auto::choose as choose_for;
use crate::ops::merge::Options;
use crate::ops::shared::advice::Advice;
use crate::ops::shared::method_name::{AUTO, is_sum, named, peer_weights};

/// A method with its parameters, as the whole merge uses it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct MethodChoice {
    pub(in crate::ops::merge) method: &'static Method,
    pub(in crate::ops::merge) settings: Settings,
    pub(in crate::ops::merge) compat: Option<Compat>,
}

/// [`MethodChoice`] as it is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    method: String,
    settings: Settings,
    compat: Option<Compat>,
}

impl From<MethodChoice> for Written {
    fn from(choice: MethodChoice) -> Self {
        let MethodChoice { method, settings, compat } = choice;
        Self { method: method.name.to_owned(), settings, compat }
    }
}

impl TryFrom<Written> for MethodChoice {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        let Written { method: name, settings, compat } = written;
        let method = method::by_name(&name).ok_or_else(|| format!("no method is `{name}`"))?;
        Ok(Self { method, settings, compat })
    }
}

impl MethodChoice {
    /// Fails if the method does not take such parameters together.
    pub(in crate::ops::merge) fn check(&self, settings: &Settings, adapters: usize) -> Result<()> {
        let checked = (self.method.check)(&Sketch { inputs: &[], adapters, settings });
        checked.map_err(|refusal| ErrorKind::BadOption(refusal.to_string()).into())
    }

    /// Whether it looks at factors, which only adapters have.
    pub(in crate::ops::merge) fn of_factors(&self) -> bool {
        matches!(self.method.kind, Kind::Core(_))
    }

    /// Whether it is between whole weights, as mergekit has what it takes for points on a sphere.
    pub(in crate::ops::merge) fn of_weights(&self) -> bool {
        self.compat == Some(Compat::Mergekit) && matches!(self.method.name, "slerp" | "karcher")
    }
}

/// The method that was asked for; `None` for the weighted sum.
///
/// # Errors
/// A method that there is not, that puts stored factors together, or that does not take these inputs or parameters.
pub(in crate::ops::merge) fn choose(options: &Options) -> Result<Option<MethodChoice>> {
    let inputs = options.adapters.len();
    // mergekit's linear is a sum too, of weights that `weights` has divided.
    let sum = options.compat == Some(Compat::Mergekit) && is_sum(options.method.as_deref());
    let compat = options.compat.filter(|_| !sum);
    let method = named(options.method.as_deref().unwrap_or("linear"), compat)?;
    let settings = Settings::new(method.name, method.takes, &options.params, inputs)
        .map_err(|error| ErrorKind::BadOption(error.to_string()))?;
    match method.kind {
        Kind::Elementwise(_) | Kind::Gram(_) | Kind::Core(_) => {}
        _ if matches!(method.name, "linear" | "cat") => {
            if options.param_rules.is_empty() {
                return Ok(None);
            }
            let reason = "a sum takes one lambda for all modules; what differs by module is \
                          `module_weight`";
            return Err(ErrorKind::BadOption(reason.to_owned()).into());
        }
        Kind::Factors(_) => {
            let reason = format!(
                "`{}` puts factors together as they are stored; make one adapter with `lora-tool combine \
                 --method {}`, then merge that",
                method.name, method.name
            );
            return Err(ErrorKind::BadOption(reason).into());
        }
    }
    let choice = MethodChoice { method, settings, compat };
    choice.check(&choice.settings, inputs)?;
    Ok(Some(choice))
}

/// The options with what the rule chooses in the place of `auto`, and why; as they are if a method is named.
///
/// # Errors
/// Inputs that are no adapters, and parameters of one method alone.
pub(in crate::ops::merge) fn settle(options: &Options) -> Result<(Options, Option<Advice>)> {
    let mut settled = options.clone();
    if options.method.as_deref() != Some(AUTO) {
        return Ok((settled, None));
    }
    let asked = combine::Options {
        adapters: options.adapters.clone(),
        open: options.open.clone(),
        params: options.params.clone(),
        param_rules: options.param_rules.clone(),
        compat: options.compat,
        include: options.include.clone(),
        exclude: options.exclude.clone(),
        module_weights: options.module_weights.clone(),
        threads: options.threads,
        ..combine::Options::default()
    };
    let advice = choose_for(&asked)?.advice;
    settled.method.clone_from(&advice.method);
    for input in &mut settled.adapters {
        input.weight *= advice.factor;
    }
    Ok((settled, Some(advice)))
}

/// The options with the weights that a peer makes of them, and λ times those of a sum.
///
/// # Errors
/// Weights that a peer cannot make anything of.
pub(in crate::ops::merge) fn weights(
    options: &Options,
    method: Option<&MethodChoice>,
) -> Result<Options> {
    let mut options = options.clone();
    let method_name = options.method.as_deref();
    peer_weights(options.compat, method_name, &mut options.adapters)?;
    let lambda = options.params.get(LAMBDA.name).and_then(|text| text.trim().parse::<f64>().ok());
    if let (None, Some(lambda)) = (method, lambda) {
        options.adapters.iter_mut().for_each(|input| input.weight *= lambda);
    }
    Ok(options)
}
