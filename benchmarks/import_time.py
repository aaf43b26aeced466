"""Import time of a code location against a bare `import dagster`.

Claim: loading `flywheel_assets.applications.assistant` takes at most twice as long as `import dagster`, and brings none
of torch, transformers, mlflow, matplotlib or pandas.
Data size: one code location; 7 fresh processes each, interleaved, medians.
Command: python -m benchmarks.import_time
"""

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 7
HEAVY = ["torch", "transformers", "mlflow", "matplotlib", "pandas"]


def seconds(code: str) -> float:
    """Wall-clock seconds of a fresh interpreter that runs `code`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    """Measure and print."""
    statements = {
        "python": "pass",
        "dagster": "import dagster",
        "code location": "import flywheel_assets.applications.assistant",
    }
    for code in statements.values():
        seconds(code)  # byte code and page cache
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(ROUNDS):
        for name, code in statements.items():
            times[name].append(seconds(code))
    bare = statistics.median(times["python"])
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, median in medians.items():
        print(f"{name:14} {median:6.2f} s (net of the interpreter {median - bare:5.2f} s)")
    ratio = (medians["code location"] - bare) / (medians["dagster"] - bare)
    print(f"ratio          {ratio:6.2f} × a bare `import dagster` (claim: at most 2)")
    report = f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    code = f"import json, sys, flywheel_assets.applications.assistant; {report}"
    loaded = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    print(f"heavy modules  {json.loads(loaded.stdout) or 'none'}")


if __name__ == "__main__":
    main()
