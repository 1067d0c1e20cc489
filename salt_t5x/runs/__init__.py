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

"""Runs that survive: data, model directory, NaN, preemption.

`resilient_trainer` is the training loop, below `trainer.SaltTrainer`, which has
the two stages. `train_data` and `model_dir` refuse what does not belong to a
run; `step_batches` knows which examples a step reads, and `data_iterators` what
to do where the step does not tell; `nonfinite` and `preemption` watch the run.
"""
