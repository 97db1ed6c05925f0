"""The page of `cyclegan_jax.demo`, by Gradio: the only door to it.

Gradio would do more than this page asks for. It fetches what an input or an address names, opens a
picture by all decoders that Pillow has, and serves recordings and a proxy. Here inputs are uploads
and nothing else, the files are read by `pictures`, and the other addresses are not there.
"""

import html
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from cyclegan_jax.errors import UserError, describe
from cyclegan_jax.inference.uploads import MAX_FILES, Offer, Work

MAX_BYTES = 64 * 2**20  # of an uploaded file
_MAX_REQUEST = 2**30  # of all files of an upload
_WAITING = 20  # visitors, before more are refused
_KEPT, _SWEEP = 3600, 600  # seconds: the age at which files are deleted, and how often it is looked
_CSS = 'footer {display: none !important} .gradio-container {max-width: 1100px !important}'
_NOTE = (
    'Pictures are sent to the machine that serves this page, and deleted there after an hour. '
    'Results are PNG, as large as the picture.'
)


class _Page(gr.Blocks):
    """Blocks whose inputs are uploads: of a file anywhere else, nothing is read or fetched."""

    cache: Path
    work: Work

    async def preprocess_data(self, block_fn, inputs, *args, **kwargs):
        for path in _paths(inputs):
            if not Path(os.path.realpath(path)).is_relative_to(self.cache):
                raise _shown(UserError('a picture must be uploaded; addresses are not fetched.'))
        return await super().preprocess_data(block_fn, inputs, *args, **kwargs)


def _paths(value: Any) -> Iterator[str]:
    """All that is called 'path' in JSON values."""
    if isinstance(value, Mapping):
        if isinstance(value.get('path'), str):
            yield value['path']
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    for item in value:
        yield from _paths(item)


class _Guard:
    """ASGI: addresses of Gradio that the page has no use for are not there."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        path = scope.get('path', '').rstrip('/')
        length = dict(scope.get('headers', ())).get(b'content-length', b'')
        status = None
        if '://' in path or path.endswith('/process_recording'):
            status = 404
        elif path.endswith('/upload') and not (length.isdigit() and int(length) <= _MAX_REQUEST):
            status = 413  # Gradio bounds each file, and not how many there are
        if status:
            await send({'type': 'http.response.start', 'status': status, 'headers': []})
            await send({'type': 'http.response.body', 'body': b''})
        else:
            await self._app(scope, receive, send)


def make_page(offers: Mapping[str, Offer], cache: Path, **how) -> gr.Blocks:
    """The page.

    Args:
      offers: by title, at least one.
      cache: GRADIO_TEMP_DIR, as it was when Gradio was imported.
      how: of `Work`.
    """
    cache = cache.resolve()
    work = Work(offers, cache, **how)
    first = next(iter(offers))
    with _Page(title=first, analytics_enabled=False, delete_cache=(_SWEEP, _KEPT)) as page:
        page.cache, page.work = cache, work
        gr.Markdown('# Translate pictures')
        title = gr.Radio(list(offers), value=first, label='Translation', elem_id='translation')
        with gr.Accordion('Size', open=False):
            size = gr.Textbox(
                label='Resize before translating',
                info='Shorter side, such as 256, or height x width, such as 480x640. Left empty, '
                'the picture is translated at its own size. The result has that size in any case.',
                elem_id='size',
                max_length=20,
            )
        how = {'preprocess': False, 'concurrency_id': 'translator', 'api_visibility': 'private'}
        with gr.Tab('A picture'):
            with gr.Row():
                with gr.Column():
                    picture = gr.Image(
                        type='filepath',
                        image_mode=None,
                        label='Picture',
                        elem_id='picture',
                        height=420,
                        buttons=['fullscreen'],
                    )
                    go = gr.Button('Translate', variant='primary', elem_id='go')
                    groups = [
                        _examples(offer, picture, name == first) for name, offer in offers.items()
                    ]
                with gr.Column():
                    slider = gr.ImageSlider(
                        type='filepath',
                        label='Before and after',
                        elem_id='result',
                        interactive=False,
                        height=420,
                        buttons=['fullscreen'],
                    )
                    said = gr.Markdown(elem_id='said')
                    save = gr.DownloadButton(
                        'Save the translation', elem_id='save', interactive=False
                    )

            def one(given, title, size):
                if not given or not given.get('path'):
                    raise _shown(UserError('choose a picture first.'))
                start = time.monotonic()
                try:
                    done = work.translate(Path(given['path']), title, size)
                except UserError as error:
                    raise _shown(error) from None
                took = f'{done.after.name}: {time.monotonic() - start:.1f} s'
                return (
                    (str(done.before), str(done.after)),
                    gr.DownloadButton(value=str(done.after), interactive=True),
                    html.escape(took),
                )

            go.click(one, [picture, title, size], [slider, save, said], **how)
            if len(offers) > 1:
                title.change(
                    lambda chosen: [gr.Column(visible=name == chosen) for name in offers],
                    title,
                    groups,
                    api_visibility='private',
                )
        with gr.Tab('Many pictures'):
            files = gr.File(
                file_count='multiple',
                file_types=['image'],
                label=f'Pictures, up to {MAX_FILES}',
                elem_id='files',
                height=200,
            )
            with gr.Row():
                go_all = gr.Button('Translate all', variant='primary', elem_id='go_all')
                stop = gr.Button('Stop', elem_id='stop')
                save_all = gr.DownloadButton(
                    'Save all, as ZIP', elem_id='save_all', interactive=False
                )
            said_of_all = gr.Markdown(elem_id='said_of_all')
            gallery = gr.Gallery(
                label='Translations',
                elem_id='gallery',
                columns=4,
                interactive=False,
                buttons=['download', 'fullscreen'],
            )

            def many(given, title, size):
                if not given:
                    raise _shown(UserError('choose pictures first.'))
                try:
                    for done, refused, archive in work.translate_all(
                        [Path(file['path']) for file in given], title, size
                    ):
                        lines = [f'{len(done)} of {len(given)} done', *refused]
                        yield (
                            [(str(after), after.name) for _, after in done],
                            gr.DownloadButton(
                                value=archive and str(archive), interactive=bool(archive)
                            ),
                            '\n'.join(f'- {html.escape(line)}' for line in lines),
                        )
                except UserError as error:
                    raise _shown(error) from None

            running = go_all.click(
                many, [files, title, size], [gallery, save_all, said_of_all], **how
            )
            stop.click(None, cancels=running, api_visibility='private')
        gr.Markdown(_NOTE)
    page.queue(max_size=_WAITING, default_concurrency_limit=1)
    return page


def _examples(offer: Offer, picture: gr.Image, visible: bool) -> gr.Column:
    with gr.Column(visible=visible) as group:
        if offer.examples:
            gr.Examples(
                [[str(path)] for path in offer.examples],
                picture,
                label='Or one of these',
                cache_examples=False,
                api_visibility='private',
            )
    return group


def _shown(error: UserError) -> gr.Error:
    """An error as the page shows it, in one line; it takes HTML."""
    return gr.Error(html.escape(describe(error)), print_exception=False)


def open_page(page: gr.Blocks, host: str, port: int) -> str:
    """Serves the page from threads of its own, until `page.close()`; returns its address.

    Raises:
      UserError: there is no listening there.
    """
    from starlette.middleware import Middleware

    plain = {'font': ['system-ui', 'sans-serif'], 'font_mono': ['ui-monospace', 'monospace']}
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            inbrowser=False,
            show_error=False,
            max_file_size=MAX_BYTES,
            allowed_paths=[str(page.cache)],  # were there none, the environment would be asked
            run_history=False,
            enable_monitoring=False,
            mcp_server=False,
            ssr_mode=False,
            pwa=False,
            footer_links=[],
            app_kwargs={'middleware': [Middleware(_Guard)]},
            theme=gr.themes.Default(**plain),  # fonts of the visitor, not of Google
            css=_CSS,
        )
    except OSError as error:
        raise UserError(
            f'{host}, port {port}, cannot be listened on; give another --port or --host.'
        ) from error
    return address


def serve(page: gr.Blocks, host: str, port: int) -> None:
    """Serves the page until Ctrl-C or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda *_: stop.set())
    print(f'The page is at {open_page(page, host, port)} until Ctrl-C.', flush=True)
    while not stop.wait(1):  # on Windows a signal does not end a wait
        page.work.sweep(_KEPT)  # Gradio deletes what it was given to show, and no more
    page.close(verbose=False)
