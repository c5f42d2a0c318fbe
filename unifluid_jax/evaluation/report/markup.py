"""Pieces of HTML: pictures, cards, tables, sections. Texts are escaped."""

import base64
import html
import io
from collections.abc import Iterable, Sequence

import PIL.Image

from unifluid_jax.data.example import Image


def tile(pixels: Image, label: str = '', right: bool | None = None) -> str:
  """A picture, with a label and possibly a mark beneath."""
  buffer = io.BytesIO()
  PIL.Image.fromarray(pixels).save(buffer, 'PNG', optimize=True)
  data = base64.b64encode(buffer.getvalue()).decode('ascii')
  text = html.escape(label)
  side = len(pixels)
  image = (
    f'<img src="data:image/png;base64,{data}" alt="{text}" '
    f'width="{side}" height="{side}">'
  )
  beneath = f'{mark(right)} {text}'.strip()
  return f'<span class="tile">{image}<small>{beneath}</small></span>'


def mark(right: bool | None) -> str:
  """Returns a tick or a cross; nothing for None."""
  if right is None:
    return ''
  if right:
    return '<span class="right" title="right">\u2713</span>'
  return '<span class="wrong" title="wrong">\u2717</span>'


def card(
  tiles: Sequence[str],
  *lines: str,
  above: str = '',
  right: bool | None = None,
) -> str:
  """Images side by side, with lines of text beneath.

  Args:
    tiles: Images, see `tile`.
    lines: Plain texts; the first stands out.
    above: A plain text above them.
    right: Whether to mark them as right or wrong; None for neither.
  """
  first, *rest = map(html.escape, lines)
  header = f'{html.escape(above)}<br>' if above else ''
  more = f'<small>{"<br>".join(rest)}</small>' if rest else ''
  return (
    f'<figure style="--tiles:{len(tiles)}">'
    f'<div class="tiles">{"".join(tiles)}</div>'
    f'<figcaption>{header}{mark(right)} <b>{first}</b>{more}</figcaption>'
    '</figure>'
  )


def cards(items: Iterable[str]) -> str:
  """Cards side by side, as many as there is room for."""
  return f'<div class="cards">{"".join(items)}</div>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """A table; the first column names the row. Cells are HTML already.

  Cells carry the title of their column, for narrow screens without a head.
  """
  top = ''.join(f'<th scope="col">{title}</th>' for title in head)
  body = ''.join(
    f'<tr><th scope="row">{first}</th>'
    + ''.join(
      f'<td data-title="{title}">{cell}</td>'
      for title, cell in zip(head[1:], rest, strict=True)
    )
    + '</tr>'
    for first, *rest in rows
  )
  return f'<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'


def heading(text: str) -> str:
  """The title of a part of a section."""
  return f'<h3>{html.escape(text)}</h3>'


def paragraph(text: str) -> str:
  """A paragraph of plain text."""
  return f'<p>{html.escape(text)}</p>'


def section(title: str, *parts: str) -> str:
  """A section of the page. Parts are HTML already."""
  return f'<section><h2>{html.escape(title)}</h2>{"".join(parts)}</section>'
