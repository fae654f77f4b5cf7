"""How much of a policy's error is noise of the flow.

Axes: N windows, H steps, A action slots, G groups, K draws.
"""

import torch
from torch import Tensor

from actionprior.diagnosis import chunks
from actionprior.diagnosis.chunks import Recorded
from actionprior.diagnosis.measurement import Diagnosis, finding
from actionprior.diagnosis.windows import Windows
from actionprior.networks.policy_network import PolicyNetwork

DRAWS = 4
NOISY = 0.7  # error of the mean chunk over that of one chunk
MATTERS = 0.15  # smallest share of the constant chunk's error that is worth a finding


def diagnose_spread(network: PolicyNetwork, windows: Windows, recorded: Recorded) -> Diagnosis:
    """Draw several chunks per window; report their spread and the error of their mean."""
    z_NZ = chunks.latents(network, windows.observation)
    drawn = [chunks.decode(network, z_NZ, windows.observation, draw) for draw in range(DRAWS)]
    drawn_KNHA: Tensor = torch.stack(drawn)
    mean_NHA = drawn_KNHA.mean(0)
    spread_NG = torch.stack([recorded.distance(one, mean_NHA) for one in drawn_KNHA]).mean(0)
    single_NG = torch.stack([recorded.error(one) for one in drawn_KNHA]).mean(0)
    mean_NG = recorded.error(mean_NHA)
    rows = [
        *recorded.measure("noise", f"spread over {DRAWS} draws", spread_NG),
        *recorded.measure("noise", "error of one draw", single_NG),
        *recorded.measure("noise", f"error of the mean of {DRAWS} draws", mean_NG),
    ]
    single, mean = recorded.share(single_NG), recorded.share(mean_NG)
    if single < MATTERS or mean > NOISY * single:
        return Diagnosis(rows, [])
    message = (
        f"the mean of {DRAWS} draws has {mean / single:.0%} of one draw's error: much of the error "
        "is noise of the flow; train longer or with more flow.noise_repeats, use temporal "
        "ensembling, or look for demonstrations that solve one scene in several ways"
    )
    return Diagnosis(rows, [finding("warning", "noise", recorded.robot.name, "", message)])
