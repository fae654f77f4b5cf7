"""Warm up the small vision trunk on where objects are, with images from the simulator."""

import json

from actionprior.commands._parser import call
from actionprior.grounding.warm_up import ground


def main(args: list[str]) -> None:
    """Run the verb: see :func:`ground` for its options."""
    result = call(ground, args, "lightning ground")
    record: dict[str, object] = {"weights": str(result.weights), "seconds": result.seconds}
    for role, errors in (("target", result.target), ("goal", result.goal)):
        print(
            f"held-out {role}: median {errors.median_cm:.2f} cm, p90 {errors.p90_cm:.2f} cm, "
            f"above 3 cm {errors.over_3cm:.1%}, elsewhere in the image {errors.elsewhere:.1%}"
        )
        record |= {f"{role}_{key}": value for key, value in errors._asdict().items()}
    for task, medians in result.by_task.items():
        goal = "unknown" if medians.goal_cm is None else f"{medians.goal_cm:.2f} cm"
        print(f"held-out {task}: median target {medians.target_cm:.2f} cm, goal {goal}")
    record["by_task"] = {task: medians._asdict() for task, medians in result.by_task.items()}
    print("RESULT " + json.dumps(record))
