"""The page of a trained model, used through Gradio's own client."""

import signal
import socket

import gradio_client
import numpy as np
import PIL.Image
import pytest
from gradio_client.exceptions import AppError

from tests import process
from unifluid_jax import inference

pytestmark = pytest.mark.slow


def test_each_tab_does_what_the_model_does(finished, tmp_path):
  photograph = tmp_path / 'wide.png'
  noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), np.uint8)
  PIL.Image.fromarray(noise).save(photograph)
  seen = [noise]
  port = process.free_port()
  page = process.start('demo', f'--workdir={finished}', f'--port={port}')
  with page:
    page.watch(lambda: f'at http://127.0.0.1:{port}' in page.output)
    model = inference.load(finished)
    client = gradio_client.Client(f'http://127.0.0.1:{port}', verbose=False)
    image = gradio_client.handle_file(photograph)

    drawn = client.predict('fox', 2, 3, api_name='/generate')
    pixels = np.stack([PIL.Image.open(item['image']) for item in drawn])
    wanted = model.generate(['fox'], samples=2, seed=3).images
    np.testing.assert_array_equal(pixels, wanted)

    edited = client.predict(image, 'flip it', 5, api_name='/edit')
    wanted = model.edit(seen, ['flip it'], seed=5).images[0]
    np.testing.assert_array_equal(PIL.Image.open(edited), wanted)

    text = client.predict(image, api_name='/caption')
    assert text == model.caption(seen)[0]
    text = client.predict(image, 'what is this?', api_name='/answer')
    assert text == model.answer(seen, ['what is this?'])[0]

    with pytest.raises(AppError, match='there is no image yet'):
      client.predict(None, api_name='/caption')
    with pytest.raises(AppError, match='more than max_text'):
      client.predict('fox ' * 500, 1, 0, api_name='/generate')
    for content in (photograph.read_bytes()[:-200], b'no image at all'):
      broken = tmp_path / 'broken.png'
      broken.write_bytes(content)
      with pytest.raises(AppError, match='the file is not a readable image'):
        client.predict(gradio_client.handle_file(broken), api_name='/caption')

    page.send(signal.SIGINT)
    assert page.wait() == 130


def test_a_port_that_is_taken_is_told(finished):
  with socket.create_server(('127.0.0.1', 0)) as server:
    port = server.getsockname()[1]
    message = process.fail('demo', f'--workdir={finished}', f'--port={port}')
  assert f'--port={port} cannot be served; another program' in message
