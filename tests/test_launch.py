"""The scripts of launch/ and what docs/pods.md says of them; Slurm itself: launch/try_slurm.sh."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cyclegan_jax.watch import RESTART

ROOT = Path(__file__).parents[1]
SCRIPTS = sorted((ROOT / 'launch').glob('*.sh'))
AGAIN = {RESTART, 129, 130, 134, 137, 143}  # the same command goes on
FAIL = [1, 2, 3, 4]
KUBERNETES = '1.33'  # whose schema launch/jobset.yaml is checked by


@pytest.mark.skipif(not shutil.which('shellcheck'), reason='needs shellcheck')
@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_clean(script):
    done = subprocess.run(['shellcheck', script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('name', ['slurm.sh', 'tpu_vm.sh'])
def test_what_is_started_again_is_what_goes_on(name):
    text = (ROOT / 'launch' / name).read_text()
    again = {
        int(n) for n in re.search(r'^ +([\d |]+)\)', text.split('0)')[1], re.M)[1].split(' | ')
    }
    assert again - {255} == AGAIN  # 255 is that of ssh
    assert len(text.splitlines()) <= 60, 'a screen'


def test_slurm_reads_all_of_its_directives():
    """Those after the first command are not read."""
    lines = (ROOT / 'launch' / 'slurm.sh').read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith('#SBATCH'))
    assert all(not line or line.startswith('#') for line in lines[:last])


SRUN = """#!/bin/bash
trap 'exit 143' TERM
echo "$@" >> {log}
if [ {status} = 143 ]; then sleep 0.2; kill -TERM $PPID; sleep 5 & wait; fi
exit {status}
"""


@pytest.mark.parametrize('status', [0, 2, 75, 143])
def test_a_job_goes_back_into_the_queue_if_the_run_can_go_on(tmp_path, status):
    log = tmp_path / 'log'
    for name, text in {
        'srun': SRUN.format(log=log, status=status),
        'scontrol': f'#!/bin/bash\necho "scontrol $@" >> {log}\n',
    }.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'HOME': '/home/x', 'SLURM_JOB_ID': '7'}
    done = subprocess.run(
        ['bash', ROOT / 'launch' / 'slurm.sh'], env=environment, cwd=tmp_path, timeout=30
    )
    started, *rest = log.read_text().splitlines()
    assert done.returncode == status
    assert 'main.py --multihost --config=configs/horse2zebra.py --workdir=/home/x/runs' in started
    assert rest == (['scontrol requeue 7'] if status in AGAIN else [])


GCLOUD = """#!/bin/bash
echo "$*" >> {folder}/log
case "$*" in
    *describe*) cat {folder}/state 2>/dev/null ;;
    *create*) echo READY > {folder}/state ;;
    *main.py*) n=$(cat {folder}/n 2>/dev/null || echo 0); echo $((n + 1)) > {folder}/n
        if [ "$n" = 0 ]; then rm {folder}/state; exit 255; fi ;;
esac
"""


def test_a_slice_that_is_preempted_is_made_anew(tmp_path):
    for name, text in {'gcloud': GCLOUD.format(folder=tmp_path), 'sleep': '#!/bin/bash\n'}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {'PATH': f'{tmp_path}:/usr/bin:/bin', 'REPOSITORY': 'https://x/y'}
    done = subprocess.run(
        ['bash', ROOT / 'launch' / 'tpu_vm.sh'], env=environment, cwd=tmp_path, timeout=30
    )
    words = re.findall(r'describe|create|git clone|main\.py', (tmp_path / 'log').read_text())
    assert done.returncode == 0
    assert words == ['describe', 'create', 'git clone', 'main.py'] * 2


def _only(required, **properties):
    return {
        'type': 'object',
        'properties': properties,
        'required': required.split(),
        'additionalProperties': False,
    }


TEXT, NUMBER, OBJECT = ({'type': kind} for kind in ('string', 'integer', 'object'))
# What the file uses of jobset.x-k8s.io/v1alpha2, by its reference
# (https://jobset.sigs.k8s.io/docs/reference/jobset.v1alpha2): its whole schema is no package.
JOBSET = _only(
    'apiVersion kind metadata spec',
    apiVersion={'const': 'jobset.x-k8s.io/v1alpha2'},
    kind={'const': 'JobSet'},
    metadata=_only('name', name=TEXT),
    spec=_only(
        'replicatedJobs',
        failurePolicy=_only(
            '',
            maxRestarts=NUMBER,
            rules={
                'type': 'array',
                'items': _only(
                    'name action',
                    name={'pattern': '^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$'},
                    action={'enum': ['FailJobSet', 'RestartJobSet']},
                    onJobFailureReasons={'type': 'array', 'items': TEXT},
                ),
            },
        ),
        replicatedJobs={
            'type': 'array',
            'items': _only('name template', name=TEXT, replicas=NUMBER, template=OBJECT),
        },
    ),
)


def test_kubernetes_knows_every_field():
    """The Job by the schema of Kubernetes, what is around it by that of JobSet."""
    jsonschema = pytest.importorskip('jsonschema')
    kubernetes_validate = pytest.importorskip('kubernetes_validate')
    jobset = yaml.safe_load((ROOT / 'launch' / 'jobset.yaml').read_text())
    jsonschema.validate(jobset, JOBSET)
    for replicated in jobset['spec']['replicatedJobs']:
        job = {
            'apiVersion': 'batch/v1',
            'kind': 'Job',
            'metadata': {'name': replicated['name']},
            **replicated['template'],
        }
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


def test_kubernetes_restarts_all_but_what_would_fail_again():
    jobset = yaml.safe_load((ROOT / 'launch' / 'jobset.yaml').read_text())
    (mistake,) = jobset['spec']['failurePolicy']['rules']
    assert mistake['action'] == 'FailJobSet'
    assert mistake['onJobFailureReasons'] == ['PodFailurePolicy']
    (worker,) = jobset['spec']['replicatedJobs']
    job = worker['template']['spec']
    (rule,) = job['podFailurePolicy']['rules']
    pod = job['template']['spec']
    (container,) = pod['containers']
    assert rule['action'] == 'FailJob' and rule['onExitCodes']['values'] == FAIL
    assert rule['onExitCodes']['containerName'] == container['name']
    assert pod['restartPolicy'] == 'Never', 'as podFailurePolicy asks'
    environment = {entry['name']: entry.get('value') for entry in container['env']}
    assert int(environment['JAX_NUM_PROCESSES']) == job['parallelism'] == job['completions']
    name = jobset['metadata']['name']
    assert environment['JAX_COORDINATOR_ADDRESS'].startswith(f'{name}-{worker["name"]}-0-0.{name}:')


def test_the_page_names_every_status():
    page = (ROOT / 'docs' / 'training.md').read_text()
    table = page.split('## What an exit status means')[1].split('##')[0]
    assert {
        int(n)
        for n in re.findall(r'\b\d+\b', ' '.join(re.findall(r'^\| ([\d, ]+) \|', table, re.M)))
    } == ({0, *FAIL, *AGAIN})
