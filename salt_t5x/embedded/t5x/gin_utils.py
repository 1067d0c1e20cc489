# Copyright 2026 The salt_t5x Authors.
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""gin's flags and files."""

from collections.abc import Sequence
import os

from absl import logging
from clu import metric_writers
import gin
import tensorflow as tf

from t5x import _subset

__getattr__ = _subset.missing(__name__)


def parse_gin_flags(
  gin_search_paths: Sequence[str],
  gin_files: Sequence[str],
  gin_bindings: Sequence[str],
):
  """Parses files, then bindings; later ones win."""
  for path in gin_search_paths:
    gin.add_config_file_search_path(path)
  gin.parse_config_files_and_bindings(gin_files, gin_bindings)
  logging.info('Gin configuration:\n%s', gin.config_str())


def rewrite_gin_args(args: Sequence[str]) -> list[str]:
  """Turns `--gin.NAME=VALUE` into `--gin_bindings=NAME = VALUE`."""
  rewritten = []
  for arg in args:
    if arg.startswith('--gin.'):
      name, equals, value = arg.removeprefix('--gin.').partition('=')
      if not equals:
        raise ValueError(f'{arg}: write --gin.NAME=VALUE.')
      arg = f'--gin_bindings={name} = {value}'
    rewritten.append(arg)
  return rewritten


def summarize_gin_config(
  model_dir: str,
  summary_writer: metric_writers.MetricWriter | None,
  step: int,
):
  """Writes the configuration to `config.gin` and to TensorBoard."""
  text = gin.config_str()
  with tf.io.gfile.GFile(os.path.join(model_dir, 'config.gin'), 'w') as f:
    f.write(text)
  if summary_writer is not None:
    summary_writer.write_texts(step, {'config': gin.markdown(text)})
    summary_writer.flush()
