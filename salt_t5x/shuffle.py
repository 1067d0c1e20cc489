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

"""Writes a cached task again, in a pseudo-random order.

    python -m salt_t5x.shuffle --task=pile_sequences \
      --module_import=salt_t5x.tasks.pile \
      --input_cache_dir=RAW_DIR --output_cache_dir=DIR

reads the cache that `seqio_cache_tasks` wrote into RAW_DIR. The order depends
on the sequences' ids and the seed alone. Temporary files take as much local
disk as the cache; with `--pipeline_options` a Beam runner does the work.
"""

import argparse
from collections.abc import Sequence
import os

import seqio
import tensorflow as tf
import tqdm

from salt_t5x import command, files
from salt_t5x.data import order, ordered_cache, raw_cache, shuffle


def parse_flags(argv: Sequence[str]) -> argparse.Namespace:
  """Parses the command's flags."""
  parser = command.parser(
    'salt_t5x.shuffle', 'Writes a cached task again, in a random order.'
  )
  command.add_task_flags(parser)
  add = parser.add_argument
  add(
    '--input_cache_dir',
    type=command.path,
    required=True,
    help="seqio_cache_tasks' --output_cache_dir",
  )
  add(
    '--output_cache_dir',
    type=command.path,
    required=True,
    help="another folder; the task's own is made in it",
  )
  add('--seed', type=command.at_least(0), default=0, help="the order's")
  add('--temp_dir', type=command.path, help='local folder for temporary files')
  add(
    '--pipeline_options',
    help='for Apache Beam, e.g. --runner=DataflowRunner,--project=P; default: '
    'work in this process',
  )
  return parser.parse_args(argv[1:])


def main(args: argparse.Namespace) -> None:
  """Shuffles the splits of the task."""
  name = seqio.get_task_dir_from_name(args.task)
  source = os.path.join(args.input_cache_dir, name)
  output = os.path.join(args.output_cache_dir, name)
  task = command.find_task(args.task, args.module_import)
  if not isinstance(task, seqio.Task):
    raise ValueError(f'--task={args.task} is a mixture: name a cached task.')
  if isinstance(task.source, ordered_cache.CachedSource):
    raise ValueError(
      f'--task={args.task} reads the cache of {task.source.cached_task.name}: '
      'name that.'
    )
  if args.seed >= order.ENDLESS:
    raise ValueError(f'--seed={args.seed}: choose one below 2^63.')
  splits = raw_cache.read_all(source, task.source)
  if tf.io.gfile.exists(output) and tf.io.gfile.listdir(output):
    raise ValueError(
      f'--output_cache_dir={args.output_cache_dir}: {output} is not empty. '
      'Choose another folder, or delete what an earlier run left there.'
    )
  if missing := {*task.splits} - {x.split for x in splits}:
    raise ValueError(
      f'{source} has no split {", ".join(sorted(missing))}, which the task '
      'has. Restore its info file, or cache the task again.'
    )
  files.make_folder(output, f'--output_cache_dir={args.output_cache_dir}')
  # Another command finds the folder in use.
  unfinished = os.path.join(output, order.UNFINISHED)
  files.write_whole(unfinished, b'')
  if args.pipeline_options is None:
    for raw in splits:
      sort = shuffle.ExternalSort(args.temp_dir)
      for record in tqdm.tqdm(
        raw.records(), f'reading {raw.split}', raw.examples, unit='seq'
      ):
        sort.add(*shuffle.normalize(record, args.seed))
      raw.check_count(sort.examples)
      shuffle.write_split(
        *(output, raw.split, sort, raw.features, args.seed), raw.raw_files
      )
  else:
    _run_pipeline(splits, output, args)
  tf.io.gfile.remove(unfinished)
  files.write_whole(os.path.join(output, 'COMPLETED'), b'')


def _run_pipeline(splits, output, args):
  try:
    import apache_beam as beam
  except ModuleNotFoundError as e:
    raise ValueError(
      "--pipeline_options needs Apache Beam: pip install 'salt_t5x[beam]', or "
      'leave the flag out.'
    ) from e

  from salt_t5x.data import beam_shuffle

  options = beam.options.pipeline_options.PipelineOptions(
    args.pipeline_options.split(','), save_main_session=False
  )
  with beam.Pipeline(options=options) as pipeline:
    for raw in splits:
      beam_shuffle.write_split(pipeline, raw, output, args.seed)


if __name__ == '__main__':
  command.run(main, parse_flags)
