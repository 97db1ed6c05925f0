"""The demo as its visitors have it: in Chromium, and by hand-made requests."""

import contextlib
import http.client
import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, open_page
from evaluation_run import write_run
from translate_fixtures import picture

from cyclegan_jax import translate
from cyclegan_jax.data.images import decode

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec('gradio') is None, reason='gradio is not installed'),
]
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')

PORT = 7863


@contextlib.contextmanager
def served(*flags):
    """A demo that is up; its address."""
    command = [sys.executable, '-m', 'cyclegan_jax.demo', f'--port={PORT}', *flags]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        assert line == f'The page is at http://127.0.0.1:{PORT}/ until Ctrl-C.\n', (
            line or process.stderr.read()
        )
        yield f'http://127.0.0.1:{PORT}/'
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert 'Traceback' not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('of') / 'run'
    write_run(folder, (4,))
    return folder


@pytest.fixture(scope='module')
def address(run):
    with served(f'--model={run}', '--max-pixels=20000') as address:
        yield address


@pytest.fixture
def page(address, tmp_path):
    with open_page(address, tmp_path / 'profile') as page:
        page.wait("!!document.querySelector('#picture input[type=file]')")
        page.call('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(tmp_path))
        yield page
        hosts = {url.split('/')[2] for url in page.requests if url.startswith(('http', 'ws'))}
        assert hosts == {address.split('/')[2]}  # nobody else hears of the visitor


@pytest.fixture
def photo(tmp_path):
    picture(size=(61, 47)).save(tmp_path / 'mare.png')
    return tmp_path / 'mare.png'


def translated(run, photo, folder, direction):
    flags = [f'--model={run}', f'--input={photo}', f'--output={folder}', f'--direction={direction}']
    assert translate.main(flags) == 0
    return decode(folder / photo.name)


def click(page, selector):
    page.wait(f'!!document.querySelector({json.dumps(selector)})')
    page.run(f'document.querySelector({json.dumps(selector)}).click()')


def says(page, selector, text):
    quoted = json.dumps(text)
    page.wait(f'document.querySelector({json.dumps(selector)})?.innerText.includes({quoted})')


def downloaded(page, selector, path):
    page.wait(f'!document.querySelector("{selector}").hasAttribute("disabled")')
    click(page, selector)
    for _ in range(600):
        if path.exists() and not path.with_name(f'{path.name}.crdownload').exists():
            return path
        page.wait('new Promise(done => setTimeout(() => done(true), 50))')
    raise AssertionError(f'{path.name} was not downloaded')


@in_chromium
def test_what_is_sent_is_saved_as_translate_gives_it_in_both_directions(run, page, photo, tmp_path):
    for number, direction in enumerate(('a2b', 'b2a')):
        page.run(f"document.querySelectorAll('#translation input')[{number}].click()")
        page.choose('#picture input[type=file]', photo) if number == 0 else None
        page.wait("!!document.querySelector('#picture img')")
        click(page, '#go')
        says(page, '#said', f'mare_{direction}.png')
        saved = downloaded(page, '#save', tmp_path / f'mare_{direction}.png')
        expected = translated(run, photo, tmp_path / direction, direction)
        np.testing.assert_array_equal(decode(saved), expected)
        assert page.run("document.querySelectorAll('#result img').length") == 2


@in_chromium
def test_a_folder_of_pictures_is_saved_as_one_file_and_a_bad_one_is_named(page, photo, tmp_path):
    bad = tmp_path / 'broken.png'
    bad.write_bytes(b'no picture')
    page.run("document.querySelectorAll('[role=tab]')[1].click()")
    page.wait("!!document.querySelector('#files input[type=file]')")
    page.choose('#files input[type=file]', photo, bad)
    says(page, '#files', 'broken')
    click(page, '#go_all')
    says(page, '#said_of_all', '1 of 2 done')
    says(page, '#said_of_all', 'broken.png: not an image')
    saved = downloaded(page, '#save_all', tmp_path / 'a2b.zip')
    assert zipfile.ZipFile(saved).namelist() == ['mare_a2b.png']


@in_chromium
def test_an_example_is_there_and_what_cannot_be_is_told_in_a_line(page, tmp_path):
    click(page, '#go')
    says(page, 'body', 'choose a picture first')
    click(page, '.gallery-item, .gallery button, table.table tr td')
    page.wait("!!document.querySelector('#picture img')")
    click(page, '#go')
    says(page, '#said', '_a2b.png')
    click(page, '#picture [aria-label="Remove Image"]')
    page.wait("!!document.querySelector('#picture input[type=file]')")
    picture(size=(200, 101)).save(tmp_path / 'wide.png')
    page.choose('#picture input[type=file]', tmp_path / 'wide.png')
    page.wait("!!document.querySelector('#picture img')")
    click(page, '#go')
    says(page, 'body', 'wide.png: 200 x 101 pixels, over the limit of 20000')


@in_chromium
def test_a_telephone_shows_all_of_it(page):
    page.resize(400)
    assert page.run('document.documentElement.scrollWidth') <= 400


def status(url, data=None, **headers):
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def test_no_file_of_this_machine_is_served(address, run):
    assert status(address) == 200
    config = run / 'config.json'
    for path in (config, '/etc/passwd', f'{run}/../run/config.json'):
        assert status(f'{address}gradio_api/file={path}') in (403, 404)


def test_no_address_is_fetched_for_a_visitor(address):
    for path in (
        f'gradio_api/file={address}config',
        f'gradio_api/proxy={address}config',
        'gradio_api/process_recording',
    ):
        assert status(f'{address}{path}') in (403, 404, 405), path


@pytest.mark.parametrize('path', ['/etc/passwd', 'http://127.0.0.1:7863/config'])
def test_what_was_not_uploaded_is_not_read(address, path):
    """As a request by hand has it: in place of an upload the name of another file."""
    with urllib.request.urlopen(f'{address}config') as answer:
        functions = json.load(answer)['dependencies']
    number = next(f['id'] for f in functions if len(f['inputs']) == 3)
    given = {'path': path, 'meta': {'_type': 'gradio.FileData'}}
    body = {'data': [given, 'brown to striped', ''], 'fn_index': number, 'session_hash': 'x'}
    joined = urllib.request.Request(
        f'{address}gradio_api/queue/join',
        json.dumps(body).encode(),
        {'Content-Type': 'application/json'},
    )
    with urllib.request.urlopen(joined) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f'{address}gradio_api/queue/data?session_hash=x') as events:
        for line in events:
            if b'process_completed' in line:
                break
    assert b'"success":false' in line.replace(b' ', b'')
    assert b'must be uploaded' in line and b'root:' not in line


def test_an_upload_is_bounded(address):
    boundary = b'x' * 20
    head = b'--' + boundary + b'\r\nContent-Disposition: form-data; name="files"; '
    head += b'filename="x.png"\r\n\r\n'
    body = head + bytes(2**26 + 2**20) + b'\r\n--' + boundary + b'--\r\n'
    kind = {'Content-Type': f'multipart/form-data; boundary={boundary.decode()}'}
    # The door may be shut before all is said.
    with contextlib.suppress(ConnectionError, urllib.error.URLError):
        assert status(f'{address}gradio_api/upload', body, **kind) == 413
    connection = http.client.HTTPConnection('127.0.0.1', PORT, timeout=20)
    connection.putrequest('POST', '/gradio_api/upload')
    connection.putheader('Content-Length', str(2**30 + 1))
    connection.endheaders()
    with connection.getresponse() as answer:
        assert answer.status == 413
    connection.close()


@pytest.mark.parametrize(
    ('flag', 'said'),
    [('--model={tmp}/none', 'none'), ('--host=256.0.0.1', 'cannot be listened on')],
)
def test_what_cannot_be_served_is_told(run, tmp_path, flag, said):
    flags = [f'--model={run}', f'--port={PORT + 1}', flag.format(tmp=tmp_path)]
    command = [sys.executable, '-m', 'cyclegan_jax.demo', *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr.splitlines()[-1] and 'Traceback' not in done.stderr


def test_a_space_shows_the_same_page(run, tmp_path):
    from cyclegan_jax import export

    folder = tmp_path / 'space'
    assert export.main([f'--model={run}', f'--output={folder}', '--format=space']) == 0
    flags = ['--host=127.0.0.1', f'--port={PORT + 2}']
    process = subprocess.Popen(
        [sys.executable, Path(folder, 'app.py'), *flags],
        cwd=folder,
        env={'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith('The page is at'), line or process.stderr.read()
        with urllib.request.urlopen(f'http://127.0.0.1:{PORT + 2}/config') as answer:
            assert 'brown to striped' in answer.read().decode()
    finally:
        process.kill()
        process.communicate()
