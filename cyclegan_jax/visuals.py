"""Pictures of a run for people: labelled sample grids, and a page that shows their history."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from string import Template

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cyclegan_jax.data.images import as_rgb
from cyclegan_jax.log import read_metrics
from cyclegan_jax.pixels import Pixels
from cyclegan_jax.storage import whole

# Of COLOUR_MAPS, from low to high, evenly spaced.
_COLOURS = {
    'heat': np.array([(0, 0, 0), (0.4, 0, 0.5), (0.9, 0.2, 0.1), (1, 0.8, 0.1), (1, 1, 1)]),
}
_INK, _PAPER = (40, 40, 40), (255, 255, 255)


def shown(images: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Stored images (..., channels) as people see them: uint8 (..., 3), or as they are, if uint8.

    Of other than photographs one channel is grey, or as its colour map has it, and three are red,
    green and blue; those that `pixels` names, or the first. Black and white are the ends of its
    window, or of its range.
    """
    if pixels.photographs:
        return images
    channels = pixels.shown or ((0, 1, 2) if pixels.channels >= 3 else (0,))
    values = images.astype(np.float32)[..., list(channels)]
    if pixels.window:
        low, high = (np.float32(end) for end in pixels.window)
    else:
        ends = (np.broadcast_to(end, pixels.channels) for end in (pixels.low, pixels.high))
        low, high = (end[list(channels)].astype(np.float32) for end in ends)
    values = np.clip((values - low) / (high - low), 0, 1)
    if pixels.colours:
        colours = _COLOURS[pixels.colours]
        places = np.linspace(0, 1, len(colours))
        values = np.stack([np.interp(values[..., 0], places, c) for c in colours.T], axis=-1)
    elif len(channels) == 1:
        values = np.repeat(values, 3, axis=-1)
    return np.round(values * 255).astype(np.uint8)


def grid(rows: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """One picture: a row of images for each label, the label on its left.

    Args:
      rows: (label, uint8 (n, h, w, c)), n, h and w the same in all rows. One channel is shown grey,
        four as RGBA on white, any other number by the first three (of two, the first). Pillow's own
        font writes the labels; it has Latin letters, and no arrows.

    Returns:
      uint8 (height, width, 3).

    Raises:
      ValueError: no rows, or images that are not uint8 or not of one size.
    """
    if not rows:
        raise ValueError('grid got no rows; it wants (label, images) for at least one')
    n, h, w = rows[0][1].shape[:3]
    for label, images in rows:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[:3] != (n, h, w):
            raise ValueError(
                f'row {label!r} is {images.dtype} {images.shape}; '
                f'grid wants uint8 ({n}, {h}, {w}, channels) as in its first row'
            )

    font = ImageFont.load_default(max(12, h // 10))  # readable where the grid is scaled to a page
    gap = max(2, h // 64)
    margin = 4 * gap
    label_width = math.ceil(max(font.getlength(label) for label, _ in rows))
    left = 2 * margin + label_width
    size = (left + n * (w + gap) - gap + margin, 2 * margin + len(rows) * (h + gap) - gap)
    picture = Image.new('RGB', size, _PAPER)
    draw = ImageDraw.Draw(picture)
    for i, (label, images) in enumerate(rows):
        top = margin + i * (h + gap)
        draw.text((margin, top + h / 2), label, fill=_INK, font=font, anchor='lm')
        for j, image in enumerate(as_rgb(images)):
            picture.paste(Image.fromarray(image), (left + j * (w + gap), top))
    return np.asarray(picture)


def save_png(path: str | Path, image: np.ndarray) -> None:
    """Writes uint8 (h, w, 3) to `path`, whole or not at all. Makes missing folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as unfinished:
        Image.fromarray(image).save(unfinished, format='PNG')


def write_gallery(workdir: str | Path, title: str) -> Path:
    """Writes `samples/index.html`: every `samples/step_<step>.png`, and curves of `metrics.jsonl`.

    The page needs nothing but its folder: no server, no network. Call it after each new sample.

    Returns:
      The page's path.
    """
    samples = Path(workdir) / 'samples'
    samples.mkdir(parents=True, exist_ok=True)
    found = (re.fullmatch(r'step_(\d+)\.png', path.name) for path in samples.iterdir())
    files = {int(match[1]): match[0] for match in found if match}
    page = _PAGE.substitute(
        title=html.escape(title),
        history='\n'.join(
            f'<a href="{file}" class="sample"><img src="{file}" loading="lazy" '
            f'alt="samples at step {step}">step {step:,}</a>'
            for step, file in sorted(files.items(), reverse=True)
        ),
        charts='\n'.join(_charts(read_metrics(workdir))),
    )
    path = samples / 'index.html'
    with whole(path) as unfinished:
        unfinished.write_text(page, encoding='utf-8')
    return path


Curve = Sequence[tuple[int, float]]  # (step, value)

_POINTS = 300  # of a curve at most; a small chart has no pixels for more
_WIDTH, _HEIGHT = 360, 192
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 336, 8, 164  # the plot inside the chart
# What people call the domains and directions, as in the captions of the samples.
_ENDS = {'a2b': 'A to B', 'b2a': 'B to A', 'a': 'A', 'b': 'B'}
_COLORS = ('#4269d0', '#ff725c', '#3ca951', '#efb118', '#a463f2', '#38b2ac', '#ff8ab7', '#9c6b4e')


def _charts(records: Iterable[Mapping[str, float | None]]) -> Iterable[str]:
    """One chart for each group of names (the part before the last '/') and, last, each other name.

    Scores, losses and the discriminators' gaps come first. Each loss of the generators has a chart
    of its own, as the cycle loss and the total would flatten the others.
    """
    groups = {}
    for record in records:
        for name, value in record.items():
            if name != 'step' and isinstance(value, int | float):  # null: not finite
                group, _, term = name.rpartition('/')
                if group == 'generator':
                    loss, _, term = term.rpartition('_')
                    group = f'generator: {loss or term}'
                curves = groups.setdefault(group or name, {})
                # A dictionary, so that a step that was written twice counts once.
                curves.setdefault(_ENDS.get(term, term), {})[record['step']] = value
    first = ('evaluation', 'generator', 'discriminator', 'gap')

    def place(group):
        return [*(not group.startswith(name) for name in first), group in groups[group], group]

    for group in sorted(groups, key=place):
        curves = sorted(groups[group].items())
        yield _chart(_spoken(group), {_spoken(n): sorted(c.items()) for n, c in curves})


def _spoken(name: str) -> str:
    return name.replace('_', ' ')


def _chart(title: str, curves: Mapping[str, Curve]) -> str:
    curves = {name: _downsample(curve) for name, curve in curves.items()}
    points = np.array([point for curve in curves.values() for point in curve])
    x_ticks, y_ticks = (_ticks(values.min(), values.max()) for values in points.T)

    def x(step):
        return _LEFT + (step - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (_RIGHT - _LEFT)

    def y(value):
        return _BOTTOM - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (_BOTTOM - _TOP)

    svg = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{html.escape(title)}">']
    for tick in y_ticks:
        svg.append(f'<path class="rule" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>')
        svg.append(f'<text class="y" x="{_LEFT - 6}" y="{y(tick) + 3:.1f}">{tick:,.6g}</text>')
    for tick in x_ticks:
        svg.append(f'<text class="x" x="{x(tick):.1f}" y="{_BOTTOM + 14}">{tick:,.6g}</text>')
    legend = []
    for i, (name, curve) in enumerate(curves.items()):
        color = _COLORS[i % len(_COLORS)]
        # The first point twice: a curve of one point is then a dot.
        line = ' '.join(f'{x(step):.1f},{y(value):.1f}' for step, value in [curve[0], *curve])
        svg.append(f'<polyline stroke="{color}" points="{line}"/>')
        legend.append(
            f'<span><i style="background:{color}"></i>{html.escape(name)} {curve[-1][1]:.4g}</span>'
        )
    svg.append(f'<text class="x" x="{(_LEFT + _RIGHT) / 2}" y="{_HEIGHT - 3}">step</text></svg>')
    return f'<figure><h3>{html.escape(title)}</h3>{"".join(svg)}<p>{" ".join(legend)}</p></figure>'


def _downsample(curve: Curve) -> Curve:
    """At most `_POINTS` points, each the mean of a run of neighbours."""
    edges = np.linspace(0, len(curve), min(len(curve), _POINTS) + 1).astype(int)
    return [tuple(np.mean(curve[i:j], axis=0)) for i, j in pairwise(edges)]


def _ticks(low: float, high: float) -> np.ndarray:
    """Evenly spaced round numbers, two to nine, whose range holds [low, high]."""
    span = high - low or abs(high) or 1
    power = 10.0 ** math.floor(math.log10(span / 3))
    unit = max(m * power for m in (1, 2, 5) if m * power <= span / 3)
    first, last = math.floor(low / unit), math.ceil(high / unit)
    return unit * np.arange(first, max(last, first + 1) + 1)


_PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>$title</title>
<style>
  :root { --ink: #222; --quiet: #777; --line: #e4e4e4; --page: #fafafa; --card: #fff }
  @media (prefers-color-scheme: dark) {
    :root { --ink: #ddd; --quiet: #999; --line: #383838; --page: #161616; --card: #202020 }
  }
  body { margin: 2.5rem auto; max-width: 76rem; padding: 0 1.5rem; background: var(--page);
         color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
  h1 { margin: 0 0 1.5rem; font-size: 1.6rem; font-weight: 600 }
  h2 { margin: 3rem 0 1rem; font-size: 1.1rem; font-weight: 600 }
  h3 { margin: 0 0 .5rem; font-size: .9rem; font-weight: 600 }
  h2:has(+ .tiles:empty) { display: none }
  figure, a { margin: 0; padding: 1rem; background: var(--card); border: 1px solid var(--line);
              border-radius: 8px; box-sizing: border-box }
  img { display: block; max-width: 100%; border-radius: 4px }
  #viewer img { margin: auto; max-height: 75vh }
  #viewer label { display: flex; gap: 1rem; align-items: center; margin-bottom: 1rem }
  #viewer input { flex: 1 }
  output { min-width: 8rem; font-variant-numeric: tabular-nums }
  .tiles { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(21rem, 1fr)) }
  .small { grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)) }
  .tiles a { padding: .6rem; color: var(--quiet); text-decoration: none; font-size: .85rem }
  .tiles a img { margin-bottom: .4rem }
  .tiles p { margin: .5rem 0 0; font-size: .8rem; font-variant-numeric: tabular-nums }
  .tiles span { display: inline-block; margin-right: .9rem }
  .tiles i { display: inline-block; width: .8rem; height: 3px; margin-right: .35rem;
             vertical-align: middle; border-radius: 2px }
  svg { display: block; width: 100% }
  svg text { fill: var(--quiet); font-size: 10px }
  .x { text-anchor: middle }
  .y { text-anchor: end }
  .rule { stroke: var(--line) }
  polyline { fill: none; stroke-width: 1.5; stroke-linejoin: round; stroke-linecap: round }
</style>
<h1>$title</h1>
<figure id="viewer" hidden>
  <label><output></output><input type="range" min="0" aria-label="step"></label>
  <img alt="samples at the chosen step">
</figure>
<h2>Curves</h2>
<div class="tiles">$charts</div>
<h2>All samples, newest first</h2>
<div class="tiles small">$history</div>
<script>
  // The slider walks through the samples listed above, oldest to newest.
  const samples = [...document.querySelectorAll('a.sample')].reverse();
  const viewer = document.getElementById('viewer');
  const slider = viewer.querySelector('input');
  slider.max = slider.value = samples.length - 1;
  slider.oninput = () => {
    const sample = samples[slider.value];
    viewer.querySelector('img').src = sample.href;
    viewer.querySelector('output').value = sample.textContent;
  };
  if (samples.length) { viewer.hidden = false; slider.oninput() }
</script>
""")
