"""Count the kernels that a training step starts, and how often it waits for the device.

On a GPU each operation that computes starts a kernel, and small kernels cost more to start than to
run. Operations such as ``nonzero`` make Python wait until the GPU has finished. Both are counted on
a CPU, on which the same operations are called.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from lightning import Callback, Trainer
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from actionprior.networks.language_blocks import LanguageSize
from actionprior.networks.motion_prior import PriorArchitecture
from actionprior.networks.trunks import VLMTrunk
from actionprior.networks.trunks.two_towers import Pixels
from actionprior.networks.trunks.vlm import families
from actionprior.vla import VLAModule
from bench.bare_loop import prior_module
from bench.command_line import run
from bench.random_vlm import TINY, write_random_vlm
from bench.short_runs import ShortRun, SyntheticTrajectories, SyntheticVLA, trainer

_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "is_nonzero"}
_NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach"}
_NO_KERNEL |= {"_unsafe_view", "alias", "lift_fresh", "resize_", "set_", "_reshape_alias"}
_LANGUAGE = LanguageSize(kv_heads=1, head_width=16, mlp_width=48, head_norms=True)


class KernelCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch
    """Count operations that compute, and those after which Python has to wait for their result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch
        self.kernels, self.waits = 0, Counter[str]()

    def __torch_dispatch__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401  torch's signature
        """Count an operation and run it."""
        name = func.overloadpacket.__name__
        if name in _WAITS or _indexes_by_mask(name, args):
            self.waits[name] += 1
        if not func.is_view and name not in _NO_KERNEL:
            self.kernels += 1
        return func(*args, **(kwargs or {}))


def _indexes_by_mask(name: str, args: Any) -> bool:  # noqa: ANN401  torch's own
    if name not in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return False
    return any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1])


def bench_kernels(rows: int = 8, out: str = "") -> dict[str, Any]:
    """Count kernels and waits of training steps, forward and backward.

    ``stage2_to_z`` is Stage 2 up to z′, and ``images_of_transformers`` the same with an image tower
    that treats each image separately, as in transformers. ``stage2_step`` is a whole training step
    with all losses. ``stage1_language`` has the blocks of Qwen3. The last line is `RESULT` and
    JSON.

    Args:
        rows: Observations per batch, of two images each.
        out: File for the result; empty writes none.
    """
    torch.manual_seed(0)
    result: dict[str, Any] = {"rows": rows}
    with tempfile.TemporaryDirectory() as folder:
        source = write_random_vlm(TINY, Path(folder))
        for name, whole in (("stage2_to_z", True), ("images_of_transformers", False)):
            with _families(whole):
                trunk = VLMTrunk(source, random_weights=True, pixels=Pixels(image_size=32))
                result[name] = _counted(_vlm_step(trunk, rows), trunk)
        result["stage2_step"] = _stage2_step(source, rows, folder)
    for name, language in (("stage1", None), ("stage1_language", _LANGUAGE)):
        two, three = (_stage1(depth, language, rows) for depth in (2, 3))
        result[name] = two | {"kernels_per_block_pair": three["kernels"] - two["kernels"]}
    print("RESULT " + json.dumps(result), flush=True)
    if out:
        Path(out).write_text(json.dumps(result, indent=1) + "\n")
    return result


@contextmanager
def _families(whole: bool) -> Iterator[None]:
    """Context manager: keep the towers of transformers unless ``whole``."""
    known = dict(families._FAMILIES)
    if not whole:
        from dataclasses import replace

        def only_deepstack(model: Any) -> None:  # noqa: ANN401  a model of transformers
            from actionprior.networks.trunks.vlm.equal_images import add_everywhere

            model.language_model._deepstack_process = add_everywhere

        families._FAMILIES["qwen3_vl"] = replace(known["qwen3_vl"], prepare=only_deepstack)
    try:
        yield
    finally:
        families._FAMILIES.update(known)


def _vlm_step(trunk: VLMTrunk, rows: int) -> Callable[[], Tensor]:
    fusion = trunk.own_fusion(16, 8, 0.0)
    images = torch.randint(256, (rows, 2, 3, 32, 32), dtype=torch.uint8)
    cameras = torch.ones(rows, 2, dtype=torch.bool)
    tasks = [f"move the cube to pad {number % 4}" for number in range(rows)]
    history = torch.cat([torch.ones(rows), torch.zeros(rows)]).bool()
    given = torch.randn(rows, 2, 16), torch.randn(rows, 74), torch.randn(rows, 8)

    def loss() -> Tensor:
        z_BZ = fusion(trunk(images, cameras, tasks), *given, None, history)
        return cast(Tensor, z_BZ.square().sum())

    return loss


class _StepCounter(Callback):
    """Count what the second training step does, forward and backward."""

    def __init__(self) -> None:
        self.counter = KernelCounter()
        self.counting = ExitStack()

    def on_train_batch_start(self, running: Trainer, *_: object) -> None:
        """Begin with the step."""
        if running.global_step == 1:
            self.counting.enter_context(self.counter)

    def on_before_optimizer_step(self, *_: object) -> None:
        """End before the optimiser."""
        self.counting.close()


def _stage2_step(source: str, rows: int, folder: str) -> dict[str, Any]:
    data, step = SyntheticVLA(batch_size=rows, pixels=32), _StepCounter()
    data.setup("fit")
    module = VLAModule(
        [robot.to_dict() for robot in data.embodiments],
        VLMTrunk(source, random_weights=True, pixels=Pixels(image_size=32)),
        architecture=PriorArchitecture(
            width=32, encoder_depth=2, decoder_depth=2, heads=2, language=_LANGUAGE
        ),
        decay_fraction=1.0,  # all terms in every step
    )
    short = ShortRun(rows, steps=1, device="cpu", precision="32-true", warm=1)
    trainer(short, folder, [step], logger=False).fit(module, data)
    return {"kernels": step.counter.kernels, "waits": dict(step.counter.waits)}


def _stage1(depth: int, language: LanguageSize | None, rows: int) -> dict[str, Any]:
    data = SyntheticTrajectories(batch_size=rows)
    data.setup("fit")
    size = {"width": 32, "encoder_depth": depth, "decoder_depth": depth, "heads": 2}
    module = prior_module({**size, "language": language}, data)
    module.prior.normalizer.fit(data.statistics_sample())
    batch = next(iter(data.train_dataloader()))

    def loss() -> Tensor:
        z_BZ = module.prior.encode(batch)
        return module.prior.flow_loss(
            z_BZ, batch, torch.randn_like(batch.action_BHA), torch.rand(len(z_BZ))
        )

    return _counted(loss, module)


def _counted(loss: Callable[[], Tensor], module: nn.Module) -> dict[str, Any]:
    cast(Any, loss()).backward()  # caches are filled
    module.zero_grad()
    with KernelCounter() as counter:
        cast(Any, loss()).backward()
    return {"kernels": counter.kernels, "waits": dict(counter.waits)}


def main(args: list[str] | None = None) -> None:
    """Run the benchmark: see :func:`bench_kernels` for its options."""
    run(bench_kernels, "kernels", args)


if __name__ == "__main__":
    main()
