"""MovieLens-100K, fetched once, checked and kept: the demo's public data set."""

import hashlib
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from recommenders.datasets import DataUnavailable

_WHEEL = "recbole-1.2.1-py3-none-any.whl"
_WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
_MEMBER = "recbole/dataset_example/ml-100k/ml-100k.inter"
_MEMBER_SHA256 = "4edb74e2a81178c2ba9ff381495f754f996c4aea351b1272ca36b43da0935eff"
_MEMBER_BYTES = 1_979_230
_DOWNLOAD_SECONDS = 180


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/coterie`, or `~/.cache/coterie`."""
    configured = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says to ignore a relative path.
    base = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    return base / "coterie"


def movielens_100k(cache: Path | None = None) -> DataFrame:
    """MovieLens-100K: 100,000 ratings of 943 users for 1,682 films (Harper and Konstan 2015).

    Its licence doesn't allow passing it on, so it is taken from the `recbole` wheel, which carries
    it as an example. Wheel and file are both checked against pinned SHA-256 sums; nothing of the
    wheel is installed or run.

    Args:
        cache: folder to keep the file in; default `cache_folder()`.

    Returns:
        Columns user, item (int64), value, time (float64; seconds since 1970).

    Raises:
        DataUnavailable: no network, no pip, or something other than the pinned file was served.
    """
    kept = (cache_folder() if cache is None else cache) / "ml-100k.inter"
    content = _read_if_pinned(kept)
    if content is None:
        content = _fetch_movielens()
        try:
            _write_atomically(kept, content)
        except OSError as error:
            raise DataUnavailable(
                f"{kept.parent}: the download can't be kept there ({error.strerror}); free the "
                "space, or set XDG_CACHE_HOME to a folder you may write to"
            ) from None
    table = pd.read_csv(io.BytesIO(content), sep="\t", header=0)
    table.columns = pd.Index(["user", "item", "value", "time"])
    return table.astype({"user": "int64", "item": "int64", "value": "float64", "time": "float64"})


def _fetch_movielens() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        wheel = _download_wheel(Path(folder))
        if _sha256(wheel) != _WHEEL_SHA256:
            raise DataUnavailable(f"{_WHEEL} has another SHA-256 than the pinned one; not used")
        with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
            if archive.getinfo(_MEMBER).file_size != _MEMBER_BYTES:
                raise DataUnavailable(f"{_MEMBER} has another size than the pinned file; not used")
            content = archive.read(_MEMBER)
    if _sha256(content) != _MEMBER_SHA256:
        raise DataUnavailable(f"{_MEMBER} has another SHA-256 than the pinned one; not used")
    return content


def _download_wheel(folder: Path) -> bytes:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-input"]
    command += ["--only-binary=:all:", "--disable-pip-version-check", "--dest", str(folder)]
    hint = (
        "MovieLens-100K comes from the package index, which can't be reached: connect once (the "
        "file is then kept), or pass your own interactions with --data PATH"
    )
    try:
        subprocess.run(
            [*command, "recbole==1.2.1"], check=True, capture_output=True, timeout=_DOWNLOAD_SECONDS
        )
        return (folder / _WHEEL).read_bytes()
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no output"]
        raise DataUnavailable(f"{hint}. pip said: {lines[-1][:300]}") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DataUnavailable(f"{hint}. ({type(error).__name__})") from None


def _read_if_pinned(path: Path) -> bytes | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return content if _sha256(content) == _MEMBER_SHA256 else None


def _write_atomically(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
