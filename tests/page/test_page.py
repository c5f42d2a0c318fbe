"""The page over HTTP, with a model that draws at once."""

import concurrent.futures
import io
import json
import os
import pathlib
import signal
import sys

import gradio
import httpx
import numpy as np
import PIL.Image
import pytest

from tests import process
from tests.page.fake import SIZE, FakeModel
from unifluid_jax import demo
from unifluid_jax.page import uploads
from unifluid_jax.page.guard import MOST_BYTES

SEED = 'seed is not an integer from 0 to 4294967295'
SAMPLES = 'samples is not an integer from 1 to 16'
NOT_UPLOADED = 'the image is not an uploaded file; upload it first'


class Site:
  """A page that is served, and its visitor."""

  def __init__(self, address: str, model: FakeModel, folder: pathlib.Path):
    self.model, self.folder = model, folder
    self.http = httpx.Client(base_url=f'{address}gradio_api', timeout=60)

  def call(self, task: str, *values: object) -> tuple[str, object]:
    """The event that a request ends with, and its data."""
    # Not httpx's own JSON, which refuses NaN.
    body = json.dumps({'data': values})
    headers = {'content-type': 'application/json'}
    sent = self.http.post(f'/call/{task}', content=body, headers=headers)
    sent.raise_for_status()
    event = sent.json()['event_id']
    lines = self.http.get(f'/call/{task}/{event}').text.strip().splitlines()
    name, data = lines[-2:]
    return name.removeprefix('event: '), json.loads(data.removeprefix('data: '))

  def refuse(self, task: str, *values: object) -> str:
    """The message that a request ends with."""
    name, data = self.call(task, *values)
    assert name == 'error', data
    return data['error'] if isinstance(data, dict) else data

  def upload(self, content: bytes, name: str = 'x.png') -> dict:
    """Uploads a file: the value that stands for it."""
    sent = self.http.post('/upload', files={'files': (name, content)})
    sent.raise_for_status()
    return as_file(sent.json()[0])


def as_file(path: object, **more: object) -> dict:
  return {'path': str(path), 'meta': {'_type': 'gradio.FileData'}} | more


def png(size: tuple[int, int] = (SIZE, SIZE), gray: int = 7) -> bytes:
  data = io.BytesIO()
  PIL.Image.new('L', size, gray).save(data, 'PNG')
  return data.getvalue()


@pytest.fixture(scope='module')
def served(tmp_path_factory):
  folder = tmp_path_factory.mktemp('uploads')
  model = FakeModel()
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('GRADIO_TEMP_DIR', str(folder))
    page = demo.make_page(model, gradio, patience=0.5)
    address = demo.launch(page, '127.0.0.1', process.free_port())
    yield Site(address, model, folder)
    model.go.set()
    page.close(verbose=False)


@pytest.fixture
def site(served, capfd):
  """The page, whose server must print no traceback."""
  served.model.seen.clear()
  yield served
  told = capfd.readouterr()
  assert 'Traceback' not in told.err + told.out


def test_each_task(site):
  image = site.upload(png())
  name, (drawings,) = site.call('generate', 'fox', 2, 3.0)
  assert (name, len(drawings)) == ('complete', 2)
  pixels = np.asarray(PIL.Image.open(drawings[0]['image']['path']))
  assert (pixels == 3).all()
  name, (edited,) = site.call('edit', image, 'flip', 5)
  assert np.asarray(PIL.Image.open(edited['path'])).max() == 7
  assert site.call('caption', image) == ('complete', ['mean 7'])
  assert site.call('answer', image, 'what?') == ('complete', ['what? 7'])
  assert site.model.seen[0] == (['fox'], 2, 3)


@pytest.mark.parametrize('seed', [0, 2**32 - 1])
def test_seeds_at_the_ends(site, seed):
  assert site.call('generate', 'fox', 16, seed)[0] == 'complete'
  assert site.model.seen == [(['fox'], 16, seed)]


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ((), 'the request has 0 values; this task takes 3'),
    (('fox',), 'the request has 1 values; this task takes 3'),
    (('fox', 1, 0, 0), 'the request has 4 values; this task takes 3'),
    (('', 1, 0), 'the prompt is empty'),
    ((' \n', 1, 0), 'the prompt is empty'),
    ((None, 1, 0), 'the prompt is empty'),
    ((5, 1, 0), 'the prompt is empty'),
    ((['fox'], 1, 0), 'the prompt is empty'),
    ((as_file('/etc/hostname'), 1, 0), 'the prompt is empty'),
    (('fox ' * 10**5, 1, 0), 'the prompt has 400,000 characters'),
    (('\ud83e', 1, 0), 'the prompt is not valid Unicode'),
    *(
      (('fox', 1, seed), SEED)
      for seed in (-1, 2**32, 0.5, '3', None, True, [1], {}, 1e300)
    ),
    *((('fox', 1, float(seed)), SEED) for seed in ('nan', 'inf', '-inf')),
    *(
      (('fox', samples, 0), SAMPLES)
      for samples in (0, 17, 10**9, -1, 1.5, '2', None, float('nan'))
    ),
  ],
  ids=lambda value: str(value)[:40].encode('ascii', 'replace').decode(),
)
def test_wrong_values_are_messages(site, values, message):
  assert message in site.refuse('generate', *values)
  assert not site.model.seen


def test_what_was_not_uploaded_is_not_opened(site, tmp_path):
  secret = tmp_path / 'secret.png'
  secret.write_bytes(png())
  pipe = tmp_path / 'pipe'
  os.mkfifo(pipe)
  link = site.folder / 'link.png'
  link.symlink_to(secret)
  link_to_device = site.folder / 'zero'
  link_to_device.symlink_to('/dev/zero')
  own_pipe = site.folder / 'pipe'
  os.mkfifo(own_pipe)
  loop = site.folder / 'loop'
  loop.symlink_to(loop)
  folder_link = site.folder / 'elsewhere'
  folder_link.symlink_to(tmp_path)
  paths = [
    '/dev/zero',
    secret,
    pipe,
    link,
    link_to_device,
    own_pipe,
    loop,
    folder_link / 'secret.png',
    site.folder,
    site.folder / 'none.png',
    site.folder / '..' / tmp_path.name / 'secret.png',
    os.path.relpath(secret),
    f'file://{secret}',
    f'{site.http.base_url}/theme.css',
    'http://127.0.0.1:1/x.png',
    '',
    'a\0b',
    'a' * 5000,
  ]
  for path in paths:
    assert site.refuse('caption', as_file(path)) == NOT_UPLOADED, path
  image = site.upload(png())
  for value in (str(secret), 5, [image], {}, {'url': 'data:,x'}, {'path': 5}):
    assert site.refuse('caption', value) == NOT_UPLOADED, value
  assert 'no image yet' in site.refuse('caption', None)
  # What else an object holds is not looked at.
  value = image | {'url': 'http://127.0.0.1:1/x.png', 'is_stream': True}
  assert site.call('caption', value) == ('complete', ['mean 7'])


def test_a_file_that_changes_after_its_check_is_not_read(tmp_path):
  file = tmp_path / 'x.png'
  file.write_bytes(b'x')
  path = uploads.find({'path': str(file)}, tmp_path)
  assert uploads.read(path) == b'x'
  file.unlink()
  os.mkfifo(file)
  with pytest.raises(uploads.UserError, match='not an uploaded file'):
    uploads.read(path)
  file.unlink()
  file.symlink_to('/dev/zero')
  with pytest.raises(uploads.UserError, match='cannot be read'):
    uploads.read(path)


def test_files_that_are_too_large(site):
  large = site.folder / 'large.png'
  with large.open('wb') as file:
    file.truncate(uploads.MOST_BYTES + 1)
  message = 'the image has 33,554,433 bytes; the limit is 33,554,432'
  assert message in site.refuse('caption', as_file(large))
  with pytest.raises(httpx.HTTPStatusError, match='413'):
    site.upload(bytes(uploads.MOST_BYTES + 1))


@pytest.mark.parametrize(
  ('route', 'body'),
  [
    ('call/none', {'data': []}),
    ('call/v2/none', {}),
    ('call/v2/caption', {'picture': 3}),
    ('queue/join', {'data': [], 'session_hash': 'a', 'fn_index': 10**6}),
    ('run/none', {'data': []}),
    ('run/caption', {'data': [{'path': '/dev/zero'}]}),
  ],
)
def test_a_request_for_no_task_is_a_message(site, route, body):
  answer = site.http.post(f'/{route}', json=body)
  assert 400 <= answer.status_code < 500
  assert answer.json()['detail']


def test_a_button_without_a_task_is_a_message(site):
  address = str(site.http.base_url).removesuffix('gradio_api/')
  dependencies = httpx.get(f'{address}config').json()['dependencies']
  tasks = ('generate', 'edit', 'caption', 'answer')
  number = next(x['id'] for x in dependencies if x['api_name'] not in tasks)
  body = {'data': [], 'fn_index': number, 'session_hash': 'button'}
  site.http.post('/queue/join', json=body).raise_for_status()
  events = site.http.get('/queue/data', params={'session_hash': 'button'}).text
  assert 'the request names no task of this page' in events


def test_nothing_is_fetched_from_other_servers(site):
  answer = site.http.get('/file=http://127.0.0.1:1/x.png')
  assert answer.status_code == 403
  assert answer.json() == {'detail': 'only files of this page are served'}


def test_a_request_that_is_too_large(site):
  headers = {'content-type': 'application/json'}
  whole = b'{"data": ["' + bytes(MOST_BYTES) + b'"]}'
  told = site.http.post('/call/caption', content=whole, headers=headers)
  assert told.status_code == 413
  assert 'more than 34,603,008 bytes; send less' in told.json()['detail']
  # In chunks, without a size that is announced.
  chunks = (b'a' * 2**20 for _ in range(40))
  told = site.http.post('/call/caption', content=chunks, headers=headers)
  assert told.status_code in (400, 413)
  assert told.json()['detail']


def test_images_that_cannot_be_used(site):
  pixels = site.upload(png((40, 30)))
  told = site.refuse('caption', pixels)
  assert '1,200 pixels, more than the limit of 1,000' in told
  for content in (b'', b'no image', png()[:45]):
    told = site.refuse('edit', site.upload(content), 'flip', 0)
    assert 'the file is not a readable image' in told
  assert not site.model.seen


def test_the_first_request_of_a_kind_tells_that_it_compiles(site):
  def logged(samples: int) -> list[str]:
    # Gradio's own way to the queue, which tells what is logged meanwhile.
    session = f'session{samples}'
    config = site.http.get('/info', params={'all_endpoints': True}).json()
    assert config['named_endpoints']['/generate']
    body = {
      'data': ['fox', samples, 0],
      'fn_index': number,
      'session_hash': session,
    }
    site.http.post('/queue/join', json=body).raise_for_status()
    told = []
    with site.http.stream(
      'GET', '/queue/data', params={'session_hash': session}
    ) as lines:
      for line in lines.iter_lines():
        event = json.loads(line.removeprefix('data: ')) if line else {}
        if event.get('msg') == 'log':
          told.append(event['log'])
        if event.get('msg') == 'process_completed':
          assert event['success']
          return told
    raise AssertionError('the request did not end')

  address = str(site.http.base_url).removesuffix('gradio_api/')
  dependencies = httpx.get(f'{address}config').json()['dependencies']
  (number,) = [x['id'] for x in dependencies if x['api_name'] == 'generate']
  (told,) = logged(11)
  assert told.startswith('Compiling: ')
  assert logged(11) == []


def test_one_that_takes_long_blocks_no_other_for_long(site):
  model = site.model
  model.busy.clear()
  model.go.clear()
  image = site.upload(png())
  with concurrent.futures.ThreadPoolExecutor() as pool:
    first = pool.submit(site.call, 'generate', 'wait', 1, 0)
    assert model.busy.wait(30)
    same = pool.submit(site.refuse, 'generate', 'fox', 1, 0)
    assert 'the model is busy' in site.refuse('caption', image)
    assert 'the model is busy' in same.result(30)
    assert SEED in site.refuse('generate', 'fox', 1, -1)
    model.go.set()
    assert first.result(30)[0] == 'complete'
  assert site.call('caption', image) == ('complete', ['mean 7'])


def test_fields_have_labels(site):
  address = str(site.http.base_url).removesuffix('gradio_api/')
  components = httpx.get(f'{address}config').json()['components']
  kinds = ('textbox', 'number', 'slider', 'image', 'gallery')
  fields = [c['props'] for c in components if c['type'] in kinds]
  labels = [props['label'] for props in fields if props['visible']]
  assert {'Prompt', 'Samples', 'Seed', 'Image to read', 'Question'} <= {*labels}
  assert all(labels)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_while_it_draws(number, tmp_path):
  port = process.free_port()
  command = [sys.executable, '-m', 'tests.page.fake', str(port)]
  page = process.Child(command, {'TMPDIR': str(tmp_path)}, None)
  with page:
    page.watch(lambda: f'at http://127.0.0.1:{port}' in page.output)
    (folder,) = tmp_path.glob('unifluid_page_*')
    site = Site(f'http://127.0.0.1:{port}/', FakeModel(), folder)
    body = {'data': ['wait', 1, 0]}
    site.http.post('/call/generate', json=body).raise_for_status()
    told = site.call('generate', 'fox', 1, -1)  # It serves meanwhile.
    assert told[0] == 'error'
    page.send(number)
    assert page.wait() == 128 + number
    assert 'Traceback' not in page.output
  assert not folder.exists()
