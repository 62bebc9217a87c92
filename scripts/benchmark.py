r"""What this machine makes of the library's networks and data.

    python scripts/benchmark.py data
    python scripts/benchmark.py data --images photographs/ --count 100
    pip install -e .[bench]
    python scripts/benchmark.py step
    python scripts/benchmark.py step --networks bisenet --size 256x512 --rounds 9
    python scripts/benchmark.py methods
    python scripts/benchmark.py rank
    python scripts/benchmark.py memory

`data` compares reading original images with reading prepared ones, `step` the networks
with their PyTorch forms, `methods` the methods' train steps with source-only's, and
`rank` a ranking with an evaluation; `memory` asks the compiler what a full-size step of
DAFormer holds: see benchmark_data.py, benchmark_step.py, benchmark_methods.py,
benchmark_rank.py and benchmark_memory.py.  The table goes into
docs/performance.md, between the command's markers, all numbers into
docs/performance.json; with --dry they are only printed.
"""

import argparse
import sys

import benchmark_data
import benchmark_memory
import benchmark_methods
import benchmark_rank
import benchmark_step

from uda_jax.errors import UserError


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub = parser.add_subparsers(dest="command", required=True)
    for name, module, run, about in (
        ("data", benchmark_data, benchmark_data.data, "original against prepared data"),
        ("step", benchmark_step, benchmark_step.step, "networks against PyTorch"),
        (
            "methods",
            benchmark_methods,
            benchmark_methods.methods,
            "methods against source-only",
        ),
        ("rank", benchmark_rank, benchmark_rank.rank_benchmark, "ranking"),
        (
            "memory",
            benchmark_memory,
            benchmark_memory.memory_benchmark,
            "what a step of DAFormer holds",
        ),
    ):
        command = sub.add_parser(name, help=about)
        module.add_arguments(command)
        command.set_defaults(run=run)
    chosen = parser.parse_args(arguments)
    try:
        chosen.run(chosen)
    except UserError as error:
        sys.exit(f"uda_jax: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
