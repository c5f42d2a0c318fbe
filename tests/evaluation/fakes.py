"""Models without parameters, whose answers are known beforehand."""

import numpy as np

from experiments import quickstart
from unifluid_jax.config.builder import build
from unifluid_jax.config.experiment import Experiment
from unifluid_jax.data.emoji.catalog import ARTISTS, load_catalog
from unifluid_jax.data.emoji.colors import BACKGROUNDS
from unifluid_jax.data.emoji.drawing import Drawing, draw
from unifluid_jax.data.emoji.tasks.text_to_image import prompt_of
from unifluid_jax.evaluation.bank import drawings_of
from unifluid_jax.inference import ImageSamples, Model


def make_experiment(concepts: str) -> Experiment:
  """The quickstart at 16 px on other concepts by all artists."""
  config = quickstart.get_config()
  config.data.update(image_size=16, concepts=concepts, artists=ARTISTS)
  config.model.encoder.image_size = 16
  return build(Experiment, config)


class FakeModel(Model):
  """Answers with white images and nothing."""

  def __init__(self, experiment: Experiment, tokenizer=None):
    self.experiment = experiment
    self.tokenizer = tokenizer
    self.raster = False
    self.calls: list[dict] = []
    self.side = experiment.data.image_size

  def generate(self, texts, **settings):
    self.calls.append({'texts': list(texts), **settings})
    samples = settings['samples']
    return self._pictures(
      [self.drawn(t) for t in texts for _ in range(samples)]
    )

  def edit(self, images, instructions, **settings):
    pairs = zip(images, instructions, strict=True)
    return self._pictures([self.edited(*pair) for pair in pairs])

  def caption(self, images, **settings):
    assert settings['sampling'].temperature == 0
    return [self.named(image) for image in images]

  def answer(self, images, questions, **settings):
    assert settings['sampling'].temperature == 0
    pairs = zip(images, questions, strict=True)
    return [self.answered(*pair) for pair in pairs]

  def reconstruct(self, images):
    return np.ones(images.shape, np.float32)

  def decode(self, tokens):
    return np.full((len(tokens), self.side, self.side, 3), 7, np.uint8)

  def drawn(self, prompt):
    """The image for a prompt."""
    return np.full((self.side, self.side, 3), 255, np.uint8)

  def edited(self, image, instruction):
    """The image after an edit."""
    return np.full_like(image, 255)

  def named(self, image):
    """The caption of an image."""
    return ''

  def answered(self, image, question):
    """The answer to a question."""
    return ''

  def _pictures(self, images):
    count, grid = len(images), self.experiment.grid
    rng = np.random.default_rng(0)
    orders = [rng.permutation(grid**2) for _ in images]
    tokens = np.ones((count, grid**2, self.experiment.token_dim), np.float32)
    return ImageSamples(np.stack(images), tokens, np.stack(orders))


class Oracle(FakeModel):
  """Knows every drawing, and answers with it."""

  def __init__(self, experiment: Experiment, tokenizer=None):
    super().__init__(experiment, tokenizer)
    drawings = drawings_of(experiment.data.concepts)
    emojis = load_catalog().emojis
    pictures = [
      drawing._replace(background=background)
      for drawing in drawings
      for background in BACKGROUNDS
    ]
    self.of_prompt = {
      prompt_of(emojis[p.hex], p.artist, p.background): p for p in pictures
    }
    self.of_pixels = {draw(p, self.side).tobytes(): p for p in pictures}

  def seen(self, image) -> Drawing:
    """The picture of an image."""
    return self.of_pixels[np.ascontiguousarray(image).tobytes()]

  def drawn(self, prompt):
    return draw(self.of_prompt[prompt], self.side)

  def edited(self, image, instruction):
    if instruction == 'flip it horizontally':
      return image[:, ::-1]
    source = self.seen(image)
    what, _, value = instruction.removeprefix('make the ').partition(' ')
    if what == 'background':
      return draw(source._replace(background=value), self.side)
    tone = value.removeprefix('tone ').replace('yellow', '')
    catalog = load_catalog()
    family = catalog.families[catalog.emojis[source.hex].base]
    (target,) = (emoji for emoji in family if emoji.tone == tone)
    return draw(source._replace(hex=target.hex), self.side)

  def named(self, image):
    return load_catalog().emojis[self.seen(image).hex].name

  def answered(self, image, question):
    if question != 'what category is it?':
      return 'yes'
    return load_catalog().emojis[self.seen(image).hex].group

  def reconstruct(self, images):
    return images.astype(np.float32) / 127.5 - 1
