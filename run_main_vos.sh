#!/usr/bin/env bash
# The sweep over video object segmentation networks: RTNet, MATNet, and FusionSeg as trained on three data sets; seeds
# 1 to 4, joint encoding on the first. Results: dim_outputs/vos_models. Run again, it goes on where it was stopped.
#
#     bash run_main_vos.sh [OVERRIDES]
#     bash run_main_vos.sh crop_size=[96,160] dataset.sequences=2 model.init=random device=cpu     a trial
#
# Where things are (python misc/prepare_davis.py makes the data):
#     ORIGINAL_DATA_ROOT       DAVIS with its flow images               data/DAVIS
#     STYLIZED_DATA_ROOT       its frames in styles                     ORIGINAL_DATA_ROOT
#     CHECKPOINTS              folder of all checkpoints                checkpoints_3models_staticdynamic_cvpr22
#     RTNET_CHECKPOINT         a file                                   CHECKPOINTS/model_RX50.pth
#     MATNET_CHECKPOINT        a folder                                 CHECKPOINTS/checkpoints_matnet
#     FUSIONSEG_CHECKPOINTS    a folder of three files                  CHECKPOINTS/checkpoints_fseg
#     SEEDS                    seeds                                    "1 2 3 4"
#     PYTHON                   interpreter                              python
#
# Exit status: 0 all is done, 1 something was left out or failed (named on stderr), 2 nothing was done.
set -u

root=${ORIGINAL_DATA_ROOT:-data/DAVIS}
styles=${STYLIZED_DATA_ROOT:-$root}
checkpoints=${CHECKPOINTS:-checkpoints_3models_staticdynamic_cvpr22}
fusionseg=${FUSIONSEG_CHECKPOINTS:-$checkpoints/checkpoints_fseg}
python=${PYTHON:-python}
main=$(dirname "$0")/main.py

# cfg_file | checkpoint | flags
jobs=("rtnet_davis|${RTNET_CHECKPOINT:-$checkpoints/model_RX50.pth}|--batch_size 5"
      "matnet_davis|${MATNET_CHECKPOINT:-$checkpoints/checkpoints_matnet}|--batch_size 10")
for data in davis taovos imgnetvid; do
    file=$fusionseg/latest_twostream_deeplabv3plus_resnet101_${data}_os16.pth
    jobs+=("twostreamv3plus_davis|$file|--batch_size 32 --trained_on $data")
done

random=
for word in "$@"; do
    [[ $word == model.init=random ]] && random=yes
done

for folder in "$root" "$styles"; do
    if [[ ! -d $folder ]]; then
        echo "nothing to do: $folder is not there (ORIGINAL_DATA_ROOT, STYLIZED_DATA_ROOT say where the data is)" >&2
        exit 2
    fi
done

finished=0 missed=0
trap 'echo "stopped; the same command resumes" >&2; exit 130' INT TERM
for seed in ${SEEDS:-1 2 3 4}; do
    joint=False
    [[ $seed == 1 ]] && joint=True
    for job in "${jobs[@]}"; do
        IFS='|' read -r cfg checkpoint flags <<<"$job"
        name="$cfg ($(basename "$checkpoint")), seed $seed"
        weights=(--checkpoint "$checkpoint")
        if [[ -n $random ]]; then
            weights=()
        elif [[ ! -e $checkpoint ]]; then
            echo "left out: $name: $checkpoint is not there" >&2
            missed=$((missed + 1))
            continue
        fi
        echo "== $name" >&2
        # shellcheck disable=SC2086  # flags are words
        if "$python" "$main" --cfg_file "configs/$cfg.json" --random_seed "$seed" --joint_encoding $joint $flags \
            --original_data_root "$root" --stylized_data_root "$styles" "${weights[@]}" "$@"; then
            finished=$((finished + 1))
        else
            status=$?
            ((status == 130 || status == 143)) && exit "$status" # stopped
            echo "failed: $name (exit status $status)" >&2
            missed=$((missed + 1))
        fi
    done
done
echo "$finished runs done, $missed left out or failed" >&2
((missed == 0)) && exit 0
((finished)) && exit 1
exit 2
