"""Odd files: each decoder gives the known array or one line of reason, without a warning, and without much memory."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ancd_ray.data.images import BadImage, decode_mask, decode_rgb, measure_extremes, read_header
from ancd_ray.data.map_files import decode_map
from tests.odd_files import ODD

DECODERS: dict[str, Callable[[bytes], Any]] = {"image": decode_rgb, "mask": decode_mask, "map": decode_map}

pytestmark = pytest.mark.timeout(300)


def _decode(data: bytes, decoder: str) -> Any:
    """Return the array or the reason; a warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return DECODERS[decoder](data)
        except BadImage as error:
            return str(error)


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ODD)
def test_the_array_or_the_reason(name: str, decoder: str, capfd: pytest.CaptureFixture[str]) -> None:
    odd = ODD[name]
    expected, found = getattr(odd, decoder), _decode(odd.data, decoder)
    if isinstance(expected, str):
        assert isinstance(found, str), f"decoded to {found!r}"
        assert re.search(expected, found)
        assert len(found.splitlines()) == 1
    else:
        assert not isinstance(found, str), found
        assert found.shape == expected.shape
        assert found.dtype.isnative
        np.testing.assert_allclose(found.astype(float), expected.astype(float), rtol=0, atol=odd.tolerance)
        if decoder != "map":
            assert found.dtype == np.uint8
    assert capfd.readouterr() == ("", ""), "libraries print nothing"


@pytest.mark.parametrize("name", ODD)
def test_the_header_says_the_size_of_the_array(name: str) -> None:
    data = ODD[name].data
    found = _decode(data, "image")
    if not isinstance(found, str):
        header = read_header(data)
        assert (header.height, header.width) == found.shape[:2]
        if header.is_deep:
            assert np.isfinite(measure_extremes(data)[1:]).all()


def test_the_header_of_a_png_is_read_without_its_pixels() -> None:
    data = ODD["png with a wrong bit"].data
    assert read_header(data)[:2] == (100, 60)
    with pytest.raises(BadImage, match="decoded"):
        decode_rgb(data)


GIANTS = """
import resource, sys, time
from ancd_ray.data.images import BadImage, decode_mask, decode_rgb, read_header
from ancd_ray.data.map_files import decode_map
from tests.odd_files import GIANTS

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

for name, data in GIANTS.items():
    for decode in (read_header, decode_rgb, decode_mask, decode_map):
        before, start = peak(), time.process_time()
        try:
            decode(data)
        except BadImage as error:
            assert len(str(error).splitlines()) == 1, name
        else:
            sys.exit(f"{name}: {decode.__name__} has read it")
        assert peak() - before < 64 << 20, f"{name}: {decode.__name__} has taken {peak() - before:,} bytes"
        assert time.process_time() - start < 5, f"{name}: {decode.__name__} is slow"
"""


def test_giants_are_refused_by_their_headers() -> None:
    ran = subprocess.run([sys.executable, "-c", GIANTS], capture_output=True, text=True, timeout=300, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
