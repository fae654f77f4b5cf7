"""Demonstrations of the PyBullet suite, recorded on first use."""

from pathlib import Path
from typing import Any

from actionprior.data import DataError
from data_modules.lerobot.columns import LeRobotEmbodiment
from data_modules.trajectories import LeRobotTrajectories
from data_modules.vla import LeRobotVLA

TASKS = ("reach", "push", "lift", "place")
"""Tasks of every one-arm robot of the suite."""


class Demonstrations:
    """Demonstrations of one robot, and the dataset folder that holds them.

    Args:
        robot: ``panda``, ``kuka``, ``xarm6``, ``ur5e`` or the two-arm ``duo``.
        tasks: Tasks of the suite that this robot has (``actionprior.envs.ENV_IDS``).
        episodes_per_task: Number of episodes of each task.
        data_dir: Folder that holds the datasets.
        seed: Number of the block of reset seeds (see ``record_demonstrations``).
        control_mode: What actions command; None uses the robot's default.
        image_size: Edge of the images [pixels]; None records no images.
        human: Strength of human-like flaws (pauses, tremor, varied speed), 0 to 1.
        wordings: Wording of the instructions, ``one``, ``train`` or ``held_out`` (see
            ``TabletopEnv``).
        push: Largest speed of random pushes of each tip [m/s].

    Raises:
        DataError: An argument is unknown or out of range.
    """

    def __init__(
        self,
        robot: str,
        tasks: list[str],
        episodes_per_task: int,
        data_dir: str,
        seed: int,
        control_mode: str | None,
        image_size: int | None,
        human: float = 0.0,
        wordings: str = "one",
        push: float = 0.0,
    ) -> None:
        from actionprior.envs import env_id
        from actionprior.envs.arms.robots import check_control_mode, find_robot
        from actionprior.envs.embodiments import suite_embodiment
        from actionprior.envs.experts import check_human, check_push
        from actionprior.envs.recording import VERSION
        from actionprior.envs.tasks import check_wordings

        try:
            arm = find_robot(robot)
            self.control_mode = check_control_mode(control_mode or arm.control_mode)
            self.human = check_human(human)
            self.wordings = check_wordings(wordings)
            self.push = check_push(push)
        except ValueError as error:
            raise DataError(str(error)) from error
        if not tasks or len(set(tasks)) < len(tasks):
            raise DataError(f"tasks is {tasks}, expected at least one, each once")
        try:
            self.env_ids = [env_id(arm.name, task) for task in tasks]
        except ValueError as error:
            raise DataError(str(error)) from error
        if episodes_per_task < 1:
            raise DataError(f"episodes_per_task is {episodes_per_task}, expected at least 1")
        self.episodes_per_task = episodes_per_task
        self.seed = seed
        self.image_size = image_size
        parts = [arm.name, self.control_mode, "+".join(tasks), f"{episodes_per_task}x"]
        parts += [f"seed{seed}", f"{image_size}px" if image_size else "blind"]
        # The defaults add nothing to the name, so that older datasets are still found.
        parts += [f"human{human:g}"] * (human > 0) + [wordings] * (wordings != "one")
        parts += [f"push{push:g}"] * (push > 0)
        parts += [f"v{VERSION}"]
        self.root = Path(data_dir).expanduser() / "-".join(parts)
        robot_fields = vars(suite_embodiment(arm, self.control_mode))
        self.embodiment = LeRobotEmbodiment(**robot_fields, roots=[str(self.root)])

    def record(self) -> None:
        """Record the demonstrations, unless their folder exists.

        Raises:
            DataError: PyBullet is missing, or an argument is out of range.
        """
        if self.root.exists():
            return
        from actionprior.envs.recording import record_demonstrations

        try:
            record_demonstrations(
                self.env_ids,
                self.root,
                episodes_per_task=self.episodes_per_task,
                seed=self.seed,
                images=self.image_size is not None,
                image_size=self.image_size or 64,
                control_mode=self.control_mode,
                human=self.human,
                wordings=self.wordings,
                push=self.push,
            )
        except (ImportError, ValueError) as error:
            raise DataError(f"{self.root}: cannot be recorded: {error}") from error


class SimulatedTrajectories(LeRobotTrajectories):
    """Stage 1 on the suite: states and actions of one or more robots, without images.

    Args:
        robots: Names of the robots.
        tasks: Names of the tasks, which all these robots have.
        episodes_per_task: Number of recorded demonstrations of each robot and task.
        data_dir: Folder of the datasets; missing ones are recorded there.
        recording_seed: Number of the block of reset seeds (see ``record_demonstrations``).
        control_modes: What actions command, by robot; by default the robot's own control mode.
        robot_tasks: Names of the tasks, by robot, in place of ``tasks``. The two-arm ``duo`` needs
            it, because it has other tasks than the arms.
        human: Strength of human-like flaws in the demonstrations (pauses, tremor, varied speed),
            0 to 1.
        push: Largest speed of random pushes of each tip [m/s], after which demonstrations show the
            way back. 0 gives none.
        kwargs: Further arguments of ``LeRobotTrajectories``.
    """

    def __init__(
        self,
        robots: list[str],
        tasks: list[str] = list(TASKS),  # noqa: B006  read only
        episodes_per_task: int = 200,
        data_dir: str = "outputs/data",
        recording_seed: int = 0,
        control_modes: dict[str, str] | None = None,
        robot_tasks: dict[str, list[str]] | None = None,
        human: float = 0.0,
        push: float = 0.0,
        **kwargs: Any,  # noqa: ANN401  the parent's arguments
    ) -> None:
        modes, own_tasks = control_modes or {}, robot_tasks or {}
        for name, by_robot in (("control_modes", modes), ("robot_tasks", own_tasks)):
            if unknown := sorted(set(by_robot) - set(robots)):
                raise DataError(f"{name} names {unknown[0]!r}, which is not among {robots}")
        self.sets = [
            Demonstrations(
                robot,
                own_tasks.get(robot, tasks),
                episodes_per_task,
                data_dir,
                recording_seed,
                modes.get(robot),
                None,
                human,
                push=push,
            )
            for robot in robots
        ]
        super().__init__(embodiments=[s.embodiment for s in self.sets], **kwargs)

    def prepare_data(self) -> None:
        """Record missing demonstrations, then prepare as the parent class does."""
        for demonstrations in self.sets:
            demonstrations.record()
        super().prepare_data()


class SimulatedVLA(LeRobotVLA):
    """Stage 2 on the suite: one robot, with images.

    Args:
        robot: Name of the robot.
        tasks: Names of the tasks.
        episodes_per_task: Number of recorded demonstrations of each task.
        demonstrations: Number of first demonstrations of each task that are used; None: all.
        data_dir: Folder of the datasets; missing ones are recorded there.
        recording_seed: Number of the block of reset seeds; by default another one than Stage 1's.
        control_mode: What actions command; None uses the robot's default.
        render_size: Edge of the recorded images [pixels].
        human: Strength of human-like flaws in the demonstrations (pauses, tremor, varied speed),
            0 to 1.
        wordings: Wording of the instructions. ``one`` is always the same, ``train`` draws one of
            several in each episode.
        push: Largest speed of random pushes of each tip [m/s], after which demonstrations show the
            way back. 0 gives none.
        kwargs: Further arguments of ``LeRobotVLA``.
    """

    def __init__(
        self,
        robot: str,
        tasks: list[str] = list(TASKS),  # noqa: B006  read only
        episodes_per_task: int = 100,
        demonstrations: int | None = None,
        data_dir: str = "outputs/data",
        recording_seed: int = 1,
        control_mode: str | None = None,
        render_size: int = 64,
        human: float = 0.0,
        wordings: str = "one",
        push: float = 0.0,
        **kwargs: Any,  # noqa: ANN401  the parent's arguments
    ) -> None:
        if demonstrations is not None and not 1 <= demonstrations <= episodes_per_task:
            raise DataError(
                f"demonstrations is {demonstrations}, expected 1 to {episodes_per_task} "
                "(episodes_per_task)"
            )
        self.sets = [
            Demonstrations(
                robot,
                tasks,
                episodes_per_task,
                data_dir,
                recording_seed,
                control_mode,
                render_size,
                human,
                wordings,
                push,
            )
        ]
        super().__init__(embodiments=[self.sets[0].embodiment], **kwargs)
        if demonstrations is not None:
            # Tasks are recorded in turn: the first n·T episodes are n of each of the T tasks.
            self.max_episodes = demonstrations * len(tasks)

    def prepare_data(self) -> None:
        """Record missing demonstrations, then prepare as the parent class does."""
        self.sets[0].record()
        super().prepare_data()


class SimulatedSuite(LeRobotVLA):
    """Data of Stage 2 on several robots of the suite, by default on all thirteen tasks.

    Args:
        robot_tasks: Names of the tasks, by robot; by default ``actionprior.envs.SUITE``.
        episodes_per_task: Number of recorded demonstrations of each robot and task.
        demonstrations: Number of first demonstrations of each task that are used; None: all.
        scarce: Robots with few demonstrations: the share of ``demonstrations`` that each uses, by
            robot, above 0 and at most 1. At least one demonstration of each task is used.
        data_dir: Folder of the datasets; missing ones are recorded there.
        recording_seed: Number of the block of reset seeds; by default another one than Stage 1's.
        render_size: Edge of the recorded images [pixels].
        human: Strength of human-like flaws in the demonstrations (pauses, tremor, varied speed),
            0 to 1.
        wordings: Wording of the instructions. ``one`` is always the same, ``train`` draws one of
            several in each episode.
        push: Largest speed of random pushes of each tip [m/s], after which demonstrations show the
            way back. 0 gives none.
        kwargs: Further arguments of ``LeRobotVLA``.
    """

    def __init__(
        self,
        robot_tasks: dict[str, list[str]] | None = None,
        episodes_per_task: int = 50,
        demonstrations: int | None = None,
        scarce: dict[str, float] | None = None,
        data_dir: str = "outputs/data",
        recording_seed: int = 1,
        render_size: int = 64,
        human: float = 0.0,
        wordings: str = "one",
        push: float = 0.0,
        **kwargs: Any,  # noqa: ANN401  the parent's arguments
    ) -> None:
        from actionprior.envs import SUITE

        tasks, scarce = robot_tasks or SUITE, scarce or {}
        if unknown := sorted(set(scarce) - set(tasks)):
            raise DataError(f"scarce names {unknown[0]!r}, which is not among {list(tasks)}")
        for robot, share in scarce.items():
            if not 0 < share <= 1:
                raise DataError(
                    f"scarce.{robot} is {share}, expected a share above 0 and at most 1"
                )
        most = episodes_per_task if demonstrations is None else demonstrations
        if not 1 <= most <= episodes_per_task:
            raise DataError(
                f"demonstrations is {most}, expected 1 to {episodes_per_task} (episodes_per_task)"
            )
        counts = {robot: max(1, round(most * scarce.get(robot, 1.0))) for robot in tasks}
        self.sets = [
            Demonstrations(
                robot,
                list(names),
                episodes_per_task,
                data_dir,
                recording_seed,
                None,
                render_size,
                human,
                wordings,
                push,
            )
            for robot, names in tasks.items()
        ]
        # Tasks are recorded in turn: the first n·T episodes are n of each of the T tasks.
        kwargs["max_episodes"] = {robot: counts[robot] * len(tasks[robot]) for robot in tasks}
        super().__init__(embodiments=[s.embodiment for s in self.sets], **kwargs)

    def prepare_data(self) -> None:
        """Record missing demonstrations, then prepare as the parent class does."""
        for demonstrations in self.sets:
            if demonstrations.embodiment.name in {robot.name for robot in self.robots}:
                demonstrations.record()
        super().prepare_data()
