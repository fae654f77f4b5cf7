"""Stage 2: train a policy to see and act, on top of the motion prior.

Source: arXiv 2606.26095, Sec. III-C and III-D. Axes: B batch, H steps, A action slots,
Z latent width.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from lightning.fabric.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from actionprior.batch import Committed, Observation, TrajectoryBatch, VLABatch
from actionprior.checkpoints import keys
from actionprior.checkpoints.match import agree_on_images, require_same_policy
from actionprior.checkpoints.policy import (
    building_from,
    describe_policy,
    load_weights_into,
    make_trunk,
    policy_description,
    recorded_image_shape,
    weights_of,
)
from actionprior.checkpoints.prior import describe_into, starting_prior
from actionprior.checkpoints.reading import read_checkpoint
from actionprior.embodiment import Embodiment
from actionprior.embodiment.image_shape import ImageShape
from actionprior.embodiment.normalization import Normalizer
from actionprior.embodiment.recorded_ranges import RecordedRanges
from actionprior.errors import UserError
from actionprior.networks.keyframe_head import KeyframeHead
from actionprior.networks.motion_prior import MotionPrior, PriorArchitecture
from actionprior.networks.policy_network import History, PolicyNetwork
from actionprior.networks.trunks.base import Trunk, TrunkChoice
from actionprior.networks.trunks.instruction_signs import reading_faults
from actionprior.training.embodied_data import data_of_run, embodied_data_module, fit_statistics
from actionprior.training.flow_noise import EVALUATION_KEY, FlowNoise
from actionprior.training.metrics import COPY_LAST, ChunkBend, HeldOutErrors, copied_first_action
from actionprior.training.settings import (
    FusionSize,
    PolicyFlowSettings,
    PolicyOptimizerSettings,
    flat_settings,
    grouped_settings,
)
from actionprior.training.stage import StageModule


class VLAModule(StageModule):
    """Train trunk, fusion, encoder and decoder together; nothing of the prior is frozen.

    L = L_pred + λ(k)·(L_align + L_recon), with L_pred = ‖D(x_r, r, z′) - v‖²,
    L_align = ‖z′ - sg(Enc(τ))‖², L_recon as in Stage 1 and λ(k) = max(0, 1 - k / N_decay).
    With history, every term of z′ is averaged over two passes: with z_hist and without it.

    The architecture of the prior is read from its checkpoint. A checkpoint of this module holds
    all that is needed to load it: the Stage-1 file is not read again.
    """

    batch_type, stage = VLABatch, 2

    def __init__(
        self,
        embodiments: list[dict[str, Any]],
        trunk: Trunk,
        prior_checkpoint: str = "",
        architecture: PriorArchitecture | None = None,
        use_prior: bool = True,
        reuse_decoder: bool = True,
        align_weight: float = 1.0,
        recon_weight: float = 1.0,
        decay_fraction: float = 0.1,
        history: History = "encoder",
        allow_new_embodiments: bool = False,
        learning_rate: float = 1e-3,
        expert_lr_scale: float = 1.0,
        fusion: FusionSize = FusionSize(),
        flow: PolicyFlowSettings = PolicyFlowSettings(),
        optimizer: PolicyOptimizerSettings = PolicyOptimizerSettings(),
    ) -> None:
        """Create the module and read the prior's checkpoint.

        Args:
            embodiments: Robots as plain data (``Embodiment.to_dict``); the command line takes them
                from the data.
            trunk: Network that encodes images and instruction.
            prior_checkpoint: Checkpoint of either stage, which gives architecture and statistics.
            architecture: Architecture of the prior. None reads it from ``prior_checkpoint``.
            use_prior: False trains the same architecture and statistics from fresh weights,
                without alignment and reconstruction loss (the paper's "no action prior").
            reuse_decoder: False trains a fresh decoder beside the pretrained encoder.
            align_weight: Weight of L_align; 0 turns it off.
            recon_weight: Weight of L_recon; 0 turns it off.
            decay_fraction: N_decay as a share of the run (paper: 0.1); with 0, λ is always 0.
            history: How the history token is made: ``encoder`` (the paper's), ``mlp`` (a control)
                or ``off``.
            allow_new_embodiments: True accepts robots that the prior was not trained on.
            learning_rate: Peak learning rate of AdamW (paper: 2.5e-5 with a VLM of 2 B parameters).
            expert_lr_scale: Factor on the learning rate of a pretrained encoder (with the soft
                tokens) and of a pretrained decoder; fresh ones train at the full rate.
            fusion: Size of the fusion transformer.
            flow: Training and integration of the flow.
            optimizer: Schedule, weight decay and skipped steps.

        Raises:
            UserError: An unknown ``history``, a share outside [0, 1], neither a checkpoint nor an
                architecture while ``use_prior`` is set, or a checkpoint of another architecture.
        """
        super().__init__(learning_rate, optimizer)
        self.settings = flat_settings(
            use_prior=use_prior,
            reuse_decoder=reuse_decoder,
            align_weight=align_weight,
            recon_weight=recon_weight,
            decay_fraction=decay_fraction,
            history=history,
            allow_new_embodiments=allow_new_embodiments,
            learning_rate=learning_rate,
            expert_lr_scale=expert_lr_scale,
            fusion=fusion,
            flow=flow,
            optimizer=optimizer,
        )
        if not 0 <= decay_fraction <= 1:
            raise UserError(
                f"decay_fraction is {decay_fraction}; expected a share of the run, 0 to 1"
            )
        robots = [Embodiment.from_dict(e) for e in embodiments]
        prior = starting_prior(
            prior_checkpoint,
            robots,
            architecture,
            use_prior=use_prior,
            reuse_decoder=reuse_decoder,
            may_join=allow_new_embodiments,
        )
        size = (fusion.width, fusion.depth, fusion.heads)
        acting = (flow.prefix_steps, flow.integration_steps, flow.integrator)
        self.prior_checkpoint = prior_checkpoint
        self.network = PolicyNetwork(
            robots, trunk, prior, history, *size, *acting, fusion.state_dropout
        )
        self.keyframe_weight = fusion.keyframe_weight
        self.keyframes = (
            KeyframeHead(prior.architecture.latent_width, fusion.width)
            if fusion.keyframe_weight > 0
            else None
        )
        self.errors = HeldOutErrors(prior.embodiments, (COPY_LAST,))
        self.bends = ChunkBend(prior.embodiments)
        self.align_weight = align_weight if use_prior else 0.0
        self.recon_weight = recon_weight if use_prior else 0.0
        self.decay_fraction = decay_fraction
        pretrained = use_prior and bool(prior_checkpoint)
        self.encoder_lr_scale = expert_lr_scale if pretrained else 1.0
        self.decoder_lr_scale = expert_lr_scale if pretrained and reuse_decoder else 1.0
        self.flow = flow

    @property
    def prior(self) -> MotionPrior:
        """Motion prior, which acts as the action expert."""
        return self.network.prior

    @property
    def normalizer(self) -> Normalizer:
        """Statistics of the robots."""
        return self.prior.normalizer

    @property
    def embodiments(self) -> list[Embodiment]:
        """Robots in the order of ``Observation.embodiment_B``."""
        return self.network.embodiments

    # ---- life cycle -----------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Check that checkpoints can record the trunk, and warn of what the policy cannot learn.

        Raises:
            UserError: The trunk's ``init_args()`` do not rebuild it.
        """
        self.network.trunk.require_rebuildable()
        tasks = sorted(set(embodied_data_module(self).instructions))
        signs, reader = self.network.trunk.instruction_signs(tasks), type(self.network.trunk)
        for fault in reading_faults(tasks, signs, reader.__name__) if signs else ():
            rank_zero_warn(fault)
        if self.network.trunk.blind and not self.trainer.ckpt_path:
            rank_zero_warn(
                f"{type(self.network.trunk).__name__} is frozen with random weights, so that the "
                "policy hardly sees: set weights to start from, or do not freeze it"
            )

    def configure_model(self) -> None:
        """Check that data and prior agree, and fit the statistics of robots new in this stage."""
        data = data_of_run(self, self.prior.architecture, self.prior_checkpoint)
        agree_on_images(self.network, data.image_shape, "the data")
        fit_statistics(
            self, self.normalizer, lambda: self.network.to_prior_rows(data.statistics_sample())
        )
        # DDP sends every buffer in each step, also 17 MB of embeddings of words. It reads the
        # names of those that it need not send here.
        constant = self.network.trunk.constant_buffers()
        self._ddp_params_and_buffers_to_ignore = [f"network.trunk.{n}" for n in sorted(constant)]
        super().configure_model()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Describe prior, trunk and settings in the checkpoint, so that it needs no other file."""
        super().on_save_checkpoint(checkpoint)
        describe_into(checkpoint, self.prior)
        checkpoint[keys.POLICY] = describe_policy(self.network, self.settings)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that the checkpoint is of Stage 2 and of the same policy.

        Raises:
            CheckpointError: It is not; the message names the differences.
        """
        require_same_policy(self.network, self.settings, checkpoint, self.checkpoint_path)
        super().on_load_checkpoint(checkpoint)

    @classmethod
    def load(cls, path: str | Path, trunk: TrunkChoice = None) -> Self:
        """Load a policy from its checkpoint, in evaluation mode; no other file is read.

        Args:
            path: Checkpoint of this module.
            trunk: Class of the trunk, or a built one; needed if it is none of actionprior's.

        Raises:
            CheckpointError: The file cannot be used, or its trunk is unknown.
        """
        checkpoint = read_checkpoint(path)
        description, weights = policy_description(checkpoint, path), weights_of(checkpoint, path)
        with building_from(description, weights, path):
            trunk = make_trunk(description["trunk"], path, trunk)
            settings = grouped_settings(description["settings"])
            policy = cls(description["embodiments"], trunk, str(path), **settings)
            policy.network.image_shape = recorded_image_shape(description)
        load_weights_into(policy, weights, path)
        policy.network.trunk.merge()
        return policy.eval()

    def parameter_groups(self) -> Iterable[tuple[Iterable[nn.Parameter], float]]:
        """Yield trunk, encoder, decoder and the rest, with their factors on the learning rate."""
        yield from self.network.trunk.parameter_groups()
        decoder = {id(p) for p in self.prior.decoder.parameters()}
        encoder = [p for p in self.prior.parameters() if id(p) not in decoder]
        yield encoder, self.encoder_lr_scale
        yield self.prior.decoder.parameters(), self.decoder_lr_scale
        yield self.network.fusion.parameters(), 1.0
        if self.keyframes is not None:
            yield self.keyframes.parameters(), 1.0
        if self.network.history_mlp is not None:
            yield self.network.history_mlp.parameters(), 1.0

    # ---- training -------------------------------------------------------------------------

    def decay(self, step: int) -> float:
        """Return the weight λ(k) = max(0, 1 - k / N_decay) at step k."""
        return self.schedule.fade(step, self.decay_fraction)

    def training_step(self, batch: VLABatch, batch_idx: int) -> Tensor:
        """Compute L = L_pred + λ(k)·(L_align + L_recon)."""
        noise, weight = self.noise(batch_idx), self.decay(self.global_step)
        self.log_shares([e.name for e in self.embodiments], batch.future.embodiment_B)
        with noise.for_layers(self.network, self.device):
            latents = self.network.latents(batch.observation)
        future = self.network.to_prior_rows(batch.future)
        branches = 1 if self.network.history == "off" else 2
        z_BZ = torch.cat(latents[-branches:])
        futures = TrajectoryBatch(*(t.repeat(branches, *[1] * (t.dim() - 1)) for t in future))
        loss = pred = self._flow_loss(
            z_BZ, futures, noise, self.flow.noise_repeats, self.network.prefix_steps
        )
        logged = {"loss_pred": pred}
        if self.keyframes is not None:
            keyframe = self.keyframes.loss(
                z_BZ, batch.keyframe_BS, self.normalizer, future.embodiment_B
            )
            loss = loss + self.keyframe_weight * keyframe
            logged |= {"loss_keyframe": keyframe}
        teacher = weight > 0 and (self.align_weight > 0 or self.recon_weight > 0)
        if teacher:
            own_BZ = self.prior.encode(future)
            target_BZ = own_BZ.detach().repeat(branches, 1)
            align = (z_BZ - target_BZ).square().sum(-1).mean()
            moved_BZ = self.prior.perturb(
                own_BZ, noise.normal(*own_BZ.shape, like=own_BZ), self.flow.latent_noise
            )
            recon = self._flow_loss(moved_BZ, future, noise, 1)
            loss = loss + weight * (self.align_weight * align + self.recon_weight * recon)
            logged |= {"loss_align": align, "loss_recon": recon}
            logged |= {"cosine": F.cosine_similarity(z_BZ, target_BZ).mean()}
        if not teacher and self.network.history != "encoder" and not self.sharded:
            # The encoder is unused in this step; a zero gradient keeps DDP from waiting for one.
            loss = loss + 0.0 * sum(p.sum() for p in self.prior.encoder.parameters())
        size = len(batch.observation.task)
        self.log("train/loss", loss, prog_bar=True, batch_size=size)
        if self.logs_now:
            logged |= {"lambda": torch.tensor(weight)}
            self.log_dict({f"train/{k}": v for k, v in logged.items()}, batch_size=size)
        return self.guarded_loss(loss, batch_idx)

    def _flow_loss(
        self,
        z_BZ: Tensor,
        trajectory: TrajectoryBatch,
        noise: FlowNoise,
        repeats: int,
        prefix_steps: int = 0,
    ) -> Tensor:
        count = repeats * len(z_BZ)
        shape = trajectory.action_BHA.shape[1:]
        r_B = noise.time(count, self.flow.time_law, like=z_BZ)
        start_BHA = noise.normal(count, *shape, like=z_BZ)
        known_B = noise.integers(count, prefix_steps, like=z_BZ) if prefix_steps else None
        return self.prior.flow_loss(z_BZ, trajectory, start_BHA, r_B, known_B, self.mean_over_ranks)

    # ---- evaluation -----------------------------------------------------------------------

    def predict_step(self, batch: VLABatch, batch_idx: int) -> Tensor:
        """Predict chunks (B, H, A) in robot units for a batch of observations."""
        noise = FlowNoise(EVALUATION_KEY, batch_idx, self.global_rank)
        shape = batch.future.action_BHA.shape
        return self.predict_chunk(
            batch.observation, noise.normal(*shape, like=batch.future.action_BHA)
        )

    def evaluate(self, batch: VLABatch, batch_idx: int, split: str) -> None:
        """See :class:`StageModule`: losses, geometry of latents, errors and bends of chunks."""
        noise = FlowNoise(EVALUATION_KEY, batch_idx, self.global_rank)
        future = self.network.to_prior_rows(batch.future)
        z_BZ = self.network.latent(batch.observation)
        target_BZ = self.prior.encode(future)
        similarity_BB = z_BZ @ target_BZ.T
        hits_B = similarity_BB.argmax(1) == torch.arange(len(z_BZ), device=z_BZ.device)
        logged = {
            "loss_pred": self._flow_loss(z_BZ, future, noise, 1),
            "loss_recon": self._flow_loss(target_BZ, future, noise, 1),
            "loss_align": (z_BZ - target_BZ).square().sum(-1).mean(),
            "cosine": similarity_BB.diagonal().mean(),
            "retrieval": hits_B.float().mean(),
        }
        if self.keyframes is not None:
            logged["loss_keyframe"] = self.keyframes.loss(
                z_BZ, batch.keyframe_BS, self.normalizer, future.embodiment_B
            )
        self.log_dict(
            {f"{split}/{k}": v for k, v in logged.items()}, batch_size=len(z_BZ), sync_dist=True
        )
        start_BHA = noise.normal(*future.action_BHA.shape, like=z_BZ)
        predicted_BHA = self.network.decode(z_BZ, batch.observation, start_BHA)
        n = self.normalizer
        self.errors.update(predicted_BHA, {COPY_LAST: copied_first_action(future, n)}, future, n)
        recorded_BHA, mask_BHA = n.relative_action(future), n.action_mask(future)
        self.bends.update(predicted_BHA, recorded_BHA, mask_BHA, future.embodiment_B)

    def report(self, split: str) -> None:
        """See :class:`StageModule`."""
        found = self.errors.compute(self.normalizer.action_range_EA) | self.bends.compute()
        for key, value in found.items():
            self.log(f"{split}/{key}", value)
        self.errors.reset()
        self.bends.reset()

    # ---- acting ---------------------------------------------------------------------------

    @property
    def chunk_length(self) -> int:
        """Steps H of a predicted chunk."""
        return self.network.chunk_length

    @property
    def history_length(self) -> int:
        """H_h, steps of the past that the policy reads."""
        return self.network.history_length

    @property
    def image_shape(self) -> ImageShape | None:
        """See :class:`PolicyNetwork`."""
        return self.network.image_shape

    @property
    def recorded_ranges(self) -> dict[str, RecordedRanges]:
        """See :class:`PolicyNetwork`."""
        return self.network.recorded_ranges

    def predict_chunk(
        self, observation: Observation, noise_BHA: Tensor, committed: Committed | None = None
    ) -> Tensor:
        """See :meth:`PolicyNetwork.predict_chunk`."""
        return self.network.predict_chunk(observation, noise_BHA, committed)
