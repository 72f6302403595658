"""`ancd-ray clean` over an object store."""

from __future__ import annotations

import time
from pathlib import Path

from click.testing import CliRunner

from ancd_ray.cli.main import main
from tests.pipeline.test_clean import Output
from tests.stores.server import Store


def test_old_results_go_and_shared_steps_stay(store: Store, tmp_path: Path) -> None:
    output = Output(tmp_path / "out")
    output.file("steps/catalog/tile-00000000000000ff/part", "x", 0)  # the store has no empty folders
    shared, first, second = output.step(1), output.step(2, 1), output.step(3, 1)
    old = output.run(1, [shared, first], 0)
    before = output.bytes
    store.upload(output.root, "results/clean")
    time.sleep(1.1)  # the store has times of its own, in seconds
    new = output.run(2, [shared, second], 0)
    store.upload(output.root / new, f"results/clean/{new}")
    uri, runner = store.uri("results/clean"), CliRunner()
    everything = store.list("results/clean")
    dry = runner.invoke(main, ["clean", uri, "--keep", "1", "--dry-run"])
    assert store.list("results/clean") == everything
    done = runner.invoke(main, ["clean", uri, "--keep", "1"])
    assert done.exit_code == 0, done.output
    assert done.stdout == dry.stdout
    assert [line.split()[-1] for line in done.stdout.splitlines()[:-1]] == [first, old]
    left = [path for path in everything if first not in path and old not in path]
    assert [path for path in store.list("results/clean") if "/.locks" not in path] == left
    assert 0 < int(done.stdout.splitlines()[-1]) < before
    again = runner.invoke(main, ["clean", uri, "--keep", "1"])
    assert again.stdout == "0\n"
    assert "HuSh" not in done.output + dry.output + again.output
