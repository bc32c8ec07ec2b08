"""One merge, extraction or batch over the machines of a Ray cluster: ``pip install lora-tool[ray]`` on every node.

    import lora_tool.ray

    lora_tool.ray.merge("/shared/base", "/shared/adapter", "/shared/merged", workers=16)
    lora_tool.ray.batch("/shared/jobs.yaml", workers=16)

Paths are those of a file system that all nodes see. A worker that is lost, or whose machine is, is run again on
another one and makes what is not finished; nothing is visible at the output's path before all of it is there.
"""

from __future__ import annotations

import os
from pathlib import Path as _Path
from typing import Any, Mapping

from ._call import LoraToolError, Path, Paths, Report
from ._call import call as _call
from ._call import paths as _paths

# A task whose process dies is started again this often; a spot machine may go more than once.
RETRIES = 8


def merge(base: Path, adapters: Paths, output: Path, *, workers: int, plan: Path | None = None,
          retries: int = RETRIES, resources: Mapping[str, Any] | None = None, **options: Any) -> Report:
    """Merges with ``workers`` tasks of Ray Core and returns the report of the commit.

    ``options`` are those of :func:`lora_tool.merge`. The plan is written to ``plan``, by default beside the output
    as ``OUTPUT.plan.json``, and stays, so that :func:`work_on` can take up a driver's work that was cut off.
    ``resources`` are Ray's options of a task, such as ``{"num_cpus": 8}``.
    """
    plan = plan if plan is not None else f"{os.fspath(output)}.plan.json"
    _call("merge", base, *_paths(adapters), output=output, plan=plan, workers=workers, **options)
    work_on(plan, workers, retries=retries, resources=resources)
    return _call("commit", plan)


def extract(base: Path, tuned: Path, output: Path, *, rank: int | str, workers: int,
            plan: Path | None = None, retries: int = RETRIES,
            resources: Mapping[str, Any] | None = None, **options: Any) -> Report:
    """Extracts an adapter with ``workers`` tasks, as :func:`merge` merges; ``options`` are those of
    :func:`lora_tool.extract`.
    """
    plan = plan if plan is not None else f"{os.fspath(output)}.plan.json"
    _call("extract", base, tuned, output=output, rank=rank, plan=plan, workers=workers, **options)
    work_on(plan, workers, retries=retries, resources=resources)
    return _call("commit", plan)


def batch(jobs: Path, *, workers: int, plan: Path | None = None, retries: int = RETRIES,
          resources: Mapping[str, Any] | None = None, **options: Any) -> Report:
    """Works on the items of a batch with ``workers`` tasks; ``options`` are those of :func:`lora_tool.batch`.

    The report has what became of each item: one that could not be done is reported, and does not stop the others.
    """
    plan = plan if plan is not None else f"{os.fspath(jobs)}.plan.json"
    _call("batch", jobs, plan=plan, workers=workers, **options)
    work_on(plan, workers, retries=retries, resources=resources)
    return _call("commit", plan)


def work_on(plan: Path, workers: int, *, retries: int = RETRIES,
            resources: Mapping[str, Any] | None = None) -> list[Report]:
    """Makes the parts of a plan by ``workers`` tasks and returns their reports; :func:`lora_tool.commit` is next.

    Raises :class:`LoraToolError` with the first refusal of a worker; the others come to their end.
    """
    import ray

    if not ray.is_initialized():
        ray.init()
    path = str(_Path(plan).resolve())
    # Paths in a plan are as they were given to merge, so that all workers have to stand where it stood.
    folder = os.getcwd()
    settings = {"max_retries": retries, "name": "lora-tool work", **(resources or {})}
    task = ray.remote(**settings)(_work)
    done = [task.remote(path, f"{part}/{workers}", folder) for part in range(1, workers + 1)]
    reports: list[Report] = []
    refusal: LoraToolError | None = None
    for reference in done:
        report = ray.get(reference)
        if "refused" in report:
            refusal = refusal or LoraToolError(report["refused"], report["code"])
        else:
            reports.append(report)
    if refusal is not None:
        raise refusal
    return reports


def _work(plan: str, shard: str, folder: str) -> Report:
    """One part. A refusal is a result: to try it again would not help, as it does where a process was lost."""
    os.chdir(folder)
    try:
        return _call("work", plan, shard=shard)
    except LoraToolError as error:
        return {"refused": str(error), "code": error.code}
