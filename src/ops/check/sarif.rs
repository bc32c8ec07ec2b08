//! A report as SARIF 2.1.0 (OASIS, "Static Analysis Results Interchange Format"), for code scanning in CI.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::report::{Finding, Report, Severity};

/// The log: one run, a rule of `PROGRAM/RULE` and a result for each finding.
pub fn sarif(report: &Report) -> Value {
    let mut rules: BTreeMap<String, &Finding> = BTreeMap::new();
    for finding in &report.findings {
        rules.entry(id(finding)).or_insert(finding);
    }
    let index = |finding: &Finding| rules.keys().position(|known| *known == id(finding));
    let results: Vec<Value> =
        report.findings.iter().map(|finding| result(report, finding, index(finding))).collect();
    let rules: Vec<Value> = rules
        .iter()
        .map(|(id, finding)| {
            let mut rule = json!({
                "id": id,
                "shortDescription": { "text": finding.says },
                "defaultConfiguration": { "level": level(finding.severity) },
            });
            if !finding.source.is_empty() {
                let help =
                    format!("{} does so: {}", finding.program.unwrap_or("it"), finding.source);
                insert(&mut rule, "help", json!({ "text": help }));
            }
            rule
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "lora-tool",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn id(finding: &Finding) -> String {
    format!("{}/{}", finding.program.unwrap_or("adapter"), finding.rule)
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Breaks => "error",
        Severity::Changes | Severity::Unknown => "warning",
        Severity::Note => "note",
    }
}

fn result(report: &Report, finding: &Finding, index: Option<usize>) -> Value {
    let program = finding.program.map_or_else(String::new, |program| format!("{program}: "));
    let fix = finding.fix.as_ref().map_or_else(String::new, |fix| format!(". Fix: {fix}"));
    let text = format!("{program}{}{fix}", finding.says);
    let logical: Vec<Value> = finding
        .places
        .iter()
        .map(|place| json!({ "fullyQualifiedName": place.name, "kind": "member" }))
        .collect();
    let mut location =
        json!({ "physicalLocation": { "artifactLocation": { "uri": uri(&report.adapter) } } });
    if !logical.is_empty() {
        insert(&mut location, "logicalLocations", Value::Array(logical));
    }
    let mut result = json!({
        "ruleId": id(finding),
        "level": level(finding.severity),
        "message": { "text": text },
        "locations": [location],
    });
    if let Some(index) = index {
        insert(&mut result, "ruleIndex", json!(index));
    }
    let factors: BTreeMap<&str, f64> = finding
        .places
        .iter()
        .filter_map(|place| Some((place.name.as_str(), place.factor?)))
        .collect();
    if !factors.is_empty() {
        insert(&mut result, "properties", json!({ "factors": factors }));
    }
    result
}

fn insert(object: &mut Value, key: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(key.to_owned(), value);
    }
}

/// A path as a URI reference: bytes that such a one does not have are percent-encoded.
fn uri(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut uri = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' | b'~' => {
                uri.push(char::from(byte));
            }
            _ => {
                const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
                uri.push('%');
                for digit in [byte >> 4, byte & 15] {
                    uri.extend(DIGITS.get(usize::from(digit)).copied().map(char::from));
                }
            }
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uri_references() {
        assert_eq!(uri(Path::new("a b/ü:1")), "a%20b/%C3%BC%3A1");
    }
}
