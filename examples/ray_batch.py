"""A batch over the machines of a Ray cluster: many adapters resized, converted, checked or merged.

    ray job submit --working-dir . -- python examples/ray_batch.py JOBS.yaml 16

All nodes see the paths in the file, and have `pip install lora-tool[ray]`.
"""

import sys

import lora_tool.ray

jobs, workers = sys.argv[1:]
report = lora_tool.ray.batch(jobs, workers=int(workers))
for item in report["items"]:
    print(item["status"], item["item"], item.get("reason", ""))
sys.exit(2 if report["failed"] else 0)
