"""The same weights in the files of Google's projects and of LDM.

Written from the projects' own descriptions of their trees, without our tables.
Keys of the flat layout hold slashes, as in the official checkpoints.
"""

import numpy as np


def gemma_shapes(config, turned: bool, mha: bool) -> dict[str, tuple]:
  """Shapes of the official tree: 'module' -> {leaf: shape}, joined by '&'."""
  d, n, k, h, f = (
    config.width,
    config.heads,
    config.kv_heads,
    config.head_dim,
    config.mlp_dim,
  )
  tree = {
    'transformer/embedder&input_embedding': (config.vocab_size, d),
    'transformer/final_norm&scale': (d,),
  }
  for i in range(config.layers):
    layer = f'transformer/layer_{i}'
    tree[f'{layer}/pre_attention_norm&scale'] = (d,)
    tree[f'{layer}/pre_ffw_norm&scale'] = (d,)
    if config.post_norms:
      tree[f'{layer}/post_attention_norm&scale'] = (d,)
      tree[f'{layer}/post_ffw_norm&scale'] = (d,)
    if config.qk_norm:
      tree[f'{layer}/attn/_query_norm&scale'] = (h,)
      tree[f'{layer}/attn/_key_norm&scale'] = (h,)
    if mha:
      tree[f'{layer}/attn/qkv_einsum&w'] = (3, n, d, h)
    else:
      tree[f'{layer}/attn/q_einsum&w'] = (n, d, h)
      tree[f'{layer}/attn/kv_einsum&w'] = (2, k, d, h)
    tree[f'{layer}/attn/attn_vec_einsum&w'] = (n, h, d)
    gating = (2, f, d) if turned else (2, d, f)
    tree[f'{layer}/mlp/gating_einsum&w'] = gating
    tree[f'{layer}/mlp/linear&w'] = (f, d)
  return tree


def gemma_values(weights, config, turned: bool, mha: bool) -> dict:
  """Values of `gemma_shapes` from transformers' weights, as numpy arrays."""
  d, n, k, h = config.width, config.heads, config.kv_heads, config.head_dim
  result = {
    'transformer/embedder&input_embedding': weights[
      'model.embed_tokens.weight'
    ],
    'transformer/final_norm&scale': weights['model.norm.weight'],
  }
  norms = {
    'pre_attention_norm': 'input_layernorm',
    'pre_ffw_norm': 'post_attention_layernorm',
  }
  if config.post_norms:
    norms = {
      'pre_attention_norm': 'input_layernorm',
      'post_attention_norm': 'post_attention_layernorm',
      'pre_ffw_norm': 'pre_feedforward_layernorm',
      'post_ffw_norm': 'post_feedforward_layernorm',
    }
  if config.qk_norm:
    norms |= {
      'attn/_query_norm': 'self_attn.q_norm',
      'attn/_key_norm': 'self_attn.k_norm',
    }
  for i in range(config.layers):

    def get(name, i=i):
      return weights[f'model.layers.{i}.{name}.weight']

    def heads(name, count, get=get):
      return get(f'self_attn.{name}').reshape(count, h, d).transpose(0, 2, 1)

    layer = f'transformer/layer_{i}'
    for ours, theirs in norms.items():
      result[f'{layer}/{ours}&scale'] = get(theirs)
    q, key, v = heads('q_proj', n), heads('k_proj', k), heads('v_proj', k)
    if mha:
      result[f'{layer}/attn/qkv_einsum&w'] = np.stack([q, key, v])
    else:
      result[f'{layer}/attn/q_einsum&w'] = q
      result[f'{layer}/attn/kv_einsum&w'] = np.stack([key, v])
    out = get('self_attn.o_proj').reshape(d, n, h).transpose(1, 2, 0)
    result[f'{layer}/attn/attn_vec_einsum&w'] = out
    gating = np.stack([get('mlp.gate_proj'), get('mlp.up_proj')])
    result[f'{layer}/mlp/gating_einsum&w'] = (
      gating if turned else gating.transpose(0, 2, 1)
    )
    result[f'{layer}/mlp/linear&w'] = get('mlp.down_proj').T
  return result


def flat(values: dict) -> dict:
  """The flat layout: {'transformer/...': {leaf: array}}."""
  tree: dict = {}
  for name, value in values.items():
    module, leaf = name.split('&')
    tree.setdefault(module, {})[leaf] = value
  return tree


def nested(values: dict) -> dict:
  """The nested layout, in which the MLP's leaves have no 'w'."""
  tree: dict = {}
  for name, value in values.items():
    module, leaf = name.split('&')
    path = [*module.split('/'), leaf]
    if '/mlp/' in module:
      path = path[:-1]
    node = tree
    for key in path[:-1]:
      node = node.setdefault(key, {})
    node[path[-1]] = value
  return tree


def stacked_llm(values: dict, layers: int) -> dict:
  """big_vision's names with stacked layers, under 'params/llm/'."""
  result = {}
  for name, value in values.items():
    path = name.removeprefix('transformer/').replace('&', '/')
    if '/mlp/' in path:
      path = path.removesuffix('/w')
    if path.startswith('layer_0/'):
      rest = path.removeprefix('layer_0/')
      every = [
        values[name.replace('layer_0/', f'layer_{i}/', 1)]
        for i in range(layers)
      ]
      result[f'params/llm/layers/{rest}'] = np.stack(every)
    elif not path.startswith('layer_'):
      result[f'params/llm/{path}'] = value
  return result


def siglip(weights, config, prefix: str, stacked: bool) -> dict:
  """big_vision's image tower from transformers' weights."""
  d, heads = config.width, config.heads
  size = d // heads

  def block(i):
    def get(name):
      return weights[f'{prefix}encoder.layers.{i}.{name}']

    result = {}
    attention = 'MultiHeadDotProductAttention_0'
    for ours, theirs in (
      ('query', 'q_proj'),
      ('key', 'k_proj'),
      ('value', 'v_proj'),
    ):
      kernel = get(f'self_attn.{theirs}.weight').T.reshape(d, heads, size)
      bias = get(f'self_attn.{theirs}.bias').reshape(heads, size)
      result[f'{attention}/{ours}/kernel'] = kernel
      result[f'{attention}/{ours}/bias'] = bias
    kernel = get('self_attn.out_proj.weight').T.reshape(heads, size, d)
    result[f'{attention}/out/kernel'] = kernel
    result[f'{attention}/out/bias'] = get('self_attn.out_proj.bias')
    for i_norm, theirs in enumerate(('layer_norm1', 'layer_norm2')):
      result[f'LayerNorm_{i_norm}/scale'] = get(f'{theirs}.weight')
      result[f'LayerNorm_{i_norm}/bias'] = get(f'{theirs}.bias')
    for i_dense, theirs in enumerate(('mlp.fc1', 'mlp.fc2')):
      result[f'MlpBlock_0/Dense_{i_dense}/kernel'] = get(f'{theirs}.weight').T
      result[f'MlpBlock_0/Dense_{i_dense}/bias'] = get(f'{theirs}.bias')
    return result

  def get(name):
    return weights[prefix + name]

  kernel = get('embeddings.patch_embedding.weight').transpose(2, 3, 1, 0)
  tree = {
    'embedding/kernel': kernel,
    'embedding/bias': get('embeddings.patch_embedding.bias'),
    'pos_embedding': get('embeddings.position_embedding.weight')[None],
    'Transformer/encoder_norm/scale': get('post_layernorm.weight'),
    'Transformer/encoder_norm/bias': get('post_layernorm.bias'),
  }
  blocks = [block(i) for i in range(config.layers)]
  if stacked:
    for name in blocks[0]:
      values = np.stack([b[name] for b in blocks])
      tree[f'Transformer/encoderblock/{name}'] = values
  else:
    for i, values in enumerate(blocks):
      for name, value in values.items():
        tree[f'Transformer/encoderblock_{i}/{name}'] = value
  return {f'params/img/{name}': value for name, value in tree.items()}


def paligemma(weights: dict, configs: dict) -> dict:
  """big_vision's PaliGemma from transformers' weights."""
  renamed = {
    name.replace('model.language_model.', 'model.'): value
    for name, value in weights.items()
  }
  config = configs['gemma']
  tree = stacked_llm(
    gemma_values(renamed, config, turned=False, mha=False), config.layers
  )
  tree |= siglip(
    weights, configs['encoder'], 'model.vision_tower.', stacked=True
  )
  connector = 'model.multi_modal_projector.linear'
  tree['params/img/head/kernel'] = weights[f'{connector}.weight'].T
  tree['params/img/head/bias'] = weights[f'{connector}.bias']
  return tree


def old_attention(weights: dict) -> dict:
  """diffusers' deprecated names of attention layers."""
  names = {
    'to_q': 'query',
    'to_k': 'key',
    'to_v': 'value',
    'to_out.0': 'proj_attn',
  }
  result = {}
  for name, value in weights.items():
    for new, old in names.items():
      name = name.replace(f'.{new}.', f'.{old}.')
    result[name] = value
  return result


def ldm(weights: dict, levels: int, prefix: str = '') -> dict:
  """LDM's names, whose attention layers are 1x1 convolutions."""
  result = {}
  for name, value in weights.items():
    parts = name.split('.')
    if 'up_blocks' in parts:
      at = parts.index('up_blocks')
      parts[at + 1] = str(levels - 1 - int(parts[at + 1]))
    name = '.'.join(parts)
    for new, old in (
      ('mid_block.resnets.0', 'mid.block_1'),
      ('mid_block.resnets.1', 'mid.block_2'),
      ('mid_block.attentions.0', 'mid.attn_1'),
      ('down_blocks', 'down'),
      ('up_blocks', 'up'),
      ('resnets', 'block'),
      ('attentions', 'attn'),
      ('downsamplers.0', 'downsample'),
      ('upsamplers.0', 'upsample'),
      ('conv_shortcut', 'nin_shortcut'),
      ('conv_norm_out', 'norm_out'),
      ('group_norm', 'norm'),
      ('to_q', 'q'),
      ('to_k', 'k'),
      ('to_v', 'v'),
      ('to_out.0', 'proj_out'),
    ):
      name = name.replace(new, old)
    is_linear = value.ndim == 2
    result[prefix + name] = value[..., None, None] if is_linear else value
  return result
