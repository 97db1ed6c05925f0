"""Writes the fields of configs/default.py into docs/configs.md: python docs/write_configs.py"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs' / 'configs.md'
MARK = '<!-- fields: python docs/write_configs.py -->\n'
TABLE = """
## {title}

| field | default | may change | meaning |
|---|---|---|---|
"""


def page() -> str:
    """The text of the page: what stands above the mark, and the fields."""
    sys.path.insert(0, str(ROOT))
    from configs import default

    config = default.get_config()
    text, group = PAGE.read_text().partition(MARK)[0] + MARK, None
    for name, may_change, meaning in fields(Path(default.__file__).read_text()):
        owner, _, field = name.rpartition('.')
        if owner != group:
            group = owner
            text += TABLE.format(title=f'`{owner}`' if owner else 'The run')
        value = getattr(config[owner] if owner else config, field)
        cells = f'`{name}`', f'`{value!r}`', 'yes' if may_change else '', meaning
        text += f'| {" | ".join(cells)} |\n'
    return text


def fields(source: str) -> list[tuple[str, bool, str]]:
    """(name, whether it may change, comment) of each field, those of the run itself first.

    A comment stands behind its field, or above; then it is that of the fields below it that have
    none of their own.
    """
    found, above, last = [], '', ''
    for line in source[: source.index('    marked = ')].splitlines():
        if comment := re.fullmatch(r'    # (.*)', line):
            above = f'{above} {comment[1]}' if last.startswith('    # ') else comment[1]
        elif field := re.fullmatch(r'    config\.(\S+) = .*?(?:  # (~ ?)?(.*))?', line):
            name, mark, behind = field.groups()
            if 'ConfigDict()' not in line:
                found.append((name, bool(mark), (behind or above).replace('|', r'\|')))
        elif not line:
            above = ''
        last = line
    return sorted(found, key=lambda field: '.' in field[0])


if __name__ == '__main__':
    PAGE.write_text(page())
