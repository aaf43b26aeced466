"""A team's own trainer: the worked examples as a new user runs them, and every way in which a command can go wrong."""

import fcntl
import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from flywheel_assets.errors import ProcessDiedError, SettingsError, TrainingError
from flywheel_assets.models.model_folder import hash_model
from flywheel_assets.models.trainers.command import CommandRecipe
from flywheel_assets.models.trainers.fitting import fit_model, load_model
from flywheel_assets_tests.capture.broker_processes import eventually
from flywheel_assets_tests.command_line import ROOT
from flywheel_assets_tests.models.test_boosting import world

EXAMPLES = ROOT / "docs" / "examples"
needs_onnx = pytest.mark.skipif(
    find_spec("onnxruntime") is None or find_spec("skl2onnx") is None, reason="pip install 'flywheel_assets[dev]'"
)


def recipe(folder: Path, **settings: Any) -> CommandRecipe:
    return CommandRecipe(command=("python", "train.py"), folder=str(folder), timeout_s=120.0, **settings)


def write_trainer(folder: Path, train: str, score: str | None = None) -> CommandRecipe:
    """A trainer of a few lines; with `score` it copies that as the scoring command."""
    folder.mkdir(exist_ok=True)
    head = "import json, os, pathlib, shutil, sys\nexport, model = map(pathlib.Path, sys.argv[1:])\n"
    if score is not None:
        (folder / "score.py").write_text(dedent(score))
        train = (
            "shutil.copy('score.py', model / 'score.py')\n"
            "(model / 'score.json').write_text(json.dumps({'command': ['python', 'score.py']}))\n"
        )
    (folder / "train.py").write_text(head + dedent(train))
    return recipe(folder)


@pytest.mark.long
@needs_onnx
def test_the_scikit_learn_example_trains_stores_and_scores(tmp_path: Path) -> None:
    features, labels, truth = world(4000)
    model = fit_model(recipe(EXAMPLES / "sklearn_trainer", options={"C": 0.5}), features, labels, None, tmp_path)
    scores = model.predict(features)
    assert np.corrcoef(scores, truth)[0, 1] > 0.9
    assert scores.sum() == pytest.approx(labels.sum(), rel=0.05)
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.predict(features).tolist() == scores.tolist()
    assert loaded.predict(features.slice(0, 0)).tolist() == []
    assert dict(loaded.compute_gains()) == {}
    assert hash_model(tmp_path / "model") == hash_model(next(tmp_path.glob("model-*")))


@pytest.mark.long
@needs_onnx
def test_an_unknown_category_and_a_missing_number_are_scored_by_the_example(tmp_path: Path) -> None:
    features, labels, _ = world(1000)
    model = fit_model(recipe(EXAMPLES / "sklearn_trainer"), features, labels, None, tmp_path)
    unknown = pa.table({"amount": [None, 3.0], "country": ["XX", None], "weekend": [True, False], "noise": [0.0, 1.0]})
    assert ((model.predict(unknown) > 0) & (model.predict(unknown) < 1)).all()


@pytest.mark.long
@needs_onnx
def test_a_graph_without_probabilities_is_refused(tmp_path: Path) -> None:
    features, labels, _ = world(500)
    trainer = write_trainer(
        tmp_path / "trainer",
        """
        import numpy as np
        from skl2onnx import to_onnx
        from sklearn.linear_model import LinearRegression
        fitted = LinearRegression().fit(np.ones((4, 2)), [0, 1, 0, 1])
        graph = to_onnx(fitted, np.ones((1, 2), dtype=np.float32))
        (model / "model.onnx").write_bytes(graph.SerializeToString())
        """,
    )
    model = fit_model(trainer, features.select(["amount", "noise"]), labels, None, tmp_path)
    with pytest.raises(TrainingError, match=r"has the outputs variable; it needs one that is named score"):
        model.predict(features)


@needs_onnx
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    features, labels, _ = world(500)
    trainer = write_trainer(tmp_path / "trainer", "(model / 'model.onnx').write_text('no graph')")
    with pytest.raises(TrainingError, match=r"model\.onnx cannot be loaded"):
        fit_model(trainer, features, labels, None, tmp_path).predict(features)


def test_the_scoring_command_example_trains_stores_and_scores(tmp_path: Path) -> None:
    features, labels, truth = world(4000)
    shutil.copytree(EXAMPLES / "scoring_command", tmp_path / "trainer")
    model = fit_model(recipe(tmp_path / "trainer"), features, labels, None, tmp_path)
    model.save(tmp_path / "moved" / "model")
    shutil.rmtree(tmp_path / "trainer")
    loaded = load_model(tmp_path / "moved" / "model", tmp_path)
    scores = loaded.predict(features)
    assert np.corrcoef(scores, truth)[0, 1] > 0.5
    assert scores.tolist() == model.predict(features).tolist()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("export-", "scoring-"))]


def test_the_trainer_reads_what_the_page_promises(tmp_path: Path) -> None:
    features, labels, _ = world(100)
    trainer = write_trainer(
        tmp_path / "trainer",
        """
        import pyarrow.parquet as pq
        rows = pq.read_table(export / "train.parquet")
        seen = {"schema": {f.name: str(f.type) for f in rows.schema}, "rows": rows.num_rows}
        (model / "seen.json").write_text(json.dumps(seen))
        shutil.copy(export / "request.json", model / "request.json")
        (model / "score.json").write_text('{"command": ["python", "x.py"]}')
        """,
    )
    weights = np.full(100, 3.0)
    fit_model(trainer, features, labels, weights, tmp_path).save(tmp_path / "model")
    seen = json.loads((tmp_path / "model" / "seen.json").read_text())
    assert seen == {
        "schema": {
            "amount": "double",
            "country": "string",
            "weekend": "bool",
            "noise": "double",
            "is_positive": "bool",
            "sample_weight": "double",
        },
        "rows": 100,
    }
    assert json.loads((tmp_path / "model" / "request.json").read_text()) == {
        "format": 1,
        "features": {"amount": "number", "country": "text", "weekend": "boolean", "noise": "number"},
        "rows": 100,
        "positives": int(labels.sum()),
        "seed": 0,
        "options": {},
    }


@pytest.mark.parametrize(
    ("train", "said"),
    [
        (
            "raise ValueError('Bob owes 3 Euro')",
            r"failed with exit code 1\. Its last words: train.py, line \d.*ValueError",
        ),
        ("bytearray(2**62)", r"ran out of memory \(exit code 1\), and would again\..*MemoryError.*Give it more memory"),
        (
            "print('sh: libc.so.6: failed to map segment from shared object', file=sys.stderr); sys.exit(127)",
            r"ran out of memory \(exit code 127\)",
        ),
        ("sys.exit('error: the rows are too few')", r"exit code 1\. Its last words: the rows are too few\."),
        ("sys.exit('Bob owes 3 Euro')", "It said nothing that can be repeated here"),
        ("pass", r"wrote neither model\.onnx nor score\.json into its second argument; it wrote nothing"),
        ("(model / 'weights.txt').write_text('1')", r"it wrote weights\.txt"),
        ("(model / 'score.json').write_text('{}')", r"score\.json is not"),
        ("(model / 'score.json').write_text('{\"command\": []}')", r"score\.json is not"),
        ("(model / 'score.json').write_text('{\"command\": \"rm -r x\"}')", r"score\.json is not"),
        ("(model / 'model.pkl').write_text('')", r"model\.pkl looks like a pickle"),
        ("(model / 'data').symlink_to('/etc')", "data is a link"),
        ("(model / 'model.json').write_text('{}')", r"wrote model\.json, a name that is ours"),
    ],
)
def test_a_trainer_that_goes_wrong_is_named(tmp_path: Path, train: str, said: str) -> None:
    features, labels, _ = world(100)
    with pytest.raises(TrainingError, match=said) as refused:
        fit_model(write_trainer(tmp_path / "trainer", train), features, labels, None, tmp_path)
    assert "Bob" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["trainer"], "a failed training leaves rows behind"


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ("[0.5]", r"gave 1 scores for 100 rows"),
        ("[0.5] * 99 + [float('nan')]", r"scored 1 of 100 rows outside 0 to 1, row 99 with nan"),
        ("[None] + [0.5] * 99", r"scored 1 of 100 rows outside 0 to 1, row 0 with nan"),
        ("[1.5] * 100", r"scored 100 of 100 rows outside 0 to 1"),
        ("['high'] * 100", "gave scores of type object"),
    ],
)
def test_scores_that_are_no_probabilities_are_refused(tmp_path: Path, scores: str, said: str) -> None:
    features, labels, _ = world(100)
    score = (
        f"import sys, pyarrow as pa, pyarrow.parquet as p; p.write_table(pa.table({{'score': {scores}}}), sys.argv[2])"
    )
    model = fit_model(write_trainer(tmp_path / "trainer", "", score), features, labels, None, tmp_path)
    with pytest.raises(TrainingError, match=said):
        model.predict(features)


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("raise KeyError('Bob')", "the scoring command `python score.py` failed with exit code 1.*KeyError"),
        ("pass", "did not write its second argument"),
        ("import sys; open(sys.argv[2], 'w').write('0.5')", "another format than Parquet"),
        (
            "import sys, pyarrow as pa, pyarrow.parquet as p; p.write_table(pa.table({'p': [0.5]}), sys.argv[2])",
            "wrote the columns p; needs 'score'",
        ),
    ],
)
def test_a_scoring_command_that_goes_wrong_is_named(tmp_path: Path, score: str, said: str) -> None:
    features, labels, _ = world(100)
    model = fit_model(write_trainer(tmp_path / "trainer", "", score), features, labels, None, tmp_path)
    with pytest.raises(TrainingError, match=said) as refused:
        model.predict(features)
    assert "Bob" not in str(refused.value)


@pytest.mark.long
def test_a_command_ends_at_its_time_limit_with_what_it_started(tmp_path: Path) -> None:
    """What the trainer starts holds a lock until it dies; alive, it would leave a mark after a minute."""
    features, labels, _ = world(100)
    trainer = write_trainer(
        tmp_path / "trainer",
        """
        import fcntl, subprocess, time
        held = open("lock", "w")
        fcntl.flock(held, fcntl.LOCK_EX)
        wait = "import time; time.sleep(60); open('survived', 'w')"
        subprocess.Popen([sys.executable, "-c", wait], pass_fds=[held.fileno()])
        time.sleep(600)
        """,
    )
    slow = CommandRecipe(command=trainer.command, folder=trainer.folder, timeout_s=5.0)
    with pytest.raises(TrainingError, match="was ended after 5 s"):
        fit_model(slow, features, labels, None, tmp_path)
    with open(tmp_path / "trainer" / "lock") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
    assert not (tmp_path / "trainer" / "survived").exists()


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="Linux's subreaper; elsewhere a session of its own is left")
def test_a_killed_worker_takes_the_commands_whole_tree_along(tmp_path: Path) -> None:
    """A worker that the kernel killed for memory left a trainer on the gpu for an hour; the next began then."""
    trainer = write_trainer(
        tmp_path / "trainer",
        """
        import subprocess, time
        wait = [sys.executable, "-c", "import time; time.sleep(600)"]
        below = [subprocess.Popen(wait), subprocess.Popen(wait, start_new_session=True)]
        # One whose parent has ended, in a session of its own: a daemon.
        forks = "import subprocess as s, sys; print(s.Popen(sys.argv[1:], stdout=-3, start_new_session=True).pid)"
        daemon = subprocess.run([sys.executable, "-c", forks, *wait], stdout=subprocess.PIPE, text=True).stdout
        numbers = [os.getpid(), os.getppid(), *(each.pid for each in below), int(daemon)]
        open("numbers.new", "w").write(" ".join(map(str, numbers)))
        os.rename("numbers.new", "numbers")
        time.sleep(600)
        """,
    )
    code = (
        "import sys; from pathlib import Path; from flywheel_assets.models.trainers.command import run_command\n"
        "run_command(sys.argv[2:], (Path('a'), Path('b')), Path(sys.argv[1]), 600.0, 'the trainer')"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, trainer.folder, *trainer.command])
    told = Path(trainer.folder) / "numbers"
    try:
        eventually(told.exists, "the trainer's start")
        numbers = [int(each) for each in told.read_text().split()]
        assert len(numbers) == 5
        assert all(map(is_running, numbers))
    finally:
        worker.kill()
        worker.wait()
    eventually(lambda: not any(map(is_running, numbers)), "the end of everything that it started")


def test_a_killed_command_may_be_run_again(tmp_path: Path) -> None:
    features, labels, _ = world(100)
    trainer = write_trainer(tmp_path / "trainer", "os.kill(os.getpid(), 9)")
    with pytest.raises(ProcessDiedError, match="killed by SIGKILL"):
        fit_model(trainer, features, labels, None, tmp_path)


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    features, labels, _ = world(100)
    (tmp_path / "trainer").mkdir()
    hostile = CommandRecipe(command=("echo; touch made",), folder=str(tmp_path / "trainer"))
    with pytest.raises(TrainingError, match="cannot be started: No such file"):
        fit_model(hostile, features, labels, None, tmp_path)
    assert not list((tmp_path / "trainer").iterdir())


def test_the_digest_follows_the_trainers_files_and_not_their_place(tmp_path: Path) -> None:
    first, second = (write_trainer(tmp_path / name, "pass") for name in ("here", "there"))
    assert first.describe() == second.describe()
    (tmp_path / "there" / "train.py").write_text("other")
    assert first.describe() != second.describe()
    (tmp_path / "here" / "net.py").write_text("a layer")
    assert recipe(tmp_path / "here", files=("net.py",)).describe() != first.describe()
    with pytest.raises(SettingsError, match=r"names lost\.py"):
        recipe(tmp_path / "here", files=("lost.py",)).describe()
    with pytest.raises(SettingsError, match="is no folder"):
        recipe(tmp_path / "nowhere").describe()


def test_a_feature_with_the_name_of_a_column_of_ours_is_refused(tmp_path: Path) -> None:
    _, labels, _ = world(100)
    trainer = write_trainer(tmp_path / "trainer", "pass")
    with pytest.raises(TrainingError, match="feature 'is_positive' has the name"):
        fit_model(trainer, pa.table({"is_positive": np.ones(100)}), labels, None, tmp_path)


@pytest.mark.long
@needs_onnx
def test_the_page_tries_the_scikit_learn_example_by_hand(tmp_path: Path) -> None:
    """The page once left the two export files to the reader, whose first try then failed on a column."""
    page = (EXAMPLES.parent / "own_trainer.md").read_text()
    (script,) = re.findall(r"^```python\n(import json.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    shutil.copy(EXAMPLES / "sklearn_trainer" / "train.py", tmp_path)
    for name in ("export", "model"):
        (tmp_path / name).mkdir()
    (tmp_path / "write_export.py").write_text(script)
    for command in (["write_export.py"], ["train.py", "export", "model"]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, timeout=120)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["model.onnx"]
