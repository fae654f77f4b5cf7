"""Film two policies in the same scenes, side by side: ``python -m bench.rollout_film``.

The README's film shows the policies of ``make demo``::

    make demo
    .venv/bin/python -m bench.rollout_film --out docs/rollout.gif

It shows the first evaluation scenes of each task in order, so no scene is chosen by its outcome.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from actionprior import VLAModule
from actionprior.envs import EVALUATION_SEED
from actionprior.rollout import EpisodeResult, ObservationMap, rollout
from bench.command_line import run

_DEMO = "outputs/demo/quick/{arm}-0/lightning_logs/version_0/checkpoints/policy.ckpt"
_TITLES = ("without the prior", "with the prior")
_PANEL, _HEAD, _FOOT, _GAP = 196, 20, 34, 8  # pixels
_COLOURS = 96
_TASKS = ("Reach", "Push", "Lift", "Place")  # those of recipes/finetune.yaml
_ENV_IDS = [f"actionprior/Panda{task}-v0" for task in _TASKS]
_INK, _PAPER, _YES, _NO = "#222222", "#ffffff", "#1b7f3b", "#b3261e"

Frame = NDArray[np.uint8]


class Timing(NamedTuple):
    """Speed of the film."""

    every: int = 3  # show only every third frame of the rollout
    milliseconds: int = 120  # per shown frame
    hold: int = 10  # frames for which a scene's end stays


def play(policy: VLAModule, env_id: str, scenes: int, execute_steps: int) -> list[EpisodeResult]:
    """Roll a policy out in the first evaluation scenes, and keep every frame.

    Args:
        policy: Stage-2 module of one robot.
        env_id: Environment of the suite, with that robot.
        scenes: Number of scenes.
        execute_steps: Actions executed per chunk.
    """
    (robot,) = policy.embodiments
    images = dict.fromkeys(robot.cameras, "image")
    found = rollout(
        policy,
        env_id,
        episodes=scenes,
        observation_map=ObservationMap(images=images),
        embodiment=robot.name,
        seed=EVALUATION_SEED,
        num_envs=scenes,
        execute_steps=execute_steps,
        record=scenes,
    )
    return found.episodes


def pictures(
    env_id: str,
    without: Sequence[EpisodeResult],
    with_prior: Sequence[EpisodeResult],
    timing: Timing,
) -> Iterator[Image.Image]:
    """Yield the film's pictures, scene by scene: without the prior on the left, with it right.

    Args:
        env_id: Environment of the episodes, for the caption.
        without: Episodes of the policy without a prior.
        with_prior: Episodes of the policy with a prior, in the same scenes.
        timing: Speed of the film.
    """
    for number, pair in enumerate(zip(without, with_prior, strict=True), start=1):
        longest = max(len(episode.frames) for episode in pair)
        shown = [*range(0, longest, timing.every), *[longest - 1] * timing.hold]
        for k in shown:
            panels = [episode.frames[min(k, len(episode.frames) - 1)] for episode in pair]
            ended = [k >= len(episode.frames) - 1 for episode in pair]
            verdicts = [e.success if over else None for e, over in zip(pair, ended, strict=True)]
            foot = f"“{pair[0].instruction}”\n{env_id.split('/')[-1]}, evaluation scene {number}"
            yield _picture(panels, verdicts, foot)


def _picture(panels: Sequence[Frame], verdicts: Sequence[bool | None], foot: str) -> Image.Image:
    width = len(panels) * _PANEL + (len(panels) - 1) * _GAP
    picture = Image.new("RGB", (width, _HEAD + _PANEL + _FOOT), _PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(12)
    for column, (frame, verdict) in enumerate(zip(panels, verdicts, strict=True)):
        left = column * (_PANEL + _GAP)
        panel = Image.fromarray(frame).resize((_PANEL, _PANEL), Image.Resampling.LANCZOS)
        picture.paste(panel, (left, _HEAD))
        middle = left + _PANEL // 2
        draw.text((middle, _HEAD // 2), _TITLES[column], _INK, font, anchor="mm")
        if verdict is not None:
            words, colour = ("success", _YES) if verdict else ("not solved", _NO)
            draw.rectangle(
                (left, _HEAD + _PANEL - 20, left + _PANEL - 1, _HEAD + _PANEL - 1), colour
            )
            draw.text((middle, _HEAD + _PANEL - 10), words, _PAPER, font, anchor="mm")
    draw.multiline_text(
        (width // 2, _HEAD + _PANEL + _FOOT // 2), foot, _INK, font, anchor="mm", align="center"
    )
    return picture


def write_gif(frames: Sequence[Image.Image], path: Path, timing: Timing) -> None:
    """Write an endless GIF with one palette, so that unchanged pixels cost nothing.

    Args:
        frames: Pictures of one size.
        path: File to write; an existing one is replaced.
        timing: Speed of the film.
    """
    sample = frames[:: max(1, len(frames) // 24)]
    joined = np.concatenate([np.asarray(frame) for frame in sample])
    palette = Image.fromarray(joined).quantize(_COLOURS, dither=Image.Dither.NONE)
    reduced = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    reduced[0].save(
        path,
        save_all=True,
        append_images=reduced[1:],
        duration=timing.milliseconds,
        loop=0,
        optimize=False,
        disposal=1,
    )


def rollout_film(
    policy: str = _DEMO.format(arm="prior"),
    policy_without: str = _DEMO.format(arm="no_prior"),
    env_ids: Sequence[str] = tuple(_ENV_IDS),
    scenes: int = 2,
    execute_steps: int = 2,
    out: Path = Path("outputs/rollout.gif"),
) -> None:
    """Film a policy with the prior and one without in the same scenes.

    The last line is `RESULT` and JSON, with the outcome of each scene.

    Args:
        policy: Stage-2 checkpoint with the prior.
        policy_without: Stage-2 checkpoint without the prior.
        env_ids: Environments to film, such as `[actionprior/PandaPush-v0]`.
        scenes: Scenes per environment.
        execute_steps: Actions executed per chunk.
        out: GIF file to write.
    """
    checkpoints = {"no_prior": policy_without, "prior": policy}
    policies = {arm: VLAModule.load(path).eval() for arm, path in checkpoints.items()}
    timing = Timing()
    film: list[Image.Image] = []
    outcomes: dict[str, dict[str, list[bool]]] = {}
    for env_id in env_ids:
        played = {arm: play(p, env_id, scenes, execute_steps) for arm, p in policies.items()}
        film += pictures(env_id, played["no_prior"], played["prior"], timing)
        outcomes[env_id] = {arm: [e.success for e in found] for arm, found in played.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_gif(film, out, timing)
    print("RESULT " + json.dumps({"first_seed": EVALUATION_SEED, "success": outcomes}))


def main(args: list[str] | None = None) -> None:
    """Make the film: see :func:`rollout_film` for the options."""
    run(rollout_film, "rollout_film", args)


if __name__ == "__main__":
    main()
