"""Scripted experts: closed-loop and smooth, for every robot, task and control mode.

An expert reads the true state of the simulator, not the image. Its plan decides where the tool's
tip should go, and a mover brings the control's target there with limited speed and acceleration.
The control converts this motion to actions, so one expert serves all three control modes.
"""

from actionprior.envs.experts.expert import TabletopExpert, check_push
from actionprior.envs.experts.human import HumanFlaws, check_human
from actionprior.envs.experts.plan import Aim, Plan

__all__ = ["Aim", "HumanFlaws", "Plan", "TabletopExpert", "check_human", "check_push"]
