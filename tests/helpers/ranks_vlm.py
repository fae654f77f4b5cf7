"""Run Stage 2 with a vision-language model on several ranks (``ranks_vla`` with another trunk)."""

import sys
from pathlib import Path

from actionprior.networks.trunks import VLMTrunk
from actionprior.networks.trunks.two_towers import Pixels
from tests.helpers.ranks_vla import main

if __name__ == "__main__":
    prior, source, folder, strategy = sys.argv[1:5]
    for count in map(int, sys.argv[5:]):
        one = count == 1
        main(
            prior,
            "encoder",
            Path(folder),
            count,
            "auto" if one else strategy,
            lambda: VLMTrunk(source, pixels=Pixels(image_size=32)),
        )
