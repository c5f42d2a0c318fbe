"""A training step of the decoder, beside transformers' Gemma 2.

  source launch/environment.sh test
  python -m tests.benchmarks.decoder_speed

Both train the same 31 M parameters on the same 16 x 320 tokens in float32 on
this processor: logits at every slot, AdamW. They begin with the same weights,
so their losses must agree. Steps are timed by turns, and the fastest of each
counts. The last line is JSON.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from transformers.models.gemma2 import Gemma2Config, Gemma2ForCausalLM

from tests.models.hf_weights import import_weights
from unifluid_jax.models import parameters
from unifluid_jax.models.gemma import Gemma
from unifluid_jax.models.sizes import GEMMA_SIZES

CONFIG = dataclasses.replace(
  GEMMA_SIZES['tiny'],
  vocab_size=8192,
  width=512,
  layers=8,
  heads=8,
  kv_heads=4,
  head_dim=64,
  mlp_dim=1664,
)
ROWS, LENGTH = 16, 320
LEARNING_RATE = 1e-4
STEPS = 6


def make_theirs() -> Gemma2ForCausalLM:
  """A model of transformers of that shape, with fresh weights."""
  config = Gemma2Config(
    vocab_size=CONFIG.vocab_size,
    hidden_size=CONFIG.width,
    num_hidden_layers=CONFIG.layers,
    num_attention_heads=CONFIG.heads,
    num_key_value_heads=CONFIG.kv_heads,
    head_dim=CONFIG.head_dim,
    intermediate_size=CONFIG.mlp_dim,
    query_pre_attn_scalar=CONFIG.head_dim,
    attn_logit_softcapping=CONFIG.attention_softcap,
    final_logit_softcapping=CONFIG.final_softcap,
    layer_types=['full_attention'] * CONFIG.layers,
    use_cache=False,
  )
  config._attn_implementation = 'eager'
  torch.manual_seed(0)
  return Gemma2ForCausalLM(config)


def ours(
  tokens: np.ndarray, params: dict[str, jax.Array]
) -> Callable[[], float]:
  """Our step, from parameters by name."""
  model = Gemma(CONFIG, rngs=nnx.Rngs(0), remat='sublayers', unroll=8)
  graphdef = nnx.graphdef(model)
  optimizer = optax.adamw(LEARNING_RATE)
  positions = jnp.broadcast_to(jnp.arange(LENGTH), (ROWS, LENGTH))
  mask = jnp.broadcast_to(jnp.tri(LENGTH, dtype=bool), (ROWS, LENGTH, LENGTH))

  def loss_of(params, tokens):
    gemma = parameters.unflatten(graphdef, params)
    hidden, _ = gemma(gemma.embed(tokens), positions, mask)
    losses = optax.softmax_cross_entropy_with_integer_labels(
      gemma.logits(hidden[:, :-1]), tokens[:, 1:]
    )
    return losses.mean()

  def train_step(params, state, tokens):
    loss, gradients = jax.value_and_grad(loss_of)(params, tokens)
    updates, state = optimizer.update(gradients, state, params)
    return optax.apply_updates(params, updates), state, loss

  compiled = jax.jit(train_step, donate_argnums=(0, 1))
  state = optimizer.init(params)

  def step() -> float:
    nonlocal params, state
    params, state, loss = compiled(params, state, tokens)
    return float(loss)

  return step


def theirs(tokens: np.ndarray, model: Gemma2ForCausalLM) -> Callable[[], float]:
  """The step of transformers."""
  optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
  ids = torch.from_numpy(tokens).long()

  def step() -> float:
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    optimizer.step()
    return loss.item()

  return step


def main() -> None:
  """Times both by turns."""
  rng = np.random.default_rng(0)
  tokens = rng.integers(4, CONFIG.vocab_size, (ROWS, LENGTH), np.int32)
  seconds: dict[str, list[float]] = {'ours_s': [], 'transformers_s': []}
  model = make_theirs()
  params = jax.tree.map(jnp.asarray, import_weights(model, 'gemma'))
  count = sum(value.size for value in params.values())
  steps = {
    'ours_s': ours(tokens, params),
    'transformers_s': theirs(tokens, model),
  }
  first = {name: step() for name, step in steps.items()}
  np.testing.assert_allclose(*first.values(), rtol=1e-4)
  for _ in range(STEPS):
    for name, step in steps.items():
      start = time.perf_counter()
      step()
      seconds[name].append(time.perf_counter() - start)
  fastest = {name: min(values) for name, values in seconds.items()}
  result = {
    'parameters': count,
    **fastest,
    'ratio': fastest['transformers_s'] / fastest['ours_s'],
  }
  sys.stdout.write(f'{json.dumps(result)}\n')


if __name__ == '__main__':
  main()
