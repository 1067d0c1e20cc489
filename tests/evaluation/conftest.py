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

"""A tiny language model over bytes, and the same network without a cache."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from salt_t5x.inference import language_model
from t5x import partitioning
import tiny

VOCABULARY = seqio.ByteVocabulary()


@dataclasses.dataclass(frozen=True)
class Reference:
  """A model and its parameters, applied to one sequence at a time.

  Attributes:
    model: attends to its inputs in both directions.
    params: its parameters.
    compiled: the `LanguageModel` under test.
  """

  model: Any
  params: Any
  compiled: language_model.LanguageModel

  def log_probabilities(self, context, continuation):
    """[t, V]: log-probabilities of each token of the continuation."""
    tokens = [*context, *continuation]
    width = self.compiled.length + 1
    # Later tokens change nothing, and one width compiles once.
    padded = np.pad(tokens, (0, width - len(tokens)))[None]
    logits = tiny.jitted(self.model.module)(
      self.params,
      np.roll(padded, 1),
      padded,
      decoder_causal_attention=(np.arange(width) <= len(context))[None].astype(
        np.int32
      ),
    )
    logits = np.asarray(
      logits[0, len(context) : len(tokens), : VOCABULARY.vocab_size], np.float64
    )
    return logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))

  def log_likelihood(self, context, continuation):
    """(log P of the continuation, whether greedy decoding gives it)."""
    found = self.log_probabilities(context, continuation)
    return np.sum(found[np.arange(len(continuation)), continuation]), bool(
      np.all(np.argmax(found, -1) == continuation)
    )

  def greedy(self, context, count):
    """The likeliest tokens, one after the other, without the last EOS."""
    tokens = []
    while len(tokens) < count:
      # The next token's place holds anything but padding.
      found = self.log_probabilities(context, [*tokens, 2])
      token = int(np.argmax(found[-1]))
      if token <= 1:
        break
      tokens.append(token)
    return tokens


@pytest.fixture(scope='session')
def reference():
  model = tiny.make_model(
    vocab=VOCABULARY, vocab_size=264, inputs_bidirectional_attention=True
  )
  tokens = jnp.ones((1, 2), jnp.int32)
  shapes = jax.eval_shape(model.module.init, jax.random.key(0), tokens, tokens)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), shapes['params']
  )
  compiled = language_model.LanguageModel(
    model,
    params,
    jax.tree.map(lambda _: jax.sharding.PartitionSpec(), params),
    partitioning.PjitPartitioner(num_partitions=1),
    batch_size=4,
    length=64,
  )
  return Reference(model, params, compiled)
