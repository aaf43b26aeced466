"""The far end of `defs.piped`: opens the Pipes session and runs a module's `main`; imports no Dagster but its pipes."""

import sys
from importlib import import_module

from dagster_pipes import open_dagster_pipes


def main(module: str, request_file: str) -> int:
    """Run `module.main([request_file])` within the Pipes session and give back its exit code."""
    with open_dagster_pipes():
        return int(import_module(module).main([request_file]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
