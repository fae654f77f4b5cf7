"""``lightning ground``, on few samples of one robot."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from actionprior.errors import UserError
from actionprior.networks.trunks.small import SmallTrunk

pytest.importorskip("pybullet")

from actionprior.commands.ground import main
from actionprior.grounding.warm_up import ground

FEW = {"samples": 24, "batch_size": 8, "image_size": 32, "processes": 1}


@pytest.mark.slow
def test_it_learns_where_objects_are_and_the_file_loads(tmp_path: Path) -> None:
    small = {"samples": 600, "robots": ["panda"], "processes": 1}
    before = ground(**small, steps=1, out=tmp_path / "before.safetensors")
    after = ground(**small, steps=60, out=tmp_path / "after.safetensors")
    for role in ("target", "goal"):
        untrained, trained = getattr(before, role), getattr(after, role)
        assert trained.median_cm < untrained.median_cm - 1
        assert trained.elsewhere < untrained.elsewhere - 0.2
    assert after.target.median_cm < after.target.p90_cm
    trunk = SmallTrunk(weights=str(after.weights), freeze=True)
    assert_close(trunk.state_dict(), load_file(after.weights))
    assert sorted(f.name for f in tmp_path.iterdir()) == ["after.safetensors", "before.safetensors"]


def test_a_seed_gives_one_result_however_many_processes_draw(tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.safetensors" for name in ("one", "two", "other")]
    ground(**FEW, steps=2, out=files[0])
    ground(**FEW | {"processes": 2}, steps=2, out=files[1])
    ground(**FEW, steps=2, seed=1, out=files[2])
    one, two, other = (load_file(file) for file in files)
    assert_close(one, two, rtol=0, atol=0)
    assert not one["vision.query.weight"].equal(other["vision.query.weight"])


def test_the_command_reports_in_its_last_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "deeper" / "trunk.safetensors"
    words = ["--robots=[xarm6]", f"--out={out}", "--steps=2"]
    main([*words, *(f"--{key}={value}" for key, value in FEW.items())])
    last = capsys.readouterr().out.strip().splitlines()[-1]
    result = json.loads(last.removeprefix("RESULT "))
    assert result["weights"] == str(out)
    assert out.is_file()
    keys = {"median_cm", "p90_cm", "over_3cm", "elsewhere"}
    assert result.keys() == {
        "weights",
        "seconds",
        "by_task",
        *(f"{role}_{key}" for role in ("target", "goal") for key in keys),
    }
    assert 0 <= result["target_over_3cm"] <= 1
    assert list(result["by_task"]) == ["reach", "push", "lift", "place"]


def test_tasks_of_any_length_may_be_mixed_and_are_reported_separately(tmp_path: Path) -> None:
    tasks = ["place", "drawer", "recall"]
    out = tmp_path / "trunk.safetensors"
    result = ground(["panda", "ur5e"], out, **FEW | {"samples": 90}, steps=2, tasks=tasks)
    assert list(result.by_task) == tasks
    for errors in result.by_task.values():
        assert errors.target_cm > 0
        assert errors.goal_cm is not None
        assert errors.goal_cm > 0
    assert 0 < result.goal.median_cm < result.goal.p90_cm  # unknown places do not count
    assert all(tensor.isfinite().all() for tensor in load_file(out).values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"robots": ["pand"]}, "robot 'pand' is not known"),
        ({"robots": []}, "robots is empty"),
        ({"robots": ["duo"], "tasks": ["handover"]}, "robot 'duo' has two arms"),
        ({"tasks": []}, "tasks is empty"),
        ({"tasks": ["juggle"]}, "task 'juggle' is not known; choose from"),
        ({"robots": ["panda", "ur5e"], "tasks": ["drawer"]}, "'ur5e' can do none of the tasks"),
        ({"wordings": "odd"}, "wordings 'odd' is not known"),
        ({"steps": 0}, "steps is 0, expected 1 or more"),
        ({"image_size": 30}, "image_size is 30, expected a multiple of 8"),
    ],
)
def test_bad_options_are_refused_before_any_work(
    arguments: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        ground(**{"samples": 10**9, "out": tmp_path / "t.safetensors", **arguments})
