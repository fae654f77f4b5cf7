"""ActionPrior policies behind LeRobot's policy interface.

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
from actionprior.checkpoints import keys
from actionprior.checkpoints.folder import check_description, write_folder
from actionprior.checkpoints.policy import build_network, is_builtin, load_weights_into
from actionprior.chunk_planner import (
    ExecutedStep,
    Memory,
    Planner,
    check_execution,
    observe,
    require_finite,
)
from actionprior.embodiment import ACTION_WIDTH, STATE_WIDTH, FloatArray
from actionprior.embodiment.arrays import Images
from actionprior.embodiment.guard import Guard
from actionprior.embodiment.policy_input import check_observation
from actionprior.errors import PolicyError, UserError
from actionprior.files.weights import load_weights
from actionprior.flow_matching import sample_time
from actionprior.lerobot.configuration_actionprior import ActionPriorConfig
from actionprior.lerobot.training import chosen_episodes, dataset_names, new_network
from actionprior.networks.policy_network import PolicyNetwork
from actionprior.policy import compile_network, default_execute_steps

Batch = dict[str, Any]


class ActionPriorPolicy(PreTrainedPolicy):  # type: ignore[misc]  # LeRobot has no types
    """LeRobot policy that acts and trains. Each row of a batch is a separate episode.

    Actions and states are in the robot's own units and in the order of LeRobot's vectors. Images
    are float (B, 3, Y, X) in [0, 1].

    ``select_action`` remembers the past. ``predict_action_chunk`` does not know which actions are
    executed, so it uses only the current observation. The flow noise is that of
    ``actionprior.rollout``: it depends on the episode's seed and the number of the plan.
    ``guard.counts`` counts what training never saw, of all rows.

    Args:
        config: Configuration of an exported folder, or of a policy to train.
        dataset_stats: Ignored, see ``processor_actionprior``.
        dataset_meta: Metadata of the dataset to train on.
        network: Network that replaces the one described by ``config``.

    Raises:
        PolicyError: The steps do not fit the chunk, or the policy knows several robots and none is
            named.
        UserError: The dataset does not fit the robot.
    """

    config_class = ActionPriorConfig
    name = "actionprior"

    def __init__(
        self,
        config: ActionPriorConfig,
        dataset_stats: Any = None,  # noqa: ANN401  # LeRobot has no types
        dataset_meta: Any = None,  # noqa: ANN401  # LeRobot has no types
        network: PolicyNetwork | None = None,
    ) -> None:
        super().__init__(config)
        self.config: ActionPriorConfig = config
        self.network = network or _build_or_create_network(config, dataset_meta)
        exported = config.actionprior
        self._planner = Planner(self.network, exported.get("embodiment", ""))
        robot, length = self._planner.robot, self.network.chunk_length
        if config.actionprior and config.chunk_size != length:
            raise PolicyError(
                f"--policy.chunk_size is {config.chunk_size}, but the policy's config.json has "
                f"chunks of {length} actions; leave --policy.chunk_size out"
            )
        config.chunk_size = length
        self.delay_steps: int = exported.get("delay_steps", 0)
        self.execute_steps: int = (
            config.n_action_steps
            or exported.get("execute_steps", 0)
            or default_execute_steps(length, self.delay_steps)
        )
        check_execution(self.execute_steps, self.delay_steps, length)
        mode: Any = config.guard or exported.get("guard", "warn")  # the guard checks it
        margin = config.guard_margin
        self.guard_margin: float = exported.get("guard_margin", 0.1) if margin is None else margin
        self.guard: Guard = self._planner.guard(mode, self.guard_margin)
        if config.compile_model:
            compile_network(self.network)
        self._trains = dataset_meta is not None
        if self._trains:
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
        description = encode(self.config, PreTrainedConfig)
        description[keys.CONFIG_PART] = {
            "embodiment": self._planner.robot.name,
            "execute_steps": self.execute_steps,
            "delay_steps": self.delay_steps,
            "guard": self.guard.mode,
            "guard_margin": self.guard_margin,
        }
        weights = None
        if state_dict is not None:  # gathered from several processes
            weights = keys.below(keys.NETWORK_PREFIX, state_dict)
        write_folder(self.network, description, Path(save_directory), weights)

    @classmethod
    def _load_as_safetensor(
        cls, model: "ActionPriorPolicy", model_file: str, map_location: str, strict: bool
    ) -> "ActionPriorPolicy":
        """Load weights, always strictly: a policy with missing weights must not move a robot."""
        load_weights_into(model.network, load_weights(Path(model_file)), model_file)
        if model._trains:
            # LeRobot's batches hold no past, and a policy trained without a past must act without.
            model.network.history, model.network.history_mlp = "off", None
        else:
            model.network.trunk.merge()
        return model

    # ---- acting ---------------------------------------------------------------------------

    def reset(self) -> None:
        """Forget the past and begin new episodes."""
        self._episodes += len(self._memories)
        self._memories = []
        self._queue = deque()
        self.guard.reset()

    def supports_rtc(self) -> bool:
        """Return True: the next chunk begins with the actions that are already being executed."""
        return True

    @torch.no_grad()
    def select_action(self, batch: Batch) -> Tensor:
        """Return the next actions (B, n) of B episodes and remember them as executed.

        Raises:
            PolicyError: A key is missing, or has a wrong shape, type, range or NaN, or the number
                of episodes changed since ``reset``.
        """
        checked = self._check_batch(batch)
        self._begin(len(checked.tasks))
        if len(self._queue) <= self.delay_steps:
            under_way = np.stack(self._queue, axis=1) if self._queue else None
            chunk_BHa = self._plan(checked, under_way)
            steps = self.execute_steps + self.delay_steps
            self._queue = deque(chunk_BHa[:, :steps].swapaxes(0, 1))
        action_Ba = self._queue.popleft()
        action_Ba = action_Ba.copy()
        for row, (memory, state) in enumerate(zip(self._memories, checked.states, strict=True)):
            self.guard.check_state(state)
            action_Ba[row] = self.guard.check_action(action_Ba[row], memory.last_action)
            memory.pairs = [*memory.history, ExecutedStep(state, action_Ba[row])]
        return self._for_lerobot(action_Ba)

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # LeRobot would compile the code around the network, too
    @torch.no_grad()
    def predict_action_chunk(
        self,
        batch: Batch,
        inference_delay: int = 0,
        prev_chunk_left_over: Tensor | None = None,
        execution_horizon: int | None = None,
    ) -> Tensor:
        """Predict the next chunks (B, H, n).

        Args:
            batch: Observations of B episodes.
            inference_delay: Steps that the robot executes during this prediction.
            prev_chunk_left_over: Remaining actions (T, n) or (B, T, n) of the current chunk. The
                first ``inference_delay`` of them begin the new chunk.
            execution_horizon: Ignored. The new chunk continues the current one exactly.

        Raises:
            PolicyError: The batch is not valid, see ``select_action``.
        """
        checked = self._check_batch(batch)
        self._begin(len(checked.tasks))
        under_way = self._under_way(prev_chunk_left_over, inference_delay)
        chunk_BHa = self._plan(checked, under_way)
        done = 0 if under_way is None else under_way.shape[1]
        for row, state in enumerate(checked.states):
            self.guard.check_state(state)
            before = chunk_BHa[row, done - 1] if done else None
            chunk_BHa[row, done:] = self.guard.check_actions(chunk_BHa[row, done:], before)
        return self._for_lerobot(chunk_BHa)

    def _begin(self, count: int) -> None:
        if not self._memories:
            first = torch.initial_seed() if self.config.seed is None else self.config.seed
            first += self._episodes
            length = self.network.history_length
            self._memories = [Memory(first + k, length) for k in range(count)]
        elif len(self._memories) != count:
            raise PolicyError(
                f"the batch has {count} episodes, expected {len(self._memories)} until reset()"
            )

    def _plan(self, checked: "_CheckedBatch", under_way: FloatArray | None) -> FloatArray:
        self.network.prior.normalizer.require_fitted()
        self._planner.device = self._device
        for memory, task in zip(self._memories, checked.tasks, strict=True):
            memory.instruction = task
        committed = None if under_way is None else list(under_way)
        request = self._planner.request(self._memories, checked.states, checked.images, committed)
        chunk = self._planner.predict(request)
        require_finite(chunk, self._planner.robot, "the policy's chunk")
        return chunk

    def _under_way(self, left_over: Tensor | None, delay: int) -> FloatArray | None:
        """Return the actions (B, d, n_a) that are being executed, in the robot's order."""
        if left_over is None:
            return None
        left = left_over.detach().float().cpu().numpy()[..., self._actions]
        left_BTa = np.broadcast_to(left, (len(self._memories), *left.shape[-2:]))
        steps = min(delay, left_BTa.shape[1], self.network.chunk_length - 1)
        # LeRobot pads the rest with zeros, which are not planned actions.
        while steps > 0 and not left_BTa[:, steps - 1].any():
            steps -= 1
        return left_BTa[:, :steps] if steps > 0 else None

    def _for_lerobot(self, action: FloatArray) -> Tensor:
        ordered = np.empty_like(action)
        ordered[..., self._actions] = action
        return torch.from_numpy(ordered)

    # ---- observations -----------------------------------------------------------------------

    @property
    def _device(self) -> torch.device:
        return self.network.prior.dataset_EPW.device

    def _check_batch(self, batch: Batch) -> "_CheckedBatch":
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
                self._planner.image_shape,
            )
            for k in range(count)
        ]
        pictures = [row.images for row in rows if row.images is not None]
        return _CheckedBatch(
            np.stack([row.state for row in rows]),
            np.stack(pictures) if pictures else None,
            [row.task for row in rows],
        )

    # ---- training -------------------------------------------------------------------------

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Compute L_pred = ‖D(x_r, r, z′) - v‖² of recorded chunks, without a past (``vla.py``).

        Args:
            batch: Observations, ``action`` (B, H, n) and optionally ``action_is_pad``, bool (B, H).

        Returns:
            The loss, and its value for the log.

        Raises:
            PolicyError: The batch is not valid (see ``select_action``), or the chunks have another
                length.
        """
        network, checked = self.network, self._check_batch(batch)
        memories = [Memory(0, network.history_length, task) for task in checked.tasks]
        robot, index = self._planner.robot, self._planner.index
        observation = observe(memories, checked.states, checked.images, robot, index, self._device)
        future = network.to_prior_rows(self._future(batch, observation))
        count = self.config.noise_repeats * len(memories)
        r_B = sample_time(count).to(self._device)
        noise_BHA = torch.randn(count, network.chunk_length, ACTION_WIDTH, device=self._device)
        known_B = None
        if network.prefix_steps:
            known_B = torch.randint(network.prefix_steps + 1, (count,), device=self._device)
        latent = network.latent(observation)
        loss = network.prior.flow_loss(latent, future, noise_BHA, r_B, known_B)
        return loss, {"loss_pred": loss.item()}

    def _future(self, batch: Batch, observation: Observation) -> TrajectoryBatch:
        action = batch[ACTION].detach().float().cpu().numpy()
        expected = (len(observation.task), self.network.chunk_length, len(self._actions))
        if action.shape != expected:
            raise PolicyError(f"{ACTION!r} has shape {action.shape}, expected {expected}")
        unified_BHA = self._planner.robot.action_to_unified(action[..., self._actions])
        inside_BH = torch.ones(expected[:2], dtype=torch.bool, device=self._device)
        if "action_is_pad" in batch:
            inside_BH = ~batch["action_is_pad"].to(self._device)
        state_BHS = observation.state_BS.new_zeros(*expected[:2], STATE_WIDTH)
        state_BHS[:, 0] = observation.state_BS  # no loss uses the later states
        return TrajectoryBatch(
            torch.from_numpy(unified_BHA).to(self._device),
            state_BHS,
            observation.reference_BA,
            inside_BH,
            observation.embodiment_B,
        )

    def get_optim_params(self) -> list[dict[str, Any]]:
        """Return the parameter groups. The trunk's groups have their own learning rates."""
        groups: list[dict[str, Any]] = []
        known: set[int] = set()
        for parameters, factor in self.network.trunk.parameter_groups():
            known |= {id(p) for p in parameters}
            if parameters:
                groups.append({"params": parameters, "lr": self.config.optimizer_lr * factor})
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in known]
        return [{"params": rest}, *groups]


class _CheckedBatch(NamedTuple):
    """Batch of observations that passed ``_check_batch``."""

    states: FloatArray  # (B, n_s)
    images: Images | None  # (B, C, Y, X, 3)
    tasks: list[str]


def _build_or_create_network(config: ActionPriorConfig, dataset_meta: Any) -> PolicyNetwork:  # noqa: ANN401  # LeRobot has no types
    """Build the network that ``config`` describes, or create a new one for a dataset."""
    if config.actionprior:
        check_description(config.actionprior, "config.json")
        trunk = config.actionprior["trunk"]
        if not is_builtin(trunk):
            raise UserError(
                f"the policy uses the trunk {trunk['name']!r} ({trunk.get('class_path')}), and "
                "LeRobot's tools load policies with actionprior's trunks only; act with "
                f"actionprior.Policy.load(FOLDER, trunk={trunk['name']}) or with "
                "lightning serve --trunk"
            )
        return build_network(config.actionprior, "config.json")
    if dataset_meta is None:
        raise UserError("there is nothing to act with: give --policy.path, or train on a dataset")
    return new_network(str(dataset_meta.root), config.chunk_size, chosen_episodes())


def _pixels(image: Tensor, key: str) -> Images:
    """Convert images (B, 3, Y, X) in [0, 1] to uint8 (B, Y, X, 3). Exact if they were uint8."""
    if image.ndim != 4 or image.shape[1] != 3:
        raise PolicyError(f"{key!r} has shape {tuple(image.shape)}, expected (rows, 3, Y, X)")
    if image.dtype != torch.uint8:
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise PolicyError(f"{key!r} has values outside of [0, 1], as LeRobot's images are")
        image = (image * 255).round().to(torch.uint8)
    pixels: Images = image.movedim(1, -1).contiguous().cpu().numpy()
    return pixels
