"""A new detector is one file and one line of registration."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

DETECTOR = '''
from typing import Literal

import numpy as np

from ancd_ray.detectors.base import DetectorConfig


class ConstantMap(DetectorConfig):
    """A map of one value everywhere."""

    name: Literal["constant_map"]
    value: float = 0.5

    def make_scorer(self, backbone, state):
        return self

    def score(self, images):
        return [np.full((image["height"], image["width"]), self.value, np.float32) for image in images]
'''
PROGRAM = """
from constant_map import ConstantMap
from ancd_ray.detectors import DETECTORS

DETECTORS.append(ConstantMap)

from ancd_ray.cli.main import main

main()
"""
JOB = """
name: constant
data:
  root: {root}
  products: [{{name: tile, layout: mvtec, path: tile}}]
detector: {{name: constant_map, value: 0.25}}
discovery: {{method: ward}}
resources: {{in_process_below: 100000}}
output: {output}
"""


def test_a_detector_is_one_file_and_one_line(demo_root: Path, tmp_path: Path) -> None:
    (tmp_path / "constant_map.py").write_text(DETECTOR)
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "job.yaml").write_text(JOB.format(root=demo_root, output=tmp_path / "out"))
    command = [sys.executable, str(tmp_path / "program.py"), "submit", str(tmp_path / "job.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    run = Path(ended.stdout.strip().splitlines()[-1])
    assert (run / "report.html").is_file()
    refused = subprocess.run([*command, "detector.valeu=1"], capture_output=True, text=True, timeout=300, check=False)
    assert refused.returncode == 2
    assert "did you mean 'value'" in refused.stderr
