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

"""Starts runs elsewhere: on TPU VMs with gcloud, and with XManager.

    python -m salt_t5x.launch.gce run ...          (docs/launch.md)
    xmanager launch salt_t5x/launch/xm_salt.py -- ...

`gce` is the first command: `tpu_run` makes the steps of a run, `tpu_vm` calls
gcloud. `xm_salt` is the second: `plan` makes the
jobs of a sweep, `xm_jobs` their executables. `checks` serves both.

Nothing here imports JAX or t5x: the machine that launches may have neither.
"""
