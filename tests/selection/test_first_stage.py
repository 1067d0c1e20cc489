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


"""Training data whose first stage is selected by score."""

import dataclasses
import functools
import pathlib
import re
import shutil
import signal

from numbered_task import COUNT, T, ordered, sequences_task
import numpy as np
import pytest
import seqio
import tensorflow as tf

from salt_t5x import files, look, schedules
from salt_t5x.checkpoints import run_record
from salt_t5x.data import cache_writer, feature_converters, shuffle
from salt_t5x.runs import settings, train_data
from salt_t5x.selection import first_stage, score_shards
from salt_t5x.selection import record as selection_record
from t5x import utils

BATCH = 8
KD_STEPS = 4
NEEDED = KD_STEPS * BATCH
NAME = 'numbered'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A cached task of COUNT examples, and scores of it with many ties."""
  folder = tmp_path_factory.mktemp('scored')
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(seqio.TaskRegistry, '_REGISTRY', {})
    cached = sequences_task(NAME)
    patch.setattr(shuffle, 'EXAMPLES_OF_A_FILE', 30)
    cache_writer.write(cached, str(folder))
    before = list(seqio.get_global_cache_dirs())
    seqio.set_global_cache_dirs([str(folder)])
    source = seqio.TaskRegistry.get(f'{NAME}_ul2').source
    manifest = score_shards.Manifest(
      task=cached.name,
      split='train',
      data=source.fingerprint('train'),
      teacher='/teacher/checkpoint_30',
      teacher_identity='2e',
      step=30,
      sequences_read=None,
      dtype=None,
      top_k=10,
      examples=COUNT,
      shard_size=24,
      examples_by_file=list(source.order('train').counts),
    )
    assert len(manifest.examples_by_file) == 4
    scores = str(folder / 'scores')
    score_shards.begin(scores, manifest)
    records = all_records()
    for i in range(manifest.num_shards):
      score_shards.write_shard(
        scores, i, records[i * 24 : (i + 1) * 24], ['a', 'b', 'c']
      )
    yield str(folder)
    seqio.set_global_cache_dirs(before)


def all_records():
  """Scores of 0 to 8 with many ties; most high ones are in every 4th place."""
  records = np.zeros(COUNT, score_shards.RECORD)
  records['id'] = [1000 * n for n in ordered(COUNT)]
  score = np.arange(COUNT) * 5 % 9
  records['zero'] = np.where(np.arange(COUNT) % 4 == 1, score, score / 8)
  records['easy'] = 1 - score / 8
  return records


def select(folder, count, *, kind='zero', first=0):
  """A record of the `count` highest scores, found by a full sort."""
  pool = all_records()[first:]
  order = np.lexsort([pool['id'], -pool[kind]])
  last = pool[order[count - 1]]
  tied = pool[kind] == last[kind]
  manifest = score_shards.read_manifest(f'{folder}/scores')
  places = sorted(order[:count])
  ends = np.cumsum(manifest.examples_by_file)
  files = np.searchsorted(ends, first + np.array(places), side='right')
  return selection_record.Selection(
    kind=kind,
    threshold_score=float(last[kind]),
    threshold_id=int(last['id']),
    selected=count,
    pool=len(pool),
    first_position=first,
    ties=int(tied.sum()),
    ties_selected=int((tied & (pool['id'] <= last['id'])).sum()),
    kd_steps=KD_STEPS,
    batch_size=BATCH,
    top_k=10,
    teacher='/teacher/checkpoint_30',
    teacher_identity='2e',
    step=30,
    task=f'{NAME}',
    split='train',
    data=manifest.data,
    scores=f'{folder}/scores',
    selected_by_file=np.bincount(files, minlength=len(ends)).tolist(),
  ), pool['id'][places].tolist()


def make(tmp_path, record, **changes):
  path = str(tmp_path / 'selection.json')
  selection_record.write(path, record)
  options = dict(
    path=path,
    kd_steps=KD_STEPS,
    total_steps=20,
    model_dir=str(tmp_path / 'model'),
  )
  options |= changes
  return first_stage.FirstStage(**options)


def config(**changes):
  options = dict(
    mixture_or_task_name=f'{NAME}_ul2',
    task_feature_lengths={'targets': T},
    split='train',
    batch_size=BATCH,
    shuffle=False,
    seed=0,
    use_cached=True,
    pack=False,
  )
  return utils.DatasetConfig(**(options | changes))


def stream(stage, host=0, hosts=1, num_epochs=None):
  return stage.task(config()).get_dataset(
    {'targets': T},
    'train',
    shard_info=seqio.ShardInfo(host, hosts),
    num_epochs=num_epochs,
  )


def ids(dataset, count):
  return [int(e['id']) for e in dataset.take(count).as_numpy_iterator()]


@pytest.mark.parametrize('kind', ['zero', 'easy'])
@pytest.mark.parametrize('first', [0, 16])
def test_selected_examples_come_first_and_then_the_full_order(
  folder, tmp_path, kind, first
):
  record, expected = select(folder, NEEDED, kind=kind, first=first)
  # As a user would ask the record, of which examples it selects.
  pool = all_records()[first:]
  chosen = pool[record.is_selected(pool[kind], pool['id'])]
  assert chosen['id'].tolist() == expected
  assert 0 < record.ties_selected < record.ties
  task = seqio.TaskRegistry.get(f'{NAME}_ul2')
  full = ids(task.get_dataset({'targets': T}, num_epochs=2), 2 * COUNT)
  assert full[:COUNT] == all_records()['id'].tolist()
  found = ids(stream(make(tmp_path, record)), NEEDED + COUNT)
  assert found == expected + full[NEEDED : NEEDED + COUNT]


def test_random_draws_differ_in_each_pass(folder, tmp_path):
  record, expected = select(folder, 10)
  examples = list(
    stream(make(tmp_path, record)).take(NEEDED + 40).as_numpy_iterator()
  )
  # Each pass has an order of its own, as the epochs of the full order have.
  passes = [
    {int(e['id']): e['inputs'].tobytes() for e in examples[i : i + 10]}
    for i in (0, 10, 20)
  ]
  assert [*passes[0]] == expected
  assert all(sorted(x) == sorted(expected) for x in passes)
  assert [*passes[0]] != [*passes[1]] != [*passes[2]]
  assert [e['epoch'] for e in examples] == [
    *np.repeat([-1, -2, -3, -4], 10)[:NEEDED],
    *[0] * 40,
  ]
  assert passes[0] != passes[1] != passes[2]


@pytest.mark.parametrize('hosts', [2, 8])
def test_hosts_finish_the_first_stage_together(folder, tmp_path, hosts):
  # A quarter of the places holds nearly all that is selected: hosts that read
  # a share of the places, or of the files, would have very uneven shares.
  record, expected = select(folder, 20)
  places = np.flatnonzero(np.isin(all_records()['id'], expected))
  assert np.mean(places % 4 == 1) > 0.9
  stage = make(tmp_path, record)
  alone = ids(stream(stage), NEEDED + 30 * hosts)
  shares = [
    ids(stream(stage, host, hosts), NEEDED // hosts + 30)
    for host in range(hosts)
  ]
  assert [i for step in zip(*shares, strict=True) for i in step] == alone


@pytest.mark.parametrize('position', [0, 13, 29, NEEDED - 1, NEEDED, 90, 140])
def test_any_position_of_each_stage(folder, tmp_path, position):
  stage = make(tmp_path, select(folder, 20, first=3)[0])
  task = stage.task(config())
  read = lambda start: (
    task.reading(task.source, start)
    .get_dataset({'targets': T}, 'train', num_epochs=None)
    .take(60 + position - start)
  )
  expected = list(read(0).skip(position))
  for a, b in zip(expected, read(position), strict=True):
    for name in a:
      np.testing.assert_array_equal(a[name], b[name])


def test_the_iterator_can_be_saved(folder, tmp_path):
  """For packed batches, whose examples the step alone does not determine."""
  stage = make(tmp_path, select(folder, 20, first=3)[0])
  iterator = iter(stream(stage))
  for _ in range(13):
    next(iterator)
  path = tf.train.Checkpoint(ds=iterator).write(str(tmp_path / 'ds'))
  expected = [int(next(iterator)['id']) for _ in range(60)]
  restored = iter(stream(stage))
  tf.train.Checkpoint(ds=restored).read(path).assert_consumed()
  assert [int(next(restored)['id']) for _ in range(60)] == expected


def test_scores_that_are_lost_while_they_are_read_are_named(folder, tmp_path):
  scores = tmp_path / 'scores'
  shutil.copytree(f'{folder}/scores', scores)
  record = select(folder, 20)[0]
  record = dataclasses.replace(record, scores=str(scores))
  dataset = stream(make(tmp_path, record))
  for path in score_shards.paths(
    str(scores), score_shards.read_manifest(str(scores))
  ):
    pathlib.Path(path).write_bytes(b'')
  with pytest.raises(tf.errors.InvalidArgumentError, match='examples instead'):
    ids(dataset, 40)


def test_look_shows_the_batch_of_a_step(folder, tmp_path, capsys, monkeypatch):
  """In each stage, and after batches that were skipped."""
  monkeypatch.setattr(signal, 'signal', lambda *_: None)
  stage = make(tmp_path, select(folder, 20, first=3)[0])
  read = ids(stream(stage), 15 * BATCH)
  model_dir = tmp_path / 'model'
  train_data.record(str(model_dir), config())
  record = run_record.RunRecord('v', 3, skipped_batches=[[6, 2]])
  run_record.write(str(model_dir), record)

  def shown(*flags, count=BATCH):
    flags = [f'--task={NAME}_ul2', f'--sequence_length={T}', *flags]
    look.main(look.parse_flags(['', *flags, f'--examples={count}']))
    text = capsys.readouterr().out
    return [int(x) for x in re.findall(r'^position .*, id (\d+)', text, re.M)]

  for step, batch in ((2, 2), (KD_STEPS, KD_STEPS), (5, 5), (6, 8), (12, 14)):
    found = shown(f'--step={step}', f'--model_dir={model_dir}')
    assert found == read[batch * BATCH :][:BATCH]
  plain = shown(f'--step={KD_STEPS}', f'--batch_size={BATCH}')
  assert plain == read[KD_STEPS * BATCH :][:BATCH]
  assert shown('--position=37', count=2) == read[37:39]
  files.write_json(
    f'{tmp_path}/other/data.json',
    train_data.describe(config()) | {'data_fingerprints': {f'{NAME}_ul2': '1'}},
  )
  with pytest.raises(SystemExit, match='fingerprints is .* there and'):
    shown('--step=1', f'--model_dir={tmp_path}/other')
  for flags in (
    ['--step=1'],
    ['--batch_size=8'],
    ['--step=1', '--position=1', '--batch_size=8'],
    ['--step=1', f'--model_dir={model_dir}', '--batch_size=4'],
    ['--step=1', f'--model_dir={tmp_path}'],
  ):
    with pytest.raises(
      SystemExit, match='--batch_size|BATCH_SIZE is 8|data.json'
    ):
      shown(*flags)


def test_ends_after_the_requested_epochs(folder, tmp_path):
  stage = make(tmp_path, select(folder, NEEDED)[0])
  assert len(ids(stream(stage, num_epochs=2), -1)) == 2 * COUNT


def test_training_reads_the_selected_examples_first(folder, tmp_path):
  stage = make(tmp_path, select(folder, NEEDED)[0])

  def targets(selected):
    dataset = train_data.get_dataset(
      config(),
      0,
      1,
      feature_converters.FixedWidthFeatureConverter,
      save_dataset=False,
      selection=selected,
    )
    batches = dataset.take(KD_STEPS + 2).as_numpy_iterator()
    return [b['decoder_target_tokens'].tobytes() for b in batches]

  plain, first_selected = targets(None), targets(stage)
  assert not set(first_selected[:KD_STEPS]) & set(plain)
  # From there on, both read the same.
  assert first_selected[KD_STEPS:] == plain[KD_STEPS:]


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'data': '00'}, "data is '00' there"),
    ({'task': 'other'}, "task is 'other' there"),
    ({'split': 'validation'}, "split is 'validation' there"),
    ({'kd_steps': 5}, 'kd_steps is 5 there and 4 here.*KD_STEPS'),
    (
      {'kd_steps': BATCH, 'batch_size': KD_STEPS},
      'kd_steps is 8 there and 4 here; batch_size is 4 there and 8 here',
    ),
    ({'top_k': 9}, 'top_k is 9 there and 10 here'),
    ({'teacher_identity': '3f'}, "teacher_identity is '3f' there and '2e'"),
    ({'pool': COUNT + 1}, f'pool is {COUNT + 1} there and {COUNT} here'),
    ({'scores': '/nowhere'}, "SELECTION_PATH = .*'scores' in the record"),
  ],
)
def test_rejects_selections_of_other_data(folder, tmp_path, changes, message):
  record = dataclasses.replace(select(folder, NEEDED)[0], **changes)
  with pytest.raises(ValueError, match=message):
    make(tmp_path, record).task(config())


@pytest.mark.parametrize(
  'kind, kinds', [('zero', ('easy',)), ('easy', ('zero', 'drop'))]
)
def test_rejects_another_kind_of_score(folder, tmp_path, kind, kinds):
  record = select(folder, NEEDED, kind=kind)[0]
  with pytest.raises(
    ValueError,
    match=f'SELECTION_PATH = .* --kind={kind}, .* by {" or ".join(kinds)} ',
  ):
    make(tmp_path, record, kinds=kinds).task(config())
  make(tmp_path, record, kinds=(*kinds, kind)).task(config())


def test_rejects_easy_examples_that_are_no_share(folder, tmp_path):
  record = select(folder, NEEDED, kind='easy')[0]
  with pytest.raises(ValueError, match='SELECTION_PATH = .* with --share=0.4'):
    make(tmp_path, record, needs_share=True).task(config())
  record = dataclasses.replace(record, share=0.4)
  make(tmp_path, record, needs_share=True).task(config())


@pytest.mark.parametrize(
  'path', ['/teacher', '/teacher/checkpoint_90', '/b/../teacher/checkpoint_9/']
)
def test_accepts_checkpoints_of_the_teacher_that_scored(folder, tmp_path, path):
  record = select(folder, NEEDED)[0]
  make(tmp_path, record, teacher_path=path).task(config())


@pytest.mark.parametrize(
  'path', ['/other', '/', '/other/checkpoint_30', 'gs://teacher/checkpoint_30']
)
def test_rejects_selections_by_another_teacher(folder, tmp_path, path):
  record = select(folder, NEEDED)[0]
  with pytest.raises(ValueError, match="TEACHER_PATH is '/teacher' there"):
    make(tmp_path, record, teacher_path=path).task(config())


def test_rejects_another_selection_on_resume(folder, tmp_path):
  record = select(folder, NEEDED)[0]
  make(tmp_path, record).task(config())
  assert (
    selection_record.read(str(tmp_path / 'model' / 'selection.json')) == record
  )
  make(tmp_path, record).task(config())
  other = select(folder, NEEDED - 1)[0]
  with pytest.raises(
    ValueError, match='SELECTION_PATH = .* another configuration'
  ):
    make(tmp_path, other).task(config())
  make(tmp_path, other, model_dir=str(tmp_path / 'new')).task(config())


def test_distillation_ends_with_the_selected_data(folder, tmp_path):
  make(tmp_path, select(folder, NEEDED)[0]).task(config())
  check = functools.partial(settings.check_selection, str(tmp_path / 'model'))
  check(None)
  check(schedules.constant(0.667))
  check(schedules.step(0.667, KD_STEPS))
  decay = schedules.linear_decay(0.667, 2, KD_STEPS + 2)
  with pytest.raises(
    ValueError, match=r'kd_steps = 4 .* ends at step 6 \(.*DECAY_END'
  ):
    check(decay)


def test_rejects_tasks_without_a_global_order(folder, tmp_path):
  record = select(folder, NEEDED)[0]
  with pytest.raises(ValueError, match=f'MIXTURE_OR_TASK_NAME = {NAME!r}'):
    make(tmp_path, record).task(config(mixture_or_task_name=NAME))


@pytest.mark.parametrize('steps', [0, 1.0, True, '5', 11])
def test_rejects_numbers_of_steps(steps):
  stage = first_stage.FirstStage('s.json', steps, 10, '/model')
  with pytest.raises(ValueError, match=f'kd_steps = {steps!r} .*TRAIN_STEPS'):
    stage.task(None)
