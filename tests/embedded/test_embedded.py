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

"""The embedded engine against references, and against t5x if it is installed.

All tests but the comparison run on either engine, and check behaviour of
Adafactor, sampling and metrics that both share.
"""

from flax import traverse_util
from flax.linen import partitioning as flax_partitioning
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5x import (
  adafactor,
  decoding,
  metrics,
  partitioning,
  train_state,
  utils,
)
import tiny
import tiny_runs

# --- Adafactor ---------------------------------------------------------------

# {parameter: (shape, logical axes)}, those of the network and others.
PARAMETERS = {
  'vector': ((24,), ('embed',)),
  'small_matrix': ((16, 24), ('embed', 'mlp')),
  'wide_matrix': ((130, 144), ('embed', 'mlp')),
  'tall_matrix': ((160, 128), ('vocab', 'embed')),
  'square_matrix': ((128, 128), ('embed', 'mlp')),
  'thin_matrix': ((256, 16), ('vocab', 'embed')),
  'scanned_vector': ((3, 24), ('layers', 'embed')),
  'scanned_matrix': ((3, 16, 24), ('layers', 'embed', 'mlp')),
  'query': ((16, 2, 8), ('embed', 'heads', 'kv')),
  'scanned_query': ((3, 16, 2, 8), ('layers', 'embed', 'heads', 'kv')),
  'scanned_out': ((3, 2, 8, 16), ('layers', 'heads', 'kv', 'embed')),
}
VARIANTS = {
  'default': {},
  'beta1': dict(beta1=0.9),
  'weight_decay': dict(weight_decay_rate=0.01),
  'both': dict(beta1=0.9, weight_decay_rate=0.01),
  'bare': dict(
    clipping_threshold=None, multiply_by_parameter_scale=False, decay_rate=0.5
  ),
}
UPDATES = 5
LEARNING_RATE = 0.05


def parameters_and_gradients():
  """({name: array}, [{name: array}] for each update), float32."""
  rng = np.random.default_rng(0)
  draw = lambda scale: {
    name: np.float32(scale * rng.normal(size=shape))
    for name, (shape, _) in PARAMETERS.items()
  }
  params = draw(0.5)
  # One gradient is large enough to be clipped.
  gradients = [draw(s) for s in (1.0, 0.1, 30.0, 1.0, 1e-6)]
  # A dead unit and zero parameters test the epsilons.
  gradients[0]['small_matrix'][:, 3] = 0
  params['thin_matrix'] *= 0
  return params, gradients


def adafactor_run(options):
  """Runs Adafactor; returns {'target/..' or 'state/..': array}."""
  definition = adafactor.Adafactor(
    logical_factor_rules=adafactor.standard_logical_factor_rules(), **options
  )
  params, gradients = parameters_and_gradients()
  axes = {
    f'{name}_axes': flax_partitioning.AxisMetadata(names=axes)
    for name, (_, axes) in PARAMETERS.items()
  }
  start = train_state.FlaxOptimTrainState.create(
    definition,
    {'params': jax.tree.map(jnp.asarray, params), 'params_axes': axes},
  )

  @jax.jit
  def update(state_dict, gradient):
    old = start.restore_state(state_dict)
    return old.apply_gradient(
      gradient, learning_rate=LEARNING_RATE
    ).state_dict()

  state_dict = start.state_dict()
  for gradient in gradients:
    state_dict = update(state_dict, gradient)
  flat = traverse_util.flatten_dict(state_dict, sep='/')
  return {k: np.array(v) for k, v in flat.items()}


def as_matrices(name, x):
  """A parameter as matrices [layers, N, M], or as vectors [layers, N].

  Second moments are factored into 'embed' and all other axes but 'layers'. A
  matrix without 'layers' is factored only if both sides are at least 128 wide.
  """
  shape, axes = PARAMETERS[name]
  if axes[0] == 'layers':
    axes = axes[1:]
    small = False
  else:
    x = x[None]
    small = len(shape) == 2 and min(shape) < 128
  if len(axes) == 1 or small:
    return x.reshape(len(x), -1)
  if axes[0] == 'embed':
    return x.reshape(len(x), x.shape[1], -1)
  return x.reshape(len(x), -1, x.shape[-1])


def adafactor_reference(options):
  """Shazeer & Stern (2018), Algorithms 4 to 6, in float64."""
  o = dict(
    beta1=None,
    weight_decay_rate=None,
    clipping_threshold=1.0,
    multiply_by_parameter_scale=True,
    decay_rate=0.8,
  )
  o |= options
  epsilon1, epsilon2 = 1e-30, 1e-3
  rms = lambda x: np.sqrt(np.mean(x**2))
  params, gradients = parameters_and_gradients()
  result = {}
  for name, param in params.items():
    slices = []
    for layer, x in enumerate(as_matrices(name, np.float64(param))):
      row = column = second = momentum = 0.0
      for t, gradient in enumerate(gradients, start=1):
        g = as_matrices(name, np.float64(gradient[name]))[layer]
        beta2 = 1 - t ** -o['decay_rate']
        squared = g**2 + epsilon1
        if x.ndim == 2:
          row = beta2 * row + (1 - beta2) * squared.sum(1)
          column = beta2 * column + (1 - beta2) * squared.sum(0)
          second = np.outer(row, column) / row.sum()
        else:
          second = beta2 * second + (1 - beta2) * squared
        u = g / np.sqrt(second)
        if o['clipping_threshold']:
          u /= max(1, rms(u) / o['clipping_threshold'])
        scale = LEARNING_RATE
        if o['multiply_by_parameter_scale']:
          scale *= max(epsilon2, rms(x))
        step = scale * u
        if o['beta1']:
          momentum = o['beta1'] * momentum + (1 - o['beta1']) * step
          step = momentum
        x = (1 - (o['weight_decay_rate'] or 0)) * x - step
      slices.append(x)
    result[name] = np.stack(slices).reshape(param.shape)
  return result


@pytest.mark.parametrize('variant', VARIANTS)
def test_adafactor_equals_the_reference(variant):
  found = adafactor_run(VARIANTS[variant])
  before, _ = parameters_and_gradients()
  for name, expected in adafactor_reference(VARIANTS[variant]).items():
    moved = np.abs(expected - before[name]).max()
    np.testing.assert_allclose(
      found[f'target/{name}'],
      expected,
      atol=2e-6 * max(moved, 1),
      rtol=1e-5,
      err_msg=name,
    )
  assert found['state/step'] == UPDATES


def test_adafactor_state_follows_the_logical_axes():
  """Rows and columns where t5x factors, a full second moment elsewhere."""
  found = adafactor_run(VARIANTS['beta1'])
  shapes = {
    'vector': dict(v=(24,)),
    'small_matrix': dict(v=(16, 24)),
    'wide_matrix': dict(v_row=(130,), v_col=(144,)),
    'tall_matrix': dict(v_row=(128,), v_col=(160,)),
    'square_matrix': dict(v_row=(128,), v_col=(128,)),
    'thin_matrix': dict(v=(256, 16)),
    'scanned_vector': dict(v=(3, 24)),
    'scanned_matrix': dict(v_row=(3, 16), v_col=(3, 24)),
    'query': dict(v_row=(16,), v_col=(2, 8)),
    'scanned_query': dict(v_row=(3, 16), v_col=(3, 2, 8)),
    'scanned_out': dict(v_row=(3, 16), v_col=(3, 2, 8)),
  }
  assert set(shapes) == set(PARAMETERS)
  for name, full in shapes.items():
    full = dict(m=PARAMETERS[name][0]) | full
    for key in ('v_row', 'v_col', 'v', 'm'):
      state = found[f'state/param_states/{name}/{key}']
      assert state.shape == full.get(key, (1,)), (name, key)
      assert state.dtype == np.float32


# --- Decoding ----------------------------------------------------------------

EOS = 1
LENGTH = 8
# The most likely next tokens: 3, 4, 5, 6 repeat, and 2 ends the row.
FOLLOWS = {0: 3, 3: 4, 4: 5, 5: 6, 6: 3, 2: EOS, EOS: 6}


def table():
  """[V, V] logits of the next token for each token."""
  logits = np.random.default_rng(0).normal(size=(7, 7)).astype(np.float32)
  for token, following in FOLLOWS.items():
    logits[token, following] = 2 + logits[token].max()
  return logits


PROMPTS = [
  [],
  [5, 3],
  [2],  # Ends at once, while the others continue.
  [3, 3, 2],
  [3, 4, 5, 6, 3, 4, 5],  # Full except for one token.
  [6, 6, 6, 6, 6, 6, 2],  # Full, and then ends.
]


@pytest.mark.parametrize(
  'options', [dict(temperature=0.0), dict(topk=1, temperature=3.0)]
)
def test_greedy_decoding_takes_the_most_likely_token(options):
  expected = []
  for prompt in PROMPTS:
    row = [0, *prompt]
    while len(row) <= LENGTH and row[-1] != EOS:
      row.append(int(np.argmax(table()[row[-1]])))
    expected.append(row[1:] + [0] * (LENGTH + 1 - len(row)))

  inputs = np.zeros((len(PROMPTS), LENGTH), np.int32)
  for row, prompt in zip(inputs, PROMPTS, strict=True):
    row[1 : len(prompt) + 1] = prompt  # Shifted right.

  def tokens_to_logits(state):
    # The number of calls stands for an attention cache.
    cache = {'cached': state.cache['cached'] + 1}
    return jnp.asarray(table())[state.cur_token[:, 0]], cache

  tokens, scores = decoding.temperature_sample(
    inputs=jnp.asarray(inputs),
    cache={'cached': jnp.zeros((len(PROMPTS),), jnp.int32)},
    tokens_to_logits=tokens_to_logits,
    eos_id=EOS,
    initial_index=jnp.asarray([len(p) for p in PROMPTS]),
    **options,
  )
  assert tokens[:, 0].tolist() == expected
  assert not scores.any()


# --- Metrics -----------------------------------------------------------------


def test_metrics_use_steps_and_seconds_of_the_host():
  """Merging microbatches must not change a mean over steps."""
  merged = {
    'loss': metrics.AveragePerStep(total=3.0),
    'sum': metrics.Sum(3.0),
    'tokens_per_second': metrics.TimeRate.from_model_output(numerator=10.0),
    'steps_per_second': metrics.StepsPerTime.from_model_output(),
  }
  once = dict(merged)
  for _ in range(3):  # Two steps of two microbatches.
    merged = {k: m.merge(once[k]) for k, m in merged.items()}
  merged = metrics.set_time_metrics_duration(merged, 4.0)
  merged = metrics.set_step_metrics_num_steps(merged, 2)
  found = {k: float(m.compute()) for k, m in merged.items()}
  assert found == {
    'loss': 6.0,
    'sum': 12.0,
    'tokens_per_second': 10.0,
    'steps_per_second': 0.5,
  }


# --- Against t5x -------------------------------------------------------------


def facts(path):
  """Runs Adafactor, into a .npz file; returns how models are partitioned."""
  np.savez(
    path,
    **{
      f'{variant}/{name}': x
      for variant, options in VARIANTS.items()
      for name, x in adafactor_run(options).items()
    },
  )
  specs = {}
  for heads, scan_layers in ((1, True), (2, False)):
    model = tiny.make_model(num_kv_heads=heads, scan_layers=scan_layers)
    axes = utils.TrainStateInitializer(
      optimizer_def=model.optimizer_def,
      init_fn=model.get_initial_variables,
      input_shapes={'decoder_input_tokens': (8, tiny.LENGTH)},
      input_types={'decoder_input_tokens': jnp.int32},
      partitioner=partitioning.PjitPartitioner(num_partitions=1),
    ).train_state_axes.state_dict()
    for name, spec in traverse_util.flatten_dict(axes, sep='/').items():
      specs[f'{heads}/{name}'] = None if spec is None else list(spec)
  return specs


@pytest.mark.skipif(
  not tiny_runs.REAL_T5X, reason='the real t5x is not importable'
)
def test_adafactor_and_partitioning_match_t5x(tmp_path):
  mine, theirs = str(tmp_path / 'embedded.npz'), str(tmp_path / 't5x.npz')
  specs = tiny_runs.call('test_embedded.facts', mine, engine_name='embedded')
  assert specs == facts(theirs)
  assert ['model', None] in specs.values()
  with np.load(mine) as a, np.load(theirs) as b:
    assert set(a) == set(b) and len(a) > 100
    for name in a:
      assert a[name].shape == b[name].shape, name
      assert a[name].dtype == b[name].dtype, name
      np.testing.assert_allclose(
        a[name], b[name], rtol=1e-6, atol=1e-30, err_msg=name
      )
