"""The json files of Kowal et al.'s code run as downloaded: every key of the published files is known."""

import json
from itertools import chain

import pytest

from misc import estimate_flops_params
from static_dynamic.configs import CONFIG_DIR
from static_dynamic.configs.options import composed, translate
from static_dynamic.errors import UserError

COMMON = {
    "original_data_root": "/data/DAVIS/",
    "stylized_data_root": "/data/Stylized_DAVIS/",
    "split": "val",
    "nreps": 5,
    "random_seed": 1,
    "gpu_id": "0",
    "crop_size": [480, 854],
    "variant": "img_flow",
    "sampling_method": "noisy_flow",
    "num_classes": 2,
    "output_stride": 16,
    "fuse_early": False,
    "pretrain_motionstream": "",
    "fuse_bnorm": True,
    "trained_on": "davis",
}
TWO_STREAM = {"model": "twostream_deeplabv3plus_resnet101", "fuse_early": True, "fuse_bnorm": False}
MATNET = {"model": "matnet"}
FILES = {
    "twostreamv3plus_davis": TWO_STREAM | {"trained_on": "ytvos"},
    "twostreamv3plus_davis_cinematograms": TWO_STREAM | {"nreps": 1, "fuse_bnorm": None},
    "matnet_davis": MATNET | {"extra_args": {"fusion_type": "gated"}},
    "rtnet_davis": {"model": "rtnet", "fwbwflow": True},
    "rtnet_34_davis": {"model": "rtnet34", "fwbwflow": True},
    "cc_types/matnet_davis_unidir": MATNET | {"extra_args": {"cc_type": "coatt"}},
    "cc_types/matnet_davis_unidir_gated": MATNET | {"extra_args": {"cc_type": "coatt_gated"}},
    "cc_types/matnet_davis_bidir": MATNET | {"extra_args": {"cc_type": "coatt_recip"}},
    "cc_types/matnet_davis_bidir_gated": MATNET | {"extra_args": {"cc_type": "coatt_gated_recip"}},
    "fusion_types/matnet_davis_gated_fusion": MATNET
    | {"extra_args": {"fusion_type": "gated", "use_global": False}},
    "fusion_types/matnet_davis_cvxgated_fusion": MATNET | {"extra_args": {"fusion_type": "convex_gated"}},
}


def written(folder, content):
    """Write a json file with the common keys and those of one network; None removes a key."""
    keys = {key: value for key, value in (COMMON | content).items() if value is not None}
    (folder / "downloaded.json").write_text(json.dumps(keys))
    return folder / "downloaded.json"


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_chooses_what_the_shipped_copy_chooses(tmp_path, name):
    ours = composed(translate(["--cfg_file", f"configs/{name}.json"]))
    theirs = composed(translate(["--cfg_file", str(written(tmp_path, FILES[name]))]))
    assert theirs.model.args == ours.model.args and theirs.model.input == ours.model.input
    assert theirs.dataset.nreps == ours.dataset.nreps and theirs.stylized_data_dir == "/data/Stylized_DAVIS/"
    assert theirs.trained_on == FILES[name].get("trained_on", "davis")


def test_every_shipped_file_is_tested():
    shipped = chain(CONFIG_DIR.glob("*davis*.json"), CONFIG_DIR.glob("*_types/*.json"))
    assert {str(file.relative_to(CONFIG_DIR).with_suffix("")) for file in shipped} == set(FILES)


def test_the_network_that_is_not_here_is_named(tmp_path):
    with pytest.raises(UserError, match="the network sam is not part of this program: it runs only with"):
        translate(["--cfg_file", str(written(tmp_path, {"model": "sam", "fuse_bnorm": None}))])


def test_the_cost_of_a_network_of_a_published_file(tmp_path, in_process):
    file = written(tmp_path, FILES["twostreamv3plus_davis"])
    status, out, err = in_process(estimate_flops_params, "--cfg_file", file)
    assert status == 0 and "GFLOPs" in out, err


def test_a_wrong_value_of_a_common_key_is_refused(tmp_path):
    with pytest.raises(UserError, match="trained_on=.*a word is expected"):
        translate(["--cfg_file", str(written(tmp_path, TWO_STREAM | {"trained_on": [1]}))])


def test_flags_of_the_other_original_program_name_its_script():
    with pytest.raises(
        UserError, match="--model_weights is a flag of another program: run misc/class_feature"
    ):
        translate(["--model_weights", "mfnet.pth"])
