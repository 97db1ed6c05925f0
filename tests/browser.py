"""Chromium without a window, driven through its own pipe: no driver, no library, no port.

The protocol is Chrome DevTools': JSON objects, each ended by a zero byte, on file descriptors 3
and 4. https://chromedevtools.github.io/devtools-protocol/
"""

import base64
import contextlib
import functools
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
_FLAGS = (
    '--headless=new --no-sandbox --disable-dev-shm-usage --no-first-run '
    '--disable-extensions --disable-background-networking --disable-component-update '
    '--disable-sync --hide-scrollbars --remote-debugging-pipe '
    # Only this machine can be reached: what asks for more fails.
    '--host-resolver-rules="MAP * ~NOTFOUND, EXCLUDE 127.0.0.1" '
    '--use-fake-device-for-media-stream --use-fake-ui-for-media-stream'
)


class Page:
    """A page that is open.

    process: of the browser; log: what the page printed; requests: the addresses it asked for.
    """

    def __init__(self, process: subprocess.Popen, reader, writer, url: str, width: int):
        self.process, self._reader, self._writer = process, reader, writer
        self._number, self._session = 0, None
        self.log, self.requests = [], []
        target = self.call('Target.createTarget', url='about:blank')['targetId']
        attached = self.call('Target.attachToTarget', targetId=target, flatten=True)
        self._session = attached['sessionId']
        for domain in ('Page', 'Runtime', 'Network', 'DOM', 'Log', 'Accessibility'):
            self.call(f'{domain}.enable')
        self.resize(width)
        self.call('Page.navigate', url=url)

    def call(self, method: str, **params):
        """Sends a command, and waits for its result."""
        self._number += 1
        message = {'id': self._number, 'method': method, 'params': params}
        if self._session:
            message['sessionId'] = self._session
        self._writer.write(json.dumps(message).encode() + b'\0')
        self._writer.flush()
        while (answer := self._read()).get('id') != self._number:
            pass
        assert 'error' not in answer, (method, answer['error'])
        return answer['result']

    def run(self, script: str):
        """The value of an expression, or of the promise that it is."""
        found = self.call(
            'Runtime.evaluate', expression=script, awaitPromise=True, returnByValue=True
        )
        assert 'exceptionDetails' not in found, found['exceptionDetails']
        return found['result'].get('value')

    def wait(self, script: str, seconds: float = 120):
        """Waits until an expression is true, and returns it."""
        end = time.monotonic() + seconds
        while not (value := self.run(script)):
            assert time.monotonic() < end, (script, self.text(), self.log)
            time.sleep(0.05)
        return value

    def text(self) -> str:
        return self.run('document.body.innerText')

    def choose(self, selector: str, *paths: Path) -> None:
        """Gives files to an input."""
        # By the object: numbers of nodes are void whenever the page is built anew.
        expression = f'document.querySelector({json.dumps(selector)})'
        found = self.call('Runtime.evaluate', expression=expression)['result']['objectId']
        self.call('DOM.setFileInputFiles', files=[str(path) for path in paths], objectId=found)

    def press(self, key: str, code: int = 0, text: str = '') -> None:
        for kind in ('keyDown', 'keyUp'):
            self.call(
                'Input.dispatchKeyEvent', type=kind, key=key, windowsVirtualKeyCode=code, text=text
            )

    def resize(self, width: int, height: int = 900) -> None:
        size = {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 500}
        self.call('Emulation.setDeviceMetricsOverride', **size)

    def screenshot(self, path: Path) -> None:
        found = self.call('Page.captureScreenshot', captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found['data']))

    def _read(self) -> dict:
        content = bytearray()
        while (byte := self._reader.read(1)) != b'\0':
            assert byte, 'Chromium has ended'
            content += byte
        message = json.loads(content)
        params = message.get('params', {})
        if message.get('method') == 'Network.requestWillBeSent':
            self.requests.append(params['request']['url'])
        elif message.get('method') in ('Runtime.consoleAPICalled', 'Log.entryAdded'):
            self.log.append(str(params.get('args') or params.get('entry')))
        elif message.get('method') == 'Runtime.exceptionThrown':
            self.log.append(str(params['exceptionDetails']))
        return message


@contextlib.contextmanager
def open_page(url: str, profile: Path, width: int = 1400, flags: str = '--disable-gpu'):
    """A page in a Chromium of its own, which keeps its files in the folder `profile`."""
    to_read, write = os.pipe()
    read, to_write = os.pipe()
    command = (
        f'exec "$0" {_FLAGS} {flags} --user-data-dir="$1" about:blank 3<&{to_read} 4>&{to_write}'
    )
    process = subprocess.Popen(
        ['bash', '-c', command, CHROMIUM, str(profile)],
        pass_fds=(to_read, to_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(to_read)
    os.close(to_write)
    try:
        with open(read, 'rb') as reader, open(write, 'wb') as writer:  # noqa: PTH123
            yield Page(process, reader, writer, url, width)
            with contextlib.suppress(OSError):
                writer.write(b'{"id": 0, "method": "Browser.close"}\0')
                writer.flush()
    finally:
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def serve(folder: Path, headers: dict[str, str] | None = None):
    """Yields the address at which a folder is served, as `python -m http.server` does."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def end_headers(self):
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(
        ('127.0.0.1', 0), functools.partial(Handler, directory=folder)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f'http://127.0.0.1:{server.server_port}/'
    finally:
        server.shutdown()
        server.server_close()
