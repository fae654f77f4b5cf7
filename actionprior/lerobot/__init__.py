"""Our policies as LeRobot's: ``--policy.path=DIR`` in lerobot-eval, -rollout and -train.

LeRobot finds the modules by their names, once it has imported the configuration: it does so for
``--discover_packages_path=actionprior.lerobot``, and without that flag where the distribution
``lerobot_policy_actionprior`` is installed (``examples/lerobot_policy_actionprior``).
"""
