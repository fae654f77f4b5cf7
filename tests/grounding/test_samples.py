import gymnasium as gym
import numpy as np
import pytest

from actionprior.envs import SHORT_ENV_IDS
from actionprior.envs.arms.arm import ControlledArm
from actionprior.envs.arms.robots import ROBOTS
from actionprior.envs.scene.scene import COLORS, WORKSPACE
from actionprior.envs.scene.world import CAMERA_EYE, CAMERA_FOV, CAMERA_TARGET
from actionprior.envs.tasks import PushTask, ReachTask
from actionprior.errors import UserError
from actionprior.grounding.samples import grounding_samples

SIZE = 64


@pytest.fixture(scope="module")
def samples():
    return grounding_samples(SHORT_ENV_IDS, 320, seed=1, image_size=SIZE)


def pixel(point):
    """Compute the row and column of a point in table coordinates."""
    eye, target = np.array(CAMERA_EYE), np.array(CAMERA_TARGET)
    forward = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    ray = point - eye
    scale = SIZE / 2 / np.tan(np.radians(CAMERA_FOV) / 2) / (ray @ forward)
    return SIZE / 2 - scale * (ray @ up), SIZE / 2 + scale * (ray @ right)


def color_near(image, point, reach=4):
    """Find the palette's colours within ``reach`` pixels of a point in table coordinates."""
    row, column = (round(v) for v in pixel(point))
    rows = slice(max(0, row - reach), row + reach + 1)
    columns = slice(max(0, column - reach), column + reach + 1)
    patch = image[rows, columns].reshape(-1, 3) / 255
    # Shading scales a colour, so compare directions of RGB vectors.
    patch = patch / (np.linalg.norm(patch, axis=1, keepdims=True) + 1e-6)
    found = set()
    for name, color in COLORS.items():
        direction = np.array(color) / np.linalg.norm(color)
        if (patch @ direction > 0.97).any():
            found.add(name)
    return found


def on_table(places):
    """Convert places (count, 3) of samples to table coordinates."""
    arms = {name: ControlledArm(robot, "joint_delta") for name, robot in ROBOTS.items()}
    names = [gym.spec(env_id).kwargs["robot"] for env_id in SHORT_ENV_IDS]
    turns = [arms[names[i % len(names)]] for i in range(len(places))]
    return np.array([arm.to_table(xyz) for arm, xyz in zip(turns, places, strict=True)])


def test_shapes_and_instructions(samples):
    count = len(samples.instructions)
    assert samples.images.shape == (count, SIZE, SIZE, 3)
    assert samples.images.dtype == np.uint8
    assert samples.target_xyz.shape == samples.goal_xyz.shape == (count, 3)
    verbs = [text.split()[0] for text in samples.instructions[:4]]
    assert verbs == ["reach", "push", "lift", "place"]


def test_the_named_color_is_where_the_target_is(samples):
    hits = [
        text.split()[2] in color_near(image, xyz)
        for image, text, xyz in zip(
            samples.images,
            samples.instructions,
            on_table(samples.target_xyz),
            strict=True,
        )
    ]
    assert np.mean(hits) > 0.93  # the arm hides a few


def test_the_named_pad_is_where_the_goal_is(samples):
    hits = [
        text.split()[-2] in color_near(image, xyz)
        for image, text, xyz in zip(
            samples.images,
            samples.instructions,
            on_table(samples.goal_xyz),
            strict=True,
        )
        if text.endswith("pad")
    ]
    assert np.mean(hits) > 0.93


def test_the_goal_equals_the_target_unless_the_task_has_a_pad(samples):
    for text, target, goal in zip(
        samples.instructions, samples.target_xyz, samples.goal_xyz, strict=True
    ):
        if text.endswith("pad"):
            assert goal[2] == 0.0
        else:
            np.testing.assert_array_equal(target, goal)


def test_places_of_held_objects_are_projected_onto_the_table(samples):
    assert (samples.target_xyz[:, 2] < 0.06).all()
    # Held targets are projected to places behind the region in which scenes are drawn.
    table = on_table(samples.target_xyz)
    assert 0.03 < (table[:, 0] < -WORKSPACE[0] - 0.08).mean() < 0.3


def colors_at(task, where, count=40):
    """Return a task's instructions, and the colours at the target or goal of each sample."""
    drawn = grounding_samples(f"actionprior/Kuka{task}-v0", count, seed=2, image_size=SIZE)
    arm = ControlledArm(ROBOTS["kuka"], "joint_delta")
    places = getattr(drawn, f"{where}_xyz")
    found = [
        color_near(image, arm.to_table(xyz), reach=2)
        for image, xyz in zip(drawn.images, places, strict=True)
        if np.isfinite(xyz).all()
    ]
    return drawn.instructions, found


def test_a_cube_to_stack_goes_to_the_one_named_after_it():
    (texts, targets), (_, goals) = (colors_at("Stack", role) for role in ("target", "goal"))
    stages = []
    for text, target, goal in zip(texts, targets, goals, strict=True):
        top, middle, bottom = text.split()[2::4]
        stages.append((middle in target and bottom in goal, top in target and middle in goal))
    first, second = np.mean(stages, axis=0)
    assert first > 0.25
    assert second > 0.25
    assert first + second > 0.85  # the arm hides a few


def test_an_object_to_sort_goes_to_the_pad_of_its_kind():
    texts, goals = colors_at("Sort", "goal")
    hits = [
        any(f" {color} pad" in text for color in goal)
        for text, goal in zip(texts, goals, strict=True)
    ]
    assert np.mean(hits) > 0.8


def test_the_goal_of_recall_is_known_only_while_the_lamp_is_on():
    texts, goals = colors_at("Recall", "goal", 60)
    assert 0.15 < len(goals) / len(texts) < 0.55
    assert np.mean([bool(found) for found in goals]) > 0.85


def test_samples_repeat_with_the_seed():
    again = [grounding_samples(SHORT_ENV_IDS[:2], 6, seed=s, image_size=32) for s in (0, 0, 1)]
    np.testing.assert_array_equal(again[0].images, again[1].images)
    assert again[0].instructions == again[1].instructions
    assert (again[0].target_xyz != again[2].target_xyz).any()


def test_the_wording_changes_only_the_instructions():
    one, train, held_out = (
        grounding_samples(SHORT_ENV_IDS[:2], 40, seed=3, image_size=16, wordings=wordings)
        for wordings in ("one", "train", "held_out")
    )
    for other in (train, held_out):
        np.testing.assert_array_equal(other.images, one.images)
        np.testing.assert_array_equal(other.target_xyz, one.target_xyz)
    for texts, templates in ((train, "wordings"), (held_out, "held_out_wordings")):
        for task, rows in ((ReachTask, slice(0, None, 2)), (PushTask, slice(1, None, 2))):
            starts = {text.split(" the ")[0] for text in texts.instructions[rows]}
            assert starts == {t.split(" the ")[0] for t in getattr(task, templates)}
    named = [[word for word in text.split() if word in COLORS] for text in one.instructions]
    assert named == [[w for w in t.split() if w in COLORS] for t in held_out.instructions]


def test_bad_arguments_raise_user_errors():
    with pytest.raises(UserError, match="wordings 'odd' is not known"):
        grounding_samples(SHORT_ENV_IDS, 3, wordings="odd")
    with pytest.raises(UserError, match="count of 1 or more"):
        grounding_samples([], 3)
    with pytest.raises(UserError, match="DuoHandover-v0 has two arms"):
        grounding_samples("actionprior/DuoHandover-v0", 3)
