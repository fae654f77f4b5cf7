"""Write a first recipe for a LeRobot dataset: which of its features go where, by their names."""

import json
from pathlib import Path
from typing import Any

from actionprior.errors import UserError

HEAD = """\
# Written by `lightning describe` from the names in meta/info.json: a guess, to be checked.
#   lightning doctor --config {file}      what is wrong with the recordings, or with this
#   lightning fit --config {file}         learn to move
#   lightning fit --config {file} --config recipes/vla.yaml --model.prior_checkpoint PRIOR.ckpt
#                                         learn to see and act, where there are cameras
model:
  class_path: actionprior.MotionPriorModule
  init_args:
    architecture: {{width: 96, latent_width: 64, decoder_sees_state: true}}
data:
  class_path: data_modules.LeRobotTrajectories
  init_args:
    embodiments:
"""
TAIL = """\
trainer:
  max_steps: 3000
  gradient_clip_val: 1.0
  callbacks:
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: prior, save_on_train_epoch_end: true, enable_version_counter: false}
"""


def recipe(robot: dict[str, Any], file: str = "robot.yaml") -> str:
    """The recipe of Stage 1 that trains on ``robot``, as text."""
    lines = [f"      - name: {json.dumps(robot['name'])}"]
    for key in ("control_hz", "roots", "repo_ids", "ignored", "cameras"):
        if robot.get(key):
            lines.append(f"        {key}: {json.dumps(robot[key])}")
    for key in ("action", "state"):
        lines.append(f"        {key}:")
        for group in robot[key]:
            inner = ", ".join(f"{k}: {json.dumps(v)}" for k, v in group.items())
            lines.append(f"          - {{{inner}}}")
    if robot["ignored"]:
        lines.insert(1, "        # Not placed by name: map what the robot is steered by.")
    return HEAD.format(file=file) + "\n".join(lines) + "\n" + TAIL


def main(args: list[str]) -> None:
    """Run the verb: ``lightning describe DATASET [--name NAME] [--out FILE]``."""
    from jsonargparse import ArgumentParser

    from data_modules.lerobot.description import describe

    parser = ArgumentParser(prog="lightning describe")
    parser.add_argument("dataset", type=str, help="a folder, a URL, or user/name on the hub")
    parser.add_argument("--name", type=str | None, help="of the robot")
    parser.add_argument("--out", type=str | None, help="file to write; by default it is printed")
    options = parser.parse_args(args)
    out = options["out"]
    text = recipe(describe(options["dataset"], options["name"]), out or "robot.yaml")
    if out is None:
        print(text, end="")
        return
    if Path(out).exists():
        raise UserError(f"{out} is there already; remove it, or choose another --out")
    Path(out).write_text(text)
    print(f"{out}: check it, then run `lightning doctor --config {out}`")
