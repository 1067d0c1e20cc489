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

"""Dense float64 NumPy references, written from the paper and from nothing else.

Slow on purpose: one token at a time, probabilities spelled out.
"""

import numpy as np


def softmax(u):
  """P(v) of eq. (11) with τ = 1; u: [V]."""
  e = np.exp(np.asarray(u, np.float64) - np.max(u))
  return e / e.sum()


def cross_entropy(p1, p2):
  """CE(P_1, P_2) = -Σ_v P_1(v) log P_2(v), as below eq. (1)."""
  return -np.sum(p1 * np.log(p2))


def tempered(p, rho):
  """P^ρ / Σ P^ρ, above eq. (3)."""
  return p**rho / np.sum(p**rho)


def restricted(p, tokens):
  """P^T of eq. (13): renormalised over the given tokens, 0 elsewhere."""
  q = np.zeros_like(p)
  q[tokens] = p[tokens]
  return q / q.sum()


def token_parts(student_logits, teacher_logits, target, rho, top_k=None):
  """The two losses of one token: eq. (1)'s and eq. (3)'s, or eq. (12)'s."""
  p_student = softmax(student_logits)
  p_teacher = softmax(teacher_logits)
  onehot = np.zeros_like(p_student)
  onehot[target] = 1.0
  hard = cross_entropy(onehot, p_student)
  if top_k is None:
    goal = tempered(p_teacher, rho)
    return hard, cross_entropy(goal, p_student), cross_entropy(goal, goal)
  # The k most likely tokens; equal ones in the order of their ids.
  tokens = np.argsort(-np.asarray(teacher_logits), kind='stable')[:top_k]
  goal = tempered(restricted(p_teacher, tokens)[tokens], rho)
  matched = restricted(p_student, tokens)[tokens]
  return hard, cross_entropy(goal, matched), cross_entropy(goal, goal)


def salt_loss(
  student_logits, teacher_logits, targets, weights, omega, rho, top_k=None
):
  """Σ over weighted tokens of eq. (4); logits: [B, T, V] float64."""
  total = 0.0
  for b, t in np.ndindex(*targets.shape):
    hard, soft, _ = token_parts(
      student_logits[b, t], teacher_logits[b, t], targets[b, t], rho, top_k
    )
    total += weights[b, t] * ((1 - omega) * hard + omega * soft)
  return total


def argtop_k(p, k):
  """The k most likely tokens of eq. (10); of equal ones the lowest."""
  return np.argsort(-p, kind='stable')[:k]


def score(logits, targets, tokens, top_k, kind):
  """One sequence's score; logits: [T, V], targets: [T], tokens: [T] bool."""
  losses, inside = [], []
  for t in np.flatnonzero(tokens):
    p = softmax(logits[t])
    losses.append(-np.log(p[targets[t]]))
    inside.append(targets[t] in argtop_k(p, top_k))
  losses, inside = np.array(losses), np.array(inside, bool)
  chosen = {
    'zero': np.where(inside, losses, 0.0),  # Eq. (10) as printed.
    'drop': losses[inside],  # Eq. (10) as the text has it.
    'easy': inside,  # Eq. (70).
    'mean': losses,
    'median': losses,
  }[kind]
  if not chosen.size:
    return 0.0
  return np.mean(chosen) if kind in ('easy', 'mean') else np.median(chosen)


def select(scores, ids, count):
  """Which records come first by falling score and rising id: bool [n]."""
  order = np.lexsort((ids, -scores.astype(np.float64)))
  result = np.zeros(len(scores), bool)
  result[order[:count]] = True
  return result
