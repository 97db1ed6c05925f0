"""The Hugging Face hub: fetching what `pretrained` reads, and pushing what the export wrote."""

import re
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from cyclegan_jax.errors import UserError, describe

_REPO_ID = re.compile(r'[\w.-]+/[\w.-]+')


def is_repo_id(model: str) -> bool:
    """Whether `model` has the form user/name."""
    return _REPO_ID.fullmatch(model) is not None


def fetch(repo_id: str, one_of: tuple[str, ...], optional: tuple[str, ...]) -> Path:
    """Brings the first of `one_of` that a repository has, and what it has of `optional`, here.

    Returns:
      The folder in the local cache; what is there already is not fetched again.

    Raises:
      UserError: there is no such repository, it has none of these files, or it cannot be reached.
    """
    from huggingface_hub import constants, errors, hf_hub_download, logging

    logging.set_verbosity_error()  # what goes wrong is told below
    offline = _is_unknown_host(constants.ENDPOINT)

    def download(name: str) -> Path | None:
        nonlocal offline
        try:
            return Path(hf_hub_download(repo_id, name, local_files_only=offline))
        except errors.LocalEntryNotFoundError:
            offline = True  # from here on the cache alone: the hub's client tries for long
        except errors.EntryNotFoundError:
            pass
        return None

    try:
        first = next(filter(None, map(download, one_of)), None)
        if first is not None:
            for name in optional:
                download(name)
            return first.parent
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f'{repo_id} is neither a file or folder here nor a public repository of the Hugging '
            'Face hub (for a private one, run `hf auth login` first).'
        ) from error
    except _failures() as error:
        raise UserError(f'{repo_id} cannot be fetched: {describe(error)}') from error
    files = ' or '.join(one_of)
    if offline:
        raise UserError(
            f'{repo_id} is no file or folder here, and its {files} cannot be fetched from the '
            'Hugging Face hub: no connection, and no copy in the cache.'
        )
    raise UserError(f'the repository {repo_id} has no {files}.')


def _is_unknown_host(address: str) -> bool:
    """Whether there is plainly no way to an address: the hub's client would try for a minute."""
    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(address).hostname, 443)
    except OSError:
        return True
    return False


def _failures() -> tuple[type[Exception], ...]:
    """What the hub's client raises where it is refused, or finds no way.

    Among it all that its HTTP library raises, which is requests, httpx or httpx2 by its version,
    and of which not all is an OSError: the root of the client's own error tells which.
    """
    from huggingface_hub import errors

    lineage = errors.HfHubHTTPError.__mro__
    root = [base for base in lineage if base.__module__ != 'builtins'][-1]
    return root, errors.HfHubHTTPError, errors.HFValidationError, OSError


def push(folder: Path, repo_id: str, *, space: str | None = None) -> str:
    """Uploads a folder as a repository, made where missing; returns its address.

    Args:
      space: the folder is a page, 'static' or 'gradio', and the repository a Space; else a model.

    Raises:
      UserError: no connection, no token, or no right to write there.
    """
    from huggingface_hub import HfApi, get_token

    if not is_repo_id(repo_id):
        raise UserError(f'--push is {repo_id!r}; it must be user/name.')
    if not get_token():
        raise UserError(
            f'pushing to {repo_id} needs a token of the Hugging Face hub: run `hf auth login`, or '
            f'set HF_TOKEN. The export itself is complete, in {folder}.'
        )
    kind = {'repo_type': 'space'} if space else {}
    made_as = kind | {'space_sdk': space} if space else {}
    try:
        api = HfApi()
        address = api.create_repo(repo_id, exist_ok=True, **made_as)
        api.upload_folder(repo_id=repo_id, folder_path=folder, **kind)
    except _failures() as error:
        raise UserError(
            f'pushing to {repo_id} failed: {describe(error).rstrip(".")}. The export itself is '
            f'complete, in {folder}.'
        ) from error
    return str(address)
