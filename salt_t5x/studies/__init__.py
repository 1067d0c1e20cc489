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

"""Studies: runs that differ in one thing, compared (`salt_t5x.study`).

`definition` is what a gin file says (`gin_files` reads it), `jobs` makes the
jobs of its variants, `plans` those of several studies, and `processes` runs
them. `results` collects what they leave; `report` makes tables and a verdict of
it, `curves` the plots, `evaluations` and `costs` further tables, and `web_page`
one page.
"""

from salt_t5x.studies.definition import Study

__all__ = ['Study']
