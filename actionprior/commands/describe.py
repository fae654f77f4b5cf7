"""Write a first recipe for a LeRobot dataset, from the names of its features."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actionprior.commands._parser import call
from actionprior.errors import UserError, printable

HEAD = """\
# Written by `lightning describe` from the names in meta/info.json. It is a guess; check it.
#   lightning doctor --config {file}      check the recordings and this description
#   lightning fit --config {file}         Stage 1: learn to move
#   lightning fit --config {file} --config recipes/stack/vla.yaml --model.prior_checkpoint P.ckpt
#                                         Stage 2: learn to see and act, if there are cameras
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
  val_check_interval: 300
  check_val_every_n_epoch: null
  gradient_clip_val: 1.0
  callbacks:
    - class_path: callbacks.StepCheckpoint
      init_args: {filename: prior-step}
    - class_path: callbacks.BestCheckpoint
      init_args: {filename: prior-best}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {filename: prior, save_on_train_epoch_end: true, enable_version_counter: false}
"""


WORDINGS = 3
"""Instructions for which the recipe shows how to give other wordings."""
KEYS = ("control_hz", "roots", "repo_ids", "action_key", "state_key", "ignored", "cameras")


def describe(dataset: str, name: str | None = None, out: Path | None = None) -> None:
    """Write a first Stage-1 recipe for a LeRobot dataset.

    The names of the dataset's features decide which of them fills which slot. Check the result,
    then run `lightning doctor` on it.

    Args:
        dataset: Folder, URL, or user/name on the hub.
        name: Name of the robot; by default the name in the dataset.
        out: YAML file to write; by default the recipe is printed.

    Raises:
        UserError: The dataset cannot be read, or ``out`` exists already.
    """
    from data_modules.lerobot.description import describe as describe_robot

    robot, notes, instructions = describe_robot(dataset, name)
    text = recipe(robot, notes, instructions, str(out or "robot.yaml"))
    if out is None:
        print(text, end="")
        return
    if out.exists():
        raise UserError(f"{out} is there already; remove it, or choose another --out")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text)
    for note in notes:
        print(f"to check: {printable(note)}")
    print(f"{out}: check it, then run `lightning doctor --config {out}`")


def recipe(
    robot: dict[str, Any], notes: Sequence[str], instructions: Sequence[str], file: str
) -> str:
    """Return the text of a Stage-1 recipe.

    Args:
        robot: Plain data of a ``LeRobotEmbodiment``.
        notes: Sentences that become comments.
        instructions: Instructions in the data. If the robot has cameras, a comment shows how to
            give other wordings of the first ones.
        file: Name of the recipe.
    """
    # A name with a line break must not end a comment: the next line would be part of the recipe.
    lines = [f"      # To check: {printable(note)}" for note in notes]
    lines.append(f"      - name: {_yaml(robot['name'])}")
    for key in KEYS:
        if robot.get(key):
            lines.append(f"        {key}: {_yaml(robot[key])}")
    for key in ("action", "state"):
        lines.append(f"        {key}:" if robot[key] else f"        {key}: []")
        for group in robot[key]:
            inner = ", ".join(f"{k}: {_yaml(v)}" for k, v in group.items())
            lines.append(f"          - {{{inner}}}")
    if robot["cameras"] and instructions:
        lines.append(
            "        # Other words for an instruction, which the policy is to follow, too:"
        )
        lines.append("        # other_wordings:")
        lines += [f"        #   {_yaml(text)}: []" for text in instructions[:WORDINGS]]
    return HEAD.format(file=printable(file)) + "\n".join(lines) + "\n" + TAIL


def _yaml(value: object) -> str:
    """Write plain data as JSON that YAML reads as the same, without control characters."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in text)


def main(args: list[str]) -> None:
    """Run the verb: ``lightning describe DATASET [--name NAME] [--out FILE]``."""
    call(describe, args, "lightning describe", as_positional=True)
