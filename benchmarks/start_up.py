"""From the command to the first step, without and with compiled programs in the cache.

    python benchmarks/start_up.py [--config=configs/synthetic.py] [--repeats=3]

Further flags go to main.py: --config.generator.width=64. Each repeat has a new cache folder, and
trains for one step twice, in new workdirs: the cold start compiles, the warm one finds the programs
in the cache. Told are the seconds from the command until main.py

described   says what it will do: all is imported, images are read, the state is being created;
compiled    has compiled the step, or read it from the cache;
first_step  tells the losses of the first step, for which it has waited;
end         has ended, after what follows a last step: scores, samples, a checkpoint;

and those of `python main.py --help`.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

# Each stage is over when the run prints a line that starts so.
STAGES = {'described': 'a (', 'compiled': 'Compiled in ', 'first_step': 'epoch 1/'}


def main():
    parser = measure.parser(__doc__)
    parser.add_argument('--config', default='configs/synthetic.py', help='what main.py trains')
    parser.add_argument(
        '--repeats', type=measure.whole_number, default='3', metavar='N', help='starts of each kind'
    )
    args, flags = parser.parse_known_args()

    timings = {'help': [], 'cold': [], 'warm': []}
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for start, told in timings.items():
                workdir = f'--workdir={folder}/{start}'
                train = [f'--config={args.config}', workdir, *flags, '--config.max_steps=1']
                options = ['--help'] if start == 'help' else train
                told.append(run(options, cache=f'{folder}/cache'))
                print(line(start, told[-1]), flush=True)

    print(f'\nMedians of {args.repeats}')
    results = []
    for start, told in timings.items():
        median = {stage: statistics.median(seconds[stage] for seconds in told) for stage in told[0]}
        print(line(start, median))
        results.append({'start': start, 'config': args.config, 'flags': flags, **median})
    _, cold, warm = results
    print(f'first step {cold["first_step"] / warm["first_step"]:.1f} times quicker when warm')
    measure.save(args.json, 'start_up', measure.command(), results)


def line(start: str, seconds: dict[str, float]) -> str:
    return '  '.join([f'{start:4}', *(f'{stage} {s:6.2f} s' for stage, s in seconds.items())])


def run(options: list[str], cache: str) -> dict[str, float]:
    """Runs main.py; the seconds from its start to the end of each stage."""
    environment = {**os.environ, 'JAX_COMPILATION_CACHE_DIR': cache}
    command = [sys.executable, 'main.py', *options]
    seconds, last = {}, ''
    began = time.perf_counter()
    with subprocess.Popen(
        command,
        cwd=Path(__file__).parents[1],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as child:
        for last in child.stdout:
            for stage, beginning in STAGES.items():
                if last.startswith(beginning):
                    seconds[stage] = time.perf_counter() - began
    seconds['end'] = time.perf_counter() - began
    if child.returncode and options != ['--help']:  # which absl ends with status 1
        sys.exit(f'error: {" ".join(command)} ended with status {child.returncode}: {last.strip()}')
    return seconds


if __name__ == '__main__':
    main()
