"""Hook of mkdocs.yml: links from docs/ to other files of the repository become links to the hosted repository."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)#\s]+)")  # the relative path of [text](path#anchor)


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Return the page with every link to an existing file outside docs/, or to a folder, replaced by its URL."""
    folder = Path(page.file.abs_src_path).parent
    docs = Path(config.docs_dir)

    def replace(match: re.Match[str]) -> str:
        path = (folder / match[1]).resolve()
        page_of_site = path.is_relative_to(docs) and not path.is_dir()
        if page_of_site or not path.is_relative_to(ROOT) or not path.exists():
            return match[1]  # MkDocs resolves it, or reports it
        kind = "tree" if path.is_dir() else "blob"
        return f"{config.repo_url}/{kind}/main/{path.relative_to(ROOT).as_posix()}"

    return LINK.sub(replace, markdown)
