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
    except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
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


def push(folder: Path, repo_id: str) -> str:
    """Uploads a folder as a model repository, made where missing; returns its address.

    Raises:
      UserError: no connection, no token, or no right to write there.
    """
    from huggingface_hub import HfApi, errors, get_token

    if not is_repo_id(repo_id):
        raise UserError(f'--push is {repo_id!r}; it must be user/name.')
    if not get_token():
        raise UserError(
            f'pushing to {repo_id} needs a token of the Hugging Face hub: run `hf auth login`, or '
            f'set HF_TOKEN. The export itself is complete, in {folder}.'
        )
    try:
        api = HfApi()
        address = api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder)
    except (errors.HfHubHTTPError, errors.OfflineModeIsEnabled, OSError) as error:
        raise UserError(
            f'pushing to {repo_id} failed: {describe(error)} The export itself is complete, in '
            f'{folder}.'
        ) from error
    return str(address)
