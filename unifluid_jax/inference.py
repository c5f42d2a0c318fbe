"""A trained model, ready to use: generate, caption, answer, edit, paint.

model = inference.load('runs/quickstart')
images = model.generate(['fox, noto style']).images
texts = model.caption(images)
answers = model.answer(images, ['what is this?'])
edited = model.edit(images, ['make the background pink']).images
painted = model.paint(images, masks, ['fox, noto style']).images
"""

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Bool, Float, Int, UInt8

from unifluid_jax.batch import Batch
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.model_spec import ModelSpec
from unifluid_jax.config.sections.sampling import (
  ImageSamplingConfig,
  TextSamplingConfig,
)
from unifluid_jax.data import images as images_lib
from unifluid_jax.data import prompts
from unifluid_jax.data.example import Example, Image
from unifluid_jax.data.packing import prefix_batch
from unifluid_jax.data.tokenizer import Tokenizer
from unifluid_jax.masking import decodes_raster
from unifluid_jax.sampling.arguments import (
  check_array,
  check_images,
  check_instance,
  check_integer,
  check_masks,
  check_same_length,
  check_seed,
  check_texts,
)
from unifluid_jax.sampling.canvas import Canvas
from unifluid_jax.sampling.compiled import CompiledSamplers
from unifluid_jax.sampling.seeds import sample_keys
from unifluid_jax.sharding.mesh import MeshConfig, make_mesh
from unifluid_jax.sharding.process_rows import ROWS
from unifluid_jax.utils.accelerators import ignore_absent_tpu
from unifluid_jax.utils.errors import ArgumentTypeError, UserError
from unifluid_jax.utils.paths import AnyPath, to_path
from unifluid_jax.utils.progress import track
from unifluid_jax.weights.restore import EMAWeights, read_trained

TENSOR_HELP = (
  'Devices that each layer is split over; further devices add replicas.'
)

Images = Sequence[Image] | np.ndarray

MAX_SAMPLES = 100_000
"""Most images of a prompt, and most devices of a layer."""

# Rows per replica; longer lists are sampled in parts.
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class ImageSamples:
  """Sampled images.

  Attributes:
    images: Pixels, RGB in 0..255.
    tokens: Image tokens in raster order.
    positions: Grid position of the token decoded j-th.
  """

  images: UInt8[np.ndarray, 'n S S 3']
  tokens: Float[np.ndarray, 'n N Z']
  positions: Int[np.ndarray, 'n N']


def load(workdir: str | AnyPath, tensor: int = 1) -> 'Model':
  """Loads a trained model onto the devices of this process.

  Args:
    workdir: Folder that `unifluid_jax.train` wrote, of which the EMA weights
      of the newest checkpoint are taken, or a whole UniFluid that
      `unifluid_jax.convert` wrote.
    tensor: Devices that each layer is split over. Each group of that many
      devices holds a replica of the model, which samples rows of its own.

  Raises:
    UserError: The folder holds no model or an incomplete one, or `tensor` does
      not divide the number of devices.
    ArgumentTypeError: An argument has the wrong type.
  """
  if not isinstance(workdir, str | os.PathLike):
    raise ArgumentTypeError(
      f'workdir is {workdir!r}; pass the path of a run or an export'
    )
  tensor = check_integer('tensor', tensor, 1, jax.local_device_count())
  ignore_absent_tpu()
  mesh = make_mesh(MeshConfig(-1, 1, tensor), jax.local_devices())
  return Model(*read_trained(to_path(str(workdir)), mesh), mesh)


class Model:
  """A UniFluid with its VAE and its vocabulary.

  Images to read are uint8 arrays [H W 3], RGB in 0..255, of any size: the
  central square is cut out and resized once, to the side that each reader
  needs. `data.images.decode` reads files.

  All methods raise an `ArgumentTypeError` or `ArgumentValueError`, both a
  `UserError`, that names the argument that is wrong.

  Attributes:
    experiment: The config that it was trained with.
    tokenizer: The vocabulary.
    raster: Whether images are decoded in raster order, else in random order.
  """

  def __init__(
    self,
    experiment: Experiment,
    tokenizer: Tokenizer,
    spec: ModelSpec,
    weights: EMAWeights,
    mesh: Mesh,
  ):
    """Stores the parameters; samplers are compiled on first use.

    Args:
      experiment: The config that the weights were trained with.
      tokenizer: The vocabulary.
      spec: Spec of the model.
      weights: Weights of the model.
      mesh: Mesh that the weights lie on.
    """
    self.experiment = experiment
    self.tokenizer = tokenizer
    self.raster = decodes_raster(weights.step, experiment.training.raster_fade)
    self._samplers = CompiledSamplers(experiment, spec, self.raster, mesh)
    self._replicas = mesh.shape['data'] * mesh.shape['fsdp']
    self._rows = NamedSharding(mesh, ROWS)
    self._params = weights.unifluid
    self._vae = weights.vae
    self._layout = experiment.layout()

  def generate(
    self,
    texts: Sequence[str],
    *,
    seed: int = 0,
    samples: int = 1,
    sampling: ImageSamplingConfig | None = None,
  ) -> ImageSamples:
    """Generates `samples` images for each prompt, one prompt after the other.

    Args:
      texts: Prompts.
      seed: An image is a function of the seed, its prompt's index and its
        sample's index.
      samples: Images of each prompt.
      sampling: Sampling config; None for that of the experiment.

    Raises:
      UserError: A prompt is too long, or an image is not finite.
    """
    examples = [Example((text,), '') for text in check_texts('texts', texts)]
    return self.sample_images(examples, seed, samples, sampling)

  def edit(
    self,
    images: Images,
    instructions: Sequence[str],
    *,
    seed: int = 0,
    sampling: ImageSamplingConfig | None = None,
  ) -> ImageSamples:
    """Edits each image [H W 3] by its instruction.

    Without `sampling`, the config's `editing` is used.

    Raises:
      UserError: An instruction is too long, or an image is not finite.
    """
    pairs = _pairs(images, instructions=instructions)
    examples = [
      Example((image, prompts.EDIT.format(instruction=text)), '')
      for image, text in pairs
    ]
    if sampling is None:
      sampling = self.experiment.editing
    return self.sample_images(examples, seed, 1, sampling)

  def paint(
    self,
    images: Images,
    masks: Sequence[np.ndarray] | np.ndarray,
    texts: Sequence[str],
    *,
    seed: int = 0,
    samples: int = 1,
    sampling: ImageSamplingConfig | None = None,
  ) -> ImageSamples:
    """Redraws a part of each image by a prompt: in- and outpainting.

    The other pixels stay as they are. Tokens without a pixel to redraw are
    given to the model; all others are decoded after them. Where the model was
    trained in raster order, it does not see given tokens ahead.

    Args:
      images: Images [H W 3].
      masks: A mask [H W] for each image, bool or uint8: nonzero where to
        redraw.
      texts: Prompts of the whole images.
      seed: As in `generate`.
      samples: Images of each prompt.
      sampling: Sampling config; None for that of the experiment. Its `steps`
        count the given tokens, too.

    Raises:
      UserError: A prompt is too long, a mask does not fit its image, or an
        image is not finite.
    """
    pairs = _pairs(images, texts=texts)
    side = self.experiment.data.image_size
    canvas = Canvas(
      np.array(
        [images_lib.fit(image, side) for image, _ in pairs], np.uint8
      ).reshape(-1, side, side, 3),
      np.array(
        [
          images_lib.fit_mask(mask, side)
          for mask in check_masks(masks, [image for image, _ in pairs])
        ],
        bool,
      ).reshape(-1, side, side),
    )
    examples = [Example((text,), '') for _, text in pairs]
    return self.sample_images(examples, seed, samples, sampling, canvas)

  def caption(
    self,
    images: Images,
    *,
    seed: int = 0,
    sampling: TextSamplingConfig | None = None,
  ) -> list[str]:
    """Captions each image [H W 3].

    Raises:
      UserError: The logits of a text are not finite.
    """
    examples = [
      Example((image, prompts.CAPTION), '')
      for image in check_images('images', images)
    ]
    return self.sample_texts(examples, seed, sampling)

  def answer(
    self,
    images: Images,
    questions: Sequence[str],
    *,
    seed: int = 0,
    sampling: TextSamplingConfig | None = None,
  ) -> list[str]:
    """Answers a question about each image [H W 3].

    Raises:
      UserError: A question is too long, or the logits of a text are not
        finite.
    """
    pairs = _pairs(images, questions=questions)
    examples = [
      Example((image, prompts.ANSWER.format(question=text)), '')
      for image, text in pairs
    ]
    return self.sample_texts(examples, seed, sampling)

  def sample_images(
    self,
    examples: Sequence[Example],
    seed: int = 0,
    samples: int = 1,
    sampling: ImageSamplingConfig | None = None,
    canvas: Canvas | None = None,
  ) -> ImageSamples:
    """Samples images after the prefixes of examples; ignores their targets.

    Without `sampling`, the config's `sampling` is used. `canvas` holds an image
    to paint on for each example, of the model's size.

    Raises:
      UserError: Tokens or pixels of an image are not finite.
    """
    if sampling is None:
      sampling = self.experiment.sampling
    check_instance('sampling', sampling, ImageSamplingConfig)
    seed = check_seed(seed)
    samples = check_integer('samples', samples, 1, MAX_SAMPLES)
    rows = [(i, s) for i in range(len(examples)) for s in range(samples)]
    if not rows:
      return self._no_images()
    parts = []
    length = self._prefix_length(examples, generates_image=True)
    for part in track(self._parts(rows), f'{len(rows)} images, part'):
      chosen = [examples[i] for i, _ in part]
      if sampling.guidance.scale != 1:
        chosen += [Example((), '')] * len(part)
      keys = sample_keys(seed, *zip(*part, strict=True))
      prefix = self._prefix(chosen, length, generates_image=True)
      painted = None
      if canvas is not None:
        index = [i for i, _ in part]
        painted = Canvas(canvas.images[index], canvas.redraw[index])
      written = self._samplers.generate_images(
        sampling,
        (self._params, self._vae),
        *jax.device_put((prefix, keys, painted), self._rows),
      )
      drawn = jax.device_get(written)
      _check_finite_images(part, drawn.finite, sampling)
      parts.append(drawn[:3])
    images, tokens, positions = map(np.concatenate, zip(*parts, strict=True))
    count = len(rows)
    return ImageSamples(images[:count], tokens[:count], positions[:count])

  def sample_texts(
    self,
    examples: Sequence[Example],
    seed: int = 0,
    sampling: TextSamplingConfig | None = None,
  ) -> list[str]:
    """Samples texts after the prefixes of examples; ignores their targets.

    Raises:
      UserError: The logits of a text are not finite.
    """
    if sampling is None:
      sampling = self.experiment.text_sampling
    check_instance('sampling', sampling, TextSamplingConfig)
    seed = check_seed(seed)
    longest = self.experiment.data.row_capacity.length
    if sampling.max_tokens > longest:
      raise UserError(
        f'max_tokens is {sampling.max_tokens}; the model was trained on rows '
        f'of {longest} tokens; lower max_tokens'
      )
    rows = [(i, 0) for i in range(len(examples))]
    if not rows:
      return []
    texts: list[str] = []
    length = self._prefix_length(examples, generates_image=False)
    for part in track(self._parts(rows), f'{len(rows)} texts, part'):
      keys = sample_keys(seed, *zip(*part, strict=True))
      chosen = [examples[i] for i, _ in part]
      prefix = self._prefix(chosen, length, generates_image=False)
      ids, finite = self._samplers.generate_texts(
        sampling,
        self.tokenizer,
        self._params,
        *jax.device_put((prefix, keys), self._rows),
      )
      _check_finite_texts(part, np.asarray(finite))
      texts += [self._decode(row) for row in np.asarray(ids)]
    return texts[: len(rows)]

  def decode(
    self, tokens: Float[np.ndarray, 'n N Z']
  ) -> UInt8[np.ndarray, 'n S S 3']:
    """Decodes image tokens in raster order to pixels."""
    shape = (self.experiment.grid**2, self.experiment.token_dim)
    tokens = check_array('tokens', tokens, shape, np.floating)
    if not len(tokens):
      return self._no_images().images
    return self._in_parts(self._samplers.decode, tokens)

  def reconstruct(
    self, images: UInt8[np.ndarray, 'n S S 3']
  ) -> Float[np.ndarray, 'n S S 3']:
    """Encodes (means) and decodes images; returns values in [-1, 1]."""
    side = self.experiment.data.image_size
    images = check_array('images', images, (side, side, 3), np.uint8)
    if not len(images):
      return self._no_images().images.astype(np.float32)
    return self._in_parts(self._samplers.reconstruct, images)

  def _in_parts(
    self, program: Callable[..., jax.Array], rows: np.ndarray
  ) -> np.ndarray:
    """Applies a function of the VAE to rows, in parts."""
    parts = [
      np.asarray(program(self._vae, jax.device_put(rows[part], self._rows)))
      for part in self._parts(range(len(rows)))
    ]
    return np.concatenate(parts)[: len(rows)]

  def _parts(self, rows: Sequence[Any]) -> list[list[Any]]:
    """Splits rows into equal parts; the last row fills up the last part."""
    each = min(_BATCH, -(-len(rows) // self._replicas))
    size = each * self._replicas
    parts = [list(rows[i : i + size]) for i in range(0, len(rows), size)]
    parts[-1] += parts[-1][-1:] * (size - len(parts[-1]))
    return parts

  def _no_images(self) -> ImageSamples:
    side, count = self.experiment.data.image_size, self.experiment.grid**2
    return ImageSamples(
      np.zeros((0, side, side, 3), np.uint8),
      np.zeros((0, count, self.experiment.token_dim), np.float32),
      np.zeros((0, count), np.int32),
    )

  def _prefix_length(
    self, examples: Sequence[Example], generates_image: bool
  ) -> int:
    """Returns one prefix length for all parts, so that they share a program."""
    return self._prefix(examples, None, generates_image).token_ids.shape[1]

  def _prefix(
    self, examples: Sequence[Example], length: int | None, generates_image: bool
  ) -> Batch:
    return prefix_batch(
      examples,
      self.tokenizer,
      self._layout,
      length,
      generates_image=generates_image,
    )

  def _decode(self, ids: np.ndarray) -> str:
    return self.tokenizer.decode(
      [int(i) for i in ids if i != self.tokenizer.pad_id]
    )


def _pairs(images: Images, **named: Sequence[str]) -> list[tuple[Image, str]]:
  """Pairs images with texts, given as one keyword that names the argument."""
  ((name, texts),) = named.items()
  arrays, checked = check_images('images', images), check_texts(name, texts)
  check_same_length({'images': arrays, name: checked})
  return list(zip(arrays, checked, strict=True))


def _check_finite_images(
  rows: Sequence[tuple[int, int]],
  finite: Bool[np.ndarray, ' n'],
  sampling: ImageSamplingConfig,
) -> None:
  """Rejects images with values that are not finite.

  Args:
    rows: Index of the prompt and of the sample of each image.
    finite: Whether all values of each image are finite.
    sampling: The settings that the images were drawn with.
  """
  bad = [row for row, good in zip(rows, finite, strict=True) if not good]
  if bad:
    prompt, sample = bad[0]
    raise UserError(
      f'sample {sample} of prompt {prompt} has tokens or pixels that are not '
      f'finite ({len({*bad})} of {len({*rows})} images); it was sampled with '
      f'guidance {sampling.guidance.scale:g}, temperature '
      f'{sampling.temperature:g}, solver {sampling.solver}, head_steps '
      f'{sampling.head_steps}: lower guidance and temperature, or use more '
      'head_steps; if that does not help, the weights are damaged'
    )


def _check_finite_texts(
  rows: Sequence[tuple[int, int]], finite: Bool[np.ndarray, ' n']
) -> None:
  """Rejects texts whose logits were not finite."""
  bad = [row for row, good in zip(rows, finite, strict=True) if not good]
  if bad:
    raise UserError(
      f'text {bad[0][0]} has logits that are not finite ({len({*bad})} of '
      f'{len({*rows})} texts); the weights are damaged: export or train again'
    )
