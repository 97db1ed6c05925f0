"""What one checkpoint holds, and how it is written and read: the only door to orbax.

    generators/      parameters of a2b and b2a
    average/         their moving average, if one is kept: what translation and evaluation read
    discriminators/  parameters of a and b
    training/        the rest of the state
    SHA256SUMS       of every file above; `sha256sum -c SHA256SUMS` checks it by hand

orbax restores a flipped bit without a word, so the sums are what tells good from damaged.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from absl import logging
from orbax.checkpoint import v1 as ocp

from cyclegan_jax import manifest
from cyclegan_jax.errors import UserError, describe, shortlist
from cyclegan_jax.storage import check_fields, read_json

# One more when programs of before would misread what is written. A field that is added to the
# state needs no new number (see `Checkpoints.restore`).
FORMAT = 1

_NETWORKS = ('generators', 'discriminators')
_AVERAGE = 'average'
_REST = 'training'
_PARTS = (*_NETWORKS, _REST)  # that all have

# For a failed write orbax logs a traceback from each of its threads, hundreds of lines, before it
# raises the same error to us; for a good one, twenty lines of progress.
logging.get_absl_logger().addFilter(lambda record: '/orbax/checkpoint/' not in record.pathname)


class CheckpointError(UserError):
    """A checkpoint cannot be written, found or used."""


class DamagedError(CheckpointError):
    """The files of a checkpoint are not what was written."""


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint says of itself.

    version: FORMAT of the program that wrote it; 0 if that wrote none.
    shapes: fields of the state; leaves have `shape` and `dtype`.
    metadata: what the run saved with it.
    """

    path: Path
    version: int
    shapes: dict[str, Any]
    metadata: dict
    _best: dict | None

    def best_record(self) -> dict | None:
        """{'step', ...} of the best checkpoint until then, if any."""
        return self._best if self.version else _read_best(self.path.with_name('best.json'))


def write(path: Path, state: Any, metadata: Mapping, best: Mapping | None) -> ocp.AsyncResponse:
    """Starts to write a state, unsealed; `result()` of what it returns waits."""
    context = ocp.Context()
    # A directory that cannot be made in the background blocks the exit for five minutes.
    context.asynchronous.create_directories_asynchronously = False
    # Cutting each array for the devices to write a slice each would hold training up: on eight
    # devices of a CPU, with generators of width 32, for 0.5 s in place of 0.1.
    context.array.saving.use_replica_parallel = False
    with context, jax.transfer_guard('allow'):  # orbax uses np.asarray
        return ocp.save_checkpointables_async(
            path,
            _split(_fields(state)),
            custom_metadata={**metadata, 'format': FORMAT, 'best': best},
        )


def inspect(path: Path) -> Saved:
    """Reads all but the arrays.

    Raises:
      DamagedError: it is not whole.
      CheckpointError: its format is of a newer program, or it cannot be read for another reason.
    """
    with _reading(path):
        found = ocp.checkpointables_metadata(path)
    metadata = dict(found.custom_metadata or {})
    version, best = metadata.pop('format', 0), metadata.pop('best', None)
    if not isinstance(version, int) or version > FORMAT:
        raise CheckpointError(
            f'{path} is of format {version}, and this program reads up to {FORMAT}; update '
            'cyclegan_jax to the version that wrote it.'
        )
    parts = [found.metadata.get(part) for part in _PARTS]
    whole = all(parts) and all(
        hasattr(leaf, 'shape') for leaf in jax.tree.leaves(dict(found.metadata))
    )
    if found.commit_timestamp_nsecs is None or not whole:
        raise DamagedError(f'{path} is incomplete.')
    return Saved(path, version, _merge(found.metadata), metadata, best)


def load(saved: Saved, abstract_state: Any) -> Any:
    """Reads a state; the argument is as of `Checkpoints.restore`.

    Raises:
      CheckpointError: an array has another name, shape or dtype, or cannot be read.
    """
    abstract = _fields(abstract_state)
    later = {
        field.name: field.metadata['later']
        for field in dataclasses.fields(abstract_state)
        if 'later' in field.metadata
    }
    unused = {name for name in later if not jax.tree.leaves(abstract[name])}
    added = {name: later[name] for name in later if name not in saved.shapes and name not in unused}
    wanted = {name: x for name, x in abstract.items() if name not in added and name not in unused}
    _require_fit(saved.path, {n: x for n, x in saved.shapes.items() if n not in unused}, wanted)
    found = _load(saved.path, wanted)

    def place(leaf: jax.Array, like: jax.ShapeDtypeStruct) -> jax.Array:
        # A copy, as the step donates the state, and cannot donate a buffer twice.
        return jax.device_put(jnp.copy(leaf), like.sharding)

    found |= {n: jax.tree.map(place, make(found), abstract[n]) for n, make in added.items()}
    return dataclasses.replace(abstract_state, **found)


def load_networks(
    saved: Saved,
    discriminators: bool,
    weights: str | None,
    shapes: Callable[[dict], Mapping[str, Any]] | None,
) -> dict[str, Any]:
    """Reads parameters; arguments and errors as of `Checkpoints.restore_networks`."""
    averaged = _AVERAGE in saved.shapes
    if weights == 'average' and not averaged:
        raise CheckpointError(
            f'{saved.path} has no averaged generators, for which config.average must be set while '
            'training; take --weights=trained.'
        )
    shown = _AVERAGE if averaged and weights != 'trained' else _NETWORKS[0]
    found = {name: saved.shapes[name] for name in (shown, *_NETWORKS[1 : 1 + discriminators])}
    if shapes:
        _require_fit(saved.path, _flat(found), shapes(saved.metadata))
    return _flat(_load_on_one_device(saved.path, found))


def check_readable(saved: Saved) -> None:
    """Reads all arrays of one without sums, and raises DamagedError if that cannot be done."""
    # Where these are gone, the key comes back as plain numbers.
    if not all((saved.path / part / 'array_metadatas').is_dir() for part in _PARTS):
        raise DamagedError(f'{saved.path} is incomplete.')
    _load_on_one_device(saved.path, saved.shapes)


def _load_on_one_device(path: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    place = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return _load(
        path,
        jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), shapes
        ),
    )


def _load(path: Path, shapes: Mapping[str, Any]) -> dict[str, Any]:
    with _reading(path):
        return _merge(ocp.load_checkpointables(path, _split(shapes)))


def _flat(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Networks by their own names, generators first, from those by field."""
    names = sorted(fields, key=_NETWORKS[1].__eq__)
    return {k: v for name in names for k, v in fields[name].items()}


def _require_fit(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """orbax casts another dtype in silence, and reports another shape in terms of its own."""
    has, want = _describe(found), _describe(wanted)
    lines = [
        f'{name}: checkpoint has {has.get(name, "nothing")}, this run {want.get(name, "nothing")}'
        for name in sorted({name for name, _ in has.items() ^ want.items()}, key=_networks_first)
    ]
    if lines:
        raise CheckpointError(
            f'{path} does not fit: {shortlist(lines, separator="; ")}; go on with the config that '
            'it was saved with, or use another workdir.'
        )


def _fields(state: Any) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def _networks_first(name: str) -> tuple[bool, str]:
    return name.partition('.')[0] not in _NETWORKS, name


def _split(fields: Mapping[str, Any]) -> dict[str, Any]:
    own = (*_NETWORKS, _AVERAGE)  # fields that are parts of their own, if they hold anything
    parts = {name: fields[name] for name in own if fields.get(name)}
    rest = {name: field for name, field in fields.items() if name not in own}
    return parts | ({_REST: rest} if rest else {})


def _merge(parts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if name != _REST} | parts.get(_REST, {})


def _read_best(path: Path) -> dict | None:
    if not path.exists():
        return None
    record = read_json(path)
    check_fields(record, {'step': int, 'score': str, 'value': (int, float)}, str(path))
    return record


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        blame = CheckpointError if manifest.is_sealed(path) else DamagedError
        reason = error
        while reason.__cause__ is not None:  # orbax wraps it in what says little
            reason = reason.__cause__
        raise blame(f'{path} could not be read: {describe(reason)}') from error


def _describe(fields: Mapping[str, Any]) -> dict[str, str]:
    """`{'generators.a2b.Conv_0.kernel': 'float32[7, 7, 3, 64]', ...}`."""
    described = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(fields):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.eval_shape(jax.random.key_data, leaf)  # as it is saved
        name = jax.tree_util.keystr(keys, simple=True, separator='.')
        described[name] = f'{leaf.dtype}{list(leaf.shape)}'
    return described
