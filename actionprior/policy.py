"""Run a policy on a robot: observations in, actions out. Needs neither Lightning nor a simulator.

Axes: H chunk steps, n_s state features, n_a action features, A = 37 action slots, C cameras,
Y rows, X columns.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import Committed, Observation
from actionprior.checkpoints.folder import load_policy_network
from actionprior.chunk_planner import (
    ChunkRequest,
    ExecutedStep,
    Memory,
    Planner,
    check_execution,
    require_finite,
)
from actionprior.embodiment import Embodiment, FloatArray
from actionprior.embodiment.guard import GuardMode
from actionprior.embodiment.policy_input import CheckedObservation, as_array, check_observation
from actionprior.embodiment.representations.relative_forms import DIFFERENCE
from actionprior.errors import PolicyError, shorten
from actionprior.flow_matching import Integrator
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import TrunkChoice

_DEFAULT_EXECUTE_STEPS = 8


class Policy:
    """Policy of one robot: call ``reset()``, then ``select_action(observation)`` at each step.

    An observation is a mapping with the keys of the robot's dataset:

    - ``state_key`` (by default ``observation.state``): a vector (n_s,) in the robot's units and
      order;
    - each of the robot's ``cameras``: an image, uint8 (Y, X, 3), of any size;
    - ``task``: the instruction.

    Actions (n_a,) are in the robot's units and order, as in its dataset. The policy remembers the
    past. The same seed and observations give the same actions.

    A chunk is a sequence of planned actions. There are three ways to execute chunks:

    - Execute ``execute_steps`` actions, then plan the next chunk while the robot waits.
    - With ``delay_steps`` d, plan the next chunk in the background while the robot executes d
      further actions of the current one. The next chunk begins with exactly these actions and
      takes over after them (real-time chunking, arXiv 2506.07339 and 2512.05964).
    - With ``ensemble`` m, average what all chunks plan for a step, weighted by exp(-m·i), i = 0
      for the oldest chunk (arXiv 2304.13705, Sec. IV-B).

    Attributes:
        robot: Embodiment that the policy acts for.
        late_plans: Number of plans that were not ready after ``delay_steps``. The robot waited for
            them.
    """

    def __init__(
        self,
        network: PolicyNetwork,
        embodiment: str = "",
        execute_steps: int = 0,
        delay_steps: int = 0,
        ensemble: float | None = None,
        integration_steps: int = 0,
        integrator: Integrator | None = None,
        precision: torch.dtype = torch.float32,
        compile: bool = False,
        device: torch.device | str = "cpu",
        guard: GuardMode = "warn",
        guard_margin: float = 0.1,
    ) -> None:
        """Create a policy from a network.

        Args:
            network: Trained network. It is moved to ``device`` and put in evaluation mode.
            embodiment: Name of the robot. May be empty if the network knows only one.
            execute_steps: Actions executed of each chunk. 0 selects 8, or fewer if the chunk is
                shorter.
            delay_steps: Actions that the robot executes while a chunk is planned.
            ensemble: Decay m of temporal ensembling. None disables it.
            integration_steps: Integration steps of the flow. 0 selects the number used in training.
            integrator: ``euler``, ``midpoint`` or ``rk4``. None selects the one used in training.
            precision: Precision of the networks: float32, or bfloat16 or float16 by autocast.
            compile: Run trunk, fusion and decoder through ``torch.compile``.
            device: Device of the networks.
            guard: What happens to actions beyond the recorded limits, and to steps larger than any
                recorded: ``warn``, ``clip``, or ``off``. States far outside the training range are
                warned of. ``policy.guard.counts`` counts all of them.
            guard_margin: Share of the recorded range by which limits and steps may be exceeded.

        Raises:
            PolicyError: The robot is unknown, the steps do not fit the chunk, ensembling is
                combined with a delay, or the device or the precision cannot be used.
            UserError: The integrator or the guard is unknown, a number is out of range, or limits
                are not known and actions are to be clipped to them.
            MissingStatisticsError: The network has no statistics of one of its robots.
        """
        length = network.chunk_length
        if not execute_steps:
            execute_steps = default_execute_steps(length, delay_steps)
        check_execution(execute_steps, delay_steps, length)
        if ensemble is not None and delay_steps:
            raise PolicyError(
                f"ensemble is {ensemble} and delay_steps is {delay_steps}; expected only one of "
                "them"
            )
        check_arithmetic(ensemble, precision, device)
        network.prior.normalizer.require_fitted()
        self.network = network.eval().requires_grad_(False).to(device)
        network.set_integration(
            integration_steps or network.integration_steps, integrator or network.integrator
        )
        if compile:
            compile_network(network)
        policy = _AutocastPolicy(network, precision, torch.device(device))
        self.planner = Planner(policy, embodiment, device)
        self.robot: Embodiment = self.planner.robot
        self.guard = self.planner.guard(guard, guard_margin)
        self.execute_steps, self.delay_steps, self.ensemble = execute_steps, delay_steps, ensemble
        self.late_plans = 0
        self._pending: Future[FloatArray] | None = None
        self._background = ThreadPoolExecutor(1, "policy") if delay_steps else None
        self.reset()

    @classmethod
    def load(cls, path: str | Path, trunk: TrunkChoice = None, **execution: Any) -> Self:  # noqa: ANN401  # the constructor's
        """Load a policy from a Stage-2 checkpoint or an exported folder, without unpickling.

        Args:
            path: Checkpoint file or exported folder.
            trunk: Class of the policy's trunk, or an instance; needed if the class is not part of
                actionprior. A class is called with the arguments that the file records.
            **execution: Arguments of the constructor. An exported folder already names the robot.

        Raises:
            CheckpointError: The file is missing, damaged, or of another kind.
            PolicyError: The arguments do not fit, see the constructor.
        """
        network, exported = load_policy_network(path, trunk)
        return cls(network, **(exported | execution))

    # ---- acting ---------------------------------------------------------------------------

    def reset(self, seed: int = 0) -> None:
        """Forget the past and begin an episode.

        Args:
            seed: Seed of the flow noise.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.exception()  # wait: the last episode's plan must not run during this one
        self.memory = Memory(seed, self.network.history_length)
        self.guard.reset()
        self._queue: deque[FloatArray] = deque()
        self._chunks: deque[tuple[int, FloatArray]] = deque()
        self._step = 0

    def predict_chunk(self, observation: Mapping[str, Any]) -> FloatArray:
        """Predict the next chunk (H, n_a) without remembering it: see :meth:`remember`.

        Raises:
            PolicyError: A key is missing, or has a wrong shape, type or NaN, or the chunk is not
                finite.
        """
        observed = self.check_observation(observation)
        self.guard.check_state(observed.state)
        return self.guard.check_actions(self._chunk(observed), self.memory.last_action)

    def select_action(self, observation: Mapping[str, Any]) -> FloatArray:
        """Return the next action (n_a,) and remember it as executed: see :meth:`executed`.

        Raises:
            PolicyError: The observation or the chunk is not valid, see :meth:`predict_chunk`.
        """
        observed = self.check_observation(observation)
        self.guard.check_state(observed.state)
        if self.ensemble is not None:
            action = self._ensembled(observed, self.ensemble)
        else:
            self._refill(observed)
            action = self._queue.popleft()
        action = self.guard.check_action(action, self.memory.last_action)
        self.memory.pairs = [*self.memory.history, ExecutedStep(observed.state, action)]
        self._step += 1
        return action.copy()

    def executed(self, action: FloatArray) -> None:
        """Report the action that the robot executed instead of the selected one, such as clipped.

        Raises:
            PolicyError: No action was selected yet, or ``action`` has another shape or is not
                finite.
        """
        if not self.memory.pairs:
            raise PolicyError("executed() was called before the first select_action()")
        state, selected = self.memory.pairs[-1]
        value = as_array(action, "the executed action").astype(np.float32)
        if value.shape != selected.shape:
            raise PolicyError(
                f"the executed action has shape {value.shape}, expected {selected.shape}"
            )
        require_finite(value, self.robot, "the executed action")
        self.memory.pairs[-1] = ExecutedStep(state, value)

    def remember(self, states: FloatArray, actions: FloatArray) -> None:
        """Report what your own control loop executed since the last :meth:`predict_chunk`.

        Args:
            states: States (k, n_s), oldest first.
            actions: Actions (k, n_a) executed from these states.

        Raises:
            PolicyError: The shapes differ from these, or a value is not finite.
        """
        rows = [
            as_array(values, f"the {name} to remember").astype(np.float32)
            for name, values in (("states", states), ("actions", actions))
        ]
        expected = [
            (len(rows[0]), len(f)) for f in (self.robot.state_features, self.robot.action_features)
        ]
        if [values.shape for values in rows] != expected:
            raise PolicyError(
                f"states and actions have shapes {rows[0].shape} and {rows[1].shape}, expected "
                f"{expected[0]} and {expected[1]}"
            )
        require_finite(rows[1], self.robot, "the actions to remember")
        if not np.isfinite(rows[0]).all():
            raise PolicyError("the states to remember are not finite")
        pairs = [ExecutedStep(state, action) for state, action in zip(*rows, strict=True)]
        self.memory.pairs = [*self.memory.history, *pairs]

    def check_observation(self, observation: Mapping[str, Any]) -> CheckedObservation:
        """Check an observation and extract the policy's input.

        Raises:
            PolicyError: A key is missing, or has a wrong shape, type or NaN. The message names it.
        """
        return check_observation(observation, self.robot, self.planner.image_shape)

    # ---- planning -------------------------------------------------------------------------

    def _chunk(self, observed: CheckedObservation) -> FloatArray:
        return self._predict(self._request(observed))

    def _predict(self, request: ChunkRequest) -> FloatArray:
        chunk: FloatArray = self.planner.predict(request)[0]
        require_finite(chunk, self.robot, "the policy's chunk")
        return chunk

    def _request(
        self, observed: CheckedObservation, committed: FloatArray | None = None
    ) -> ChunkRequest:
        self.memory.instruction = observed.task
        images = None if observed.images is None else observed.images[None]
        under_way = None if committed is None else [committed]
        return self.planner.request([self.memory], observed.state[None], images, under_way)

    def _refill(self, observed: CheckedObservation) -> None:
        """Fill the action queue if it is empty. With a delay, start planning ahead."""
        last = self.execute_steps + self.delay_steps
        if not self._queue and self._pending is not None:
            pending, self._pending = self._pending, None  # cleared even if the plan failed
            self.late_plans += not pending.done()
            self._queue.extend(pending.result()[self.delay_steps : last])
        if not self._queue:
            self._queue.extend(self._chunk(observed)[:last])
        if self._background and self._pending is None and len(self._queue) == self.delay_steps:
            request = self._request(observed, np.stack(self._queue))
            self._pending = self._background.submit(self._predict, request)

    def _ensembled(self, observed: CheckedObservation, m: float) -> FloatArray:
        if self._step % self.execute_steps == 0:
            self._chunks.append((self._step, self._chunk(observed)))
        while self._step - self._chunks[0][0] >= self.network.chunk_length:
            self._chunks.popleft()
        planned_NA = self.robot.action_to_unified(
            np.stack([chunk[self._step - start] for start, chunk in self._chunks])
        )
        weight_N = np.exp(-m * np.arange(len(planned_NA), dtype=np.float32))
        weight_N1 = (weight_N / weight_N.sum())[:, None]
        mean_A = DIFFERENCE.average(planned_NA, weight_N1)
        for form, slots in self.robot.relative_forms():
            if form.spans_group:
                mean_A[slots] = form.average(planned_NA[:, slots], weight_N1)
            else:
                mean_A[slots] = form.average(planned_NA, weight_N1)[slots]
        return self.robot.action_from_unified(mean_A)


class _AutocastPolicy:
    """Run a network under autocast."""

    def __init__(
        self, network: PolicyNetwork, precision: torch.dtype, device: torch.device
    ) -> None:
        self._network = network
        self._precision = precision
        self._device = device
        self.embodiments = network.embodiments
        self.chunk_length = network.chunk_length
        self.history_length = network.history_length
        self.image_shape = network.image_shape
        self.recorded_ranges = network.recorded_ranges

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            return self._network.predict_chunk(observation, noise_BHA, committed)


def default_execute_steps(chunk_length: int, delay_steps: int) -> int:
    """Return the actions executed of each chunk by default: 8, or fewer for short chunks."""
    return min(_DEFAULT_EXECUTE_STEPS, chunk_length - delay_steps)


def compile_network(network: PolicyNetwork) -> None:
    """Run trunk, fusion and decoder through ``torch.compile`` when they are next called."""
    for part in (network.trunk, network.fusion, network.prior.decoder):
        part.compile()


def check_arithmetic(
    ensemble: float | None, precision: torch.dtype, device: torch.device | str
) -> None:
    """Refuse arguments with which a policy could not act, before the robot moves.

    Raises:
        PolicyError: The decay is no finite number, the precision is unknown, or there is no such
            device.
    """
    number = isinstance(ensemble, int | float) and not isinstance(ensemble, bool)
    if ensemble is not None and not (number and np.isfinite(ensemble)):
        raise PolicyError(f"ensemble is {ensemble!r}; expected a finite number, or None")
    if precision not in (torch.float32, torch.bfloat16, torch.float16):
        raise PolicyError(
            f"precision is {precision!r}; expected torch.float32, torch.bfloat16 or torch.float16"
        )
    try:
        torch.zeros(1, device=device)
    except Exception as error:  # each kind of device raises its own
        raise PolicyError(
            f"device {str(device)!r} cannot be used: {shorten(error)}; expected cpu, cuda, cuda:1 "
            "or another device of this machine"
        ) from None
