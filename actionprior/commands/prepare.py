"""Fetch or record a recipe's data without training: what a cluster job wants done beforehand."""


def main(args: list[str]) -> None:
    """Run the verb: ``lightning prepare --config RECIPE [--data.… ]``; only ``data`` is used."""
    from jsonargparse import ArgumentParser
    from lightning.pytorch import LightningDataModule

    from actionprior.errors import UserError

    parser = ArgumentParser(prog="lightning prepare")
    parser.add_argument("--config", action="config", help="a recipe of fit")
    parser.add_subclass_arguments(LightningDataModule, "data")
    parser.add_argument("--model", type=dict, help="not used")
    parser.add_argument("--trainer", type=dict, help="not used")
    parser.add_argument("--seed_everything", type=int, help="not used")
    data = parser.instantiate(parser.parse_args(args)).get("data")
    if data is None:
        raise UserError("no data to prepare; expected a recipe with a `data` section (--config)")
    data.prepare_data()
