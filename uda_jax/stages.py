"""How runs follow each other: one goes on where another ended, and names the next.

Stages are data: each is a run of its own, and a field of its config says what it takes
over from the one before: `init_from` the segmentor's weights alone (see
`uda_jax.runs.load_weights`), `continue_from` everything.  With `continue_from` the
`init_from` of a config file is not used, and the run's header says so.  A mix needs a
trained network that labels the target: `frozen_from`, else the one that the run starts
from.
"""

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from uda_jax import runs, trained
from uda_jax.errors import UserError
from uda_jax.methods import keeps_network
from uda_jax.weight_sources import full_options

PyTree = Any

# Before a config file in `next`: it learns from a ranking of this run's target.
RANK = "rank "

# What the user chose for one stage and means for the next: its data, seed and network.
_KEPT = r"seed|data\.prepared|(?:source|target|test|model)\.[^=]+"
# ... and for one that learns from a ranking and starts where this one did.
_KEPT_AFTER_RANKING = (
    r"seed|data\.prepared|init_from|init_new_heads|(?:test|validation|model)\.[^=]+"
)


def check_stages(config: ConfigDict) -> None:
    """Looks at the fields that name other runs, without looking at those runs.

    Raises:
      UserError: a name in `next` that is none of a config file, a frozen
        network that would be random, or that would not be used.
    """
    _check_frozen(config)
    for name in config.next:
        if not re.fullmatch(rf"({RANK})?[^ ].*\.py(:.+)?", name):
            raise UserError(
                f'next has "{name}", which is no config file: write its path, such as '
                '"configs/maxsquare.py" or "configs/maxsquare.py:gta5".'
            )


def _check_frozen(config: ConfigDict) -> None:
    keeps = keeps_network(config)
    named = f"frozen_from={config.frozen_from}"
    if config.frozen_from and not keeps:
        raise UserError(
            f'{named} is not used, because method "{config.method.name}" keeps a '
            "frozen network for a mix or a feature_weight alone: set one of these, or "
            "leave frozen_from out."
        )
    if config.frozen_from and config.continue_from:
        raise UserError(
            f"{named} is not used, because the run in continue_from="
            f"{config.continue_from} goes on with the frozen network that it has: "
            "leave one of them out."
        )
    if not keeps or config.frozen_from or config.continue_from:
        return
    if not config.init_from:
        needs = {
            "mix": "a trained network that labels the target",
            "feature_weight": "trained features that the run's own stay near",
        }[keeps]
        raise UserError(
            f"method.{keeps} needs {needs}, and init_from and frozen_from are empty: "
            "name a run or a file in init_from."
        )
    if keeps == "mix" and config.init_new_heads:
        raise UserError(
            "init_new_heads=True gives the network of init_from random heads, which "
            "would label the target of method.mix: name a trained network in "
            "frozen_from, or train one with these heads first."
        )


def next_commands(
    config: ConfigDict, workdir: Path, arguments: Sequence[str] = ()
) -> list[str]:
    """The commands of the stages in `config.next`, in its order.

    Each starts from the weights of the run in `workdir`, in a new folder beside it that
    is called after the config file and its variant.  Before those that begin with
    `RANK` comes the command that ranks the target.

    Args:
      config, workdir: of the run that ends.
      arguments: of its command line, whose data, seed and network are repeated.
    """
    kept, workdir = _kept(arguments), Path(workdir)
    commands = []
    for name in config.next:
        if name.startswith(RANK):
            # Beside IntraDA's stage 1 as its configs name the folders.
            beside = "rank" if workdir.name == "inter" else f"{workdir.name}_rank"
            output = workdir.parent / beside
            words = ["--workdir", str(workdir), "--output", str(output)]
            command = shlex.join(["python", "-m", "uda_jax.rank", *words])
            if command not in commands:
                commands.append(command)
            continue
        weights = f"--config.init_from={workdir}"
        file, _, variant = name.partition(":")
        folder = re.sub(r"\W+", "_", f"{Path(file).stem} {variant}".strip())
        commands.append(_command(name, workdir.parent / folder, [weights, *kept]))
    return commands


def commands_after_ranking(
    config: ConfigDict, output: Path, arguments: Sequence[str] = ()
) -> list[str]:
    """The commands of the stages that learn from a ranking.

    Each is trained in a folder beside the ranking's that is called after its variant.

    Args:
      config: of the run whose network ranked.
      output: the ranking's folder.
      arguments: of the command that trained it, whose seed, network, start and tested
        data are repeated.
    """
    lists = [
        f"--config.{domain}.root={Path(output) / part}.jsonl"
        for domain, part in (("source", "easy"), ("target", "hard"))
    ]
    kept = _kept(arguments, _KEPT_AFTER_RANKING)
    commands = []
    for name in config.next:
        if name.startswith(RANK):
            file = name.removeprefix(RANK)
            workdir = Path(output).parent / file.partition(":")[2]
            commands.append(_command(file, workdir, [*lists, *kept]))
    return commands


def _command(name: str, workdir: Path, arguments: Sequence[str]) -> str:
    start = ["python", "-m", "uda_jax.main", "--config", name, "--workdir"]
    return shlex.join([*start, str(workdir), *arguments])


def _kept(arguments: Sequence[str], kept: str = _KEPT) -> list[str]:
    """Those that set one of these fields, each as one word."""
    words, chosen = list(arguments), []
    for index, word in enumerate(words):
        found = re.fullmatch(rf"--?config\.(?:{kept})(=.*)?", word, re.DOTALL)
        if not found:
            continue
        following = words[index + 1 : index + 2]
        if found[1] is None and following and not following[0].startswith("--"):
            word = f"{word}={following[0]}"
        chosen.append(word)
    return chosen


def continue_run(config: ConfigDict, state: PyTree) -> tuple[PyTree, str]:
    """The state in which the run in `config.continue_from` stopped.

    That is all of it: weights, BatchNorm's statistics, the optimizers' momenta, the
    method's memory, the key and the number of steps done, of the latest checkpoint; a
    run that was stopped before its end goes on from there too.  `config.steps` counts
    the steps of both, and the schedule is that of `config` at those steps: MaxSquare's
    "continue training" is a longer poly schedule from a given base rate.  The data
    order goes on as well, so that where nothing but the workdir differs, stopping and
    continuing changes no bit.  The other run is only read.

    Args:
      config: of the new run; `model`, `label_space`, `classes`, `seed` and the names of
        the method and the optimizers are those of the other, the rest is free.
      state: the TrainState of a new run, for its structure and shardings.

    Returns:
      (state, one line on where it comes from).

    Raises:
      UserError: no run or no checkpoint there, no more steps than it has done, or its
        state is not one of this config.

    Difference from the original, whose "continue training" meant to restore all of this
    and restored the weights alone.
    """
    workdir, named = Path(config.continue_from), f"continue_from={config.continue_from}"
    if not (workdir / "config.json").is_file():
        raise UserError(
            f"{named} is not the workdir of a run (it has no config.json): give the "
            "--workdir of the run that is to go on."
        )
    former = runs.read_config(workdir)
    differing = runs.differences(_lasting(former), _lasting(config))
    if differing:
        raise UserError(
            f"{named} cannot go on with this config ({'; '.join(differing[:4])}): keep "
            "what it had there, or take its weights alone with init_from."
        )
    with trained.open_checkpoints(workdir) as checkpoints:
        done = checkpoints.find("latest")
        if done is None:
            raise UserError(f"{named} has no checkpoint yet: train it first.")
        if config.steps <= done:
            raise UserError(
                f"steps={config.steps}, but {named} has done {done} already: give the "
                "number of all steps, those included."
            )
        state = checkpoints.restore(done, state)
    origin = f"{workdir} goes on here from its step {done} of {former.steps}"
    if config.init_from:
        unused = f"init_from={config.init_from} is not used"
        origin += f"; {unused}: the run goes on from {workdir}"
    return state, origin


def _lasting(config: ConfigDict) -> dict:
    """Of a config what its run's state depends on, beside what the arrays show."""
    rows = json.loads(config.to_json())  # tuples of a file are lists
    model = rows["model"]
    name = model.pop("name")
    return {
        "model": {"name": name, **full_options(name, model)},
        **{key: rows[key] for key in ("label_space", "classes", "seed")},
        **{key: {"name": rows[key]["name"]} for key in ("method", "optimizer")},
        "discriminator": {
            key: {"name": row["name"]}
            for key, row in rows["discriminator"].items()
            if key == "optimizer"
        },
    }
