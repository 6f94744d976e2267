"""What tests read of a report: the cells and addresses of its page, its layout in a browser, the texts of a figure."""

import html.parser
import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox


class Reader(html.parser.HTMLParser):
    """The text of every table cell, row by row, and every address that the page refers to."""

    def __init__(self, page: str):
        super().__init__()
        self.rows, self.addresses, self.cell = [], [], None
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href")]
        if tag == "tr":
            self.rows.append([])
        self.cell = tag in ("td", "th")

    def handle_endtag(self, tag):
        self.cell = False

    def handle_data(self, data):
        if self.cell:
            self.rows[-1].append(data)


PROBE = """<script>
addEventListener('load', () => {
  const boxes = [...document.querySelectorAll('img,table,video,h2')].map(e => {
    const b = e.getBoundingClientRect();
    return [e.tagName, b.width, b.height, e.tagName != 'IMG' || e.naturalWidth > 0, b.right];
  });
  const pre = document.createElement('pre');
  pre.id = 'probe';
  const links = [...document.querySelectorAll('a')].map(a => a.getAttribute('href'));
  const missing = links.filter(href => !document.querySelector(href));
  pre.textContent = JSON.stringify({links: links.length, missing, boxes,
    page: document.documentElement.scrollWidth, window: innerWidth});
  document.body.append(pre);
});
</script></body>"""
FRAME = """<!doctype html><iframe style="width:{width}px;height:900px;border:0" srcdoc="{page}"></iframe><script>
addEventListener("load", () => {{
  const frame = document.querySelector("iframe");
  document.body.append(document.importNode(frame.contentDocument.getElementById("probe"), true));
  frame.remove();
}});
</script>"""


def drawn_texts(figure) -> list[tuple[str, Bbox]]:
    """Return every text that is drawn, with its place in pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    found = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for axes in (axes for axes in figure.axes if axes.get_visible()):
        found += [axes.title, axes.xaxis.label, axes.yaxis.label, axes.xaxis.offsetText, axes.yaxis.offsetText]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            found += [tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
    shown = [text for text in found if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in shown]


def assert_legible(figure) -> None:
    """Check that no text is cut at the edge of the figure or lies over another one."""
    texts, edge = drawn_texts(figure), figure.bbox
    for text, box in texts:
        inside = edge.x0 - 1 <= box.x0 and box.x1 <= edge.x1 + 1 and edge.y0 - 1 <= box.y0 and box.y1 <= edge.y1 + 1
        assert inside, (text, box, edge)
    for (one, a), (other, b) in itertools.combinations(texts, 2):
        across, along = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert across < 1 or along < 1, (one, other)
