"""Tests that `make check` leaves out: whole files, or single tests as FILE::NAME. `make test` runs them all.

At the end of a run, pytest names further tests that took longer than `SECONDS` (see conftest.py): add those.
"""

import re

from tests.paths import ROOT

SECONDS = 8.0
SLOW = (
    "analysis/estimate/test_bootstrap.py::test_intervals_cover_the_truth",
    "analysis/explain/test_class_feature_pyramids.py::test_corrected_equals_the_slow_oracle",
    "analysis/explain/test_class_feature_pyramids.py::test_graphs_of_the_original",
    "analysis/run/test_extraction.py::test_a_killed_run_goes_on_and_ends_with_the_same_bytes",
    "analysis/run/test_faults.py",
    "analysis/run/test_forward.py::test_every_block_is_compiled",
    "analysis/run/test_shards.py::test_a_preempted_job_of_submitit_is_requeued_and_goes_on",
    "analysis/run/test_shards.py::test_jobs_of_joblib_have_workers_of_their_own",
    "analysis/run/test_shards.py::test_processes_of_torchrun_share_a_run",
    "analysis/tasks/test_compare.py::test_the_same_comparison_gives_the_same_bytes",
    "analysis/tasks/test_profile.py",
    "analysis/tasks/test_saliency.py",
    "analysis/vos/test_vos_main.py",
    "stylize/test_train.py::test_every_command_trains",
    "stylize/test_train.py::test_training_comes_nearer_to_the_style",
    "test_docs.py::test_cheap_commands_run",
    "test_docs.py::test_examples_for_contributors_are_short_and_run",
    "test_docs.py::test_main_jobs_run_on_a_tiny_data_set",
    "test_main.py::test_a_run_on_a_folder_gives_tables_figure_and_manifest",
    "test_main.py::test_bad_data_is_one_line_and_status_2",
    "test_main.py::test_one_bad_job_of_a_sweep_does_not_stop_the_others",
    "test_main.py::test_runs_side_by_side",
    "test_main.py::test_seeds_stages_and_data_sets_do_not_overwrite_each_other",
    "test_main.py::test_the_same_run_again_reads_nothing_and_writes_the_same",
    "test_package.py",
    "test_real_video.py",
    "test_slurm.py",
    "test_sweeps.py",
)


def unknown() -> list[str]:
    """Return the entries of `SLOW` whose file or test does not exist."""
    missing = []
    for entry in SLOW:
        file, _, name = entry.partition("::")
        path = ROOT / "tests" / file
        if not path.is_file() or (name and not re.search(rf"^def {name}\(", path.read_text(), re.M)):
            missing.append(entry)
    return missing
