"""A policy of ours behind LeRobot's interface.

Axes: B batch, H chunk steps, n_s and n_a entries of the robot's state and action vectors, n entries
of LeRobot's vectors, A = 37 action slots, Z latent width, C cameras, Y rows, X columns.
"""

from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from draccus import encode
from lerobot.configs import PreTrainedConfig
from lerobot.policies.pretrained import PreTrainedPolicy
from lerobot.utils.constants import ACTION
from torch import Tensor

from actionprior.batch import Observation, TrajectoryBatch
from actionprior.checkpoints.folder import OURS, check_digest, check_format, write_folder
from actionprior.checkpoints.policy import build_network, fill
from actionprior.chunk_planner import (
    ExecutedStep,
    Images,
    Memory,
    Planner,
    PolicyError,
    check_execution,
    observe,
    require_finite,
)
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, FloatArray
from actionprior.errors import UserError
from actionprior.files.weights import load_weights
from actionprior.flow_matching import sample_time
from actionprior.lerobot.configuration_actionprior import ActionPriorConfig
from actionprior.lerobot.training import dataset_names, new_network
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import DEFAULT_EXECUTE_STEPS, check_observation

Batch = dict[str, Any]


class ActionPriorPolicy(PreTrainedPolicy):  # type: ignore[misc]  # LeRobot has no types
    """Acts, and learns, as LeRobot's policies do; each row of a batch is an episode of its own.

    Actions and states are in the robot's own units, in the order of LeRobot's vectors; images are
    float (B, 3, Y, X) in [0, 1]. ``select_action`` remembers the past; ``predict_action_chunk``,
    which does not know what is executed, acts on the present alone. The flow noise is that of our
    own rollouts: a function of the episode's seed and the number of the plan.

    Args:
        config: of an exported folder, or of a policy to be trained.
        dataset_stats: not used; see ``processor_actionprior``.
        dataset_meta: of the dataset that it is trained on.
        network: in place of the one that ``config`` describes.

    Raises:
        PolicyError: steps that do not fit the chunk, or more than one robot and none named.
        UserError: the dataset does not fit the robot.
    """

    config_class = ActionPriorConfig
    name = "actionprior"

    def __init__(
        self,
        config: ActionPriorConfig,
        dataset_stats: Any = None,  # noqa: ANN401  # LeRobot's
        dataset_meta: Any = None,  # noqa: ANN401  lerobot's
        network: PolicyNetwork | None = None,
    ) -> None:
        super().__init__(config)
        self.config: ActionPriorConfig = config
        self.network = network or _described(config, dataset_meta)
        told = config.actionprior
        self._planner = Planner(self.network, told.get("embodiment", ""))
        robot, length = self._planner.robot, self.network.chunk_length
        if config.actionprior and config.chunk_size != length:
            raise PolicyError(f"chunk_size is {config.chunk_size}; the policy's is {length}")
        config.chunk_size = length
        self.delay_steps: int = told.get("delay_steps", 0)
        self.execute_steps: int = (
            config.n_action_steps
            or told.get("execute_steps", 0)
            or min(DEFAULT_EXECUTE_STEPS, length - self.delay_steps)
        )
        check_execution(self.execute_steps, self.delay_steps, length)
        if config.compile_model:
            for part in (self.network.trunk, self.network.fusion, self.network.prior.decoder):
                part.compile()
        self._learns = dataset_meta is not None
        if self._learns:
            config.describe_robot(robot, *dataset_names(dataset_meta.features, robot))
        elif not config.action_feature_names:
            config.describe_robot(robot)
        self._states = [config.state_feature_names.index(f) for f in robot.state_features]
        self._actions = [config.action_feature_names.index(f) for f in robot.action_features]
        self._memories: list[Memory] = []
        self._queue: deque[FloatArray] = deque()
        self._episodes = 0
        self.reset()

    # ---- files ----------------------------------------------------------------------------

    def _save_pretrained(
        self, save_directory: Path, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        told = encode(self.config, PreTrainedConfig)
        told[OURS] = {
            "embodiment": self._planner.robot.name,
            "execute_steps": self.execute_steps,
            "delay_steps": self.delay_steps,
        }
        weights = None
        if state_dict is not None:  # gathered from several processes
            weights = {k.removeprefix("network."): v for k, v in state_dict.items()}
        write_folder(self.network, told, Path(save_directory), weights)

    @classmethod
    def _load_as_safetensor(
        cls, model: "ActionPriorPolicy", model_file: str, map_location: str, strict: bool
    ) -> "ActionPriorPolicy":
        """Strictly, whatever ``strict``: a policy with missing weights must not move a robot."""
        fill(model.network, load_weights(Path(model_file)), model_file)
        if model._learns:
            # LeRobot shows the present alone; what learns without a past must act without it.
            model.network.history, model.network.history_mlp = "off", None
        else:
            model.network.trunk.merge()
        return model

    # ---- acting ---------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the past; episodes begin."""
        self._episodes += len(self._memories)
        self._memories = []
        self._queue = deque()

    def supports_rtc(self) -> bool:
        """True: actions that are under way are kept in the next chunk."""
        return True

    @torch.no_grad()
    def select_action(self, batch: Batch) -> Tensor:
        """The next actions (B, n) of B episodes, taken as executed.

        Raises:
            PolicyError: a missing key, wrong shape, type or range, or NaN, naming the key; or
                another number of episodes than since ``reset``.
        """
        sensed = self._sense(batch)
        self._begin(len(sensed.tasks))
        if len(self._queue) <= self.delay_steps:
            under_way = np.stack(self._queue, axis=1) if self._queue else None
            chunk_BHa = self._plan(sensed, under_way)
            steps = self.execute_steps + self.delay_steps
            self._queue = deque(chunk_BHa[:, :steps].swapaxes(0, 1))
        action_Ba = self._queue.popleft()
        for memory, state, action in zip(self._memories, sensed.states, action_Ba, strict=True):
            memory.pairs = [*memory.history, ExecutedStep(state, action)]
        return self._for_lerobot(action_Ba)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # LeRobot would compile what is around the network, too
    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: Batch,
        inference_delay: int = 0,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
    ) -> Tensor:
        """The next chunks (B, H, n).

        Args:
            batch: what is seen.
            inference_delay: steps that the robot makes while this is computed.
            prev_chunk_left_over: (T, n) or (B, T, n), what is left of the chunk under way; the
                first ``inference_delay`` of these actions begin the new chunk.
            execution_horizon: LeRobot's; we follow on at once.

        Raises:
            PolicyError: as ``select_action``.
        """
        sensed = self._sense(batch)
        self._begin(len(sensed.tasks))
        return self._for_lerobot(
            self._plan(sensed, self._under_way(prev_chunk_left_over, inference_delay))
        )

    def _begin(self, count: int) -> None:
        if not self._memories:
            first = torch.initial_seed() if self.config.seed is None else self.config.seed
            first += self._episodes
            length = self.network.history_length
            self._memories = [Memory(first + k, length) for k in range(count)]
        elif len(self._memories) != count:
            raise PolicyError(
                f"the batch is of {count} episodes, expected {len(self._memories)} until reset()"
            )

    def _plan(self, sensed: "_CheckedBatch", under_way: FloatArray | None) -> FloatArray:
        self.network.prior.normalizer.require_fitted()
        self._planner.device = self._device
        for memory, task in zip(self._memories, sensed.tasks, strict=True):
            memory.instruction = task
        committed = None if under_way is None else list(under_way)
        question = self._planner.request(self._memories, sensed.states, sensed.images, committed)
        chunk = self._planner.predict(question)
        require_finite(chunk, self._planner.robot, "the policy's chunk")
        return chunk

    def _under_way(self, left_over: Tensor | None, delay: int) -> FloatArray | None:
        """(B, d, n_a) in the robot's order."""
        if left_over is None:
            return None
        left = left_over.detach().float().cpu().numpy()[..., self._actions]
        left_BTa = np.broadcast_to(left, (len(self._memories), *left.shape[-2:]))
        steps = min(delay, left_BTa.shape[1], self.network.chunk_length - 1)
        # LeRobot fills up with zeros, which no robot must be held to.
        while steps > 0 and not left_BTa[:, steps - 1].any():
            steps -= 1
        return left_BTa[:, :steps] if steps > 0 else None

    def _for_lerobot(self, action: FloatArray) -> Tensor:
        ordered = np.empty_like(action)
        ordered[..., self._actions] = action
        return torch.from_numpy(ordered)

    # ---- seeing ---------------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return self.network.prior.dataset_EPW.device

    def _sense(self, batch: Batch) -> "_CheckedBatch":
        robot = self._planner.robot
        wanted = [*([robot.state_key] if robot.state else []), *robot.cameras]
        if missing := [key for key in wanted if key not in batch]:
            raise PolicyError(
                f"LeRobot's batch lacks {missing} of robot {robot.name!r}; it holds {list(batch)}"
            )
        count = len(batch[wanted[0]])
        states = np.zeros((count, 0), dtype=np.float32)
        if robot.state:
            states = batch[robot.state_key].detach().float().cpu().numpy()
            if states.shape != (count, len(self.config.state_feature_names)):
                raise PolicyError(
                    f"{robot.state_key!r} has shape {states.shape}, expected (rows, "
                    f"{len(self.config.state_feature_names)}): {self.config.state_feature_names}"
                )
            states = states[:, self._states]
        images = {key: _pixels(batch[key], key) for key in robot.cameras}
        tasks = batch.get("task") or [""] * count
        rows = [
            check_observation(
                {robot.state_key: states[k], "task": tasks[k] or self.config.default_task}
                | {key: value[k] for key, value in images.items()},
                robot,
            )
            for k in range(count)
        ]
        seen = [row.images for row in rows if row.images is not None]
        return _CheckedBatch(
            np.stack([row.state for row in rows]),
            np.stack(seen) if seen else None,
            [row.task for row in rows],
        )

    # ---- learning -------------------------------------------------------------------------

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """L_pred = ‖D(x_r, r, z′) - v‖² of recorded chunks, without a past (``vla.py``).

        Args:
            batch: observations, ``action`` (B, H, n) and, bool (B, H), ``action_is_pad``.

        Returns:
            the loss, and it again for the log.

        Raises:
            PolicyError: as ``select_action``; or chunks of another length.
        """
        n, sensed = self.network, self._sense(batch)
        memories = [Memory(0, n.history_length, task) for task in sensed.tasks]
        where = self._planner.robot, self._planner.index, self._device
        seen = observe(memories, sensed.states, sensed.images, *where)
        future = n.to_prior_rows(self._future(batch, seen))
        count = self.config.noise_repeats * len(memories)
        r_B = sample_time(count).to(self._device)
        noise_BHA = torch.randn(count, n.chunk_length, ACTION_WIDTH, device=self._device)
        known_B = None
        if n.prefix_steps:
            known_B = torch.randint(n.prefix_steps + 1, (count,), device=self._device)
        loss = n.prior.flow_loss(n.latent(seen), future, noise_BHA, r_B, known_B)
        return loss, {"loss_pred": loss.item()}

    def _future(self, batch: Batch, seen: Observation) -> TrajectoryBatch:
        action = batch[ACTION].detach().float().cpu().numpy()
        expected = (len(seen.task), self.network.chunk_length, len(self._actions))
        if action.shape != expected:
            raise PolicyError(f"{ACTION!r} has shape {action.shape}, expected {expected}")
        unified_BHA = self._planner.robot.action_to_unified(action[..., self._actions])
        inside_BH = torch.ones(expected[:2], dtype=torch.bool, device=self._device)
        if "action_is_pad" in batch:
            inside_BH = ~batch["action_is_pad"].to(self._device)
        state_BHS = seen.state_BS.new_zeros(*expected[:2], STATE_WIDTH)
        state_BHS[:, 0] = seen.state_BS  # no loss of ours looks at the later ones
        return TrajectoryBatch(
            torch.from_numpy(unified_BHA).to(self._device),
            state_BHS,
            seen.reference_BA,
            inside_BH,
            seen.embodiment_B,
        )

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Parameters; the trunk's learn at rates of their own."""
        groups: list[dict[str, Any]] = []
        known: set[int] = set()
        for parameters, factor in self.network.trunk.parameter_groups():
            known |= {id(p) for p in parameters}
            if parameters:
                groups.append({"params": parameters, "lr": self.config.optimizer_lr * factor})
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return [{"params": rest}, *groups]


class _CheckedBatch(NamedTuple):
    """A checked batch of observations."""

    states: FloatArray  # (B, n_s)
    images: Images | None  # (B, C, Y, X, 3)
    tasks: list[str]


def _described(config: ActionPriorConfig, dataset_meta: Any) -> PolicyNetwork:  # noqa: ANN401  lerobot's
    if config.actionprior:
        check_format(config.actionprior, "config.json")
        check_digest(config.actionprior, "config.json")
        return build_network(config.actionprior, "config.json")
    if dataset_meta is None:
        raise UserError("there is nothing to act with: give --policy.path, or train on a dataset")
    return new_network(str(dataset_meta.root), config.chunk_size)


def _pixels(image: Tensor, key: str) -> Images:
    """(B, 3, Y, X) in [0, 1] → uint8 (B, Y, X, 3); exactly, for what was uint8 once."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise PolicyError(f"{key!r} has shape {tuple(image.shape)}, expected (rows, 3, Y, X)")
    if image.dtype != torch.uint8:
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise PolicyError(f"{key!r} has values outside of [0, 1], as LeRobot's images are")
        image = (image * 255).round().to(torch.uint8)
    pixels: Images = image.movedim(1, -1).contiguous().cpu().numpy()
    return pixels
