"""Speed of writing images and texts, from a list of prompts to the results.

What is timed is what a user waits for: reading the prompts, the prefill, all
decoding steps, the VAE's decoder. Parameters are fresh ones, whose values cost
the same.
"""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh

from unifluid_jax.benchmark.timing import Timing, time_calls
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import make_model_spec
from unifluid_jax.config.sections.sampling import (
  ImageSamplingConfig,
  TextSamplingConfig,
)
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.inference import Model
from unifluid_jax.masking import parallel_steps
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh, shardings_of
from unifluid_jax.weights.restore import EMAWeights

_PROMPT = 'a fox'


def sampling_mesh(experiment: Experiment) -> Mesh:
  """This process's devices, each layer split as the config's mesh says.

  Raises:
    UserError: They do not divide by mesh.tensor.
  """
  devices = jax.local_devices()
  tensor = experiment.mesh.tensor
  tensor = len(devices) if tensor == -1 else tensor
  return make_mesh(MeshConfig(-1, 1, tensor), devices)


def time_sampling(
  experiment: Experiment,
  tokenizer: Tokenizer,
  mesh: Mesh,
  images: int,
  repeats: int,
) -> dict[str, float]:
  """Times the samplers.

  Args:
    experiment: The config; its samplers are timed.
    tokenizer: Its vocabulary.
    mesh: The devices.
    images: Images, or texts, of one request.
    repeats: Calls to time, after the one that compiles.

  Returns:
    image_s               median seconds of an image, one token a step
    image_parallel_s      the same at a third of the steps
    image_first_s         seconds until the first images, compiling included
    text_first_token_ms   median milliseconds until all texts' first token
    text_token_ms         milliseconds of each further token of all texts, if
                          one of them is of max_tokens
    text_s                median seconds of a text of up to max_tokens
  """
  model = _fresh_model(experiment, tokenizer, mesh)
  size = experiment.data.image_size
  pictures = np.zeros((images, size, size, 3), np.uint8)

  def write(sampling: ImageSamplingConfig) -> Timing:
    prompts = [_PROMPT] * images
    return time_calls(
      lambda: model.generate(prompts, sampling=sampling).images, repeats
    )

  def read(sampling: TextSamplingConfig) -> Timing:
    return time_calls(
      lambda: model.caption(pictures, sampling=sampling), repeats
    )

  sequential = dataclasses.replace(experiment.sampling, steps=None)
  steps = parallel_steps(experiment.grid**2)
  parallel = dataclasses.replace(experiment.sampling, steps=steps)
  one_by_one, some_at_once = write(sequential), write(parallel)
  texts = experiment.text_sampling
  whole = read(texts).median
  first = read(dataclasses.replace(texts, max_tokens=1)).median
  return {
    'image_s': one_by_one.median / images,
    'image_parallel_s': some_at_once.median / images,
    'image_first_s': one_by_one.first,
    'text_first_token_ms': 1e3 * first,
    'text_token_ms': 1e3 * (whole - first) / max(texts.max_tokens - 1, 1),
    'text_s': whole / images,
  }


def _fresh_model(
  experiment: Experiment, tokenizer: Tokenizer, mesh: Mesh
) -> Model:
  """A model that has not been trained, as `inference.load` lays it out."""
  spec = make_model_spec(experiment, tokenizer.boi_id)
  fresh = jax.jit(
    lambda: [part.fresh_parameters(experiment.seed) for part in spec],
    out_shardings=[shardings_of(part.place(mesh)) for part in spec],
  )
  unifluid, vae = fresh()
  weights = EMAWeights(unifluid, vae, step=0)
  return Model(experiment, tokenizer, spec, weights, mesh)
