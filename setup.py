"""Packaging of salt_t5x: the library and its extras."""

import pathlib

import setuptools

_ROOT = pathlib.Path(__file__).parent
_EVALUATE = ['lm-eval==0.4.13', 'rouge-score==0.1.2']
_LAUNCH = ['xmanager>=0.8.5']

# `gin/` and `tasks/` are top-level folders of the repository and are installed
# inside the package. `gin/` itself must hold no `__init__.py`: run from the
# repository root it would shadow gin-config's own `gin`.
_PACKAGE_DIR = {
  'salt_t5x': 'salt_t5x',
  'salt_t5x.gin': 'gin',
  'salt_t5x.tasks': 'tasks',
}
_PACKAGES = (
  ['salt_t5x']
  + [f'salt_t5x.{p}' for p in setuptools.find_namespace_packages('salt_t5x')]
  + ['salt_t5x.tasks', 'salt_t5x.gin']
  + [f'salt_t5x.gin.{p}' for p in setuptools.find_packages('gin')]
)

setuptools.setup(
  name='salt_t5x',
  version='0.1.0',
  description=(
    'Pre-training large language models with the help of small ones: '
    'SALT as a t5x extension.'
  ),
  long_description=(_ROOT / 'README.md').read_text(encoding='utf-8'),
  long_description_content_type='text/markdown',
  author='The salt_t5x Authors',
  license='Apache-2.0',
  python_requires='>=3.11',
  packages=_PACKAGES,
  package_dir=_PACKAGE_DIR,
  package_data={
    'salt_t5x.evaluation.few_shot': ['*.yaml'],
    'salt_t5x.launch': ['*.sh'],
  }
  | {f'salt_t5x.gin.{p}': ['*.gin'] for p in setuptools.find_packages('gin')},
  install_requires=[
    'absl-py',
    'clu>=0.0.12',
    'etils[epath]',
    'flax>=0.12.8,<0.13',
    'gin-config>=0.5.0',
    'jax>=0.10.2,<0.13',
    'markdown',
    'matplotlib',
    'numpy',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12.8,<0.13',
    # protobuf 7 is past what apache-beam and xmanager take, and
    # sentencepiece 0.2.3 needs it: these two lines let any set of extras
    # be installed together.
    'protobuf>=6,<7',
    'sentencepiece>=0.2.0,<0.2.3',
    'scipy',
    'seqio>=0.0.20',
    'tensorboard',  # clu's metric writer imports it
    'tensorflow>=2.21,<2.22',
    'tensorflow-text>=2.21,<2.22',
    'tqdm',
    'zstandard',
  ],
  extras_require={
    # seqio_cache_tasks; without a CRC package Beam writes no TFRecords.
    'beam': ['apache-beam>=2.77', 'google-crc32c'],
    # What the real t5x needs from the package registry; t5x, airio and
    # jestimator come from their repositories (docs/engines.md).
    't5x': [
      'cached_property',
      'chex',
      'fiddle',
      'grain',
      'jaxtyping',
    ],
    # salt_t5x/launch/xm_salt.py; the TPU VM launcher needs gcloud alone.
    'launch': _LAUNCH,
    # Few-shot tasks and the metrics of generated text.
    'evaluate': _EVALUATE,
    # salt_t5x.estimate, and training on TPUs.
    'tpu': ['jax[tpu]>=0.10.2,<0.13'],
    'test': [
      *_EVALUATE,
      *_LAUNCH,
      'apache-beam>=2.77',
      'google-crc32c',
      'hypothesis',
      'mypy',
      # The report, in a Chromium of tests/chromium.py.
      'playwright',
      'pytest',
      'pytest-xdist',
      'ruff',
    ],
  },
  classifiers=[
    'License :: OSI Approved :: Apache Software License',
    'Programming Language :: Python :: 3',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
)
