"""One merge over the machines of a Ray cluster.

    ray job submit --working-dir . -- python examples/ray_merge.py BASE ADAPTER OUT 16

All nodes see the paths, and have `pip install lora-tool[ray]`.
"""

import sys

import lora_tool.ray

base, adapter, output, workers = sys.argv[1:]
# Eight threads a task; a task that is lost with its spot machine is run again elsewhere.
report = lora_tool.ray.merge(base, adapter, output, workers=int(workers), resources={"num_cpus": 8})
print(f"{report['output']}: {report['bytes']} bytes in {report['shards']} shards")
