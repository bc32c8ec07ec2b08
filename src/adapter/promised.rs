//! What an adapter's config promises and its file lacks: PEFT adapts, and saves, every module of the base
//! that `target_modules` names, so that one without factors was lost on the way.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Adapter;
use super::sidecar::PeftConfig;

/// A warning for modules that the config promises and the file lacks. With the names of the base's
/// tensors every module is looked for, without them only names that no module has.
///
/// Silent where the config does not say which modules it means: patterns, exclusions, other types.
pub fn missing<'a>(
    adapter: &Adapter,
    base: Option<impl Iterator<Item = &'a str>>,
) -> Option<String> {
    let config = adapter.config.as_ref().filter(|config| config.peft_type == "LORA")?;
    let targets = names(config)?;
    let modules: BTreeSet<&str> =
        adapter.modules.iter().map(|module| module.name.as_str()).collect();
    if modules.is_empty() || !adapter.stacks.is_empty() {
        return None;
    }
    let lacking: Vec<String> = match base {
        Some(base) => {
            let base: BTreeSet<&str> =
                base.filter_map(|name| name.strip_suffix(".weight")).collect();
            // Under other names than the base's there is nothing to compare.
            if !modules.is_subset(&base) {
                return None;
            }
            let stacks: BTreeSet<&str> = modules.iter().map(|module| stack(module)).collect();
            let promised = base.into_iter().filter(|module| {
                targets.iter().any(|target| is_named(module, target))
                    && stacks.contains(stack(module))
                    && in_layers(config, module)
                    && !modules.contains(module)
            });
            promised.map(str::to_owned).collect()
        }
        None => {
            let absent = |target: &&str| !modules.iter().any(|module| is_named(module, target));
            targets.iter().copied().filter(absent).map(str::to_owned).collect()
        }
    };
    let first = lacking.first()?;
    let (count, verb) = (lacking.len(), if lacking.len() == 1 { "is" } else { "are" });
    Some(format!(
        "{count} of the modules that the config's `target_modules` promise {verb} not in the file, such \
         as {first}: is the file whole?"
    ))
}

/// Whether PEFT makes a module of what has this name, by `target_modules` and `layers_to_transform`; nothing
/// where they do not say it, as of patterns and parameters.
pub fn is_promised(adapter: &Adapter, module: &str) -> Option<bool> {
    let config = adapter.config.as_ref().filter(|config| config.peft_type == "LORA")?;
    let targets = names(config).filter(|_| config.target_parameters.is_empty())?;
    // Whatever wraps a model, its layers have the same names.
    let in_layer = |name: &str| name.split_once("layers.").map(|(_, below)| below.to_owned());
    let means = |target: &str| {
        is_named(module, target)
            || in_layer(target).is_some_and(|own| in_layer(module) == Some(own))
    };
    let dotted = module.contains('.') || targets.contains(&module);
    dotted.then(|| targets.into_iter().any(means) && in_layers(config, module))
}

/// The names of `target_modules`, if it is a list of them and nothing is excluded.
fn names(config: &PeftConfig) -> Option<Vec<&str>> {
    if config.flag("exclude_modules") {
        return None;
    }
    let names = config.document.get("target_modules")?.as_array()?;
    names.iter().map(Value::as_str).collect()
}

/// Whether PEFT takes the module for one that this name targets.
fn is_named(module: &str, target: &str) -> bool {
    module.strip_suffix(target).is_some_and(|above| above.is_empty() || above.ends_with('.'))
}

/// What stands before a module's first number: the tower of layers that it is in.
fn stack(module: &str) -> &str {
    let mut at = 0;
    for part in module.split('.') {
        if part.parse::<usize>().is_ok() {
            return module.get(..at).unwrap_or(module);
        }
        at += part.len() + 1;
    }
    module.rsplit_once('.').map_or("", |(above, _)| above)
}

/// Whether `layers_to_transform`, where the config has it, holds the module's layer.
fn in_layers(config: &PeftConfig, module: &str) -> bool {
    let layer = module.split('.').find_map(|part| part.parse::<u64>().ok());
    match (config.document.get("layers_to_transform"), layer) {
        (Some(Value::Array(layers)), Some(layer)) => {
            layers.iter().any(|known| known.as_u64() == Some(layer))
        }
        (Some(Value::Number(known)), Some(layer)) => known.as_u64() == Some(layer),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stacks_and_names() {
        assert_eq!(stack("model.layers.3.mlp.up_proj"), "model.layers.");
        assert_eq!(stack("lm_head"), "");
        assert_eq!(stack("model.embed.x"), "model.embed");
        assert!(is_named("a.q_proj", "q_proj") && is_named("q_proj", "q_proj"));
        assert!(!is_named("a.xq_proj", "q_proj"));
    }
}
