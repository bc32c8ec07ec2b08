//! The types of reports in Python are what `docs/schema` says. To write them anew:
//! `LORA_TOOL_WRITE=1 cargo test --test basics reports`.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::fmt::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::options::hold;

/// Schemas whose reports functions return.
const REPORTS: [&str; 15] = [
    "check", "clean", "combine", "commit", "compare", "convert", "diff", "explore", "extract",
    "inspect", "list", "merge", "undo", "verify", "work",
];

/// What the report of a verb is called in Python.
pub(super) fn report_name(verb: &str) -> String {
    format!("{}Report", capital(verb))
}

/// `by_interest` → `ByInterest`.
fn capital(name: &str) -> String {
    let word = |word: &str| {
        let (first, rest) = word.split_at(word.len().min(1));
        first.to_uppercase() + rest
    };
    name.split('_').map(word).collect()
}

/// The type of a value; classes of objects in it are written before.
fn python(schema: &Value, name: &str, module: &mut String) -> String {
    let names: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return "Any".to_owned(),
    };
    let mut types: Vec<String> = names
        .into_iter()
        .map(|kind| match kind {
            "null" => "None".to_owned(),
            "boolean" => "bool".to_owned(),
            "integer" => "int".to_owned(),
            "number" => "float".to_owned(),
            "string" => "str".to_owned(),
            "array" => format!("List[{}]", python(&schema["items"], name, module)),
            _ => match schema.get("properties").and_then(Value::as_object) {
                Some(fields) => {
                    class(name, fields, &schema["required"], module);
                    name.to_owned()
                }
                None => {
                    format!("Dict[str, {}]", python(&schema["additionalProperties"], name, module))
                }
            },
        })
        .collect();
    // None stands last, as people write it.
    types.sort_by_key(|name| name == "None");
    match types.as_slice() {
        [one] => one.clone(),
        [one, none] if none == "None" => format!("Optional[{one}]"),
        several => format!("Union[{}]", several.join(", ")),
    }
}

/// A class of an object: what it always has, and below that what it may have.
fn class(name: &str, fields: &Map<String, Value>, required: &Value, module: &mut String) {
    let required: Vec<&str> =
        required.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let (mut always, mut sometimes) = (Vec::new(), Vec::new());
    for (field, schema) in fields {
        let kind = python(schema, &format!("{name}{}", capital(field)), module);
        let list = if required.contains(&field.as_str()) { &mut always } else { &mut sometimes };
        list.push(format!("\"{field}\": {kind}"));
    }
    let object = |name: &str, fields: &[String], more: &str| {
        format!("{name} = TypedDict(\"{name}\", {{\n    {},\n}}{more})\n", fields.join(",\n    "))
    };
    // The functional form takes names that are words of Python's too, and does not inherit.
    let text = match (always.is_empty(), sometimes.is_empty()) {
        (true, true) => format!("class {name}(TypedDict):\n    pass\n"),
        (false, true) => object(name, &always, ""),
        (true, false) => object(name, &sometimes, ", total=False"),
        (false, false) => {
            object(&format!("{name}Always"), &always, "")
                + &object(&format!("{name}Sometimes"), &sometimes, ", total=False")
                + &format!("class {name}({name}Always, {name}Sometimes):\n    pass\n")
        }
    };
    write!(module, "\n\n{text}").expect("a text");
}

#[test]
fn the_python_reports_are_what_the_schemas_say() {
    let mut module = String::from(
        "\"\"\"The reports of the verbs. Made from docs/schema by a test; not to be edited.\"\"\"\n\n\
         from typing import Any, Dict, List, Optional, TypedDict, Union\n",
    );
    for verb in REPORTS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema");
        let text = std::fs::read(folder.join(format!("{verb}.json"))).expect("a schema");
        let schema: Value = serde_json::from_slice(&text).expect("JSON");
        python(&schema, &report_name(verb), &mut module);
    }
    hold("python/lora_tool/_reports.py", &module);
}
