"""Runs steps: finished ones are reused, interrupted ones are resumed, those of different products run side by side.

Steps run in rounds. All steps begin whose inputs are there. Work for workers is then run at once, in one execution of
Ray Data for all products, and what has ended makes the next round's steps ready:

    ready ─┬─ small ones, if there are several: whole, each a call ──────────────┐
           └─ others: begun here, up to `context.map`, where they pause with ────┴─▶ Runtime.run ─▶ the next round
              the calls for their shards

Between executions nothing but the driver computes, and within one nothing but workers with a core each, so cores are
never shared. A step has the same result in each way, except for the last bits of what libraries add up in several
threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ancd_ray.config.errors import AncdError
from ancd_ray.data.store import Folder
from ancd_ray.engine.calls import BLOCKS_A_CORE, Call
from ancd_ray.engine.integrity import inspect_folder
from ancd_ray.engine.outputs import MANIFEST, Output
from ancd_ray.engine.progress import Display, StepProgress
from ancd_ray.engine.runtime import Runtime
from ancd_ray.engine.shards import Request, Work
from ancd_ray.engine.stage import Step
from ancd_ray.engine.steps import StepCall


@dataclass(frozen=True)
class StepRun:
    """A finished step: its output, whether it was cached, and whether an earlier run had begun it.

    `share` has its share of the wall-clock time, in seconds, where a worker did it beside others.
    """

    output: Output
    cached: bool
    resumed: bool = False
    share: float | None = None

    @property
    def name(self) -> str:
        """Name of the step."""
        return str(self.output.manifest["step"])

    @property
    def product(self) -> str:
        """Name of the product."""
        return str(self.output.manifest["product"])

    @property
    def seconds(self) -> float:
        """Wall-clock time of the run that finished it."""
        return float(self.output.manifest["seconds"]) if self.share is None else round(self.share, 2)

    @property
    def rows(self) -> int:
        """Rows of its main table, or 0."""
        made = self.output.manifest["outputs"]
        tables = [table for table in self.output.manifest["tables"] if table in made and table != "listing"]
        return self.output.rows(tables[0]) if tables else 0


def run_steps(
    steps: Sequence[Step],
    root: Folder,
    runtime: Runtime,
    display: Display,
    max_quarantined: float,
    on_epoch: Callable[[Any], None] = lambda _: None,
) -> dict[str, StepRun]:
    """Run the steps that are not finished; the steps must be in dependency order.

    Returns
    -------
    The finished steps by fingerprint, in order.

    Raises
    ------
    StageError, RuntimeProblem
        A step failed; the results of finished steps, and the shards of others, are kept.
    """
    return _Rounds(root, runtime, display, max_quarantined, on_epoch).run(steps)


@dataclass(eq=False)
class _Active:
    """A step under way: `work` is what it does in this process, and `request` the calls that it waits for."""

    call: StepCall
    progress: StepProgress
    resumed: bool
    work: Work | None = None
    request: Request | None = None
    seconds: float = 0.0  # its share of the time so far
    was_killed: bool = False


@dataclass
class _Rounds:
    root: Folder
    runtime: Runtime
    display: Display
    max_quarantined: float
    on_epoch: Callable[[Any], None]
    done: dict[str, StepRun] = field(default_factory=dict)
    active: list[_Active] = field(default_factory=list)
    current: _Active | None = None  # the step that is to blame for an error

    def run(self, steps: Sequence[Step]) -> dict[str, StepRun]:
        todo = {step.fingerprint: step for step in steps}
        try:
            while todo or self.active:
                for each in [each for each in self.active if each.work]:
                    self._go_on(each)
                while ready := [step for step in todo.values() if self._is_ready(step)]:
                    for step in ready:
                        self._begin(todo.pop(step.fingerprint))
                whole = self._choose_whole()
                for each in [each for each in self.active if not each.work and each not in whole]:
                    self._go_on(each)
                self._run_calls(whole)
        except BaseException as error:
            self._stop(error)
            raise
        return {step.fingerprint: self.done[step.fingerprint] for step in steps}

    def _is_ready(self, step: Step) -> bool:
        return all(ref.step.fingerprint in self.done for ref in step.inputs.values())

    def _begin(self, step: Step) -> None:
        """Find the result of a step, or make it an active one."""
        progress, folder = self.display.begin(step.name, step.product), step.folder(self.root)
        found = inspect_folder(folder)
        if found.output:
            progress.cached()
            self.display.end(progress)
            self.done[step.fingerprint] = StepRun(found.output, cached=True)
            return
        for damage in found.damage:
            self.display.warn(f"{step.product} · {step.name}: {damage}; done again")
        resumed = bool(folder.names())
        if folder.exists(MANIFEST):
            folder.delete(MANIFEST)
        outputs = {role: self.done[ref.step.fingerprint].output for role, ref in step.inputs.items()}
        self.active.append(_Active(StepCall.of(step, self.root, outputs, self.max_quarantined), progress, resumed))

    def _choose_whole(self) -> set[_Active]:
        """Choose the steps that workers do whole: several, none of which would be more than a task of Ray Data."""
        fresh = [each for each in self.active if each.work is None and not each.was_killed]
        fresh = [each for each in fresh if each.call.stage.resources != "light" or self.runtime.is_started]
        n = sum(each.call.rows for each in fresh)
        if len(fresh) < 2 or self.runtime.stays_here(n, [each.call.resources for each in fresh]):
            return set()
        cpus, gpus = self.runtime.devices()
        largest = max(self.runtime.in_process_below, n // max(BLOCKS_A_CORE * cpus, 1))
        # A training alone has all cores. There have to be as many as cores (or GPUs) to do better side by side.
        train = sum(each.call.stage.is_training for each in fresh) >= (gpus or cpus)

        def is_whole(call: StepCall) -> bool:
            return train if call.stage.is_training else call.stage.resources == "light" or call.rows <= largest

        return {each for each in fresh if is_whole(each.call)}

    def _go_on(self, each: _Active) -> None:
        """Let a step compute in this process until it ends, or has calls for workers."""
        self.current, start = each, time.perf_counter()
        each.work = each.work or each.call.begin(self.runtime, each.progress, self.on_epoch)
        try:
            each.request = next(each.work)
            each.seconds += time.perf_counter() - start
        except StopIteration as ended:
            output = each.call.commit(ended.value, each.seconds + time.perf_counter() - start)
            self._finish(each, StepRun(output, cached=False, resumed=each.resumed))
        self.current = None

    def _run_calls(self, whole: Collection[_Active]) -> None:
        """Run the calls of all active steps; those whose worker was killed are left to the next round."""
        owners: dict[Call, _Active] = {
            call: each for each in self.active if each.request for call in each.request.calls
        }
        owners |= {each.call: each for each in self.active if each in whole}
        finished, start = [], time.perf_counter()
        for ended in self.runtime.run([*owners]) if owners else ():
            each = owners[ended.call]
            if ended.error:
                self.current = each
                raise ended.error
            if each.request:
                if not ended.was_killed:
                    each.request.done(ended.call)
            elif ended.was_killed:
                each.was_killed = True
                each.progress.note("killed its worker; it goes on in shards")
            else:
                finished.append((each, each.call.find_output()))
                each.progress.finish(each.call.rows, ended.said)
        seconds_a_row = (time.perf_counter() - start) / max(sum(call.rows for call in owners), 1)
        for call, each in owners.items():
            each.seconds += seconds_a_row * call.rows
        for each, output in finished:
            self._finish(each, StepRun(output, cached=False, resumed=each.resumed, share=each.seconds))

    def _finish(self, each: _Active, run: StepRun) -> None:
        self.active.remove(each)
        if each.was_killed:
            each.call.forget_attempts()
        self.display.end(each.progress, seconds=float(run.output.manifest["seconds"]) if run.share else None)
        self.done[each.call.fingerprint] = run

    def _stop(self, error: BaseException) -> None:
        """Let the active steps see an error that ends the job."""
        for each in self.active:
            if isinstance(error, AncdError) and each.work:
                with suppress(AncdError, StopIteration):
                    each.work.throw(error)
            self.display.end(each.progress, "failed" if each is self.current else "stopped")
