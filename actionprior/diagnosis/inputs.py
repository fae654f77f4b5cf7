"""Whether a policy looks, listens and feels: change one input, and compare its chunks.

Axes: N windows, G groups, C cameras.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from actionprior.batch import Observation
from actionprior.checkup import Finding
from actionprior.diagnosis import chunks
from actionprior.diagnosis.chunks import Recorded
from actionprior.diagnosis.measurement import Diagnosis, MeasuredValue, finding
from actionprior.diagnosis.windows import Windows, other_episodes
from actionprior.networks.policy_network import PolicyNetwork

IGNORED = 0.02  # rise of the error, as a share of the constant chunk's, that counts as none
LITTLE = 0.5  # rise of the error with other images, relative to the error itself, that is little
SAME = 1.0  # largest difference of pictures that count as equal, of 255


class Effect(NamedTuple):
    """What a changed input does to the predicted chunks.

    Attributes:
        name: The changed input and how it was changed.
        chunk_NHA: Chunks predicted from the changed input.
        change: Mean distance from the unchanged chunk, as a share of the constant chunk's error.
        error: Error of the changed chunk, as the same share.
        rise: Difference of that error to the unchanged chunk's.
    """

    name: str
    chunk_NHA: Tensor
    change: float
    error: float
    rise: float

    @property
    def useless(self) -> bool:
        """Whether the input could be changed without a loss."""
        return self.rise < IGNORED

    @property
    def before(self) -> float:
        """Error of the unchanged chunk, as a share of the constant chunk's."""
        return self.error - self.rise

    @property
    def summary(self) -> str:
        """Say for a useless input whether it changes the chunk at all."""
        if self.change < IGNORED:
            return "could be exchanged without effect"
        return f"changes the chunk by {self.change:.0%} of the constant's error, not for the better"


def changed_inputs(
    windows: Windows, training: Windows, first: Observation, order_N: Tensor
) -> Iterator[tuple[str, Observation]]:
    """Yield each change of an input except the instruction.

    Args:
        windows: Windows to change.
        training: Training windows, for mean images and states.
        first: Observations at the first frame of each window's episode.
        order_N: A window of another episode for each window.
    """
    seen, known = windows.observation, training.observation
    images = seen.images_BCKYX
    for camera, name in enumerate(windows.robot.cameras):
        mean = known.images_BCKYX[:, camera].float().mean(0).to(torch.uint8)
        for how, other in (
            ("of another episode", images[order_N, camera]),
            ("covered", mean.expand_as(images[:, camera])),
            ("frozen at the start", first.images_BCKYX[:, camera]),
        ):
            changed = images.clone()
            changed[:, camera] = other
            yield f"camera {name} {how}", seen._replace(images_BCKYX=changed)
    yield "all cameras of another episode", seen._replace(images_BCKYX=images[order_N])
    unseen = seen.history._replace(step_mask_BH=torch.zeros_like(seen.history.step_mask_BH))
    yield "history withheld", seen._replace(history=unseen)
    mean_S = known.state_BS.mean(0)
    blank = seen._replace(state_BS=mean_S.expand_as(seen.state_BS), history=unseen)
    yield "state at its mean, history withheld", blank


def effect(
    network: PolicyNetwork, recorded: Recorded, plain_NHA: Tensor, name: str, changed: Observation
) -> Effect:
    """Predict from a changed input, and compare."""
    chunk_NHA = chunks.predict(network, changed)
    change = recorded.share(recorded.distance(chunk_NHA, plain_NHA))
    error = recorded.share(recorded.error(chunk_NHA))
    plain = recorded.share(recorded.error(plain_NHA))
    return Effect(name, chunk_NHA, change, error, error - plain)


def diagnose_inputs(
    network: PolicyNetwork,
    windows: Windows,
    training: Windows,
    first: Observation,
    recorded: Recorded,
    plain_NHA: Tensor,
) -> Diagnosis:
    """Change cameras, state and history in turn, and name those without an effect."""
    order_N, name = other_episodes(windows.episode_N), windows.robot.name
    if order_N is None:
        message = "there is one held-out episode, so that images cannot be exchanged; hold out more"
        return Diagnosis([], [finding("note", "inputs", name, "", message)])
    effects = {
        what: effect(network, recorded, plain_NHA, what, changed)
        for what, changed in changed_inputs(windows, training, first, order_N)
    }
    return Diagnosis(measure_effects(name, list(effects.values())), list(_unused(windows, effects)))


def measure_effects(robot: str, effects: list[Effect]) -> list[MeasuredValue]:
    """Report the change and the error of each effect, as shares of the constant chunk's error."""
    return [
        MeasuredValue(robot, "inputs", f"{one.name}: {what}", "", value, "")
        for one in effects
        for what, value in (("change of the chunk", one.change), ("error", one.error))
    ]


def _unused(windows: Windows, effects: dict[str, Effect]) -> Iterator[Finding]:
    robot = windows.robot
    images_of_others = effects["all cameras of another episode"]
    if images_of_others.useless and robot.cameras:
        yield finding("error", "blind", robot.name, "images", (
            f"{images_of_others.summary}: the policy does not look; check "
            "that the trunk trains or has weights, and that the images show what decides the motion"
        ))  # fmt: skip
    elif robot.cameras and images_of_others.rise < LITTLE * images_of_others.before:
        yield finding("warning", "hardly_looks", robot.name, "images", (
            "with images of another episode the error rises only from "
            f"{images_of_others.before:.0%} to {images_of_others.error:.0%}: the policy acts "
            "almost without looking, from state and instruction. In demonstrations the arm is "
            "on its way already, so that its state says where it goes; on the robot it does "
            "not. Record demonstrations that are disturbed (lightning record --push), set "
            "fusion.keyframe_weight, and read `places` for what the trunk sees"
        ))  # fmt: skip
    for camera, name in enumerate(robot.cameras):
        ways = [effects[f"camera {name} {way}"] for way in ("of another episode", "covered")]
        if not all(way.useless for way in ways):
            continue
        images = windows.observation.images_BCKYX[:, camera].float()
        still = float((images - images[:1]).abs().amax()) <= SAME
        why = "shows one and the same picture in all windows: is it frozen?" if still else (
            "shows nothing that the policy needs, or nothing that it learnt to use."
        )  # fmt: skip
        yield finding("warning", "unused_camera", robot.name, name, (
            f"could be covered without a loss; it {why} Repair it, or leave it out"
        ))  # fmt: skip
    masked = effects["state at its mean, history withheld"].useless
    if masked and robot.state:
        message = "could be left out without a loss: the policy acts on images and instruction"
        yield finding("note", "unused_state", robot.name, "state", message)
