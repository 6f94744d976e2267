"""The page of a set: films, plots and flags of its episodes, with check boxes. One HTML file without other files.

Names and instructions are escaped, and the page's policy permits no script but its own.
"""

import base64
import dataclasses
import hashlib
import html
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from m2distill_policy.utils.schema import with_schema
from m2distill_training.data.libero.reader import Demo
from m2distill_training.data.review.episodes import DemoSet, Episode
from m2distill_training.data.review.outliers import FROZEN_STEPS, Curves, curves_of, flags_of, flags_of_set
from m2distill_training.data.review.plots import plot
from m2distill_training.data.videos import Coding, VideoFiles
from m2distill_training.runs.records import write_atomic

FILM = Coding("h264", "yuv420p", ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "23", "-preset", "veryfast"))
FILM_PX = 256  # height of a film; smaller images are enlarged by repeating pixels
ACTIONS = ("x", "y", "z", "rotation x", "rotation y", "rotation z")
STYLE = """
:root{color-scheme:light dark;--fg:#1c2430;--dim:#5b6675;--line:#d8dee6;--bg:#fff;--warn:#9a3412}
@media(prefers-color-scheme:dark){:root{--fg:#e6e9ee;--dim:#a3adba;--line:#3a4350;--bg:#14181e;--warn:#fdba74}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:76rem;margin:1.5rem auto;
padding:0 1rem;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:0}h2{font-size:1.05rem;margin:0 0 .4rem}.note,label{color:var(--dim)}
.wide{overflow-x:auto}table{border-collapse:collapse}th,td{padding:.25rem .7rem;text-align:left;
border-bottom:1px solid var(--line)}td.n{text-align:right;font-variant-numeric:tabular-nums}
article{border-top:1px solid var(--line);padding:1rem 0}.row{display:flex;flex-wrap:wrap;gap:1rem}
video{width:24rem;max-width:100%;background:#000}.plots{flex:1;min-width:min(20rem,100%);display:grid;gap:.5rem;
grid-template-columns:repeat(auto-fit,minmax(min(18rem,100%),1fr))}
.flag{color:var(--warn)}.bar{position:sticky;top:0;background:var(--bg);padding:.6rem 0;z-index:1;
border-bottom:1px solid var(--line);display:flex;flex-wrap:wrap;gap:.8rem;align-items:center}
input[type=number]{width:5rem}.dropped h2{text-decoration:line-through}
.plot{width:100%;height:auto}.plot text{font-size:9px;fill:var(--dim)}.plot .title{fill:var(--fg)}
.plot .end{text-anchor:end}.plot .middle{text-anchor:middle}.plot polyline{fill:none;stroke-width:1}
.plot .axis{fill:none;stroke:var(--line)}.cursor{stroke:var(--fg);stroke-width:.7}.mark{fill:var(--warn)}
.c0{stroke:#0072b2}.c1{stroke:#d55e00}.c2{stroke:#009e73}.c3{stroke:#cc79a7}.c4{stroke:#e69f00}.c5{stroke:#56b4e9}
.c6{stroke:#8a6d3b}.c7{stroke:#777}
"""
SCRIPT = """
const articles = [...document.querySelectorAll('article')];
function choices() {
  const drop = [], keep = {};
  for (const a of articles) {
    if (a.querySelector('.drop').checked) { drop.push(a.dataset.name); continue; }
    const trim = a.querySelector('.trim');
    if (trim && trim.checked)
      keep[a.dataset.name] = [+a.querySelector('.first').value, +a.querySelector('.last').value];
  }
  return {...JSON.parse(document.body.dataset.record), drop, keep};
}
function count() {
  const {drop, keep} = choices();
  document.getElementById('count').textContent = `${drop.length} dropped, ${Object.keys(keep).length} trimmed`;
  for (const a of articles) a.classList.toggle('dropped', a.querySelector('.drop').checked);
}
document.getElementById('flagged').addEventListener('click', () => {
  for (const a of articles) if (a.querySelector('.flag')) a.querySelector('.drop').checked = true;
  count();
});
document.getElementById('clear').addEventListener('click', () => {
  for (const box of document.querySelectorAll('input[type=checkbox]')) box.checked = false;
  count();
});
document.getElementById('save').addEventListener('click', () => {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(choices(), null, 2) + '\\n'], {type: 'application/json'}));
  link.download = document.body.dataset.file;
  link.click();
});
document.addEventListener('change', count);
for (const a of articles) {
  const film = a.querySelector('video');
  if (film) film.addEventListener('timeupdate', () => {
    for (const line of a.querySelectorAll('.cursor')) {
      const [left, right] = [+line.dataset.left, +line.dataset.right];
      const x = left + (right - left) * film.currentTime / (film.duration || 1);
      line.setAttribute('x1', x); line.setAttribute('x2', x);
    }
  });
}
"""


def write_page(demos: DemoSet, out: Path, on_episode: Callable[[Episode], None] = lambda episode: None) -> list[str]:
    """Write the page of a set; return the names of the flagged episodes.

    Args:
        demos: the set.
        out: the page.
        on_episode: called with each episode after it was drawn.

    Raises:
        DataError: the set is damaged.
        RunError: the page cannot be written.
    """
    contents, fingerprint = demos.contents(), demos.fingerprint()
    flags: dict[str, list[str]] = {}
    drawn: dict[str, tuple[Episode, Curves | None, str]] = {}
    for episode in demos.episodes():
        curves = curves_of(episode)
        flags[episode.name] = [f"rejected: {episode.rejected}"] if episode.rejected else []
        flags[episode.name] += flags_of(curves) if curves is not None else []
        film = _film(episode.demo, episode.robot.rate_hz) if episode.demo is not None else ""
        without_images = dataclasses.replace(episode, demo=None)
        drawn[episode.name] = without_images, curves, film
        on_episode(episode)
    lengths = [(name, x.instruction, c.steps if c else None) for name, (x, c, _) in drawn.items()]
    for name, found in flags_of_set(demos, lengths).items():
        flags[name] += found
    articles = [_article(*drawn[name], flags[name]) for name in drawn]
    record = with_schema({"set": str(demos.path.absolute()), "fingerprint": fingerprint})
    title = f"{demos.name}: {len(contents)} episodes"
    script_hash = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script_hash}'"
    )
    write_atomic(
        out,
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            f'<title>{html.escape(title)}</title><link rel="icon" href="data:,"><style>{STYLE}</style></head>'
            f'<body data-record="{html.escape(json.dumps(record))}" data-file="{html.escape(demos.name)}_choices.json">'
            f"<h1>{html.escape(title)}</h1>{_head(demos, out, lengths)}{_flag_table(flags)}{_bar()}"
            f"{''.join(articles)}<script>{SCRIPT}</script></body></html>\n"
        ).encode(errors="replace"),
    )
    return [name for name, found in flags.items() if found]


def _head(demos: DemoSet, out: Path, lengths: list[tuple[str, str, int | None]]) -> str:
    steps = [n for _, _, n in lengths if n is not None]
    texts = list(dict.fromkeys(text for _, text, _ in lengths))
    spread = f"; {sum(steps)} steps, {min(steps)} to {max(steps)} each, median {np.median(steps):g}" if steps else ""
    lines = [
        f"{demos.kind}, {demos.path.absolute()}{spread}.",
        f"Instructions: {'; '.join(repr(text) for text in texts)}",
        "Check episodes to drop, or to trim to the given steps, and save the choices. The set itself is never changed: "
        f"m2distill data drop --choices {demos.name}_choices.json --out NEW writes a new one.",
    ]
    return "".join(f'<p class="note">{html.escape(line)}</p>' for line in lines)


def _flag_table(flags: dict[str, list[str]]) -> str:
    rows = [(name, text) for name, found in flags.items() for text in found]
    if not rows:
        return '<p class="note">No episode is flagged.</p>'
    cells = "".join(f"<tr><td>{html.escape(name)}</td><td>{html.escape(text)}</td></tr>" for name, text in rows)
    return f'<div class="wide"><table><tr><th>episode</th><th>flag</th></tr>{cells}</table></div>'


def _bar() -> str:
    return (
        '<div class="bar"><button id="save">save choices</button>'
        '<button id="flagged">check every flagged episode</button>'
        '<button id="clear">clear</button><span id="count">0 dropped, 0 trimmed</span></div>'
    )


def _article(episode: Episode, curves: Curves | None, film: str, flags: list[str]) -> str:
    name = html.escape(episode.name)
    boxes = '<label><input type="checkbox" class="drop"> drop</label>'
    if curves is not None:
        first, last = curves.busy()
        ends = "".join(
            f'<input type="number" class="{which}" min="0" max="{curves.steps - 1}" value="{value}" '
            f'aria-label="{which} step">'
            for which, value in (("first", first), ("last", last))
        )
        boxes += f' <label><input type="checkbox" class="trim"> keep the steps</label> {ends}'
    notes = f'<p class="note">{html.escape(episode.notes)}</p>' if episode.notes else ""
    plots = "" if curves is None else _plots(curves, episode.robot.joint_names)
    length = f"{curves.steps} steps" if curves is not None else "not imported"
    return (
        f'<article data-name="{name}"><h2>{name}: {html.escape(episode.instruction)} ({length})</h2><p>{boxes}</p>'
        f"{''.join(f'<p class=flag>{html.escape(flag)}</p>' for flag in flags)}{notes}"
        f'<div class="row">{film}<div class="plots">{plots}</div></div></article>'
    )


def _plots(curves: Curves, names: Sequence[str]) -> str:
    joints = [(name, curves.joint[:, i]) for i, name in enumerate(names)]
    actions = [(name, curves.action[:, i]) for i, name in enumerate(ACTIONS)]
    opening = np.abs(curves.gripper).sum(axis=1)
    gripper = [("opening", opening / max(float(opening.max()), 1e-9)), ("command", (1 - curves.action[:, 6]) / 2)]
    return (
        plot("joint positions", "rad", joints)
        + plot("motion commands", "share of full scale", actions)
        + plot("gripper opening and command", "share of the range", gripper)
        + plot(
            "joint movement per step, marks: repeated images",
            "rad",
            [("movement", curves.joint_step)],
            curves.frozen > FROZEN_STEPS,
        )
    )


def _film(demo: Demo, rate_hz: float) -> str:
    """Return both views side by side as a video."""
    views = []
    for images in demo.images.values():
        scale = max(1, round(FILM_PX / images.shape[1]))
        width, height = images.shape[2] * scale // 2 * 2, images.shape[1] * scale // 2 * 2
        views.append([cv2.resize(image, (width, height), interpolation=cv2.INTER_NEAREST) for image in images])
    height = max(view[0].shape[0] for view in views)
    padded = [
        np.stack([cv2.copyMakeBorder(x, 0, height - x.shape[0], 0, 0, cv2.BORDER_CONSTANT) for x in view])
        for view in views
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        files = VideoFiles(lambda number: path, FILM, round(rate_hz), 1 << 40)
        files.add(np.concatenate(padded, axis=2))
        files.close()
        data = base64.b64encode(path.read_bytes()).decode()
    return f'<video controls muted loop preload="metadata" src="data:video/mp4;base64,{data}"></video>'
