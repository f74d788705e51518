#!/usr/bin/env bash
# Run the paper's action recognition experiments: networks x data sets x seeds, all stages of a network in one run.
#
#     misc/sweep_ar.sh DATA CHECKPOINTS OUT [OPTION ...]
#
# DATA holds one folder per data set, CHECKPOINTS one file per network (names in the table below). OPTIONS are passed to
# every run, e.g. device=0 or pairs=both. Runs whose data set or checkpoint is missing are reported and left out. The
# same command resumes an interrupted sweep; python main.py task=status save_dir=OUT shows its progress.
# Exit status: 0 all runs finished, 1 runs were left out, 2 runs failed.
set -uo pipefail
(($# >= 3)) || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 checkpoints=$2 out=$3
shift 3
python=${PYTHON:-python}
program=("$(dirname "$0")/../main.py")
[[ -f ${program[0]} ]] || program=(-m static_dynamic) # in an installed copy

#     data set             folder         network                 checkpoint
runs="StylizedActivityNet  ActivityNet    c2d                     c2d_baseline_8x8_IN_pretrain_400k.pkl
      StylizedActivityNet  ActivityNet    i3d                     I3D_8x8_R50.pkl
      StylizedActivityNet  ActivityNet    i3d_nln                 I3D_NLN_8x8_R50.pkl
      StylizedActivityNet  ActivityNet    slow_r50_8x8            SLOWONLY_8x8_R50.pkl
      StylizedActivityNet  ActivityNet    slowfast_r50_8x8        SLOWFAST_8x8_R50.pkl
      StylizedActivityNet  ActivityNet    x3d_m                   x3d_m.pyth
      StylizedActivityNet  ActivityNet    mvit                    K400_MVIT_B_16x4_CONV.pyth
      StylizedActivityNet  ActivityNet    timesformer             TimeSformer_divST_8x32_224_K400.pyth
      ssv2                 SSv2           slow_ssv2_r50_8x8       SLOW_8x8_R50.pyth
      ssv2                 SSv2           slowfast_ssv2_r50_8x8   SLOWFAST_8x8_R50.pyth
      ssv2                 SSv2           timesformer_ssv2        TimeSformer_divST_16_448_SSv2.pyth
      Diving48             Diving48       fast                    fastonly_8x8_R50.pyth"
left_out=0 failed=0
while read -r dataset folder model checkpoint; do
    if [[ ! -d $data/$folder || ! -f $checkpoints/$checkpoint ]]; then
        missing=$data/$folder
        [[ -d $missing ]] && missing=$checkpoints/$checkpoint
        echo "left out: $model on $dataset ($missing does not exist)" >&2
        ((++left_out))
        continue
    fi
    "$python" "${program[@]}" -m dataset="$dataset" stylized_data_dir="$data/$folder" model="$model" \
        checkpoint="$checkpoints/$checkpoint" seed=1,2,3,4 save_dir="$out" on_error=skip "$@" </dev/null || ((++failed))
done <<<"$runs"
"$python" "${program[@]}" task=status save_dir="$out" </dev/null
echo "$left_out left out, $failed failed" >&2
exit $((failed > 0 ? 2 : left_out > 0 ? 1 : 0))
