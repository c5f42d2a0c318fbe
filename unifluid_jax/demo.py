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
import os
import pathlib
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable
from typing import Any

from absl import flags, logging

from unifluid_jax import inference
from unifluid_jax.cli import entry_point
from unifluid_jax.data import images
from unifluid_jax.data.example import Image
from unifluid_jax.distributed.interruption import Interrupted, stop_at_once
from unifluid_jax.page import fields, uploads
from unifluid_jax.page.guard import Guard
from unifluid_jax.page.turns import Turns
from unifluid_jax.utils.errors import UserError
from unifluid_jax.utils.process_exit import leave

_MOST_SAMPLES = 16
_LARGEST_SEED = 2**32 - 1

# Requests of a tab that wait for the model, and of each tab that wait for that.
_AT_ONCE, _MOST_WAITING = 8, 32

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
  serve(
    inference.load(entry_point.require(_WORKDIR), _TENSOR.value),
    gradio,
    _HOST.value,
    _PORT.value,
  )


def serve(model: inference.Model, gradio: Any, host: str, port: int) -> None:
  """Serves the page until Ctrl-C or SIGTERM, which ends the process at once.

  Args:
    model: The trained model.
    gradio: The module.
    host: Address that the page is served at.
    port: Its port.

  Raises:
    UserError: It cannot be served there.
  """
  stop_at_once()
  # A folder of this page alone, which Gradio would share with other programs.
  with tempfile.TemporaryDirectory(prefix='unifluid_page_') as uploaded:
    os.environ['GRADIO_TEMP_DIR'] = uploaded
    try:
      address = launch(make_page(model, gradio), host, port)
      logging.info('the page is at %s; press Ctrl-C to stop', address)
      threading.Event().wait()
    except (KeyboardInterrupt, Interrupted) as error:
      # Python would wait for the thread that draws.
      shutil.rmtree(uploaded, ignore_errors=True)
      number = getattr(error, 'number', signal.SIGINT)
      leave(128 + number)


def launch(page: Any, host: str, port: int) -> str:
  """Starts to serve a page; gives its address.

  Raises:
    UserError: It cannot be served there.
  """
  # Come with Gradio.
  from gradio.route_utils import FnIndexInferError
  from starlette.middleware import Middleware

  wrong = (
    FnIndexInferError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
  )
  queue = page.queue(max_size=_MOST_WAITING, api_open=False)
  try:
    _, address, _ = queue.launch(
      server_name=host,
      server_port=port,
      share=False,
      quiet=True,
      prevent_thread_lock=True,
      max_file_size=uploads.MOST_BYTES,
      app_kwargs={'middleware': [Middleware(Guard, errors=wrong)]},
    )
  except OSError as error:
    raise UserError(
      f'--host={host} --port={port} cannot be served; another '
      'program may be there: choose another port'
    ) from error
  return str(address)


def _gradio() -> Any:
  """Gradio, which only this page needs."""
  try:
    return importlib.import_module('gradio')
  except ImportError as error:
    raise UserError(
      "the page needs Gradio: pip install 'unifluid_jax[demo]'"
    ) from error


def make_page(
  model: inference.Model, gradio: Any, patience: float = 30.0
) -> Any:
  """The page, a `gradio.Blocks` with a tab for each task.

  Args:
    model: The trained model.
    gradio: The module.
    patience: Seconds that a request waits for another to end.
  """
  turns = Turns(
    patience, functools.partial(gradio.Info, title='Please wait', duration=None)
  )
  form = _Form(gradio)

  def tab(task: Callable, reads: list[Any], writes: Any) -> Any:
    @functools.wraps(task)
    def run(*values: Any) -> Any:
      try:
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
      # Waiting is for `turns`, which ends it.
      concurrency_limit=_AT_ONCE,
    )

  generate, edit, caption, answer = _tasks(model, turns)
  # WebP, what Gradio would send, loses the edges of small drawings.
  gallery = gradio.Gallery(columns=4, format='png', label='Drawings')
  edited = gradio.Image(format='png', label='Edited image')
  prompt = form.text('prompt', 'What to draw, in the words of the training.')
  draw = [prompt, form.samples(), form.seed()]
  change = form.text('instruction', 'What to change in the image.')
  change_to = [form.image(), change, form.seed()]
  ask = [form.image(), form.text('question', 'About the image.')]
  tabs = {
    'Draw': tab(generate, draw, gallery),
    'Edit': tab(edit, change_to, edited),
    'Caption': tab(caption, [form.image()], gradio.Textbox(label='Caption')),
    'Answer': tab(answer, ask, gradio.Textbox(label='Answer')),
  }
  page = gradio.TabbedInterface(
    list(tabs.values()), list(tabs), title='UniFluid', analytics_enabled=False
  )
  fields.guard(page, form.checks, gradio)
  return page


def _tasks(model: inference.Model, turns: Turns) -> tuple[Callable, ...]:
  """What the tabs do; Gradio takes names of the API from the functions."""
  data = model.experiment.data
  least = max(data.image_size, model.experiment.model.encoder.image_size)

  def read(image: str) -> Image:
    content = uploads.read(pathlib.Path(image))
    return images.decode(content, 'the file', least, data.max_pixels)

  def generate(prompt: str, samples: int, seed: int) -> list[Image]:
    with turns.take(('generate', samples)):
      drawn = model.generate([prompt], samples=samples, seed=seed)
    return list(drawn.images)

  def edit(image: str, instruction: str, seed: int) -> Image:
    source = read(image)
    with turns.take('edit'):
      return model.edit([source], [instruction], seed=seed).images[0]

  def caption(image: str) -> str:
    picture = read(image)
    with turns.take('caption'):
      return model.caption([picture])[0]

  def answer(image: str, question: str) -> str:
    picture = read(image)
    with turns.take('answer'):
      return model.answer([picture], [question])[0]

  return generate, edit, caption, answer


class _Form:
  """Makes the fields of the page.

  Attributes:
    checks: For each field, the check of its values.
  """

  def __init__(self, gradio: Any):
    self._gradio = gradio
    self.checks: dict[Any, fields.Check] = {}

  def text(self, name: str, info: str) -> Any:
    """A field for a text."""
    box = self._gradio.Textbox(label=name.capitalize(), info=info)
    return self._checked(box, fields.text(name))

  def samples(self) -> Any:
    """A field for the number of drawings."""
    slider = self._gradio.Slider(
      1, _MOST_SAMPLES, 4, step=1, label='Samples', info='Drawings to make.'
    )
    return self._checked(slider, fields.integer('samples', 1, _MOST_SAMPLES))

  def seed(self) -> Any:
    """A field for the seed."""
    number = self._gradio.Number(
      0,
      label='Seed',
      info='The same seed gives the same result.',
      precision=0,
      minimum=0,
      maximum=_LARGEST_SEED,
    )
    return self._checked(number, fields.integer('seed', 0, _LARGEST_SEED))

  def image(self) -> Any:
    """A field for an upload, which gives its path."""
    upload = self._gradio.Image(
      type='filepath', image_mode=None, label='Image to read'
    )
    # Gradio's own preprocessing opens the file and fails before `read`.
    upload.preprocess = lambda payload: payload.path
    folder = pathlib.Path(self._gradio.utils.get_upload_folder())
    return self._checked(upload, fields.upload(folder))

  def _checked(self, component: Any, check: fields.Check) -> Any:
    self.checks[component] = check
    return component


if __name__ == '__main__':
  entry_point.run(main)
