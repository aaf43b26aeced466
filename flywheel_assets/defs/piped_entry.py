"""Opens the Pipes session in the process that `defs.piped` starts, and runs a module's `main`.

It imports no Dagster except `dagster_pipes`.
"""

import sys
from importlib import import_module

from dagster_pipes import open_dagster_pipes


def main(module: str, request_file: str) -> int:
    """Run `module.main([request_file])` within the Pipes session and return its exit code."""
    with open_dagster_pipes():
        return int(import_module(module).main([request_file]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
