"""The model card of an exported policy: what it does, how to run it, how good it is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actionprior.checkpoints.policy import Description, describe_trunk, is_builtin
from actionprior.embodiment import Embodiment
from actionprior.embodiment.feature_groups import ActionGroup, StateGroup
from actionprior.errors import UserError, printable
from actionprior.files.plain_json import read_json
from actionprior.networks.policy_network import PolicyNetwork

TAGS = ["robotics", "lerobot", "actionprior", "vision-language-action"]


class CardFacts(NamedTuple):
    """Facts of a model card that the network does not contain.

    Attributes:
        robot: Robot that the policy acts for.
        execute_steps: Actions executed per chunk.
        delay_steps: Actions that the robot executes while the next chunk is computed.
        checkpoint: Name of the checkpoint's file.
        step: Optimiser step of the checkpoint.
        license: License of the policy, if known.
        repo_id: Repository on the hub, if the policy is uploaded.
        evaluations: Results from ``read_evaluation``.
    """

    robot: Embodiment
    execute_steps: int
    delay_steps: int
    checkpoint: str
    step: int
    license: str | None
    repo_id: str | None
    evaluations: list[dict[str, Any]]


def model_card(network: PolicyNetwork, facts: CardFacts) -> str:
    """Write the card in Markdown, with YAML front matter."""
    from huggingface_hub import ModelCardData

    robot = facts.robot
    name = _word(robot.name)
    data = ModelCardData(
        license=facts.license, library_name="lerobot", pipeline_tag="robotics", tags=TAGS
    )
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    delay = f", {facts.delay_steps} more while the next is planned" if facts.delay_steps else ""
    licence = "" if facts.license else "\n\nNo licence was given: ask before you use it."
    return f"""---
{data.to_yaml()}
---

# A policy for {name}

A vision-language-action policy with a motion prior, trained with actionprior: it looks at \
{len(robot.cameras)} camera(s), the robot's state and an instruction, and answers with the next \
{network.chunk_length} actions at {robot.control_hz:g} Hz, of which {facts.execute_steps} are \
executed{delay}. Trunk: `{type(network.trunk).__name__}`; {millions:.1f} million parameters; from \
`{facts.checkpoint}`, step {facts.step}.{licence}

## Run it

{_how_to_run(robot, facts.repo_id, describe_trunk(network.trunk))}

## The robot

{_table(("state", "unit", "features"), [_row(group) for group in robot.state])}

{_table(("action", "unit", "features"), [_row(group) for group in robot.action])}

Cameras: {", ".join(f"`{_word(key)}`" for key in robot.cameras) or "none"}. Values are in these \
units; the policy normalises them itself (`statistics.json`).

## Evaluation

{_evaluation(facts.evaluations)}
"""


def _how_to_run(robot: Embodiment, repo_id: str | None, trunk: Description) -> str:
    """Write the code and commands that run the policy."""
    where = repo_id or "path/to/this/folder"
    imports = ["from actionprior import Policy"]
    arguments = [f'"{where}"']
    if repo_id:
        imports.insert(0, "from huggingface_hub import snapshot_download")
        arguments = [f'snapshot_download("{repo_id}")']
    if not is_builtin(trunk):
        class_path = _word(trunk["class_path"])
        module, _, name = class_path.rpartition(".")
        imports.append(f"from {module} import {name}  # the policy's trunk: not in this folder")
        arguments.append(f"trunk={name}")
    keys = [*([robot.state_key] if robot.state else []), *robot.cameras]
    observation = ", ".join([*(f'"{_word(key)}": …' for key in keys), '"task": "…"'])
    python = f"""In Python, anywhere (state in the order of the table below; images uint8, \
rows × columns × 3):

```python
{"\n".join(imports)}

policy = Policy.load({", ".join(arguments)})
policy.reset(seed=0)
action = policy.select_action({{{observation}}})
```
"""
    if not is_builtin(trunk):
        return f"""{python}
As a server:

```bash
lightning serve --ckpt_path {where} --trunk {class_path}
```

The policy needs the class `{class_path}`, which its author has to share. LeRobot's \
tools load policies with actionprior's own trunks only."""
    return f"""{python}
On a robot that LeRobot drives:

```bash
lerobot-rollout --discover_packages_path=actionprior.lerobot --policy.path={where} \\
  --robot.type=… --fps={robot.control_hz:g} --task="…"
```

In a simulator of LeRobot's:

```bash
lerobot-eval --discover_packages_path=actionprior.lerobot --policy.path={where} --env.type=…
```"""


def read_evaluation(path: Path) -> dict[str, Any]:
    """Read a ``results.json`` of ``callbacks.RolloutEvaluation``.

    Raises:
        UserError: The file is missing, damaged, or of another program.
    """
    results = read_json(path)
    environments = results.get("environments") if isinstance(results, dict) else None
    if (
        not isinstance(environments, list)
        or not environments
        or not all(map(_is_result, environments))
    ):
        raise UserError(f"evaluation {path} is no results.json of RolloutEvaluation")
    found: dict[str, Any] = results
    return found


def _is_result(found: object) -> bool:
    """Check for the values that a card shows of one environment."""
    if not isinstance(found, dict) or not isinstance(found.get("env_id"), str):
        return False
    numbers = [found.get(k) for k in ("success_rate", "success_low", "success_high", "return")]
    return all(type(n) in (int, float) for n in numbers) and isinstance(found.get("episodes"), list)


def find_evaluations(checkpoint: Path, step: int) -> list[dict[str, Any]]:
    """Find the evaluations that a checkpoint's run wrote at exactly this step."""
    # The run's folder is the checkpoint's own, or that of its folder `checkpoints`.
    runs = checkpoint.absolute().parents[:2]
    paths = [path for run in runs for path in sorted(run.glob("rollouts/**/results.json"))]
    return [found for found in map(read_evaluation, paths) if found.get("step") == step]


def _evaluation(evaluations: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"`{_word(e['env_id'])}`",
            f"{100 * e['success_rate']:.1f} %",
            f"{100 * e['success_low']:.1f} to {100 * e['success_high']:.1f} %",
            str(len(e["episodes"])),
            f"{e['return']:.2f}",
        )
        for evaluation in evaluations
        for e in evaluation["environments"]
    ]
    if not rows:
        return "None was given."
    return _table(("environment", "success", "95 % interval", "episodes", "mean return"), rows)


def _row(group: ActionGroup | StateGroup) -> tuple[str, ...]:
    kind = f"{_word(group.name)} ({group.representation.replace('_', ' ')})"
    features = ", ".join(f"`{_word(feature)}`" for feature in group.features)
    return kind, _word(group.unit) or "–", features


def _word(name: str) -> str:
    """Return a name of a checkpoint without what Markdown and terminals would interpret."""
    return printable(str(name)).translate(str.maketrans('`"|<>\\', "''/()/"))


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
