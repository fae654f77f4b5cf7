"""Fetch or record a recipe's data without training: what a cluster job wants done beforehand."""


def main(args: list[str]) -> None:
    """Run the verb: ``lightning prepare --config RECIPE [--data.… ]``; only ``data`` is used."""
    from actionprior.commands._recipe import data_parser
    from actionprior.errors import UserError

    parser = data_parser("lightning prepare")
    data = parser.instantiate(parser.parse_args(args)).get("data")
    if data is None:
        raise UserError("no data to prepare; expected a recipe with a `data` section (--config)")
    data.prepare_data()
