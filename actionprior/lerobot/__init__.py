"""ActionPrior policies in LeRobot: ``--policy.path=DIR`` of lerobot-eval, -rollout and -train.

LeRobot finds the modules of this package by their names once it has imported the configuration.
Pass ``--discover_packages_path=actionprior.lerobot``, or install the distribution
``lerobot_policy_actionprior`` (``examples/lerobot_policy_actionprior``) and omit the flag.
"""
