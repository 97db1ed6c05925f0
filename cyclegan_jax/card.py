"""The model card of an export: README.md, and the pictures in it, made from what the run kept."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from cyclegan_jax import storage
from cyclegan_jax.errors import UserError
from cyclegan_jax.evaluation import report
from cyclegan_jax.inference import space
from cyclegan_jax.interop import Network, describe_spec, generators
from cyclegan_jax.networks import HUGGAN_CODE, TORCH_CODE
from cyclegan_jax.provenance import RUN, SAMPLES, About

Networks = Mapping[str, Network]

_MARK = 'Written by cyclegan_jax'
_OLD_MARK = 'written by cyclegan_jax.'
_THIS = '<this repository or folder>'


def check(folder: Path) -> None:
    """Raises UserError if the folder has a README.md that no export wrote."""
    path = folder / 'README.md'
    if path.exists():
        text = ' '.join(path.read_text(encoding='utf-8', errors='replace').split())
        if _MARK not in text and _OLD_MARK not in text:
            raise UserError(
                f'{path} is not of an export, and would be replaced; move it, or name another '
                '--output.'
            )


def write(folder: Path, format: str, networks: Networks, about: About, note: str | None) -> None:
    """Writes the card of an export that is there, and what belongs to it.

    Args:
      format: of the export, one of `exporting.FORMATS`.
      note: what the export said of its files.
    """
    if about.samples and about.samples.resolve() != (folder / SAMPLES).resolve():
        storage.write_bytes(folder / SAMPLES, about.samples.read_bytes())
    model = {'safetensors': folder, 'space': folder / space.MODEL}.get(format)
    if model and about.run:
        config = model / 'config.json'
        storage.write_json(config, storage.read_json(config) | {RUN: about.run})
    _write(folder, _card(format, networks, about, note))
    if format == 'huggan':  # which has one generator in a folder
        for name in list(generators(networks))[1:]:
            _write(folder / name, _card(format, {name: networks[name]}, about, note, inner=True))


def _write(folder: Path, text: str) -> None:
    storage.write_bytes(folder / 'README.md', text.encode())


def _card(
    format: str, networks: Networks, about: About, note: str | None, *, inner: bool = False
) -> str:
    a, b = about.domains['a'], about.domains['b']
    parts = [
        _front(format, f'{a} and {b}'),
        f'# CycleGAN: {a} and {b}',
        'Unpaired image-to-image translation '
        '([Zhu et al. 2017](https://arxiv.org/abs/1703.10593)). '
        f'`a2b` translates {a} to {b}, `b2a` {b} to {a}.',
    ]
    if about.samples and not inner:
        rows = f'{a}; translated to {b}; and back; {b}; translated to {a}; and back'
        parts.append(f'![Rows: {rows}]({SAMPLES})')
        parts.append(f'Not chosen for their looks; of step {about.run.get("samples")}.')
    parts += ['## How to use it', *_uses(format, networks, note)]
    parts += ['## Networks', _list(f'`{n}`: {_describe(net)}' for n, net in networks.items())]
    parts += ['## Training', *_training(about), '## Scores', *_scores(about), '## Limits', _LIMITS]
    parts.append(f'<!-- {_MARK}. The next export replaces this file, unless this line is gone. -->')
    return '\n\n'.join(parts) + '\n'


_LIMITS = """\
- A model does what its data showed it, wanted or not: look for changes that were not meant, such as
  in people's faces, before you use its results. It invents details, and is no measurement.
- Pictures of another kind than those it was trained on are translated all the same, badly.
- It was trained at the size above. At other sizes the same things have other sizes, and it may not
  know them.
- A low cycle loss says nothing of the quality of a translation."""


def _front(format: str, title: str) -> str:
    lines = [
        'pipeline_tag: image-to-image',
        f'library_name: {_LIBRARIES.get(format, "cyclegan_jax")}',
    ]
    lines.append('tags: [cyclegan, unpaired, image-to-image]')
    if format == 'web':
        # For a static Space of the Hugging Face hub; with these headers the page may use threads.
        lines = [
            f'title: {json.dumps(title)}',
            'sdk: static',
            'app_file: index.html',
            'custom_headers:',
            '  cross-origin-embedder-policy: require-corp',
            '  cross-origin-opener-policy: same-origin',
            '  cross-origin-resource-policy: cross-origin',
            *lines,
        ]
    if format == 'space':
        lines = [
            f'title: {json.dumps(title)}',
            'sdk: gradio',
            f'sdk_version: {space.GRADIO}',
            "python_version: '3.11'",
            'app_file: app.py',
            *lines,
        ]
    return '\n'.join(['---', *lines, '---'])


_LIBRARIES = {'pytorch': 'pytorch', 'huggan': 'huggan', 'onnx': 'onnx'}


def _describe(network: Network) -> str:
    ends = ' to '.join(str(n) for n in network.channels)
    channels = f'{ends} channels' if network.role == 'generator' else ''
    return ', '.join(filter(None, [describe_spec(network.role, network.spec), channels]))


def _uses(format: str, networks: Networks, note: str | None) -> list[str]:
    """How to use the files, and how to get other ones: headings and text."""
    first = next(iter(generators(networks)))
    module = networks[first].module()
    files = _FILES[format](first, networks[first], note or '')
    parts = ['### This format', *files] if format != 'safetensors' else []
    readable = format in ('safetensors', 'pytorch', 'huggan')
    model = _THIS if readable else '<its workdir, or its safetensors>'
    parts += [
        '### With cyclegan_jax',
        _code(
            f'python -m cyclegan_jax.translate --model={model} --direction={first} '
            '--input=photos --output=translated'
        ),
        'or, in Python:',
        _code(
            'from cyclegan_jax.inference import Translator\n\n'
            f"translator = Translator.from_pretrained('{model}', direction='{first}')\n"
            'translation = translator(picture)  # a PIL image of any size'
        ),
    ]
    theirs = {TORCH_CODE: 'pytorch', HUGGAN_CODE: 'huggan'}.get(module.torch_code)
    if theirs and format not in ('pytorch', 'huggan'):
        parts += [f'### In PyTorch ({module.torch_code})', _export(model, theirs)]
    if format != 'web':
        parts += ['### In the browser', _export(model, 'web')]
        parts += ['This writes a page that translates pictures in the browser of whoever opens it.']
    return parts


def _export(model: str, format: str) -> str:
    return _code(
        f'python -m cyclegan_jax.export --model={model} --output=exported --format={format}'
    )


def _list(lines: Iterable[str]) -> str:
    return '\n'.join(f'- {line}' for line in lines)


def _code(text: str) -> str:
    return '\n'.join(f'    {line}'.rstrip() for line in text.splitlines())


def _huggan(name: str, network: Network, note: str) -> list[str]:
    blocks = network.spec['num_blocks']
    return [
        'With huggingface_hub 0.21 or newer:',
        _code(
            'from huggan.pytorch.cyclegan.modeling_cyclegan import GeneratorResNet\n'
            f"model = GeneratorResNet.from_pretrained('{_THIS}', "
            f'input_shape=(3, 256, 256), num_residual_blocks={blocks})'
        ),
        'Images are (n, 3, h, w) in [-1, 1].',
    ]


def _stablehlo(name: str, network: Network, note: str) -> list[str]:
    return [
        _code(
            'from pathlib import Path\nfrom jax import export\n\n'
            f"program = export.deserialize(bytearray(Path('{name}.stablehlo').read_bytes()))\n"
            f'translations = program.call(images)  # (n, h, w, {network.channels[0]}) in [-1, 1]'
        )
    ]


def _onnx(name: str, network: Network, note: str) -> list[str]:
    return [
        _code(
            'import onnxruntime\n\n'
            f"session = onnxruntime.InferenceSession('{name}.onnx')\n"
            "[translations] = session.run(None, {'image': images})"
            f'  # (n, {network.channels[0]}, h, w) in [-1, 1]'
        )
    ]


def _web(name: str, network: Network, note: str) -> list[str]:
    return [
        'Any web server shows it; as a file of the disk a browser refuses it:',
        _code('python -m http.server --directory <this folder>'),
        'then open http://localhost:8000. Pictures are translated in the browser, and sent '
        'nowhere. Without the headers `Cross-Origin-Opener-Policy: same-origin` and '
        '`Cross-Origin-Embedder-Policy: require-corp` browsers allow it one thread.',
    ]


def _space(name: str, network: Network, note: str) -> list[str]:
    return [
        'A Space of the Hugging Face hub shows it: `--push=user/name` of the export makes one, or '
        'upload this folder as one of Gradio. Here:',
        _code(
            f"pip install -r requirements.txt 'gradio=={space.GRADIO}'\n"
            'python app.py --host=127.0.0.1'
        ),
        'Pictures are sent to the machine that runs it, and deleted there after an hour.',
    ]


# From the first generator's name, the network, and what the export said, to how its files are used.
_FILES = {
    'safetensors': lambda name, network, note: [],
    'pytorch': lambda name, network, note: [note],
    'huggan': _huggan,
    'stablehlo': _stablehlo,
    'onnx': _onnx,
    'web': _web,
    'space': _space,
}


def _training(about: About) -> list[str]:
    run = about.run
    if not run:
        return ['Nothing is known of the training of these weights.']
    config = run['config']
    data, images = config.get('data', {}), run.get('images') or {}
    size = data.get('crop_size')
    sides = ' x '.join(map(str, size)) if isinstance(size, list | tuple) else size
    lines = [
        f'Data: {data.get("source")} `{run.get("data") or ""}`, at {sides} pixels',
        *(f'`{end}`, {about.domains.get(end)}: {n} training images' for end, n in images.items()),
        f'{run["step"]:,} updates of {config.get("batch_size")} image(s) of each domain',
    ]
    if licence := config.get('licence'):
        lines.insert(1, f'Licence of the data: {licence}')
    if begun := run.get('init_from'):
        lines.append(f'begun with the networks of `{begun}`')
    if run.get('weights') == 'average':
        lines.append('the generators are averages over the updates')
    fields = json.dumps(config, indent=2)
    return [_list(lines), f'<details><summary>Config</summary>\n\n{_code(fields)}\n\n</details>']


def _scores(about: About) -> list[str]:
    evaluation = about.run.get('evaluation')
    if not evaluation:
        return [
            'None. `python -m cyclegan_jax.evaluate --workdir=<the run>` computes them; then '
            'export again.'
        ]
    a, b = about.domains['a'], about.domains['b']
    titles = {'a2b': f'{a} to {b}', 'b2a': f'{b} to {a}'}
    tables = [report.table(titles[name], found) for name, found in evaluation.items()]
    protocol = json.dumps(about.run.get('protocol', {}), indent=2)
    return [
        'Read each beside its floor (other real images) and its ceiling or `untranslated` (the '
        'input as it is). Scores of other protocols cannot be compared with these.',
        *map(_code, tables),
        f'<details><summary>Protocol</summary>\n\n{_code(protocol)}\n\n</details>',
    ]
