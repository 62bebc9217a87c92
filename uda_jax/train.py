"""The only training loop: `fit(config, workdir)`.

Read it from top to bottom: the state, one step, the loop.  A run that was killed goes
on from its last checkpoint as if nothing had happened, because everything that changes
is in `TrainState` and the batches are a function of (config, step).
"""

import functools
from contextlib import closing
from pathlib import Path
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from uda_jax import panels, parallel, rounds, runs, stages, summary, writers
from uda_jax.benchmarks import label_space_of
from uda_jax.checkpoints import Checkpoints, latest_step
from uda_jax.errors import UserError
from uda_jax.evaluate import make_forward
from uda_jax.factories import build
from uda_jax.labels import LabelSpace
from uda_jax.methods import METHODS, looks_at_target
from uda_jax.methods.method import Method, Network
from uda_jax.metrics import Report
from uda_jax.models.model import Model
from uda_jax.optimizers import base_rate, make_optimizer
from uda_jax.training_data import Division, TrainingData, open_training_data

PyTree = Any


@flax.struct.dataclass
class TrainState:
    """All that changes during training, and nothing else; checkpointed whole."""

    step: jax.Array  # int32, steps done
    params: dict[str, PyTree]  # {'segmentor': ..., ...}: all that has a gradient
    batch_stats: PyTree  # BatchNorm's running statistics
    opt_state: optax.OptState
    memory: PyTree  # the method's own
    key: jax.Array  # of the run; a step's key is fold_in(key, step)


def init_state(
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    seed: int,
    init_from: str = "",
    init_new_heads: bool = False,
    row: ConfigDict | None = None,
    label_space: LabelSpace | None = None,
    frozen_from: str = "",
    batch: PyTree = None,
) -> tuple[TrainState, str]:
    """The state before the first step, and one line on where its weights come from."""
    key = jax.random.key(seed)
    model_key, method_key, run_key = jax.random.split(key, 3)
    segmentor, batch_stats = model.init(model_key)
    origin = f"random, seed {seed}"
    if init_from:
        segmentor, batch_stats, origin = runs.load_weights(
            init_from, segmentor, batch_stats, new_heads=init_new_heads,
            row=row, label_space=label_space,
        )  # fmt: skip
    network = Network(segmentor, batch_stats)
    if frozen_from:
        *network, line = runs.load_weights(
            frozen_from, *network, row=row, label_space=label_space,
            option="frozen_from",
        )  # fmt: skip
        network, origin = Network(*network), f"{origin}; frozen network: {line}"
    extra, memory = method.init(method_key, network, batch)
    # Copies, because a train step takes the memory of each array once.
    memory = jax.tree.map(jnp.array, memory)
    params = {"segmentor": segmentor, **extra}
    state = TrainState(
        step=jnp.int32(0),
        params=params,
        batch_stats=batch_stats,
        opt_state=optimizer.init(params),
        memory=memory,
        key=run_key,
    )
    return state, origin


def make_train_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    accumulate_steps: int = 1,
    sharding: jax.sharding.Sharding | None = None,
):
    """The jitted (state, batch) -> (state, metrics); the given state is consumed.

    With accumulate_steps = k the batch is taken in k parts, one after the other, and
    the optimizer gets the mean of their gradients.  A loss that is a mean over a
    selection of pixels (confident ones, say) becomes the mean of k such means, and
    BatchNorm and the method's memory move k times.

    `sharding` is that of the state.  Without it the compiler may spell the state's
    sharding otherwise than it was, and the second step would be compiled again.
    """
    gradient = jax.value_and_grad(method.loss, has_aux=True)

    def whole(state, batch, key):
        (_, out), grads = gradient(state.params, state, batch, key)
        return grads, out.batch_stats, out.memory, out.metrics

    def in_parts(state, batch, key):
        # Every k-th example, so that each part is spread over all devices.
        parts = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, accumulate_steps, *x.shape[1:]), 1, 0),
            batch,
        )

        def one(carry, part):
            total, batch_stats, memory = carry
            number, part = part
            now = state.replace(batch_stats=batch_stats, memory=memory)
            grads, batch_stats, memory, metrics = whole(
                now, part, jax.random.fold_in(key, number)
            )
            return (jax.tree.map(jnp.add, total, grads), batch_stats, memory), metrics

        start = jax.tree.map(jnp.zeros_like, state.params)
        (total, batch_stats, memory), metrics = jax.lax.scan(
            one,
            (start, state.batch_stats, state.memory),
            (jnp.arange(accumulate_steps), parts),
        )
        grads = jax.tree.map(lambda g: g / accumulate_steps, total)
        return grads, batch_stats, memory, jax.tree.map(jnp.mean, metrics)

    def train_step(state: TrainState, batch: PyTree):
        key = jax.random.fold_in(state.key, state.step)
        compute = whole if accumulate_steps == 1 else in_parts
        grads, batch_stats, memory, metrics = compute(state, batch, key)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {**metrics, "optimizer/gradient_norm": optax.global_norm(grads)}
        return state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            memory=memory,
        ), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=sharding)


def fit(config: ConfigDict, workdir: str | Path) -> Report:
    """Trains what `config` describes in `workdir`, or goes on with it.

    A new run starts from random weights, from those of `config.init_from`, or in the
    state in which `config.continue_from` stopped; see `uda_jax.stages`.

    Writes config.json, provenance.json, data.json, parameters.txt, metrics.jsonl,
    tensorboard/, panels/, checkpoints/, pictures.png, report.json and report.html.

    Returns:
      The evaluation of the final weights.

    Raises:
      UserError: anything in the config, the data or the workdir that cannot be used.
    """
    workdir, mesh = Path(workdir), parallel.make_mesh()
    runs.check_config(config)
    stages.check_stages(config)
    rounds.rounds_of(config)
    parallel.check_batch(config.batch_size, config.accumulate_steps, mesh)
    label_space = label_space_of(config)
    model = runs.make_model(config)
    optimizer, learning_rate = make_optimizer(
        config.optimizer, config.schedule, steps=config.steps, model=model,
        discriminator=config.discriminator,
    )  # fmt: skip
    rates = {"optimizer/learning_rate": learning_rate}
    if config.discriminator:
        rate = base_rate(**config.discriminator, steps=config.steps)
        rates["optimizer/discriminator_learning_rate"] = rate
    runs.check_workdir(workdir, config)
    done = latest_step(workdir / "checkpoints")
    resumes = done is not None

    def open_data(division: Division | None) -> TrainingData:
        return open_training_data(
            config, needs_target=looks_at_target(config), workdir=workdir,
            division=division,
        )  # fmt: skip

    data = open_data(rounds.division_before(config, workdir, done or 0))
    method = build(
        METHODS,
        "method",
        data.with_class_weights(config.method),
        model.forward,
        label_space.num_classes,
    )
    # Mistakes in the data or its options show here, before anything is written.
    for dataset in filter(None, (data.source, data.target, data.test)):
        dataset[0]
    with closing(data.batches(0)) as batches:
        batch, _ = next(batches)
    state, origin = init_state(
        model, method, optimizer, config.seed,
        "" if resumes or config.continue_from else config.init_from,
        config.init_new_heads, config.model, label_space,
        "" if resumes else config.frozen_from, batch,
    )  # fmt: skip
    state = parallel.replicate(state, mesh)
    if config.continue_from and not resumes:
        state, origin = stages.continue_run(config, state)
    if config.evaluate_teacher and "teacher" not in state.memory:
        raise UserError(
            f'evaluate_teacher=True, but method "{config.method.name}" has no teacher: '
            "leave it out."
        )
    train_step = make_train_step(
        method,
        optimizer,
        accumulate_steps=config.accumulate_steps,
        sharding=state.step.sharding,
    )
    # So do those that only the step shows; its first call takes this trace.
    train_step.trace(state, parallel.shard_batch(batch, mesh))

    if parallel.is_main():
        runs.open_workdir(workdir, config)
    parallel.wait_for_all("workdir")
    checkpoints = Checkpoints(workdir / "checkpoints")
    if resumes:
        start = checkpoints.find("latest")
        state, origin = checkpoints.restore(start, state), f"goes on from step {start}"
    start = int(state.step)
    live = writers.Live(config.steps, start, config.batch_size)
    writer = writers.make_writer(workdir, start_step=start)
    if parallel.is_main():
        runs.write_provenance(workdir, origin)
        data.record(workdir)
        if not resumes:
            summary.write_parameters(workdir, state.params, writer)
        live.say(summary.header(config, workdir, state, origin, data.summary()))
    look = panels.make_panels(method, label_space, mesh)
    log, report = writers.MetricLog(), None

    @functools.lru_cache(maxsize=1)
    def assess(step: int) -> Report:
        return summary.assess(
            config, model, summary.student_of(state), data.test, mesh, step
        )

    def due(every: int, step: int) -> bool:
        return step == config.steps or (every > 0 and step % every == 0)

    batches = data.batches(start)
    try:
        for step in range(start + 1, config.steps + 1):
            if now := rounds.due(config, step - 1):
                batches.close()
                checkpoints.wait()
                division, memory = rounds.take(
                    config, workdir, now,
                    make_forward(model, *summary.student_of(state)),
                    functools.partial(assess, step - 1),
                    summary.image_sharding(config, mesh),
                )  # fmt: skip
                memory = parallel.replicate({**state.memory, **memory}, mesh)
                state = state.replace(memory=memory)
                data = open_data(division)
                batches = data.batches(step - 1)
                live.say(f"round {now.number}: {data.summary()}")
                live.restart_clock(step - 1)
            batch, names = next(batches)
            batch = parallel.shard_batch(batch, mesh)
            state, metrics = train_step(state, batch)
            log.add(metrics, names)
            # What a round is taken with is on disk before, should it be killed.
            saves = due(config.checkpoint_every, step) or rounds.due(config, step)
            evaluates = due(config.evaluate_every, step)
            pauses = evaluates or due(config.panels_every, step)
            if due(config.log_every, step) or saves or pauses or step == start + 1:
                row = log.flush(step)
                speed = live.update(step, row)
                row |= {name: float(rate(step - 1)) for name, rate in rates.items()}
                row["time/images_per_second"] = speed
                writer.write_scalars(step, row)
            if due(config.panels_every, step):
                look(state, batch, workdir / "panels" / f"{step:07d}.png", writer, step)
            if evaluates:
                report = assess(step)
                writer.write_scalars(step, {"eval/miou": report.miou})
                live.say(
                    f"step {step}: mIoU {100 * report.miou:.2f} on "
                    f"{len(data.test)} images"
                )
                if config.evaluate_teacher:
                    teacher = summary.assess(
                        config, model, state.memory["teacher"], data.test, mesh, step,
                        "teacher",
                    )  # fmt: skip
                    writer.write_scalars(step, {"eval/teacher_miou": teacher.miou})
                    said = f"mIoU {100 * teacher.miou:.2f} of the teacher"
                    live.say(f"step {step}: {said}")
                    if parallel.is_main():
                        teacher.save(workdir / "report_teacher.json")
            if saves or evaluates:
                writer.flush()  # no checkpoint without the rows of its steps
                checkpoints.save(step, state, report.miou if evaluates else None)
            if pauses or step == start + 1:  # the first step compiles
                live.restart_clock(step)
    finally:
        live.close()
        batches.close()
        writer.flush()
        writer.close()
        checkpoints.wait()
    report = report or assess(config.steps)
    checkpoints.close()
    if parallel.is_main():
        summary.finish(config, workdir, report, model, state, data.test)
    return report
