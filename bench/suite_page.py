"""Write the page of the suite's tasks: ``python -m bench.suite_page --out docs/suite.md``."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from statistics import median

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from actionprior.envs import SUITE, env_id
from actionprior.envs.env import TabletopEnv
from actionprior.envs.experts import TabletopExpert
from actionprior.files.atomic import write_text
from bench.command_line import run
from bench.experts import ExpertEpisode, run_episode

_HEAD = """\
# The suite: thirteen tasks of five robots

Each picture shows the start, the middle and the end of an episode of the scripted expert. Below it
are the time limit, the expert's success and the wordings of the instruction. The
[guide](suite_guide.md) lists the other environments.

`python -m bench.suite_page --out docs/suite.md` writes this page.
"""
_MODES = {
    "joint_delta": "joint deltas",
    "joint_position": "joint targets",
    "ee_delta": "tip deltas",
}


def suite_page(out: Path, seeds: int = 100) -> None:
    """Write a page with a picture of every task and the success of its expert.

    The pictures go to the folder beside the page with its name. The last line is `RESULT` and JSON,
    with the successes per environment.

    Args:
        out: Markdown file to write; an existing one is replaced.
        seeds: Episodes per expert.
    """
    folder = out.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    sections, successes = [_HEAD], {}
    for robot, tasks in SUITE.items():
        for task in tasks:
            name = env_id(robot, task)
            env = _make(name, images=False)
            episodes = [run_episode(env, TabletopExpert(env), seed) for seed in range(seeds)]
            env.close()
            successes[name] = sum(o.success for o in episodes)
            print(f"{name}: {successes[name]} of {seeds}", flush=True)
            picture = folder / f"{robot}_{task}.png"
            good = [s for s, o in enumerate(episodes) if o.success] or [0]
            seed = good[len(successes) % len(good)]  # show different scenes
            instruction = _save_picture(name, seed, episodes[seed].steps, picture)
            image_link = f"![{instruction}]({folder.name}/{picture.name})"
            sections.append(_section(env, name, instruction, image_link, episodes))
    write_text("\n".join(sections), out)
    print("RESULT " + json.dumps({"seeds": seeds, "successes": successes}))


def _make(name: str, *, images: bool) -> TabletopEnv:
    env = gym.make(name, images=images, render_mode="rgb_array").unwrapped
    assert isinstance(env, TabletopEnv)  # every id of the suite makes one
    return env


def _save_picture(name: str, seed: int, steps: int, file: Path) -> str:
    """Save start, middle and end of an expert's episode as one picture. Return the instruction."""
    from PIL import Image

    env = _make(name, images=False)
    env.reset(seed=seed)
    expert = TabletopExpert(env)
    expert.reset(seed)
    frames: list[NDArray[np.uint8]] = []
    for step in range(steps + 1):
        if step in (0, steps // 2, steps):
            frames.append(_render_frame(env))
        env.step(expert())
    instruction = env.instruction
    env.close()
    Image.fromarray(np.concatenate(frames, axis=1)).save(file, optimize=True)
    return instruction


def _render_frame(env: TabletopEnv) -> NDArray[np.uint8]:
    frame = env.render()
    assert frame is not None  # because render_mode is rgb_array
    return frame


def _section(
    env: TabletopEnv, name: str, instruction: str, image_link: str, episodes: list[ExpertEpisode]
) -> str:
    task, robot = env.task, env.robot
    grippers = " and ".join(dict.fromkeys(arm.gripper for arm in robot.arms))
    about = inspect.getdoc(type(task)) or ""
    words = [f"“{w}”" for w in (*task.wordings[1:], *task.held_out_wordings)]
    known, held_out = words[: len(task.wordings) - 1], words[len(task.wordings) - 1 :]
    lines = [
        f"## `{name}`\n\n{image_link}\n",
        f"“{instruction}”: {about.replace(chr(10) * 2, ' ').replace(chr(10), ' ')}\n",
        f"- {_MODES[env.control_mode]} of {sum(arm.dof for arm in robot.arms)} joints, {grippers}, "
        f"{robot.control_hz} Hz, at most {task.seconds:g} s",
        f"- expert: {sum(o.success for o in episodes)} of {len(episodes)} episodes, "
        f"{median(o.steps for o in episodes):g} steps (median)",
        f"- also worded {', '.join(known)}" if known else "",
        f"- held out: {', '.join(held_out)}" if held_out else "",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def main(args: list[str] | None = None) -> None:
    """Write the page: see :func:`suite_page` for the options."""
    run(suite_page, "suite_page", args)


if __name__ == "__main__":
    main()
