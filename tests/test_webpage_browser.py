"""The exported page in Chromium gives the pictures that `translate` gives, and can be used."""

import base64

import numpy as np
import pytest
from browser import CHROMIUM, open_page, serve
from PIL import Image
from translate_fixtures import RESNET, picture, random_network

from cyclegan_jax import interop, translate
from cyclegan_jax.data.images import decode
from cyclegan_jax.errors import UserError
from cyclegan_jax.inference import exporting, webpage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed'),
]

DONE = """document.querySelector('#error').textContent
    || (document.querySelector('#status').textContent.startsWith('Done') && 'done')"""


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp('model')
    networks = {'a2b': random_network(seed=1), 'b2a': random_network(seed=2)}
    networks['a2b'].params['out']['kernel'] *= 0.3  # soft: half precision is enough for it
    networks['b2a'].params['out']['kernel'] *= 3  # harsh: it is not
    interop.save_pretrained(folder, networks)
    return folder


@pytest.fixture(scope='module')
def runtime(tmp_path_factory):
    """A folder of onnxruntime-web."""
    try:
        files = webpage.find_runtime(None)
    except UserError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp('runtime')
    (folder / 'dist').mkdir()
    for name, content in files.items():
        (folder / ('' if name == 'package.json' else 'dist') / name).write_bytes(content)
    return folder


def export(networks, folder, runtime):
    domains = {'a': 'horse', 'b': 'zebra & <b>'}
    exporting.export(networks, folder, 'web', domains=domains, runtime=runtime)
    return folder


@pytest.fixture(scope='module')
def site(model, runtime, tmp_path_factory):
    folder = export(interop.load_pretrained(model), tmp_path_factory.mktemp('site'), runtime)
    half, full = ((folder / f'{name}.onnx').stat().st_size for name in ('a2b', 'b2a'))
    assert half < full  # so that both are tried
    return folder


@pytest.fixture(scope='module')
def shared(site, tmp_path_factory):
    with serve(site) as url, open_page(url, profile=tmp_path_factory.mktemp('profile')) as page:
        page.address = url
        yield ready(page)


@pytest.fixture
def page(shared):
    yield shared
    shared.resize(1400)
    shared.run("document.querySelector('[name=direction]').click()")
    shared.run("document.querySelector('#size').value = 0")


def ready(page):
    page.wait("document.querySelector('#status')?.textContent == 'Choose a picture.'")
    return page


def forget(page):
    page.run("for (const id of ['status', 'error']) document.getElementById(id).textContent = ''")


def give(page, path):
    """Chooses a file, and waits; returns the line of the error, or 'done'."""
    forget(page)
    page.choose('#file', path)
    return page.wait(DONE)


def saved(page, folder):
    """The picture that the page saves, and its name."""
    folder.mkdir(exist_ok=True)
    page.call('Browser.setDownloadBehavior', behavior='allow', downloadPath=str(folder))
    page.run("document.querySelector('#save').click()")
    while not (
        found := [path for path in folder.glob('*.png') if path.read_bytes()[-8:-4] == b'IEND']
    ):
        page.run('1')
    return decode(found[0], 4), found[0].name


def translated(model, path, direction, folder):
    flags = [f'--model={model}', f'--input={path}', f'--output={folder}', '--format=png']
    assert translate.main([*flags, f'--direction={direction}']) == 0
    return decode(folder / f'{path.stem}.png', 4)


def direct(page, number):
    forget(page)
    page.run(f"document.querySelectorAll('[name=direction]')[{number}].click()")
    return page.wait(DONE)


PICTURES = {
    'odd.png': ('RGB', (101, 67), {}),
    'tiny.png': ('RGB', (5, 3), {}),
    'photo.jpg': ('RGB', (150, 83), {'quality': 90}),
    'grey.jpg': ('L', (40, 33), {}),
    'grey.png': ('L', (33, 40), {}),
    'deep.png': ('I;16', (33, 40), {}),
    'holes.png': ('RGBA', (47, 50), {}),
    'lossless.webp': ('RGB', (47, 50), {'lossless': True}),
}


@pytest.mark.parametrize('name', PICTURES)
def test_pictures_are_those_of_translate_in_both_directions(page, model, tmp_path, name):
    mode, size, options = PICTURES[name]
    image = picture(mode, size)
    if name == 'holes.png':  # half transparency is not kept exactly by any browser
        image.putalpha(image.getchannel('A').point(lambda value: 255 * (value > 99)))
    image.save(tmp_path / name, **options)
    for number, direction in enumerate(('a2b', 'b2a')):
        assert (give(page, tmp_path / name) if number == 0 else direct(page, number)) == 'done'
        ours = translated(model, tmp_path / name, direction, tmp_path / direction)
        theirs, file = saved(page, tmp_path / f'saved_{direction}')
        assert theirs.shape == ours.shape
        seen = ours[:, :, 3] > 0  # what full transparency hides is lost
        difference = np.abs(theirs.astype(int) - ours)[seen]
        assert difference.max() <= 1
        assert ours[seen].std() > 10
        assert file == f'{name.rpartition(".")[0]}_{direction}.png'


def test_a_photograph_that_lies_on_its_side(page, model, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture('RGB', (64, 37)).save(tmp_path / 'side.jpg', exif=exif, quality=95)
    assert give(page, tmp_path / 'side.jpg') == 'done'
    ours = translated(model, tmp_path / 'side.jpg', 'a2b', tmp_path / 'out')
    assert ours.shape == (64, 37, 4)
    np.testing.assert_allclose(saved(page, tmp_path / 'saved')[0], ours, atol=1)


def test_an_unreadable_file_is_told_and_the_next_is_translated(page, tmp_path):
    (tmp_path / 'broken.png').write_bytes(b'\x89PNG no more')
    error = give(page, tmp_path / 'broken.png')
    assert error.startswith('broken.png cannot be read as a picture')
    assert page.run("document.querySelector('#result').hidden")
    picture().save(tmp_path / 'good.png')
    assert give(page, tmp_path / 'good.png') == 'done'


def test_nothing_is_asked_of_others_and_nothing_is_refused(page):
    assert {'model.json', 'worker.js'} <= {r.removeprefix(page.address) for r in page.requests}
    strangers = [r for r in page.requests if not r.startswith((page.address, 'blob:', 'data:'))]
    assert not strangers
    # Chromium notes that this machine has no graphics card.
    assert [entry for entry in page.log if 'No available adapters' not in entry] == []


def test_a_picture_that_is_dropped(page, model, tmp_path):
    picture().save(tmp_path / 'dropped.png')
    content = base64.b64encode((tmp_path / 'dropped.png').read_bytes()).decode()
    forget(page)
    prevented = page.run(f"""['dragover', 'drop'].map((kind) => {{
        const bytes = Uint8Array.from(atob('{content}'), (c) => c.charCodeAt(0));
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([bytes], 'dropped.png', {{type: 'image/png'}}));
        const event = new DragEvent(kind, {{dataTransfer, bubbles: true, cancelable: true}});
        return !document.querySelector('main').dispatchEvent(event);
    }})""")
    assert prevented == [True, True]  # else the browser opens the picture in place of the page
    assert not page.run("document.querySelector('#drop').classList.contains('over')")
    assert page.wait(DONE, 20) == 'done'
    theirs, file = saved(page, tmp_path / 'saved')
    assert file == 'dropped_a2b.png'
    ours = translated(model, tmp_path / 'dropped.png', 'a2b', tmp_path / 'out')
    np.testing.assert_allclose(theirs, ours, atol=1)


def test_the_camera(page):
    forget(page)
    page.run("document.querySelector('#camera').click()")
    page.wait("document.querySelector('#video').videoWidth > 0", 20)
    # A paused video keeps its frame, which the page is to take as it is.
    page.run("""(() => {
        const video = document.querySelector('#video');
        video.pause();
        window.track = video.srcObject.getTracks()[0];
        const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
        const context = canvas.getContext('2d', { willReadFrequently: true });
        context.drawImage(video, 0, 0);
        window.frame = context.getImageData(0, 0, canvas.width, canvas.height);
        document.querySelector('#shoot').click();
    })()""")
    assert page.wait(DONE, 20) == 'done'
    assert page.run("document.querySelector('#save').download") == 'camera_a2b.png'
    assert page.run('track.readyState') == 'ended'  # its light goes out
    assert page.run("document.querySelector('#video').srcObject === null")
    assert page.run("document.querySelector('#viewfinder').hidden")
    difference = page.run("""(() => {
        const { width, height, data } = frame;
        const before = document.querySelector('#before');
        if (before.width !== width || before.height !== height) return 'size';
        const seen = before.getContext('2d').getImageData(0, 0, width, height).data;
        return data.reduce((most, value, i) => Math.max(most, Math.abs(value - seen[i])), 0);
    })()""")
    assert difference <= 1


def test_no_camera_stays_on(page, tmp_path):
    """When it is asked for twice, or another picture is chosen while it is open."""
    show = "document.querySelector('#camera').click()"
    page.run(show)
    page.wait("document.querySelector('#video').videoWidth > 0", 20)
    page.run("window.first = document.querySelector('#video').srcObject.getTracks()[0]")
    page.run(show)
    page.wait("first.readyState === 'ended'", 20)
    second = "document.querySelector('#video').srcObject?.getTracks()[0]"
    page.wait(f'!!{second}', 20)
    page.run(f'window.second = {second}')
    picture().save(tmp_path / 'x.png')
    assert give(page, tmp_path / 'x.png') == 'done'
    assert page.run('second.readyState') == 'ended'
    assert page.run("document.querySelector('#viewfinder').hidden")


def test_it_can_be_used_with_the_keyboard(page, tmp_path):
    picture().save(tmp_path / 'x.png')
    assert give(page, tmp_path / 'x.png') == 'done'
    page.run('document.activeElement.blur()')
    reached = []
    for _ in range(12):
        page.press('Tab', 9)
        reached.append(page.run('document.activeElement.id || document.activeElement.name'))
        if reached[-1] == 'slider':
            page.press('ArrowRight', 39)
        if reached[-1] == 'direction':
            page.press('ArrowRight', 39)
            page.wait("document.querySelector('#caption').textContent.includes('<b> to horse')")
    assert {'direction', 'size', 'file', 'camera', 'slider', 'save'} <= set(reached)
    value = 50 + reached.count('slider')
    assert page.run("document.querySelector('#slider').value") == str(value)
    style = "document.querySelector('#compare').style.getPropertyValue('--share')"
    assert page.run(style) == f'{value}%'


def test_all_that_can_be_used_has_a_name_for_screen_readers(page, tmp_path):
    picture().save(tmp_path / 'x.png')
    assert give(page, tmp_path / 'x.png') == 'done'
    nodes = page.call('Accessibility.getFullAXTree')['nodes']
    roles = {'button', 'radio', 'slider', 'image', 'combobox', 'link', 'status', 'alert', 'group'}
    # Newer browsers keep the space between a button and its label; readers do not say it.
    found = {
        (node['role']['value'], node.get('name', {}).get('value', '').strip())
        for node in nodes
        if 'role' in node and node['role']['value'] in roles
    }
    assert all(name for role, name in found if role not in ('status', 'alert', 'group'))
    assert ('group', 'Direction') in found
    assert ('radio', 'horse to zebra & <b>') in found
    assert ('image', 'x.png, translated from horse to zebra & <b>') in found


def test_it_fits_a_telephone(page, tmp_path):
    picture('RGB', (600, 400)).save(tmp_path / 'wide.png')
    assert give(page, tmp_path / 'wide.png') == 'done'
    for width in (400, 320):
        page.resize(width)
        assert page.run('document.documentElement.scrollWidth') <= width


def test_a_picture_too_large_for_the_memory_is_reduced_and_said(page, tmp_path):
    picture('RGB', (400, 200)).save(tmp_path / 'large.png')
    page.run("document.querySelector('#size').value = 256")
    assert give(page, tmp_path / 'large.png') == 'done'
    assert saved(page, tmp_path / 'saved')[0].shape == (128, 256, 4)
    caption = "document.querySelector('#caption').textContent"
    assert 'Reduced from 400 \N{MULTIPLICATION SIGN} 200 to 256' in page.run(caption)
    Image.new('RGB', (9000, 9000)).save(tmp_path / 'huge.png')  # 5.5 GB for this model
    page.run("document.querySelector('#size').value = 0")
    page.choose('#file', tmp_path / 'huge.png')
    status = "document.querySelector('#status').textContent"
    page.wait(f"{status}.includes('A page has memory for')")
    page.run("document.querySelector('#cancel').click()")
    assert page.run(status) == 'Cancelled.'


def test_threads_and_grey_models(runtime, tmp_path):
    """With the headers that allow threads; one generator, from colours to grey."""
    network = random_network((3, 1), RESNET, seed=3)
    interop.save_pretrained(tmp_path / 'model', {'a2b': network})
    site = export({'a2b': network}, tmp_path / 'site', runtime)
    picture('RGB', (50, 31)).save(tmp_path / 'x.png')
    headers = {
        'Cross-Origin-Opener-Policy': 'same-origin',
        'Cross-Origin-Embedder-Policy': 'require-corp',
    }
    with serve(site, headers) as url, open_page(url, profile=tmp_path / 'profile') as page:
        assert ready(page).run('crossOriginIsolated')
        assert give(page, tmp_path / 'x.png') == 'done'
        ours = translated(tmp_path / 'model', tmp_path / 'x.png', 'a2b', tmp_path / 'out')
        np.testing.assert_allclose(saved(page, tmp_path / 'saved')[0], ours, atol=1)


def test_webgpu_without_a_graphics_card(site, model, tmp_path):
    """By Chromium's own renderer in software."""
    flags = '--enable-unsafe-webgpu --use-webgpu-adapter=swiftshader'
    flags += ' --enable-features=Vulkan --use-vulkan=swiftshader'
    picture('RGB', (50, 31)).save(tmp_path / 'x.png')
    with serve(site) as url, open_page(url, tmp_path / 'profile', flags=flags) as page:
        assert give(ready(page), tmp_path / 'x.png') == 'done'
        if 'graphics card' not in page.run("document.querySelector('#caption').textContent"):
            pytest.skip('this Chromium has no WebGPU in software')
        ours = translated(model, tmp_path / 'x.png', 'a2b', tmp_path / 'out')
        np.testing.assert_allclose(saved(page, tmp_path / 'saved')[0], ours, atol=1)
