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

"""Bar charts of scores with standard errors."""

from collections.abc import Mapping, Sequence

from matplotlib import axes
import numpy as np


def draw(
  axis: axes.Axes,
  groups: Sequence[str],
  scores: Mapping[str, Sequence[tuple[float, float]]],
) -> None:
  """Draws groups of bars, one of each series in each group.

  Args:
    axis: where to draw.
    groups: names of the groups.
    scores: {series: (score from 0 to 1, its standard error) in each group}; NaN
      and None leave a gap.
  """
  places = np.arange(len(groups)) - 0.425
  width = 0.85 / len(scores)
  for i, (name, cells) in enumerate(scores.items()):
    heights, errors = 100 * np.array(cells, float).T
    axis.bar(
      places + (i + 0.5) * width,
      heights,
      width,
      yerr=errors,
      error_kw={'linewidth': 0.7},
      label=name,
    )
  axis.set_xticks(range(len(groups)), groups)
  axis.set_ylabel('score, %')
