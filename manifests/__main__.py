"""The command line of the data, `python -m manifests VERB`: it only composes, the work is in the modules it calls."""

import argparse
import sys

from manifests.clip_verbs import add_pack, add_prepare, add_sheet, add_synth
from manifests.errors import run_command
from manifests.manifest_verbs import add_build, add_check, add_diff, add_show
from manifests.verb import PROGRAM


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Describe, verify, split and prepare facial-emotion videos."
    )
    subparsers = parser.add_subparsers(metavar="VERB", required=True)
    for add in (add_build, add_check, add_show, add_diff, add_synth, add_prepare, add_sheet, add_pack):
        add(subparsers)
    options = parser.parse_args(arguments)
    return run_command(lambda: options.run(options))


if __name__ == "__main__":
    sys.exit(main())
