"""A policy on a robot: observations in, actions out; no Lightning, no simulator.

Axes: H chunk steps, n_s state features, n_a action features, A = 37 action slots, C cameras,
Y rows, X columns.
"""

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from actionprior.batch import Committed, Observation
from actionprior.checkpoints.folder import load_policy_network
from actionprior.chunk_planner import (
    ChunkRequest,
    ExecutedStep,
    Images,
    Memory,
    Planner,
    PolicyError,
    check_execution,
    require_finite,
)
from actionprior.embodiment import Embodiment, FloatArray, rotations
from actionprior.flow_matching import Integrator
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.networks.trunks.base import Trunk

DEFAULT_EXECUTE_STEPS = 8


class CheckedObservation(NamedTuple):
    """A checked observation."""

    state: FloatArray  # (n_s,)
    images: Images | None  # (C, Y, X, 3)
    task: str


class Policy:
    """Acts for one robot: ``reset()``, then ``select_action(observation)`` at its control rate.

    An observation is a mapping with the names of the robot's dataset: its ``state_key`` (by
    default ``observation.state``), a vector (n_s,) in the robot's units and order; each of its
    ``cameras``, uint8 (Y, X, 3); and ``task``, the instruction. Actions (n_a,) come in the robot's
    units and order, as its dataset holds them. The past is remembered; the same seed and
    observations give the same actions.

    Three ways to execute chunks:

    - ``execute_steps`` actions of each, then the next is planned while the robot waits;
    - with ``delay_steps`` d, it is planned in the background while d further actions of the
      chunk under way are executed; it begins with exactly these and takes over after them
      (real-time chunking, arXiv 2506.07339 and 2512.05964);
    - with ``ensemble`` m, every action is the mean of what all chunks say of its step, weighted
      by exp(-m·i), i = 0 for the oldest (arXiv 2304.13705, Sec. IV-B).

    Attributes:
        robot: the embodiment.
        late_plans: plans that were not ready after ``delay_steps``, for which the robot waited.
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
    ) -> None:
        """Let a network act.

        Args:
            network: put in evaluation mode and on ``device``.
            embodiment: which of its robots; empty: the only one.
            execute_steps: actions of a chunk before the next; 0: 8, or what fits the chunk.
            delay_steps: actions that are executed while a chunk is planned.
            ensemble: m of temporal ensembling; None: off.
            integration_steps: of the flow; 0: as trained.
            integrator: ``euler``, ``midpoint`` or ``rk4``; None: as trained.
            precision: of the networks' arithmetic: float32, or bfloat16 or float16 by autocast.
            compile: run trunk, fusion and decoder through ``torch.compile``.
            device: where the networks run.

        Raises:
            PolicyError: an unknown robot, steps that do not fit the chunk, or ensembling together
                with a delay.
            MissingStatisticsError: the network was never trained on a robot of its.
        """
        length = network.chunk_length
        if not execute_steps:
            execute_steps = min(DEFAULT_EXECUTE_STEPS, length - delay_steps)
        check_execution(execute_steps, delay_steps, length)
        if ensemble is not None and delay_steps:
            raise PolicyError(
                f"ensemble is {ensemble} and delay_steps {delay_steps}; expected one of them only"
            )
        network.prior.normalizer.require_fitted()
        self.network = network.eval().requires_grad_(False).to(device)
        network.integration_steps = integration_steps or network.integration_steps
        network.integrator = integrator or network.integrator
        if compile:
            for part in (network.trunk, network.fusion, network.prior.decoder):
                part.compile()
        acting = _InPrecision(network, precision, torch.device(device))
        self.planner = Planner(acting, embodiment, device)
        self.robot: Embodiment = self.planner.robot
        self.execute_steps, self.delay_steps, self.ensemble = execute_steps, delay_steps, ensemble
        self.late_plans = 0
        self._coming: Future[FloatArray] | None = None
        self._background = ThreadPoolExecutor(1, "policy") if delay_steps else None
        self.reset()

    @classmethod
    def load(cls, path: str | Path, trunk: Trunk | None = None, **execution: Any) -> Self:  # noqa: ANN401  # the constructor's
        """A policy from a Stage-2 checkpoint or an exported folder; nothing is unpickled.

        Args:
            path: of either.
            trunk: needed only where the policy's trunk is not one of ours.
            **execution: arguments of the constructor; an exported folder says the robot.

        Raises:
            CheckpointError: missing, damaged, or of another kind.
            PolicyError: as the constructor.
        """
        network, told = load_policy_network(path, trunk)
        return cls(network, **(told | execution))

    # ---- acting ---------------------------------------------------------------------------

    def reset(self, seed: int = 0) -> None:
        """Forget the past; an episode begins.

        Args:
            seed: of the flow noise.
        """
        coming, self._coming = self._coming, None
        if coming is not None:
            coming.exception()  # a plan of the episode before must not run beside ours
        self.memory = Memory(seed, self.network.history_length)
        self._queue: deque[FloatArray] = deque()
        self._chunks: deque[tuple[int, FloatArray]] = deque()
        self._step = 0

    def predict_chunk(self, observation: Mapping[str, Any]) -> FloatArray:
        """The next chunk (H, n_a), of which nothing is taken as executed: see :meth:`remember`.

        Raises:
            PolicyError: a missing key, wrong shape or type, or NaN, naming the key; or the chunk is
                not finite.
        """
        observed = self.check_observation(observation)
        return self._chunk(observed)

    def select_action(self, observation: Mapping[str, Any]) -> FloatArray:
        """The next action (n_a,), taken as executed: see :meth:`executed`.

        Raises:
            PolicyError: as ``predict_chunk``.
        """
        observed = self.check_observation(observation)
        if self.ensemble is not None:
            action = self._ensembled(observed, self.ensemble)
        else:
            self._refill(observed)
            action = self._queue.popleft()
        self.memory.pairs = [*self.memory.history, ExecutedStep(observed.state, action)]
        self._step += 1
        return action.copy()

    def executed(self, action: FloatArray) -> None:
        """Tell what the robot executed in place of the last action, such as a clipped one.

        Raises:
            PolicyError: no action was selected yet, or this one's shape is another, or not finite.
        """
        if not self.memory.pairs:
            raise PolicyError("executed() was called before the first select_action()")
        state, selected = self.memory.pairs[-1]
        value = np.asarray(action, dtype=np.float32)
        if value.shape != selected.shape:
            raise PolicyError(
                f"the executed action has shape {value.shape}, expected {selected.shape}"
            )
        require_finite(value, self.robot, "the executed action")
        self.memory.pairs[-1] = ExecutedStep(state, value)

    def remember(self, states: FloatArray, actions: FloatArray) -> None:
        """Tell what a loop of one's own executed since the last :meth:`predict_chunk`.

        Args:
            states: (k, n_s), oldest first.
            actions: (k, n_a), executed from these.

        Raises:
            PolicyError: other shapes, or not finite.
        """
        rows = [np.asarray(values, dtype=np.float32) for values in (states, actions)]
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
        """Check an observation and take from it what the policy sees.

        Raises:
            PolicyError: a missing key, wrong shape or type, or NaN, naming the key.
        """
        return check_observation(observation, self.robot)

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
        """See that there is an action to execute; with a delay, plan ahead of need."""
        last = self.execute_steps + self.delay_steps
        if not self._queue and self._coming is not None:
            coming, self._coming = self._coming, None  # gone even where it failed
            self.late_plans += not coming.done()
            self._queue.extend(coming.result()[self.delay_steps : last])
        if not self._queue:
            self._queue.extend(self._chunk(observed)[:last])
        if self._background and self._coming is None and len(self._queue) == self.delay_steps:
            request = self._request(observed, np.stack(self._queue))
            self._coming = self._background.submit(self._predict, request)

    def _ensembled(self, observed: CheckedObservation, m: float) -> FloatArray:
        if self._step % self.execute_steps == 0:
            self._chunks.append((self._step, self._chunk(observed)))
        while self._step - self._chunks[0][0] >= self.network.chunk_length:
            self._chunks.popleft()
        said_NA = self.robot.action_to_unified(
            np.stack([chunk[self._step - start] for start, chunk in self._chunks])
        )
        weight_N = np.exp(-m * np.arange(len(said_NA), dtype=np.float32))
        weight_N1 = (weight_N / weight_N.sum())[:, None]
        mean_A = (weight_N1 * said_NA).sum(0)
        newest_A, angles = said_NA[-1], self.robot.angle_mask()
        way_NA = rotations.wrapped(torch.from_numpy(said_NA - newest_A)).numpy()
        mean_A[angles] = (newest_A + (weight_N1 * way_NA).sum(0))[angles]
        for start in self.robot.rotation_starts():  # as turns from the newest: vectors wrap at π
            three = slice(start, start + rotations.VECTOR_WIDTH)
            said_N3 = torch.from_numpy(said_NA[:, three])
            turn_N3 = rotations.relative_vector(said_N3, said_N3[-1:])
            turn_3 = (torch.from_numpy(weight_N1) * turn_N3).sum(0)
            mean_A[three] = rotations.absolute_vector(turn_3, said_N3[-1]).numpy()
        return self.robot.action_from_unified(mean_A)


class _InPrecision:
    """The network, run in a precision."""

    def __init__(
        self, network: PolicyNetwork, precision: torch.dtype, device: torch.device
    ) -> None:
        self._network = network
        self._precision = precision
        self._device = device
        self.embodiments = network.embodiments
        self.chunk_length = network.chunk_length
        self.history_length = network.history_length

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        mixed = self._precision != torch.float32
        with torch.autocast(self._device.type, self._precision, enabled=mixed):
            return self._network.predict_chunk(observation, noise_BHA, committed)


def observation_keys(robot: Embodiment) -> list[str]:
    """What an observation of a robot holds; one without a state is asked for none."""
    return [*([robot.state_key] if robot.state else []), *robot.cameras, "task"]


def check_observation(observation: Mapping[str, Any], robot: Embodiment) -> CheckedObservation:
    """Check an observation of a robot and take from it what a policy sees.

    Raises:
        PolicyError: a missing key, wrong shape or type, or NaN, naming the key.
    """
    wanted = observation_keys(robot)
    if missing := [key for key in wanted if key not in observation]:
        raise PolicyError(
            f"the observation lacks {', '.join(map(repr, missing))}; "
            f"robot {robot.name!r} needs {wanted}, found {sorted(map(str, observation))}"
        )
    state = np.asarray(observation.get(robot.state_key, np.zeros(0)))  # of none, where it has none
    count = len(robot.state_features)
    if state.shape != (count,) or not np.issubdtype(state.dtype, np.number):
        raise PolicyError(
            f"{robot.state_key!r} is {state.dtype} of shape {state.shape}, "
            f"expected {count} numbers: {', '.join(robot.state_features)}"
        )
    state = state.astype(np.float32)
    if not np.isfinite(state).all():
        bad = [f for f, v in zip(robot.state_features, state, strict=True) if not np.isfinite(v)]
        raise PolicyError(f"{robot.state_key!r} is not finite at {', '.join(bad)}")
    task = observation["task"]
    if not isinstance(task, str):
        raise PolicyError(f"'task' is a {type(task).__name__}, expected a string")
    images = [_image(observation[key], key) for key in robot.cameras]
    if len({image.shape for image in images}) > 1:
        sizes = {key: i.shape for key, i in zip(robot.cameras, images, strict=True)}
        raise PolicyError(f"images differ in size: {sizes}; expected one size for all")
    return CheckedObservation(state, np.stack(images) if images else None, task)


def _image(value: object, key: str) -> Images:
    image = np.asarray(value)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or 0 in image.shape:
        raise PolicyError(
            f"{key!r} is {image.dtype} of shape {image.shape}, expected uint8 (rows, columns, 3)"
        )
    return image
