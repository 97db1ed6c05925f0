"""How a run is prepared, from a config and a workdir.

Everything is checked, then the state is restored, then the step is compiled: in this order, so that
a mistake costs seconds. A new state is created while the step is compiled.
"""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
from ml_collections import ConfigDict

from cyclegan_jax import checks, data, hosts, interop, log, sharding, train_state
from cyclegan_jax.checkpoint import Checkpoints
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation.in_training import Scorer
from cyclegan_jax.observer import Observer
from cyclegan_jax.pixels import saved_pixels
from cyclegan_jax.program import make_networks, make_program
from cyclegan_jax.storage import read_json, write_json
from cyclegan_jax.train_state import TrainState
from cyclegan_jax.workdir import Workdir, open_workdir


@dataclasses.dataclass(frozen=True)
class Run:
    """All that the loop needs.

    state: where to start from; the first step donates it.
    step: the compiled update.
    batches: stored images, global and on the devices, from the one on that `state` asks for.
    metadata: what every checkpoint says of its run.
    averages: metrics of the steps since the last log line, of the process that saved `state`.
    schedule: from the number of finished updates to the learning rate of the next one.
    """

    config: ConfigDict
    state: TrainState
    step: Callable
    batches: Iterator[dict[str, jax.Array]]
    metadata: Mapping
    averages: log.Averages
    schedule: Callable
    steps_per_epoch: int
    total_steps: int
    checkpoints: Checkpoints
    progress: log.Progress
    observer: Observer


def prepare(config: ConfigDict, workdir: Path, resources: contextlib.ExitStack) -> Run | None:
    """Checks, restores, compiles and creates.

    Args:
      resources: takes what must be closed at the end of the run.

    Returns:
      The run, or None if it has all its steps already.

    Raises:
      UserError, OSError: this run cannot be; one line says why.
    """
    first = jax.process_index() == 0
    checks.check_config(config)
    hosts.agree(dict(checks.flatten(config.to_dict())), 'start the same command everywhere.')
    nets = make_networks(config)  # a kind that does not exist is told before images are read
    mesh = sharding.make_mesh(config.batch_size, num_devices=config.num_devices)
    checks.check_accumulate(config, mesh.size)
    opened = resources.enter_context(open_workdir(workdir)) if first else Workdir(workdir)
    hosts.check_shared(workdir)
    checkpoints = Checkpoints(
        workdir / 'checkpoints', keep=config.keep_checkpoints, before_commit=opened.copy
    )
    hosts.resumes_from(checkpoints.latest)
    resources.callback(checkpoints.close)
    pretrained, saved = {}, {}
    if (newest := checkpoints.newest_good()) is not None:
        saved = checkpoints.metadata(newest)
        checks.check_same_config(config, saved['config'])
    else:
        hosts.on_first(lambda: _check_nothing_lost(workdir, opened.files))
        pretrained = _load_pretrained(config) if config.init_from else {}

    dataset = data.load(
        **config.data,
        seed=config.seed,
        batch_size=config.batch_size,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        gather=hosts.gather,
        left_out=None if config.allow_data_change else saved.get('left_out'),
        measured=saved_pixels(saved, 'the checkpoint'),
    )
    hosts.agree(
        {
            'the data set': dataset.fingerprint,
            **dataset.lengths,
            **{f'what domain {d} holds': dataset.pixels[d].describe() for d in 'ab'},
            'left out': dataset.left_out,
        },
        'each needs a whole copy of the training images, or the disk that they lie on.',
    )
    steps_per_epoch = -(-dataset.epoch_length // config.batch_size)
    total_steps = config.schedule.num_epochs * steps_per_epoch
    total_steps = min(total_steps, config.max_steps or total_steps)
    checks.check_total_steps(total_steps)
    program = make_program(config, nets, mesh, dataset.image_size, steps_per_epoch, dataset.pixels)
    checks.check_memory(program.state)
    scorer = _make_scorer(config, dataset, checkpoints) if config.evaluate_every else None

    def create() -> TrainState:
        state = program.create(jax.random.key(config.seed))
        placed = jax.device_put(pretrained, sharding.replicated(mesh))
        return train_state.replace_networks(state, placed)

    if (restored := checkpoints.restore(program.state)) is not None:
        state, saved, start = restored
        checks.check_same_data(config, saved, dataset)
    else:
        start, state = 0, None  # made beside the compilation of the step

    # From here on the workdir is this run's: what is in it may be changed.
    if first:
        write_json(opened.files / 'config.json', config.to_dict())
    writer = log.MetricWriter(opened.files, resume_step=start, active=first)
    resources.callback(writer.close)
    progress = log.Progress(total_steps, start=start, active=first)
    resources.callback(progress.close)
    if start >= total_steps:
        progress.log(
            f'This run is complete: it has {start} of {total_steps} steps. To go on, raise '
            'schedule.num_epochs or max_steps.'
        )
        return None
    domains = {'a': config.domain_a, 'b': config.domain_b}
    observer = Observer(
        opened.files, mesh, dataset, nets, domains, scorer, writer, progress, config.loss.gan
    )
    observer.introduce(program.state, steps_per_epoch, total_steps)
    if start:
        progress.log(f'Resuming after step {start}.')
    elif pretrained:
        progress.log(f'Starting with {", ".join(pretrained)} of {config.init_from}.')
    began = time.perf_counter()
    with ThreadPoolExecutor(1) as beside:
        creating = beside.submit(create) if state is None else None
        compiled = program.step.lower(program.state, program.batch).compile()
        state = creating.result() if creating else state
    # For each other's first step CPUs wait 30 s only; one may compile for longer than another.
    hosts.gather(None)
    progress.log(f'Compiled in {time.perf_counter() - began:.1f} s.')
    return Run(
        config=config,
        state=state,
        step=compiled,
        batches=dataset.batches(start=start, place=functools.partial(sharding.put_batch, mesh)),
        metadata={'config': config.to_dict(), **dataset.identity},
        averages=log.Averages(saved.get('averages', {})),
        schedule=program.schedule,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        checkpoints=checkpoints,
        progress=progress,
        observer=observer,
    )


def _make_scorer(config: ConfigDict, dataset: data.Dataset, checkpoints: Checkpoints) -> Scorer:
    return Scorer(
        dataset,
        config.evaluate_metrics,
        config.keep_best,
        checkpoints.best_record(),
        config.data.name,
        config.evaluate_features,
    )


def _check_nothing_lost(workdir: Path, files: Path) -> None:
    """Programs up to 0.1.0 did not note that there were checkpoints; then the log may tell.

    Raises:
      UserError: it goes past the second, which was begun only when the first was whole.
    """
    last = max((record['step'] for record in log.read_metrics(files)), default=0)
    if last and (workdir / 'config.json').exists():
        every = read_json(workdir / 'config.json').get('checkpoint_every')
        if type(every) is int and last > 2 * every:
            raise UserError(
                f'{workdir} has no checkpoint, but its log goes to step {last}, and one was saved '
                f'every {every}; bring them back, or remove metrics.jsonl to start again.'
            )


def _load_pretrained(config: ConfigDict) -> dict[str, dict]:
    """Parameters of the networks that `config.init_from` has, by name."""
    loaded = interop.load_pretrained(config.init_from, discriminators=True)
    conflicts = interop.disagreements(
        loaded,
        channels={'a': config.data.channels_a, 'b': config.data.channels_b},
        generator=config.generator,
        discriminator=config.discriminator,
    )
    if conflicts:
        raise UserError(f'init_from={config.init_from} does not fit: {"; ".join(conflicts)}.')
    return {name: network.params for name, network in loaded.items()}
