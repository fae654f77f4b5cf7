"""Download or record a recipe's data without training, for instance before a cluster job."""

from lightning.pytorch import LightningDataModule

from actionprior.commands._parser import call


def prepare(data: LightningDataModule) -> None:
    """Download or record the data of a recipe, without training.

    Args:
        data: Data module of the recipe.
    """
    data.prepare_data()


def main(args: list[str]) -> None:
    """Run the verb: ``lightning prepare --config RECIPE [--data.… ]``."""
    call(prepare, args, "lightning prepare")
