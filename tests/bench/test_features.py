"""The benchmark prints its ratios; the speed itself is not tested."""

import json
from pathlib import Path

import pytest

from actionprior.networks.trunks import CompactTrunk
from bench import features

pytest.importorskip("pybullet")


@pytest.mark.slow
def test_it_ends_with_its_ratios_and_leaves_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tiny() -> CompactTrunk:
        return CompactTrunk("test_efficientnet", image_size=64)

    names = ("compact", "siglip_size", "dinov2_size")
    cases = {name: features.TrunkCase(tiny, 64, 4, 2) for name in names}
    monkeypatch.setattr(features, "_cases", lambda: cases)
    features.main([f"--folder={tmp_path}", "--batch_size=4", "--steps=2", "--episodes=1"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("RESULT "))
    for name in names:
        assert all(result[name][key] > 0 for key in ("images", "features", "ratio", "reading"))
    assert result["small_64"] > 0
    assert result["compact_frozen"]["ratio"] > 0
    assert result["free_trunk"] > 0
    assert len(result["met"]) == 3
    assert not list(tmp_path.iterdir())
