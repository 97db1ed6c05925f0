"""The command: what it writes, prints and refuses. Each mistake is one line, and no number."""

import json
import subprocess
import sys

import numpy as np
import pytest
from evaluation_run import write_run
from inception_state import blocks, random_state_dict
from PIL import Image

from cyclegan_jax import evaluate, evaluation
from cyclegan_jax.checkpoint import CheckpointError
from cyclegan_jax.evaluation import inception_weights, scores, training_run
from cyclegan_jax.interop.files import write_safetensors
from cyclegan_jax.pixels import PHOTOGRAPHS


def write_images(folder, images, suffix='.png'):
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f'{i:02}{suffix}')
    return folder


@pytest.fixture
def folders(tmp_path):
    """Translations that are better than their inputs."""
    real = blocks(10, 32, 32)
    write_images(tmp_path / 'real', real[:6])
    write_images(tmp_path / 'fake', real[6:] // 16 * 16)
    write_images(tmp_path / 'input', 255 - real[6:] // 3)
    write_images(tmp_path / 'truth', real[6:])
    return tmp_path


@pytest.fixture(scope='module')
def inception_file(tmp_path_factory):
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    state = {name: np.asarray(array) for name, array in random_state_dict().items()}
    sha256 = inception_weights.SHA256_PREFIX + 'random'
    write_safetensors(path, state, {'source_sha256': sha256})
    return str(path)


@pytest.fixture(autouse=True)
def no_weights_of_the_user(monkeypatch):
    monkeypatch.delenv(inception_weights.VARIABLE, raising=False)


def run(*arguments) -> int:
    return evaluate.main([str(argument) for argument in arguments])


def refused(capsys, *arguments) -> str:
    assert run(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('error: ')
    return lines[0]


def test_a_mistyped_flag_imports_nothing_heavy():
    """So that it is answered at once, and with what may have been meant."""
    code = (
        'import sys; from cyclegan_jax import evaluate\n'
        'try: evaluate.main(["--metric=swd"])\n'
        'except SystemExit: print({"jax", "numpy", "PIL"} & set(sys.modules))'
    )
    command = [sys.executable, '-c', code]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "unknown argument '--metric=swd' (did you mean 'metrics'?)" in result.stderr
    assert result.stdout.splitlines()[-1] == 'set()'


def test_a_score_given_as_a_flag_is_led_to_metrics(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(['--fid'])
    assert "unknown argument '--fid' (see --help; scores are" in capsys.readouterr().err


def test_help_lists_the_table_of_scores(capsys):
    with pytest.raises(SystemExit):
        evaluate.main(['--help'])
    listed = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    for name, metric in scores.METRICS.items():
        start = ['*', name] if metric.default else [name]
        [line] = [words for words in listed if words[: len(start)] == start]
        assert {score.name for score in metric.scores} <= {word.strip(',;') for word in line}


@pytest.mark.parametrize('flag', ['--output', '--save-real'])
def test_a_folder_in_place_of_a_file_is_refused_before_scoring(flag, folders, capsys, monkeypatch):
    monkeypatch.setattr(evaluation, 'evaluate_folders', lambda *_, **__: pytest.fail('scored'))
    arguments = f'--fake={folders}/fake', f'--real={folders}/real'
    for path in (folders, f'{folders}/new/'):
        message = refused(capsys, *arguments, f'{flag}={path}')
        assert message == f'error: {flag}={path} is a folder; name a file'


def test_without_weights_all_else_is_done(folders, capsys):
    """What lacks is told; the exit status says so if it was asked for by name."""
    output = folders / 'scores.json'
    arguments = f'--fake={folders}/fake', f'--real={folders}/real', f'--output={output}'
    assert run(*arguments) == 0
    printed = capsys.readouterr()
    assert not printed.err
    assert 'not computed: fid_pytorch, kid_pytorch (there are no Inception weights' in printed.out
    assert inception_weights.FILE in printed.out
    assert 'sha256 starts with 6726825d' in printed.out
    scores = json.loads(output.read_text())['scores']
    assert {'randconv_kid_v1', 'swd', 'diversity'} <= scores.keys()
    assert not any('fid_' in name for name in scores)
    assert run(*arguments, '--metrics=swd,fid_pytorch') == 2
    assert 'Not computed: fid_pytorch.' in capsys.readouterr().err
    assert inception_weights.FILE in refused(capsys, *arguments, '--metrics=fid_pytorch')


def test_wrong_weights_in_the_environment_stop_only_what_needs_them(folders, capsys, monkeypatch):
    monkeypatch.setenv(inception_weights.VARIABLE, 'nothing.pth')
    arguments = f'--fake={folders}/fake', f'--real={folders}/real'
    assert run(*arguments) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith('warning: CYCLEGAN_JAX_INCEPTION=nothing.pth: ')
    assert 'not computed: fid_pytorch, kid_pytorch (Inception' in printed.out
    assert run(*arguments, '--metrics=fid_clean,swd') == 2
    capsys.readouterr()
    assert run(*arguments, '--metrics=swd') == 0
    assert not capsys.readouterr().err
    assert 'nothing.pth is not a file' in refused(
        capsys, *arguments, '--metrics=fid_clean,swd', '--inception=nothing.pth'
    )


@pytest.mark.slow
def test_folders_are_scored_with_all_that_they_allow(folders, capsys, inception_file):
    output = folders / 'scores.json'
    status = run(
        *(f'--{name}={folders}/{name}' for name in ('fake', 'real', 'input', 'truth')),
        f'--inception={inception_file}',
        '--metrics=fid_pytorch,kid_pytorch,swd,paired,monitors',
        f'--output={output}',
        '--batch-size=8',
    )
    assert status == 0
    found = json.loads(output.read_text())
    scores, baselines = found['scores'], found['baselines']
    for name in ('fid_pytorch', 'kid_pytorch', 'swd'):
        assert scores[name] < baselines['ceiling'][name], name
        assert 0 != baselines['floor'][name] < baselines['ceiling'][name], name
    assert scores['kid_pytorch_subset_size'] == 2
    assert scores['psnr'] > baselines['untranslated']['psnr']
    assert scores['correlation'] < -0.9
    assert found['protocol']['inception_sha256'] == '6726825drandom'
    assert found['protocol']['folders']['fake']['sizes'] == {'32 x 32': 4}
    assert len(found['protocol']['scored_files']) == 4
    printed = capsys.readouterr().out
    assert 'fid_pytorch of 4 images against 6: biased upwards' in printed
    assert 'the floor is of 3 images' in printed
    assert 'kid_pytorch x1000' in printed


def test_saved_statistics_stand_for_the_real_folder(folders):
    kept, scores = folders / 'real.npz', []
    for number, real in enumerate((folders / 'real', kept)):
        output = folders / f'{number}.json'
        saving = [f'--save-real={kept}'] if number == 0 else []
        arguments = f'--fake={folders}/fake', f'--real={real}', f'--output={output}'
        assert run(*arguments, '--metrics=randconv_kid_v1', *saving) == 0
        scores.append(json.loads(output.read_text()))
    assert scores[0]['scores'] == scores[1]['scores']
    assert scores[0]['baselines'] == scores[1]['baselines']


def test_statistics_that_lack_a_score_or_are_damaged_are_refused(folders, capsys):
    """Those of swd are never kept."""
    kept = folders / 'real.npz'
    fake, kid = f'--fake={folders}/fake', '--metrics=randconv_kid_v1'
    assert run(fake, f'--real={folders}/real', f'{kid},swd', f'--save-real={kept}') == 0
    capsys.readouterr()
    message = refused(capsys, fake, f'--real={kept}', '--metrics=swd')
    assert 'no score can be computed: swd (not in the file of --real)' in message
    kept.write_bytes(kept.read_bytes()[:1000])
    message = refused(capsys, fake, f'--real={kept}', kid)
    assert 'is not a file written by --save-real, or is damaged' in message


def test_statistics_of_other_weights_are_refused(folders, capsys, inception_file):
    kept = folders / 'real.npz'
    np.savez(kept, pytorch=np.ones((4, 2048)), inception_sha256='1234567890')
    message = refused(
        capsys, f'--fake={folders}/fake', f'--real={kept}', f'--inception={inception_file}'
    )
    assert 'was made with Inception weights of sha256 12345678, --inception has 6726825d' in message


def test_partners_of_other_names_are_refused(folders, capsys):
    """Also pictures left over from an older run: they have no input."""
    (folders / 'fake' / '00.png').rename(folders / 'fake' / 'stale.png')
    for name in ('input', 'truth'):
        message = refused(
            capsys, f'--fake={folders}/fake', f'--real={folders}/real', f'--{name}={folders}/{name}'
        )
        assert f'--fake and --{name} do not hold the same names' in message
        assert 'only 00, stale' in message


def test_sizes_that_differ_are_reported_and_unfit_scores_left_out(folders, capsys):
    Image.new('RGB', (40, 60)).save(folders / 'fake' / '99.png')
    output = folders / 'scores.json'
    arguments = f'--fake={folders}/fake', f'--real={folders}/real', f'--output={output}'
    message = refused(capsys, *arguments, '--metrics=swd,randconv_kid_v1')
    assert 'swd (needs pictures of one size)' in message


def test_jpeg_is_warned_of(folders, capsys):
    write_images(folders / 'jpeg', blocks(4, 32, 32), '.jpg')
    assert run(f'--fake={folders}/jpeg', f'--real={folders}/real', '--metrics=swd') == 0
    assert '--fake has JPEG files' in capsys.readouterr().out


def test_one_picture_is_refused(folders, capsys):
    write_images(folders / 'one', blocks(1, 32, 32))
    message = refused(capsys, f'--fake={folders}/one', f'--real={folders}/real', '--metrics=swd')
    assert '1 images against 6 real ones' in message


@pytest.mark.parametrize('flag', ['fake', 'truth'])
def test_only_real_pictures_may_be_a_file_of_features(flag, folders, capsys):
    paths = {'fake': folders / 'fake', 'real': folders / 'real'} | {flag: 'x.npz'}
    message = refused(capsys, *(f'--{name}={path}' for name, path in paths.items()))
    assert f'--{flag}=x.npz is not a folder' in message


def test_an_empty_or_missing_folder_is_named(folders, capsys):
    (folders / 'empty').mkdir()
    assert 'no images in' in refused(capsys, f'--fake={folders}/empty', f'--real={folders}/real')
    assert '--real=nowhere is not a folder' in refused(
        capsys, f'--fake={folders}/fake', '--real=nowhere'
    )


def test_mistyped_metrics_are_named(folders, capsys):
    arguments = f'--fake={folders}/fake', f'--real={folders}/real'
    message = refused(capsys, *arguments, '--metrics=fid')
    assert "--metrics is 'fid'; choose one of" in message
    assert "did you mean 'kid_clean'" not in message
    assert "did you mean 'paired'" in refused(capsys, *arguments, '--metrics=swd,pared')


@pytest.mark.parametrize(
    'arguments', [(), ('--workdir=x', '--fake=y'), ('--fake=y',), ('--predictions=y',)]
)
def test_what_to_evaluate_must_be_clear(arguments, capsys):
    assert '=DIR' in refused(capsys, *arguments)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
    path = tmp_path_factory.mktemp('runs') / 'run'
    write_run(path, steps=(3, 7))
    return path


def test_scores_of_weights_that_are_asked_for_have_a_file_of_their_own(tmp_path):
    write_run(tmp_path / 'run', steps=(3,), average=True)
    assert run(f'--workdir={tmp_path}/run', '--metrics=paired', '--weights=average') == 0
    [path] = (tmp_path / 'run' / 'evaluation').iterdir()
    assert path.name == 'step_3_average.json'
    assert json.loads(path.read_text())['protocol']['weights'] == 'average'


def test_a_run_is_scored_both_ways_with_its_protocol(workdir, capsys):
    status = run(
        f'--workdir={workdir}',
        '--metrics=randconv_kid_v1,paired,cycle,labels,monitors',
        '--batch-size=6',
    )
    assert status == 0
    found = json.loads((workdir / 'evaluation' / 'step_7.json').read_text())
    assert found['step'] == 7
    for direction in ('a2b', 'b2a'):
        assert {'randconv_kid_v1', 'psnr', 'cycle_ssim', 'diversity'} <= found[direction][
            'scores'
        ].keys()
        assert found[direction]['baselines'].keys() >= {'floor', 'ceiling', 'untranslated'}
    assert found['b2a']['baselines']['label_ceiling']['class_iou'] == 1
    protocol = found['protocol']
    assert protocol['weights'] == 'trained'
    assert protocol['identity_weight'] == 5
    assert protocol['image_size'] == [32, 32]
    assert protocol['versions'].keys() >= {'jax', 'flax', 'numpy', 'pillow'}
    assert 'run, step 7, b2a: 12 images against 12 real ones' in capsys.readouterr().out


def test_every_step_is_scored_and_saved_images_score_the_same(workdir, tmp_path, capsys):
    arguments = (
        f'--workdir={workdir}',
        '--metrics=swd',
        '--all-steps',
        f'--save-images={tmp_path}/png',
    )
    assert run(*arguments) == 0
    values = {}
    for step in (3, 7):
        found = json.loads((workdir / 'evaluation' / f'step_{step}.json').read_text())
        values[step] = found['a2b']['scores']['swd']
        write = f'--output={tmp_path}/{step}.json'
        # The targets of a2b are the inputs of b2a.
        real = write_targets(tmp_path / f'real_{step}')
        assert (
            run(f'--fake={tmp_path}/png/step_{step}/a2b', f'--real={real}', '--metrics=swd', write)
            == 0
        )
        again = json.loads((tmp_path / f'{step}.json').read_text())
        assert again['scores']['swd'] == pytest.approx(values[step])
    assert values[3] != values[7]
    capsys.readouterr()
    assert 'step_3 is not empty' in refused(capsys, *arguments)


def write_targets(folder):
    from cyclegan_jax.data import synthetic

    first = synthetic.FIRST_SCENE['b', 'test']
    return write_images(
        folder, [synthetic.render('labels', first + i, (32, 32))[1] for i in range(12)]
    )


def test_steps_that_are_not_there_are_refused(workdir, capsys, tmp_path):
    run_ = f'--workdir={workdir}'
    assert 'there are checkpoints of 3, 7' in refused(capsys, run_, '--step=4')
    assert 'it must be a number, latest or best' in refused(capsys, run_, '--step=last')
    assert 'leave one out' in refused(capsys, run_, '--all-steps', '--output=x.json')
    assert 'is not a training run' in refused(capsys, f'--workdir={tmp_path}')


def test_a_damaged_newest_checkpoint_is_passed_over_unless_it_is_named(tmp_path, capsys):
    write_run(tmp_path / 'run', steps=(3, 7))
    for file in (tmp_path / 'run' / 'checkpoints' / '7' / 'generators').rglob('*'):
        if file.is_file():
            file.write_bytes(bytes(file.stat().st_size))
    arguments = f'--workdir={tmp_path}/run', '--metrics=paired'
    assert run(*arguments) == 0
    printed = capsys.readouterr()
    assert 'warning: ' in printed.err
    assert 'step 3, a2b' in printed.out
    assert (tmp_path / 'run' / 'evaluation' / 'step_3.json').is_file()
    assert run(*arguments, '--all-steps') == 0
    assert 'step 3, a2b' in capsys.readouterr().out
    with pytest.raises(CheckpointError):
        next(evaluation.evaluate_run(tmp_path / 'run', step=7, metrics='paired'))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('[]', 'config.json is damaged: it holds a list'),
        ('{', 'config.json is damaged: it is no JSON'),
        ({'seed': 'x'}, "config.json: field 'seed' is 'x'"),
        ({'loss': {}}, "config.json, loss: field 'identity_weight' is missing"),
        ({'data': {'sauce': 'folder'}}, 'config.json: data has unknown fields: sauce'),
    ],
)
def test_a_damaged_config_is_told_in_one_line(change, message, workdir, tmp_path, capsys):
    text = change
    if isinstance(change, dict):
        text = json.dumps(json.loads((workdir / 'config.json').read_text()) | change)
    (tmp_path / 'config.json').write_text(text)
    (tmp_path / 'checkpoints').symlink_to(workdir / 'checkpoints')
    assert message in refused(capsys, f'--workdir={tmp_path}')


def test_the_results_are_plain_and_in_float32_for_a_bfloat16_run(workdir, tmp_path):
    """As those of `translate`."""
    [expected] = evaluation.evaluate_run(workdir, metrics='paired')
    write_run(tmp_path / 'run', steps=(7,), dtype='bfloat16')
    [found] = evaluation.evaluate_run(tmp_path / 'run', metrics=['paired'])
    assert found['a2b'] == expected['a2b']
    assert found['protocol']['dtype'] == 'float32'
    assert json.loads(json.dumps(found))['step'] == 7


def test_pictures_of_one_name_in_two_folders_are_both_saved(tmp_path):
    assert training_run._stems(['a/1.png', 'a/2.jpg']) == ['1', '2']
    assert training_run._stems(['/x/a/1.png', '/x/b/1.png', '/x/2.png']) == ['a/1', 'b/1', '2']
    pixels = {'a': PHOTOGRAPHS, 'b': PHOTOGRAPHS}
    keep = training_run._writer(tmp_path, {'a': ['t/1.png', 't/1.jpg'], 'b': ['t/1.png']}, pixels)
    keep('a2b', 0, blocks(2, 16, 16))
    saved = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob('*.png'))
    assert saved == ['a2b/1.jpg.png', 'a2b/1.png.png']


def test_names_do_not_move_the_cursor(folders, capsys):
    (folders / 'fake').rename(folders / 'f\x1b[2J')
    assert run(f'--fake={folders}/f\x1b[2J', f'--real={folders}/real', '--metrics=swd') == 0
    printed = capsys.readouterr()
    assert '\x1b' not in printed.out + printed.err
    assert '\\x1b[2J against' in printed.out


def test_label_maps_are_scored_beside_untranslated_and_oracle(tmp_path, capsys):
    """Of 4 pixels, 1, 3 and 4 are right: two thirds of the gap are closed."""
    truth = np.array([[0, 0], [1, 1]], np.uint8)
    for name, wrong in (('labels', 0), ('untranslated', 3), ('predictions', 1), ('oracle', 0)):
        image = truth.copy()
        image.ravel()[:wrong] = 2
        write_images(tmp_path / name, [image])
    output = tmp_path / 'labels.json'
    names = 'labels', 'untranslated', 'predictions', 'oracle'
    folders = [f'--{name}={tmp_path}/{name}' for name in names]
    assert run(*folders, '--palette=stripes', f'--output={output}') == 0
    found = json.loads(output.read_text())
    assert [found['scores'][n]['pixel_accuracy'] for n in names[1:]] == [0.25, 0.75, 1]
    assert found['gap_closed']['pixel_accuracy'] == pytest.approx(2 / 3)
    assert found['class_iou']['predictions'] == {'sky': 0.5, 'grass': 1, 'animal': 0}
    assert 'gap closed' in capsys.readouterr().out
    assert "--palette is 'x'; choose one of 'cityscapes', 'stripes', 'labels'" in refused(
        capsys, *folders, '--palette=x'
    )
