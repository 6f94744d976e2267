"""Sources of 3-D assets, and the cache folder of this package.

An assets folder has LIBERO's layout: scenes/, textures/, stable_hope_objects/, stable_scanned_objects/, ... Without a
choice by the caller, the first of these is used: $M2DISTILL_ASSETS, the assets folder of the installed `libero`
package, the built-in set. The Hugging Face hub is contacted only if it is named.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from m2distill_policy.errors import AssetError
from m2distill_policy.utils.files import publish_folder
from m2distill_sim.builtin import builtin_files

LAYOUT = ("scenes", "textures", "stable_hope_objects", "stable_scanned_objects")  # folders that every suite needs
LIBERO = "libero"  # label of folders with LIBERO's layout, independent of their content


@dataclass(frozen=True)
class AssetSource:
    """A checked assets folder. `label` is "builtin-<hash>" or "libero"; datasets store the `identity`."""

    kind: str  # "path", "installed", "hub" or "builtin"
    path: Path
    label: str

    @property
    def is_builtin(self) -> bool:
        return self.kind == "builtin"

    def identity(self) -> str:
        """Return a name of the assets' content that does not depend on their location.

        It is the label, with a digest of all files for LIBERO's layout (50 MB in less than 1 s).

        Raises:
            AssetError: a file cannot be read.
        """
        if self.label != LIBERO:
            return self.label
        digest = hashlib.sha256()
        try:
            for path in sorted(
                Path(folder, name) for folder, _, names in os.walk(self.path, followlinks=True) for name in names
            ):
                digest.update(hashlib.sha256(os.fsencode(path.relative_to(self.path))).digest())
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise AssetError(
                f'assets folder {self.path} cannot be read ({error}); copy LIBERO\'s assets whole, or use "builtin"'
            ) from error
        return f"{self.label}-{digest.hexdigest()[:12]}"


def find_assets(kind_or_path: str | Path | None = None) -> AssetSource:
    """Find the assets to use.

    Args:
        kind_or_path: "installed", "hub", "builtin", a folder, or None for the first available.

    Raises:
        AssetError: the requested assets are missing or incomplete. Only None falls back to the built-in set.
    """
    if kind_or_path is None:
        kind_or_path = os.environ.get("M2DISTILL_ASSETS") or ("installed" if _installed_folder() else "builtin")
    if kind_or_path == "builtin":
        return _builtin()
    if kind_or_path == "hub":
        return _folder("hub", _download())
    if kind_or_path == "installed":
        folder = _installed_folder()
        if folder is None:
            raise AssetError(
                'LIBERO\'s assets are not installed; use "hub" to download them, a folder with them, or "builtin"'
            )
        return _folder("installed", folder)
    return _folder("path", Path(kind_or_path).expanduser().absolute())


def cache_folder() -> Path:
    """Return $XDG_CACHE_HOME/m2distill, or ~/.cache/m2distill."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "m2distill"


def libero_package() -> Path:
    """Return the folder of the inner `libero.libero` package without importing it: the import reads stdin."""
    spec = importlib.util.find_spec("libero")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        folder = Path(place) / "libero"
        if (folder / "bddl_files").is_dir():
            return folder
    raise AssetError("the package `libero` is not installed; run `make setup`, or pip install hf-libero")


def write_folder(folder: Path, files: dict[str, bytes]) -> None:
    """Write `files` as `folder`, complete or not at all; a folder that another process created is kept."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        for name, content in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        temporary.chmod(0o755)
        publish_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _builtin() -> AssetSource:
    files = builtin_files()
    digest = hashlib.sha256(b"".join(name.encode() + content for name, content in sorted(files.items()))).hexdigest()
    label = f"builtin-{digest[:12]}"
    folder = cache_folder() / "assets" / label
    if not folder.is_dir():
        try:
            write_folder(folder, files)
        except OSError as error:
            raise AssetError(
                f"the built-in assets cannot be written to {folder.parent} ({error.strerror}); make room, or set "
                "XDG_CACHE_HOME to a folder that can be written"
            ) from None
    return AssetSource("builtin", folder, label)


def _folder(kind: str, path: Path) -> AssetSource:
    if not path.is_dir():
        raise AssetError(
            f'assets folder {path} does not exist; give the folder that contains scenes/ and textures/, or "builtin"'
        )
    missing = [name for name in LAYOUT if not (path / name).is_dir()]
    if missing:
        raise AssetError(
            f"assets folder {path} is incomplete: no {', '.join(missing)}; copy LIBERO's assets whole, "
            f'or use "builtin"'
        )
    return AssetSource(kind, path, LIBERO)


def _installed_folder() -> Path | None:
    folder = libero_package() / "assets"
    return folder if folder.is_dir() else None


def _download() -> Path:
    """Download LIBERO's assets from the Hugging Face hub into the hub's own cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download("lerobot/libero-assets", repo_type="dataset"))
    except Exception as error:  # the hub's errors have no common base class
        raise AssetError(
            f"LIBERO's assets could not be downloaded ({str(error).partition(chr(10))[0]}); "
            f'give a folder, or use "builtin"'
        ) from error
