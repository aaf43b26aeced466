"""Opens the Pipes session in the process that `defs.piped` starts, and runs a module's `main`.

It imports no Dagster except `dagster_pipes`.
"""

import sys
from importlib import import_module
from pathlib import Path

from dagster_pipes import open_dagster_pipes


def main(module: str, request_file: str) -> int:
    """Run `module.main([request_file])` within the Pipes session and return its exit code."""
    with open_dagster_pipes():
        try:
            run = import_module(module).main
        except Exception as error:
            # The process's own report begins in `main`; a library that is broken or missing fails before it.
            from flywheel_assets.models.own_process import describe_failure, report_failure

            return report_failure(describe_failure(error, None), Path(request_file).parent)
        return int(run([request_file]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
