//! What commands print with `--json` is what `docs/schema` says. To take up new fields:
//! `LORA_TOOL_WRITE=1 cargo test --test basics schema`.
#![allow(clippy::expect_used, reason = "a test that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::common::{fixture, lora_tool};

/// Objects whose keys are names of the inputs, by the field that holds them.
const MAPS: [&str; 3] = ["metadata", "parts", "counts"];

/// The schema that a command's answer has to fulfil, and the command; `$F` is the folder of fixtures.
const COMMANDS: [(&str, &str); 52] = [
    ("inspect", "inspect $F/llama/style --spectrum"),
    ("inspect", "inspect $F/llama/style --against $F/llama/base"),
    ("inspect", "inspect $F/llama/base $F/llama/kohya.safetensors"),
    ("inspect", "inspect $F/quant/gptq_v1_sym"),
    ("list", "list $F/llama --alike"),
    ("list", "list $F/diffusers --where rank>0"),
    (
        "merge",
        "merge $F/llama/base $F/llama/style:0.7 $F/llama/task -o merged --verify --receipt receipt",
    ),
    ("merge", "merge $F/llama/base $F/llama/style -o other -n"),
    ("merge", "merge $F/llama/base $F/llama/style $F/llama/task -o auto --method auto"),
    (
        "merge",
        "merge $F/llama/base $F/llama/style -o f32.safetensors --dtype f32 --include layers.0",
    ),
    ("merge_plan", "merge $F/llama/base $F/llama/style -o planned --plan plan.json"),
    ("work", "work plan.json --shard 1/1"),
    ("commit", "commit plan.json"),
    ("verify", "verify merged --base $F/llama/base --adapter $F/llama/style:0.7 $F/llama/task"),
    ("verify", "verify merged --base $F/llama/base --adapter $F/llama/style"),
    ("undo", "undo merged --receipt receipt -o back"),
    ("combine", "combine $F/llama/style $F/llama/task -o both"),
    ("combine", "combine $F/llama/style $F/llama/task -o both4 --rank 4 -n"),
    ("combine", "combine $F/llama/style $F/llama/task -o ties --method ties --density 0.5"),
    ("combine", "combine $F/llama/style $F/llama/task -o chosen --method auto"),
    ("combine", "resize $F/llama/style -o small --rank energy:0.9"),
    ("combine", "resize $F/llama/style -o small --rank size:30KiB -n --force"),
    ("explore", "resize $F/llama/style --explore"),
    ("extract", "extract $F/llama/base merged -o found --rank auto -n"),
    ("extract", "extract $F/llama/base merged -o found --rank 4"),
    ("convert", "convert $F/llama/style --to kohya -o style.safetensors -n"),
    ("convert", "convert $F/llama/style --for vllm -o served"),
    ("as_lora", "convert $F/llama/style --as lora --rank 4 -o lora"),
    ("compare", "compare $F/llama/style $F/llama/task"),
    ("compare", "compare $F/llama/style served $F/llama/task"),
    ("diff", "diff $F/llama/style served"),
    ("diff", "diff $F/llama/style $F/llama/task"),
    ("diff", "diff $F/llama/base merged"),
    ("check", "check $F/llama/style"),
    ("check", "check $F/llama/task --for vllm --max-rank 2 --against $F/llama/base"),
    ("metadata", "metadata both/adapter_model.safetensors"),
    ("metadata", "metadata $F/llama/kohya.safetensors --set a=b -o edited.safetensors"),
    ("methods", "methods"),
    ("clean", "clean . --dry-run"),
    ("merge", "run $F/llama/blend.yaml -o blended -n"),
    ("merge", "run $F/llama/blend.yaml -o blended"),
    ("batch", "batch jobs.yaml -n"),
    ("batch", "batch jobs.yaml"),
    ("batch", "batch jobs.yaml --skip-done"),
    ("merge_plan", "batch jobs.yaml --force --plan batch.json --workers 2"),
    ("work", "work batch.json --shard 1/1"),
    ("batch", "commit batch.json"),
    ("collect", "collect build $F/llama/style -o store --rank 4"),
    ("collect", "collect add store $F/llama/task"),
    ("collect_info", "collect info store"),
    ("collect_export", "collect export store style -o again"),
    ("tune", "tune $F/llama/style $F/llama/task --score SCORE -o tuned.yaml"),
];

/// Commands that cannot be done, and which of the fields beside `error` their answer has.
const REFUSED: [(&str, &[&str]); 17] = [
    ("inspect nowhere", &["file"]),
    ("inspect $F/llama/blend.yaml", &["file"]),
    ("list nowhere", &["file"]),
    ("merge $F/llama/base $F/llama/style -o out --wieghts 1", &["hint"]),
    ("merge $F/llama/base $F/llama/style -o out --include nothing", &["hint"]),
    ("merge $F/llama/base $F/llama/style -o out --dtype f8", &[]),
    ("merge $F/llama/style $F/llama/task -o out", &["file", "hint"]),
    ("combine $F/llama/style $F/llama/task -o out --method liner", &["hint"]),
    ("combine $F/llama/style $F/llama/task -o no/such/out", &["file", "hint"]),
    ("resize $F/llama/style -o out --rank 0", &[]),
    ("extract $F/llama/base $F/llama/style -o out --rank 4", &["file", "hint"]),
    ("convert $F/llama/style --to gguf -o out.gguf", &["hint"]),
    ("compare $F/llama/style nowhere", &["file"]),
    ("diff $F/llama/base $F/llama/style", &["file", "hint"]),
    ("verify $F/llama/base", &["file"]),
    ("run nowhere.yaml", &["file"]),
    ("collect info nowhere", &["file"]),
];

/// What the commands of batches and of tuning need beside them.
const JOBS: &str = "items:
- {verb: resize, adapter: $F/llama/style, rank: 4, output: 'small/{name}'}
- {verb: convert, adapter: $F/llama/task, to: kohya, output: 'kohya/{name}.safetensors'}
- {verb: check, adapter: $F/llama/style, for: vllm}
- {verb: merge, base: $F/llama/base, adapter: $F/llama/style, output: 'merged/{name}'}
";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(format!("{name}.json"))
}

/// What is not as the schema has it, with its place.
fn fault(schema: &Value, value: &Value, place: &str) -> Option<String> {
    let is = |name: &str| match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return None,
    };
    if !types.iter().any(|name| is(name)) {
        return Some(format!("{place}: {value} is none of {types:?}"));
    }
    if let Some(items) = value.as_array() {
        return items.iter().find_map(|item| fault(&schema["items"], item, &format!("{place}[]")));
    }
    let object = value.as_object()?;
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for name in required {
        if !object.contains_key(name) {
            return Some(format!("{place}: no `{name}`"));
        }
    }
    object.iter().find_map(|(name, value)| {
        let place = format!("{place}.{name}");
        match (schema["properties"].get(name), &schema["additionalProperties"]) {
            (Some(schema), _) => fault(schema, value, &place),
            (None, Value::Object(other)) => fault(&Value::Object(other.clone()), value, &place),
            (None, _) => Some(format!("{place} is not in the schema")),
        }
    })
}

/// Whether a field's object has names of the inputs for keys.
fn is_map(field: &str, object: &Map<String, Value>) -> bool {
    let counts = ["dtypes", "ranks"].contains(&field) && object.values().all(Value::is_u64);
    MAPS.contains(&field) || counts
}

/// The narrowest schema of a value in a field of this name.
fn schema_of(field: &str, value: &Value) -> Value {
    match value {
        Value::Null => json!({"type": "null"}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::Number(number) if number.is_f64() => json!({"type": "number"}),
        Value::Number(_) => json!({"type": "integer"}),
        Value::String(_) => json!({"type": "string"}),
        Value::Array(items) => {
            let items = items.iter().map(|item| schema_of("", item)).reduce(|a, b| both(&a, &b));
            json!({"type": "array", "items": items.unwrap_or_else(|| json!({}))})
        }
        Value::Object(object) if is_map(field, object) => {
            let values = object.values().map(|value| schema_of("", value));
            let values = values.reduce(|a, b| both(&a, &b)).unwrap_or_else(|| json!({}));
            json!({"type": "object", "additionalProperties": values})
        }
        Value::Object(object) => {
            let fields = object.iter().map(|(name, value)| (name.clone(), schema_of(name, value)));
            let fields: Map<String, Value> = fields.collect();
            let required: Vec<&String> = object.keys().collect();
            json!({"type": "object", "properties": fields, "required": required, "additionalProperties": false})
        }
    }
}

fn types(schema: &Value) -> Vec<String> {
    match &schema["type"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(several) => {
            several.iter().filter_map(Value::as_str).map(str::to_owned).collect()
        }
        _ => Vec::new(),
    }
}

/// A schema that both fulfil. Words about a field are those of the first.
fn both(a: &Value, b: &Value) -> Value {
    let (Some(x), Some(y)) = (a.as_object(), b.as_object()) else { return a.clone() };
    let mut all = x.clone();
    for (key, value) in y {
        all.entry(key.clone()).or_insert_with(|| value.clone());
    }
    let mut names = types(a);
    names.extend(types(b));
    names.sort();
    names.dedup();
    if names.iter().any(|name| name == "number") {
        names.retain(|name| name != "integer");
    }
    match names.as_slice() {
        [] => {}
        [one] => drop(all.insert("type".to_owned(), json!(one))),
        several => drop(all.insert("type".to_owned(), json!(several))),
    }
    for key in ["items", "additionalProperties"] {
        if let (Some(a), Some(b)) = (x.get(key), y.get(key)) {
            all.insert(key.to_owned(), both(a, b));
        }
    }
    if let (Some(a), Some(b)) = (object(x, "properties"), object(y, "properties")) {
        let mut fields = a.clone();
        for (name, schema) in b {
            let merged = a.get(name).map_or_else(|| schema.clone(), |own| both(own, schema));
            fields.insert(name.clone(), merged);
        }
        let list = |schema: &Map<String, Value>| schema["required"].as_array().cloned();
        let (a, b) = (list(x).unwrap_or_default(), list(y).unwrap_or_default());
        let required: Vec<Value> = a.into_iter().filter(|name| b.contains(name)).collect();
        all.insert("properties".to_owned(), Value::Object(fields));
        all.insert("required".to_owned(), Value::Array(required));
    }
    Value::Object(all)
}

fn object<'a>(schema: &'a Map<String, Value>, key: &str) -> Option<&'a Map<String, Value>> {
    schema.get(key).and_then(Value::as_object)
}

/// Every answer, with the schema that it is to fulfil.
fn answers() -> Vec<(&'static str, &'static str, Value)> {
    let folder = TempDir::new().expect("a directory");
    let fixtures = fixture("llama/style");
    let fixtures =
        fixtures.ancestors().nth(2).expect("the folder of fixtures").display().to_string();
    let jobs = JOBS.replace("$F", &fixtures);
    std::fs::write(folder.path().join("jobs.yaml"), jobs).expect("written");
    let run = |(name, line): (&'static str, &'static str)| {
        let word =
            |word: &str| word.replace("$F", &fixtures).replace("SCORE", "echo 1 # {adapter}");
        let words = line.split(' ').map(word);
        let done = lora_tool().current_dir(folder.path()).args(words).arg("--json").output();
        let done = done.expect("it runs");
        let answer: Result<Value, _> = serde_json::from_slice(&done.stdout);
        assert!(answer.is_ok(), "{line}: {}", String::from_utf8_lossy(&done.stderr));
        let answer = answer.expect("JSON");
        (name, line, answer)
    };
    COMMANDS.into_iter().map(run).collect()
}

#[test]
fn answers_are_as_their_schemas_say() {
    let answers = answers();
    if std::env::var_os("LORA_TOOL_WRITE").is_some() {
        let mut schemas: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, _, answer) in &answers {
            let found = schema_of("", answer);
            let before = schemas.remove(name);
            schemas.insert(name, before.map_or(found.clone(), |before| both(&before, &found)));
        }
        for (name, found) in schemas {
            let before = std::fs::read(file(name)).ok();
            let before = before.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
            let mut schema = before.map_or(found.clone(), |before| both(&before, &found));
            schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
            schema["title"] = json!(name);
            let text = serde_json::to_string_pretty(&schema).expect("JSON") + "\n";
            std::fs::create_dir_all(file(name).parent().expect("a folder")).expect("made");
            std::fs::write(file(name), text).expect("written");
        }
    }
    for (name, line, answer) in &answers {
        let text = std::fs::read(file(name)).expect("a schema");
        let schema: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(
            fault(&schema, answer, name),
            None,
            "{line}\nnew fields: see the top of this file"
        );
    }
}

/// One object on standard output, the words on standard error, and nothing written.
#[test]
fn what_cannot_be_done_is_json_too() {
    let schema = std::fs::read(file("error")).expect("a schema");
    let schema: Value = serde_json::from_slice(&schema).expect("JSON");
    let folder = TempDir::new().expect("a directory");
    let fixtures = fixture("llama/style");
    let fixtures =
        fixtures.ancestors().nth(2).expect("the folder of fixtures").display().to_string();
    for (line, fields) in REFUSED {
        let words = line.split(' ').map(|word| word.replace("$F", &fixtures));
        let done = lora_tool().current_dir(folder.path()).args(words).arg("--json").output();
        let done = done.expect("it runs");
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{line}: {said}");
        let answer = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| json!("no JSON"));
        assert_eq!(fault(&schema, &answer, "error"), None, "{line}: {answer}");
        assert_eq!(answer["command"], line.split(' ').next().expect("a verb"), "{line}");
        let error = answer["error"].as_str().expect("words");
        let first = error.lines().next().expect("a line");
        assert!(said.contains(&format!("error: {first}")), "{line}: {first}\n{said}");
        for field in fields {
            assert!(answer[*field].is_string(), "{line}: no {field}: {answer}");
        }
        assert!(!folder.path().join("out").exists(), "{line}");
    }
}

#[test]
fn what_a_schema_does_not_have_is_a_fault() {
    let schema = schema_of("", &json!({"a": 1, "b": [{"c": null}], "parts": {"x": 1}}));
    let fault = |value: Value| fault(&schema, &value, "v");
    assert_eq!(fault(json!({"a": 2, "b": [], "parts": {"y": 3}})), None);
    for (value, says) in [
        (json!({"a": 1, "b": [], "parts": {}, "new": 1}), "v.new is not in the schema"),
        (json!({"a": 1, "b": [{"c": null, "d": 1}], "parts": {}}), "v.b[].d is not in the schema"),
        (json!({"a": 1.5, "b": [], "parts": {}}), "v.a: 1.5 is none of [\"integer\"]"),
        (json!({"a": 1, "b": []}), "v: no `parts`"),
        (
            json!({"a": 1, "b": [], "parts": {"x": "y"}}),
            "v.parts.x: \"y\" is none of [\"integer\"]",
        ),
    ] {
        assert_eq!(fault(value).as_deref(), Some(says));
    }
}

#[test]
fn dry_runs_and_results_have_one_schema() {
    for verb in ["merge", "combine", "extract", "convert", "as_lora"] {
        let text = std::fs::read(file(verb)).expect("a schema");
        let schema: Value = serde_json::from_slice(&text).expect("JSON");
        assert_eq!(schema["properties"]["dry_run"]["type"], "boolean", "{verb}");
        let page =
            std::fs::read_to_string(file(verb).with_file_name("../json.md")).expect("a page");
        assert!(page.contains(&format!("schema/{verb}.json")), "{verb}");
    }
}
