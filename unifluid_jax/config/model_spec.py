"""Specs of the networks that a config describes: structure without arrays.

Code that reads, writes, shards or counts parameters starts from a spec, which
needs neither an optimizer nor a training state.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax.sharding import Mesh

from unifluid_jax.config.experiment import Experiment
from unifluid_jax.config.sections.init import InitConfig
from unifluid_jax.models import parameters
from unifluid_jax.models.parameters import Parameters, is_matrix, storage_dtype
from unifluid_jax.models.unifluid import ImageTokens, ModelConfig, UniFluid
from unifluid_jax.models.vae import VAE, VAEConfig
from unifluid_jax.sharding.logical_axes import Axes
from unifluid_jax.sharding.mesh import abstract_state

UNKNOWN_BOI = 5
"""Placeholder for the beginning-of-image id of an unknown vocabulary. Names,
shapes and costs do not depend on it."""


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
  """A network without its arrays.

  Attributes:
    graphdef: Structure of the network.
    abstract_parameters: Shape and storage dtype of each parameter, by name.
    logical_axes: Logical axes of each parameter, by name.
  """

  graphdef: nnx.GraphDef
  abstract_parameters: dict[str, jax.ShapeDtypeStruct]
  logical_axes: dict[str, Axes]
  _make: Callable[[nnx.Rngs], nnx.Module]

  @property
  def size(self) -> int:
    """Number of parameters."""
    shapes = (leaf.shape for leaf in self.abstract_parameters.values())
    return sum(map(math.prod, shapes))

  def place(self, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns the abstract parameters with their shardings on a mesh."""
    return abstract_state(mesh, self.abstract_parameters, self.logical_axes)

  def fresh_parameters(self, seed: int) -> Parameters:
    """Creates fresh parameters in their storage dtypes; jit this method."""
    _, flat = parameters.flatten(self._make(nnx.Rngs(seed)))
    return {
      name: value.astype(self.abstract_parameters[name].dtype)
      for name, value in flat.items()
    }


class ModelSpec(NamedTuple):
  """A model without its arrays.

  Attributes:
    unifluid: UniFluid.
    vae: The VAE.
  """

  unifluid: NetworkSpec
  vae: NetworkSpec


def make_model_spec(experiment: Experiment, boi_id: int) -> ModelSpec:
  """Creates the spec of the model that a config describes.

  Args:
    experiment: The config.
    boi_id: The vocabulary's beginning-of-image id, or `UNKNOWN_BOI`.
  """
  return ModelSpec(
    make_unifluid_spec(experiment, boi_id), make_vae_spec(experiment)
  )


def make_unifluid_spec(experiment: Experiment, boi_id: int) -> NetworkSpec:
  """Creates the spec of UniFluid, see `make_model_spec`."""
  unifluid = _unifluid_spec(experiment.model, experiment.image_tokens(boi_id))
  frozen = {
    name: _in_storage(experiment.init, name, leaf, unifluid.logical_axes[name])
    for name, leaf in unifluid.abstract_parameters.items()
    if experiment.init.is_frozen(name)
  }
  stored = unifluid.abstract_parameters | frozen
  return dataclasses.replace(unifluid, abstract_parameters=stored)


def make_vae_spec(experiment: Experiment) -> NetworkSpec:
  """Creates the spec of the VAE."""
  return _vae_spec(experiment.vae)


@functools.cache
def _unifluid_spec(config: ModelConfig, tokens: ImageTokens) -> NetworkSpec:
  return _spec_of(lambda rngs: UniFluid(config, tokens, rngs=rngs))


@functools.cache
def _vae_spec(config: VAEConfig) -> NetworkSpec:
  return _spec_of(lambda rngs: VAE(config, rngs=rngs))


def _spec_of(make: Callable[[nnx.Rngs], Any]) -> NetworkSpec:
  """Creates the spec of a network without creating arrays."""
  network = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
  return NetworkSpec(
    nnx.graphdef(network),
    {
      name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
      for name, leaf in parameters.flatten(network)[1].items()
    },
    parameters.logical_axes(network),
    make,
  )


def _in_storage(
  init: InitConfig, name: str, leaf: jax.ShapeDtypeStruct, axes: Axes
) -> jax.ShapeDtypeStruct:
  """Applies `init.dtype` to a frozen parameter; vectors stay float32."""
  dtype = is_matrix(name, axes) and storage_dtype(init.dtype, name)
  return jax.ShapeDtypeStruct(leaf.shape, dtype or 'float32')
