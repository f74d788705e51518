"""Tests that `make check` leaves out: whole files, or single tests as FILE::NAME. `make test` runs them all.

At the end of a run, pytest names further tests that took longer than `SECONDS` (see conftest.py): add those.
"""

import re

from tests.paths import ROOT

SECONDS = 8.0
SLOW = (
    "analysis/ablation/test_ablate.py",
    "analysis/estimate/test_bootstrap.py::test_intervals_cover_the_truth",
    "analysis/estimate/test_sign_flips.py::test_the_family_wise_error_holds_with_many_units",
    "analysis/estimate/test_sign_flips.py::test_without_shared_information_small_p_values_are_rare",
    "analysis/estimate/test_unit_intervals.py::test_counts_and_probabilities_hold",
    "analysis/estimate/test_unit_intervals.py::test_differences_of_sparse_units_hold",
    "analysis/estimate/test_unit_intervals.py::test_intervals_of_one_loud_video_hold",
    "analysis/estimate/test_unit_intervals.py::test_the_papers_count_is_biased_and_its_interval_is_not",
    "analysis/estimate/test_variance.py::test_intervals_hold_what_they_say",
    "analysis/explain/test_class_feature_pyramids.py::test_corrected_equals_the_slow_oracle",
    "analysis/explain/test_class_feature_pyramids.py::test_graphs_of_the_original",
    "analysis/outputs/test_cells.py",
    "analysis/outputs/test_heads.py",
    "analysis/run/test_extraction.py::test_a_killed_run_goes_on_and_ends_with_the_same_bytes",
    "analysis/run/test_faults.py",
    "analysis/run/test_forward.py::test_every_block_is_compiled",
    "analysis/run/test_importing.py::test_a_killed_import_leaves_no_run",
    "analysis/run/test_importing.py::test_tasks_of_finished_runs_work_on_imported_runs",
    "analysis/run/test_resume.py",
    "analysis/run/test_shards.py::test_a_preempted_job_of_submitit_is_requeued_and_goes_on",
    "analysis/run/test_shards.py::test_jobs_of_joblib_have_workers_of_their_own",
    "analysis/run/test_shards.py::test_merged_shards_are_the_run",
    "analysis/run/test_shards.py::test_processes_of_torchrun_share_a_run",
    "analysis/show/test_print_figures.py::test_a_figure_is_readable_in_print",
    "analysis/tasks/test_calibrate.py::test_all_bounds_hold_and_a_broken_bound_ends_with_status_1",
    "analysis/tasks/test_compare.py::test_the_same_comparison_gives_the_same_bytes",
    "analysis/tasks/test_damaged_runs.py::test_compare",
    "analysis/tasks/test_further_orders.py::test_a_killed_run_with_all_orders_goes_on_to_the_same_bytes",
    "analysis/tasks/test_further_orders.py::test_shards_with_all_orders_are_the_run",
    "analysis/tasks/test_profile.py",
    "analysis/tasks/test_saliency.py",
    "analysis/tasks/test_train_calibrated.py::test_the_task_writes_its_results_and_resumes",
    "analysis/tasks/test_until.py",
    "analysis/vos/test_vos_main.py",
    "configs/test_original_json.py::test_the_cost_of_a_network_of_a_published_file",
    "datasets/test_annotations.py::test_real_files_have_the_known_counts",
    "datasets/test_backgrounds.py::test_the_main_job_says_what_depends_on_the_background",
    "datasets/test_frames.py::test_real_videos_seek_exactly",
    "datasets/test_runs.py",
    "datasets/test_tools.py::test_examples_stand_under_the_ids_of_real_lines",
    "datasets/test_tools.py::test_subsets_are_seeded_and_keep_order",
    "examples/test_notebooks.py::test_a_notebook_runs",
    "fuzz/test_fuzz.py::test_mutants_are_refused_in_one_line_or_give_the_same_numbers",
    "models/test_cells.py",
    "models/test_cost.py::test_published_numbers",
    "models/test_cost.py::test_script",
    "models/test_huggingface.py",
    "models/test_huggingface_units.py",
    "models/test_inception_i3d.py::test_the_real_weights_name_the_actions",
    "models/test_networks.py::test_golden_outputs",
    "models/test_networks.py::test_read_equals_pooled_full_activations_and_stops_early",
    "models/test_networks.py::test_same_seed_same_weights",
    "models/test_networks.py::test_strict_load_of_its_own_state_dict",
    "models/test_transformers.py::test_timesformer_logits_of_other_crops_equal_the_original",
    "models/test_vos_networks.py::test_a_batch_of_three_equals_three_of_one",
    "models/test_vos_networks.py::test_a_batch_of_three_equals_three_of_one_in_rtnet",
    "models/test_vos_networks.py::test_golden_rows_and_segmentation",
    "models/test_vos_networks.py::test_matnet_folder_of_the_highest_epoch",
    "models/test_vos_networks.py::test_original_checkpoint_layouts",
    "static_dynamic/test_command.py::test_short_names_in_a_checkout_give_the_same_objects",
    "stylize/test_generate.py::test_a_data_set_is_stylized_under_the_names_that_its_loader_reads",
    "stylize/test_generate.py::test_a_data_set_without_a_folder_is_one_line",
    "stylize/test_generate.py::test_every_command_runs_and_its_status_tells",
    "stylize/test_train.py::test_every_command_trains",
    "stylize/test_train.py::test_minutes_end_a_training",
    "stylize/test_train.py::test_training_comes_nearer_to_the_style",
    "test_bench.py::test_intervals_of_the_parts_hold",
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
    "test_user_packages.py",
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
