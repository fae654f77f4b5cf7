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
    """Demonstration set of one robot: its folder, recording and description.

    Args:
        robot: Name of the robot: ``panda``, ``kuka``, ``xarm6``, ``ur5e`` or the two-arm ``duo``.
        tasks: Names of tasks that the suite has for the robot (``actionprior.envs.ENV_IDS``).
        episodes_per_task: Episodes per task.
        data_dir: Folder of the sets.
        seed: Block of reset seeds (``record_demonstrations``).
        control_mode: Control mode; None is the robot's own.
        image_size: Side of the images [pixels]; None records no images.
        human: Strength, 0 to 1, of human flaws in the demonstrations.
        wordings: Wordings of the instructions: ``one``, ``train`` or ``held_out``
            (``TabletopEnv``).
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
    ) -> None:
        from actionprior.envs import env_id
        from actionprior.envs.arms.robots import check_control_mode, find_robot
        from actionprior.envs.embodiments import suite_embodiment
        from actionprior.envs.experts import check_human
        from actionprior.envs.recording import VERSION
        from actionprior.envs.tasks import check_wordings

        try:
            arm = find_robot(robot)
            self.control_mode = check_control_mode(control_mode or arm.control_mode)
            self.human = check_human(human)
            self.wordings = check_wordings(wordings)
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
        # Sets with default values keep the names from before these options existed.
        parts += [f"human{human:g}"] * (human > 0) + [wordings] * (wordings != "one")
        parts += [f"v{VERSION}"]
        self.root = Path(data_dir).expanduser() / "-".join(parts)
        robot_fields = vars(suite_embodiment(arm, self.control_mode))
        self.embodiment = LeRobotEmbodiment(**robot_fields, roots=[str(self.root)])

    def record(self) -> None:
        """Record the set unless it exists.

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
            )
        except (ImportError, ValueError) as error:
            raise DataError(f"{self.root}: cannot be recorded: {error}") from error


class SimulatedTrajectories(LeRobotTrajectories):
    """Data of Stage 1 on the suite: trajectories of one or several robots, without images.

    Args:
        robots: Names of the robots.
        tasks: Names of tasks that all of these robots have.
        episodes_per_task: Recorded demonstrations per robot and task.
        data_dir: Folder of the sets; missing sets are recorded there.
        recording_seed: Block of reset seeds.
        control_modes: Control modes by robot, instead of the robot's own.
        robot_tasks: Tasks by robot, instead of ``tasks``. ``duo`` needs this, since its only task
            is its own.
        human: Strength, 0 to 1, of human flaws in the demonstrations: pauses, tremor, varied speed.
        kwargs: Arguments of ``LeRobotTrajectories``.
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
        **kwargs: Any,  # noqa: ANN401  arguments of the parent
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
            )
            for robot in robots
        ]
        super().__init__(embodiments=[s.embodiment for s in self.sets], **kwargs)

    def prepare_data(self) -> None:
        """Record missing demonstrations."""
        for demonstrations in self.sets:
            demonstrations.record()
        super().prepare_data()


class SimulatedVLA(LeRobotVLA):
    """Data of Stage 2 on the suite: one robot, with images.

    Args:
        robot: Name of the robot.
        tasks: Names of the tasks.
        episodes_per_task: Recorded demonstrations per task.
        demonstrations: Number of first demonstrations that are used per task; by default all.
        data_dir: Folder of the sets; missing sets are recorded there.
        recording_seed: Block of reset seeds; the default differs from that of Stage 1.
        control_mode: Control mode, instead of the robot's own.
        render_size: Side of the recorded images [pixels].
        human: Strength, 0 to 1, of human flaws in the demonstrations: pauses, tremor, varied speed.
        wordings: Wordings of the instructions: ``one``, or ``train`` to draw one of several.
        kwargs: Arguments of ``LeRobotVLA``.
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
        **kwargs: Any,  # noqa: ANN401  arguments of the parent
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
            )
        ]
        super().__init__(embodiments=[self.sets[0].embodiment], **kwargs)
        if demonstrations is not None:
            # Recordings alternate between tasks: the first n·T episodes have n of each task.
            self.max_episodes = demonstrations * len(tasks)

    def prepare_data(self) -> None:
        """Record missing demonstrations."""
        self.sets[0].record()
        super().prepare_data()


class SimulatedSuite(LeRobotVLA):
    """Data of Stage 2 on several robots of the suite, by default on all thirteen tasks.

    Args:
        robot_tasks: Names of the tasks by robot; by default ``actionprior.envs.SUITE``.
        episodes_per_task: Recorded demonstrations per robot and task.
        demonstrations: Number of first demonstrations that are used per task; by default all.
        scarce: Share (above 0, to 1) of ``demonstrations`` by robot, for robots with few of them;
            at least one demonstration is used.
        data_dir: Folder of the sets; missing sets are recorded there.
        recording_seed: Block of reset seeds; the default differs from that of Stage 1.
        render_size: Side of the recorded images [pixels].
        human: Strength, 0 to 1, of human flaws in the demonstrations.
        wordings: Wordings of the instructions: ``one``, or ``train`` to draw one of several.
        kwargs: Arguments of ``LeRobotVLA``.
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
        **kwargs: Any,  # noqa: ANN401  arguments of the parent
    ) -> None:
        from actionprior.envs import SUITE

        tasks, scarce = robot_tasks or SUITE, scarce or {}
        if unknown := sorted(set(scarce) - set(tasks)):
            raise DataError(f"scarce names {unknown[0]!r}, which is not among {list(tasks)}")
        for robot, share in scarce.items():
            if not 0 < share <= 1:
                raise DataError(f"scarce.{robot} is {share}, expected a share above 0, to 1")
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
            )
            for robot, names in tasks.items()
        ]
        # Recordings alternate between tasks: the first n·T episodes have n of each task.
        kwargs["max_episodes"] = {robot: counts[robot] * len(tasks[robot]) for robot in tasks}
        super().__init__(embodiments=[s.embodiment for s in self.sets], **kwargs)

    def prepare_data(self) -> None:
        """Record missing demonstrations."""
        for demonstrations in self.sets:
            demonstrations.record()
        super().prepare_data()
