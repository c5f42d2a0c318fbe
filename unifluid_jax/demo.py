"""A web page on which a trained model draws, edits, captions and answers.

  pip install -e '.[demo]'
  python -m unifluid_jax.demo --workdir=runs/quickstart

The page is for this machine alone, on http://127.0.0.1:7860 unless `--port`
says otherwise; `--host=0.0.0.0` opens it to others. Samplers are set as the
run's config says. Of an image of another size than the model's, the central
square is taken and resized.
"""

import functools
import importlib
import pathlib
import threading
from collections.abc import Callable
from typing import Any

from absl import flags, logging

from unifluid_jax import cli, inference
from unifluid_jax.data import images
from unifluid_jax.data.example import Image
from unifluid_jax.errors import UserError

File = str | None

_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the run.')
_HOST = flags.DEFINE_string(
  'host', '127.0.0.1', 'Address that the page is served at.'
)
_PORT = flags.DEFINE_integer(
  'port', 7860, 'Port of the page.', lower_bound=1, upper_bound=2**16 - 1
)
_TENSOR = flags.DEFINE_integer(
  'tensor', 1, inference.TENSOR_HELP, lower_bound=1
)


def main() -> None:
  """Serves the page until it is interrupted."""
  gradio = _gradio()
  model = inference.load(cli.require(_WORKDIR), _TENSOR.value)
  page = make_page(model, gradio)
  try:
    _, address, _ = page.launch(
      server_name=_HOST.value,
      server_port=_PORT.value,
      share=False,
      quiet=True,
      prevent_thread_lock=True,
    )
  except OSError as error:
    raise UserError(
      f'--host={_HOST.value} --port={_PORT.value} cannot be served; another '
      'program may be there: choose another port'
    ) from error
  logging.info('the page is at %s; Ctrl-C ends it', address)
  try:
    threading.Event().wait()
  finally:
    page.close(verbose=False)


def _gradio() -> Any:
  """Gradio, which only this page needs."""
  try:
    return importlib.import_module('gradio')
  except ImportError as error:
    raise UserError(
      "the page needs Gradio: pip install 'unifluid_jax[demo]'"
    ) from error


def make_page(model: inference.Model, gradio: Any) -> Any:
  """The page, a `gradio.Blocks` with a tab for each task.

  Args:
    model: The trained model.
    gradio: The module.
  """
  size = model.experiment.data.image_size
  # The tabs are queues of their own, the accelerator is one.
  lock = threading.Lock()

  def generate(prompt: str, samples: int, seed: int | None) -> list[Image]:
    drawn = model.generate([prompt], samples=samples, seed=seed or 0)
    return list(drawn.images)

  def edit(image: File, instruction: str, seed: int | None) -> Image:
    edited = model.edit([read(image)], [instruction], seed=seed or 0)
    return edited.images[0]

  def caption(image: File) -> str:
    return model.caption([read(image)])[0]

  def answer(image: File, question: str) -> str:
    return model.answer([read(image)], [question])[0]

  def read(image: File) -> Image:
    if image is None:
      raise UserError('there is no image yet; choose one')
    data = pathlib.Path(image).read_bytes()
    return images.fit(images.decode(data, 'the file'), size)

  def tab(task: Callable, reads: list[Any], writes: Any) -> Any:
    @functools.wraps(task)
    def run(*values: Any) -> Any:
      try:
        with lock:
          return task(*values)
      except UserError as error:
        raise gradio.Error(str(error), print_exception=False) from error

    return gradio.Interface(
      run,
      reads,
      writes,
      flagging_mode='never',
      analytics_enabled=False,
      api_name=task.__name__,
    )

  def image() -> Any:
    upload = gradio.Image(type='filepath', image_mode=None)
    # Its own way opens the file, and fails before `read` can tell why.
    upload.preprocess = lambda payload: payload and payload.path
    return upload

  # WebP, what Gradio would send, loses the edges of small drawings.
  written = functools.partial(gradio.Image, format='png')
  seed = functools.partial(
    gradio.Number, 0, label='seed', precision=0, minimum=0, maximum=2**32 - 1
  )
  samples = gradio.Slider(1, 16, 4, step=1, label='samples')
  gallery = gradio.Gallery(columns=4, format='png')
  tabs = {
    'Draw': tab(generate, ['text', samples, seed()], gallery),
    'Edit': tab(edit, [image(), 'text', seed()], written()),
    'Caption': tab(caption, [image()], 'text'),
    'Answer': tab(answer, [image(), 'text'], 'text'),
  }
  return gradio.TabbedInterface(
    list(tabs.values()), list(tabs), title='UniFluid', analytics_enabled=False
  )


if __name__ == '__main__':
  cli.run(main)
