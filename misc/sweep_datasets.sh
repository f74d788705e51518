#!/usr/bin/env bash
# Run one network on every data set, to see how much its numbers depend on the data set.
#
#     misc/sweep_datasets.sh DATA MODEL CHECKPOINT OUT [OPTION ...]
#
# DATA holds the folders ActivityNet, SSv2, Diving48, Kinetics and folder, each with its styles and annotations. The
# classifier is not used, so that one checkpoint fits all data sets. Missing data sets are reported and left out. The
# same command resumes an interrupted sweep. Exit status: 0 all runs finished, 1 some were left out, 2 some failed.
set -uo pipefail
(($# >= 4)) || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 model=$2 checkpoint=$3 out=$4
shift 4
python=${PYTHON:-python}
program=("$(dirname "$0")/../main.py")
[[ -f ${program[0]} ]] || program=(-m static_dynamic) # in an installed copy

left_out=0 failed=0
while read -r dataset folder options; do
    if [[ ! -d $data/$folder ]]; then
        echo "left out: $dataset ($data/$folder does not exist)" >&2
        ((++left_out))
        continue
    fi
    # shellcheck disable=SC2086  # $options holds several words
    "$python" "${program[@]}" -m dataset="$dataset" stylized_data_dir="$data/$folder" model="$model" \
        checkpoint="$checkpoint" drop_head=true seed=1,2,3,4 save_dir="$out" on_error=skip $options "$@" </dev/null || ((++failed))
done <<'TABLE'
StylizedActivityNet  ActivityNet
ssv2                 SSv2
Diving48             Diving48
Kinetics             Kinetics       dataset.subset=temporal,static,random
folder               folder
TABLE
"$python" "${program[@]}" task=status save_dir="$out" </dev/null
echo "$left_out left out, $failed failed" >&2
exit $((failed > 0 ? 2 : left_out > 0 ? 1 : 0))
