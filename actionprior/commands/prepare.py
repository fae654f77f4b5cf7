"""Fetch or record the data of a recipe, without training: what a cluster job needs beforehand."""


def main(args: list[str]) -> None:
    """Run the verb: the options of ``fit``, of which only the data's are used."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningDataModule

    parser = ArgumentParser(prog="lightning prepare")
    parser.add_argument("--config", required=True, help="a recipe; only its `data` is read")
    recipe = parser.parse_args(args).config
    print(recipe, LightningDataModule)
