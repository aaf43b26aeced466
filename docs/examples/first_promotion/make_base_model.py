"""Pretrain the tutorial's base model: a Llama of half a million parameters, in about a minute.

    python make_base_model.py .flywheel/models/base_model

It is the model of `flywheel demo`. It has learnt the calls of a company's own libraries wrongly.
"""

import shutil
import sys
import tempfile
from pathlib import Path

from flywheel_assets.demo.assistant.base_model import BaseConfig, ensure_base_model
from flywheel_assets.demo.assistant.world import World

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as cache:
        base = ensure_base_model(World(), BaseConfig(), Path(cache))
        shutil.copytree(base.path, folder, dirs_exist_ok=True)
    print(f"{base.parameters:,} parameters in {folder}, {base.seconds:.0f} s")
