"""Makes the JSONL file that training reads, of a folder of images.

  python -m unifluid_jax.index photos

writes `photos/captions.jsonl`. Captions come from the first of these that there
is:

  --csv=FILE       a table with a column image or file_name and a column text or
                   caption; an image may have several rows
  metadata.csv or  the same in the folder, as Hugging Face's imagefolder has it
  metadata.jsonl
  fox.txt          beside fox.png: a caption on each line
  red_fox-03.png   'red fox', the name of the image itself

Images without a caption, and files that Pillow cannot read, are left out, and
counted in what is said at the end.
"""

from absl import flags, logging

from unifluid_jax.cli import entry_point
from unifluid_jax.data.sources.index import Index, check_out, make_index
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.paths import local_path

_FOLDER = flags.DEFINE_string(
  'folder', None, 'The images; --folder= may be left out.'
)
_OUT = flags.DEFINE_string(
  'out', None, 'The file to write; captions.jsonl in the folder by default.'
)
_CSV = flags.DEFINE_string('csv', None, 'A table of captions (CSV or JSONL).')
_FORCE = flags.DEFINE_bool('force', False, 'Replace a file that exists.')

_NAMED = 10
"""Images that are named for each reason why some are left out."""


def main() -> None:
  """Reads the flags and writes the file."""
  folder = local_path(entry_point.require(_FOLDER), f'--folder={_FOLDER.value}')
  table, out = None, folder / 'captions.jsonl'
  if _CSV.value is not None:
    table = local_path(_CSV.value, f'--csv={_CSV.value}')
  if _OUT.value is not None:
    out = local_path(_OUT.value, f'--out={_OUT.value}')
  check_out(out, folder, table, _FORCE.value)
  index = make_index(folder, table)
  _tell_left_out(index)
  if not index.texts:
    raise UserError(f'{folder} has no image with a text; nothing is written')
  try:
    index.write(out)
  except OSError as error:
    raise UserError(f'{out} cannot be written: {error.strerror}') from error
  texts = [text for own in index.texts.values() for text in own]
  logging.info(
    '%s: %d images, %d texts, %d of them different, from %s',
    out,
    len(index.texts),
    len(texts),
    len({*texts}),
    index.origin,
  )


def _tell_left_out(index: Index) -> None:
  for reason, images in index.left_out.items():
    more = len(images) - _NAMED
    logging.warning(
      'left out, %s: %d (%s%s)',
      reason,
      len(images),
      ', '.join(images[:_NAMED]),
      f' and {more} more' if more > 0 else '',
    )


if __name__ == '__main__':
  entry_point.run(main, argument='folder')
