"""Run Stage 2 with a vision-language model on several ranks (``ranks_vla`` with another trunk).

Arguments: prior, source, folder, strategy, rank of LoRA (0: none), numbers of ranks.
"""

import sys
from pathlib import Path

from actionprior.networks.trunks import VLMTrunk
from actionprior.networks.trunks.tuning import Tuning
from actionprior.networks.trunks.two_towers import Pixels
from tests.helpers.ranks_vla import main

if __name__ == "__main__":
    prior, source, folder, strategy, lora_rank = sys.argv[1:6]
    tuning = Tuning(False, False, 1.0, lora_rank=int(lora_rank))
    for count in map(int, sys.argv[6:]):
        one = count == 1
        main(
            prior,
            "encoder",
            Path(folder),
            count,
            "auto" if one else strategy,
            lambda: VLMTrunk(source, tuning=tuning, pixels=Pixels(image_size=32)),
        )
