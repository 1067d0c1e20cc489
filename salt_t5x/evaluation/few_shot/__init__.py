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

"""The paper's few-shot evaluation (App. F): 28 tasks, through lm-eval.

`suite` lists the tasks, `loading` makes lm-eval's task objects of them,
`running` runs one with `lm_eval_model`, and `results` makes tables. The YAML
files are the tasks that lm-eval lacks or measures in another way; `scores` has
their metrics, and `sandbox` (with `sandbox_child`, its other process) runs the
programs that models write.
"""
