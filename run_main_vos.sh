#!/usr/bin/env bash
# Profile the video object segmentation networks of the paper: RTNet, MATNet, and FusionSeg with the weights of three
# training sets. Seeds 1 to 4; joint encoding with seed 1 only. The results go to dim_outputs/vos_models. A stopped sweep
# resumes when the command is given again.
#
#     bash run_main_vos.sh [OVERRIDES]
#     bash run_main_vos.sh crop_size=[96,160] dataset.sequences=2 model.init=random device=cpu     a quick trial
#
# Environment variables and their defaults (python misc/prepare_davis.py prepares the data):
#     ORIGINAL_DATA_ROOT       folder of DAVIS with its flow images     data/DAVIS
#     STYLIZED_DATA_ROOT       folder of the stylized frames            ORIGINAL_DATA_ROOT
#     CHECKPOINTS              folder of all checkpoints                checkpoints_3models_staticdynamic_cvpr22
#     RTNET_CHECKPOINT         a file                                   CHECKPOINTS/model_RX50.pth
#     MATNET_CHECKPOINT        a folder                                 CHECKPOINTS/checkpoints_matnet
#     FUSIONSEG_CHECKPOINTS    a folder of three files                  CHECKPOINTS/checkpoints_fseg
#     SEEDS                    seeds                                    "1 2 3 4"
#     PYTHON                   interpreter                              python
#
# Exit status: 0 all runs are done; 1 some runs were left out or failed (stderr names them); 2 no run was done.
set -u

root=${ORIGINAL_DATA_ROOT:-data/DAVIS}
styles=${STYLIZED_DATA_ROOT:-$root}
checkpoints=${CHECKPOINTS:-checkpoints_3models_staticdynamic_cvpr22}
fusionseg=${FUSIONSEG_CHECKPOINTS:-$checkpoints/checkpoints_fseg}
python=${PYTHON:-python}
main=$(dirname "$0")/main.py

# One entry per network: cfg_file | checkpoint | flags
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
        echo "nothing to do: $folder does not exist (set ORIGINAL_DATA_ROOT and STYLIZED_DATA_ROOT)" >&2
        exit 2
    fi
done

finished=0 missed=0
trap 'echo "stopped; run the same command to resume" >&2; exit 130' INT TERM
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
            echo "left out: $name: $checkpoint does not exist" >&2
            missed=$((missed + 1))
            continue
        fi
        echo "== $name" >&2
        # shellcheck disable=SC2086  # $flags is a list of words
        if "$python" "$main" --cfg_file "configs/$cfg.json" --random_seed "$seed" --joint_encoding $joint $flags \
            --original_data_root "$root" --stylized_data_root "$styles" "${weights[@]}" "$@"; then
            finished=$((finished + 1))
        else
            status=$?
            ((status == 130 || status == 143)) && exit "$status" # SIGINT or SIGTERM ended the run: end the sweep, too
            echo "failed: $name (exit status $status)" >&2
            missed=$((missed + 1))
        fi
    done
done
echo "$finished runs done, $missed left out or failed" >&2
((missed == 0)) && exit 0
((finished)) && exit 1
exit 2
