//! Recipes: any bytes. What is read is sound and read the same again; what is not has a place in the text.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use lora_tool::method;
use lora_tool::method::Settings;
use lora_tool::method::params::Given;
use lora_tool::ops::merge::AdapterInput;
use lora_tool::ops::run::{Asked, Recipe};

fn check(
    adapters: &[AdapterInput],
    name: Option<&str>,
    params: &Given,
    recipe: Option<&str>,
    data: &[u8],
) {
    assert!(!adapters.is_empty());
    for input in adapters {
        assert!(input.weight.is_finite());
        assert!(input.path.starts_with("folder") || input.path.is_absolute());
        let values = input.rules.weights.iter().flat_map(|rule| &rule.values);
        assert!(values.into_iter().all(|value| value.is_finite()));
        assert!(input.rules.weights.iter().all(|rule| !rule.values.is_empty()));
    }
    // Nothing is left for the verb to find wrong with the parameters.
    let method = method::by_name(name.unwrap_or("linear")).expect("checked");
    let settings = Settings::new(method.name, method.takes, params, adapters.len());
    assert!(settings.is_ok(), "{settings:?}");
    assert_eq!(recipe.map(str::as_bytes), Some(data));
}

fuzz_target!(|data: &[u8]| {
    let folder = Path::new("folder");
    match Recipe::read(data, folder) {
        Ok(recipe) => {
            match &recipe.asked {
                Asked::Merge(o) => {
                    check(&o.adapters, o.method.as_deref(), &o.params, o.recipe.as_deref(), data);
                }
                Asked::Combine(o) => {
                    check(&o.adapters, o.method.as_deref(), &o.params, o.recipe.as_deref(), data);
                    assert!(
                        o.block_weights.is_empty() || o.block_weights.len() == o.adapters.len()
                    );
                }
            }
            let again = Recipe::read(data, folder).expect("it was read before");
            assert_eq!(format!("{recipe:?}"), format!("{again:?}"));
        }
        Err(error) => {
            let text = String::from_utf8_lossy(data);
            // YAML ends lines at lone carriage returns too.
            let lines = text.split(['\n', '\r']).count();
            assert!(error.place.line >= 1 && error.place.line <= lines + 1, "{error:?}");
            assert!(error.place.column >= 1, "{error:?}");
        }
    }
});
