"""The Hugging Face hub: what folders of a data set's repository hold, asked by the hub's own client.

The client is the extra `huggingface` and only lists; bytes come by `transfer`, checked against the listing's SHA-256.
`HF_ENDPOINT` names another hub.
"""

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

from infra.errors import UserError

HUB = "https://huggingface.co"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class HubFile(NamedTuple):
    """A file's url, its bytes, a token that changes with them, and their SHA-256 where the hub knows it."""

    url: str
    size: int
    token: str
    sha256: str


def hub_files(repository: str, folders: Iterable[str], *, token_env: str, access: str) -> Iterator[HubFile]:
    """Every file below these folders of a data set; a folder that is not there has none.

    Args:
        repository: owner/name.
        folders: paths in it.
        token_env: environment variable that holds the user's token.
        access: where to ask for access, shown to who is refused.

    Raises:
        UserError: the extra or the token is missing, the hub refuses it, or does not answer.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HTTPError
        from huggingface_hub.hf_api import RepoFile
    except ImportError as error:
        raise UserError(
            f"{repository} is listed by the client of the Hugging Face hub; pip install 'meddiff[huggingface]'"
        ) from error
    endpoint = _endpoint()
    api = HfApi(endpoint=endpoint, token=_token(repository, token_env, access))
    for folder in folders:
        try:
            for found in api.list_repo_tree(repository, folder, recursive=True, repo_type="dataset"):
                if isinstance(found, RepoFile):
                    url = hf_hub_url(repository, found.path, repo_type="dataset", endpoint=endpoint)
                    sha256 = found.lfs.sha256 if found.lfs else ""
                    yield HubFile(url, found.size, sha256 or found.blob_id, sha256)
        except EntryNotFoundError:
            continue
        except HfHubHTTPError as error:
            raise UserError(_refusal(repository, token_env, access, error.response.status_code)) from error
        except HTTPError as error:
            raise UserError(f"{endpoint} does not answer ({error}); check the network and run again") from error


def _endpoint() -> str:
    """The hub; refuses one that would show a token to the network."""
    endpoint = os.environ.get("HF_ENDPOINT", HUB).rstrip("/")
    parts = urlsplit(endpoint)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise UserError(f"HF_ENDPOINT {endpoint} would show your token to the network; use https")
    return endpoint


def _token(repository: str, token_env: str, access: str) -> str:
    token = os.environ.get(token_env, "").strip()
    if not token:
        raise UserError(f"{repository} needs a token: set {token_env} in the environment; {access}")
    return token


def _refusal(repository: str, token_env: str, access: str, status: int) -> str:
    if status in (401, 403, 404):
        return f"{repository} answers {status}: the token in {token_env} is not allowed it; {access}"
    return f"{repository} answers {status}; run again later"
