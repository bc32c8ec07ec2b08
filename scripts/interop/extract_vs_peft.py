"""PEFT loads what `lora-tool extract` wrote, and merges it back into the tuned model within the reported error.

    python scripts/interop/extract_vs_peft.py [--tool target/release/lora-tool]
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import torch
from peft import PeftModel
from transformers import LlamaConfig, LlamaForCausalLM


def model(seed):
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=112, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
    return LlamaForCausalLM(config)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", default="target/release/lora-tool")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        base, tuned = model(0), model(0)
        torch.manual_seed(7)
        with torch.no_grad():
            for parameter in tuned.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.01)
        base.save_pretrained(scratch / "base")
        tuned.save_pretrained(scratch / "tuned")
        for flags in [["--rank", "8"], ["--rank", "energy:0.9"], ["--rank", "8", "--embeddings"], ["--rank", "64"]]:
            command = [options.tool, "extract", scratch / "base", scratch / "tuned", "-o", scratch / "out",
                       "--full-norms", "--force", "--json", *flags]
            report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            merged = PeftModel.from_pretrained(model(0), scratch / "out").merge_and_unload().state_dict()
            before, after = model(0).state_dict(), tuned.state_dict()
            said = {module["base_tensor"]: module["relative_error"] for module in report["modules"]}
            worst = 0.0
            for name, value in after.items():
                error = (merged[name] - value).norm() / (before[name] - value).norm()
                expected = said.get(name, 0.0)
                assert abs(error - expected) < 1e-4, (flags, name, float(error), expected)
                worst = max(worst, float(abs(error - expected)))
            modules, whole = len(said), len(report["whole"])
            print(f"{' '.join(flags):24} {modules} modules, {whole} whole: errors as reported (within {worst:.1e})")
            del merged
    print("ok")


if __name__ == "__main__":
    main()
