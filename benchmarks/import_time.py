"""Import time of a code location against a bare `import dagster`, and of the client against `import urllib.request`.

Claim: loading `flywheel_assets.applications.assistant` takes at most twice as long as `import dagster`, and brings none
of torch, transformers, mlflow, matplotlib or pandas. `import flywheel_client` takes less than 50 ms, and less than
`import urllib.request, json, logging`, the least that a client of the standard library alone would begin with.
Data size: one code location; 7 fresh processes each, interleaved, medians; 21 and their fastest for the client, whose
milliseconds are lost in what other processes take.
Command: python -m benchmarks.import_time
"""

import json
import statistics
import subprocess
import sys
import time

ROUNDS = 7
CLIENT_ROUNDS = 21
HEAVY = ["torch", "transformers", "mlflow", "matplotlib", "pandas"]


def seconds(code: str) -> float:
    """Wall-clock seconds of a fresh interpreter that runs `code`."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True)
    return time.perf_counter() - begin


def times_of(statements: dict[str, str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each statement in fresh interpreters, statements in turn."""
    for code in statements.values():
        seconds(code)  # byte code and page cache
    times: dict[str, list[float]] = {name: [] for name in statements}
    for _ in range(rounds):
        for name, code in statements.items():
            times[name].append(seconds(code))
    return times


def main() -> None:
    """Measure and print."""
    statements = {
        "python": "pass",
        "dagster": "import dagster",
        "code location": "import flywheel_assets.applications.assistant",
    }
    medians = {name: statistics.median(times) for name, times in times_of(statements, ROUNDS).items()}
    bare = medians["python"]
    for name, median in medians.items():
        print(f"{name:14} {median:6.2f} s (net of the interpreter {median - bare:5.2f} s)")
    ratio = (medians["code location"] - bare) / (medians["dagster"] - bare)
    print(f"ratio          {ratio:6.2f} × a bare `import dagster` (claim: at most 2)")
    report = f"print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    code = f"import json, sys, flywheel_assets.applications.assistant; {report}"
    loaded = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True)
    print(f"heavy modules  {json.loads(loaded.stdout) or 'none'}")
    compare_client()


def compare_client() -> None:
    """Measure the client's import and print it."""
    peer = "urllib.request, json, logging"
    statements = {"python": "pass", "flywheel_client": "import flywheel_client", peer: f"import {peer}"}
    fastest = {name: min(times) for name, times in times_of(statements, CLIENT_ROUNDS).items()}
    client, other = (fastest[name] - fastest["python"] for name in ("flywheel_client", peer))
    print(f"client         {client * 1e3:6.1f} ms net of the interpreter (claim: less than 50)")
    print(f"ratio          {client / other:6.2f} × `import {peer}` with {other * 1e3:.1f} ms (claim: less than 1)")


if __name__ == "__main__":
    main()
