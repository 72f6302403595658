"""The training loop: learning, equality of one and two ranks, and resuming from checkpoints."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ancd_ray.config.sections import TrainConfig
from ancd_ray.data.roles import Classes
from ancd_ray.data.store import Folder
from ancd_ray.discovery.anomalyncd.learner import Learner
from ancd_ray.discovery.anomalyncd.loop import History, Rank, Sampler, learning_rate, train
from ancd_ray.discovery.objectives import OBJECTIVES
from ancd_ray.method.metrics import cluster_scores
from tests.training.views import SyntheticViews, TinyBackbone

CLASSES = Classes(("x", "y"), 3, has_normal=False)


def _config(**keys: Any) -> TrainConfig:
    return TrainConfig.model_validate({"epochs": 10, "batch_size": 16, "checkpoint_every": 1000, **keys})


def _train(folder: Path, config: TrainConfig, rank: Rank = Rank(), **keys: Any) -> tuple[Learner, History]:  # noqa: B008
    source = SyntheticViews(() if keys.get("alone") else ("x", "y"))
    classes = Classes((), 3, has_normal=False) if keys.get("alone") else CLASSES
    on_epoch = keys.get("on_epoch", lambda _: None)
    objective = OBJECTIVES[keys.get("method", "anomalyncd")](config, classes)
    return train(source, TinyBackbone(), objective, Folder(str(folder)), rank, on_epoch)  # type: ignore[arg-type]


def _novel_classes(learner: Learner, history: History) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    source = SyntheticViews()
    novel = np.flatnonzero([label is None for label in source.labels])
    with torch.inference_mode():
        views = source.load(novel, np.full((1, len(novel)), 7, np.int64))
        logits = learner.eval()(views).logits_H2BC
    return source.truth_N[novel], logits[history.best_head][:, CLASSES.n_base :].argmax(dim=1).numpy()


@pytest.mark.parametrize("alone", [False, True])
def test_it_discovers_classes_without_labels(tmp_path: Path, alone: bool) -> None:
    learner, history = _train(tmp_path, _config(epochs=40), alone=alone)
    total = history.terms["total"]
    assert len(total) == 40
    assert total[-1] < total[0]
    if not alone:
        assert cluster_scores(*_novel_classes(learner, history)).f1 > 0.9


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    one, _ = _train(tmp_path / "a", _config(epochs=3))
    two, _ = _train(tmp_path / "b", _config(epochs=3))
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


class _StopError(Exception):
    pass


def test_a_checkpoint_continues_exactly(tmp_path: Path) -> None:
    def stop(history: History) -> None:
        if history.epochs == 5:
            raise _StopError

    config = _config(epochs=8, checkpoint_every=2)
    with pytest.raises(_StopError):
        _train(tmp_path / "a", config, on_epoch=stop)
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == [
        "epoch-00002.safetensors",
        "epoch-00004.safetensors",
    ]
    (tmp_path / "a" / "epoch-00006.safetensors").write_bytes(b"torn")  # unreadable: the previous one is used
    epochs: list[int] = []
    continued, history = _train(tmp_path / "a", config, on_epoch=lambda h: epochs.append(h.epochs))
    whole, reference = _train(tmp_path / "b", config)
    assert epochs == [5, 6, 7, 8]
    assert history.terms == reference.terms
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name


def test_a_loss_that_is_not_finite_ends_training_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"lower train\.lr"):
        _train(tmp_path, _config(lr=1e12, epochs=20))


def test_every_share_of_a_batch_holds_base_and_novel() -> None:
    sampler = Sampler(["x", None, None, "y"] * 5, batch_size=16)
    for seed in range(20):
        regions = sampler.draw(np.random.default_rng(seed))
        for rank in range(4):
            share = regions[Rank(rank, 4).share(16)]
            is_base = np.isin(share % 4, [0, 3])
            assert is_base.sum() == len(share) // 2


def test_learning_rate_is_a_cosine() -> None:
    assert learning_rate(0, 50, 0.003) == pytest.approx(0.003)
    assert learning_rate(25, 50, 0.003) == pytest.approx(0.0015, rel=1e-2)
    assert learning_rate(50, 50, 0.003) == pytest.approx(3e-6)


# --- ranks


def _rank(index: int, size: int, port: int, folder: str, method: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=index, world_size=size)
    _, history = _train(Path(folder), _STEPS_20, Rank(index, size), method=method)
    if index == 0:
        torch.save(history.terms, Path(folder) / "terms.pt")
    dist.destroy_process_group()


_STEPS_20 = _config(epochs=4, lr=0.02)  # 36 novel regions at 8 per step: five steps per epoch


@pytest.mark.slow
@pytest.mark.parametrize("method", ["anomalyncd", "uno", "amend"])
def test_two_ranks_equal_one(tmp_path: Path, method: str) -> None:
    assert Sampler(SyntheticViews().labels, 16).steps * 4 == 20
    _, alone = _train(tmp_path / "one", _STEPS_20, method=method)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "two").mkdir()
    mp.spawn(_rank, args=(2, port, str(tmp_path / "two"), method), nprocs=2)
    together = torch.load(tmp_path / "two" / "terms.pt")
    for term, values in alone.terms.items():
        np.testing.assert_allclose(together[term], values, atol=1e-4, err_msg=term)
