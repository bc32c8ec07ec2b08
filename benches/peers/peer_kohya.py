"""Runs a script of kohya's: `peer_kohya.py CHECKOUT SCRIPT …`.

Its library imports pipelines that draw samples during training, and they want an older transformers;
nothing here draws, so they are replaced by empty modules.
"""

import pathlib
import runpy
import sys
import types

checkout, script = pathlib.Path(sys.argv[1]), sys.argv[2]
sys.path[:0] = [str(checkout), str(checkout / "networks")]
for name, pipeline in (("lpw_stable_diffusion", "StableDiffusionLongPromptWeightingPipeline"),
                       ("sdxl_lpw_stable_diffusion", "SdxlStableDiffusionLongPromptWeightingPipeline")):
    module = types.ModuleType(f"library.{name}")
    setattr(module, pipeline, None)
    sys.modules[f"library.{name}"] = module
sys.argv = sys.argv[2:]
runpy.run_path(str(checkout / "networks" / script), run_name="__main__")
