"""The model card of an exported UniFluid."""

import math
from collections.abc import Mapping
from typing import Any

from unifluid_jax.weights.safetensors_file import Entry

_CARD = """---
library_name: unifluid_jax
pipeline_tag: any-to-any
tags: [unifluid, text-to-image, image-to-text, jax]
---

# UniFluid, {millions:.1f} M parameters

A UniFluid (arXiv 2503.13436) trained with unifluid_jax: it draws from a prompt,
captions and answers questions about images, and edits them.

```python
from unifluid_jax import inference

model = inference.load('PATH_OF_THIS_FOLDER')
model.generate(['a red fox']).images
```

| | |
| --- | --- |
| decoder | {layers} layers, width {width} |
| images | {size} px, {tokens} |
| trained for | {trained}, lambda {text_weight} |
| trained on | {sources} |

## Files

- `model*.safetensors`: the parameters, `gemma/`, `encoder/`, `connector`,
  `token_*`, `mask_token`, `source_in`, `*_positions`, `head/`, and the VAE's
  under `vae/`; layers are stacked on the first axis.
- `config.json`: format and version, the whole config (`experiment`), the
  training's `step`, SHA-256 of each tensor (`checksums`).
- `tokenizer.model`: the SentencePiece vocabulary.

The parameters are the moving average of the training's. What the weights and
the data of this model may be used for is for its maker to say here.
"""


def model_card(
  entries: Mapping[str, Entry],
  experiment: Mapping[str, Any],
  step: int | None,
) -> str:
  """The card's text, in Markdown.

  Args:
    entries: The tensors.
    experiment: The whole config, as plain dictionaries.
    step: Steps that it was trained for; None where that is not known.
  """
  data, model = experiment['data'], experiment['model']
  training = experiment['training']
  trained = f'{training["steps"]} steps'
  if step not in (None, training['steps']):
    trained = f'{step} of {trained}'
  count = sum(math.prod(tensor.shape) for tensor in entries.values())
  return _CARD.format(
    millions=count / 1e6,
    layers=model['gemma']['layers'],
    width=model['gemma']['width'],
    size=data['image_size'],
    tokens=f'{model["objective"]} diffusion, {model["order"]} order',
    trained=trained,
    text_weight=training['text_weight'],
    sources=', '.join(data['sources']),
  )
