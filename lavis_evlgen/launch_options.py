"""The options of a run, for the launchers and for ``evlgen train``; without torch, so that help is there at once."""

import argparse


def add_launch_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cfg-path", required=True, metavar="FILE", help="yaml file with the sections model, datasets and run"
    )
    parser.add_argument("--options", nargs="+", default=[], metavar="KEY=VALUE", help="override, e.g. run.max_iters=10")
    parser.add_argument("--stock-runner", action="store_true", help="use LAVIS's own runner as the yaml names it")
