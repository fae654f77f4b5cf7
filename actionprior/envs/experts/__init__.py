"""Scripted experts: closed-loop, smooth, for every robot, task and control mode.

An expert looks at the true state of the simulator (never at the image), says where the tool's tip
should go, and moves the *held target* there with limited speed and acceleration. What the motion
looks like as an action is left to the control mode, so one expert serves all three.
"""

from actionprior.envs.experts.expert import TabletopExpert
from actionprior.envs.experts.human import Human, check_human
from actionprior.envs.experts.plan import Aim, Plan

__all__ = ["Aim", "Human", "Plan", "TabletopExpert", "check_human"]
