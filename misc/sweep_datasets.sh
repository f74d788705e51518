#!/usr/bin/env bash
# One network on every data set that is there: how much of what it says of a data set is the data set's.
#
#     misc/sweep_datasets.sh DATA MODEL CHECKPOINT OUT [OPTION ...]
#
# DATA holds ActivityNet, SSv2, Diving48 and Kinetics, each a folder of styles with its annotations. The classifier is not
# used, so that one checkpoint serves for all of them. What is not there is left out with a line; the same command goes on
# where it was stopped.
set -uo pipefail
(($# >= 4)) || { sed -n '2,8s/^# \{0,1\}//p' "$0"; exit 2; }
data=$1 model=$2 checkpoint=$3 out=$4
shift 4
python=${PYTHON:-python}
main=$(dirname "$0")/../main.py

left_out=0 failed=0
while read -r dataset folder options; do
    if [[ ! -d $data/$folder ]]; then
        echo "left out: $dataset ($data/$folder is not there)" >&2
        ((++left_out))
        continue
    fi
    # shellcheck disable=SC2086  # several words
    "$python" "$main" -m dataset="$dataset" stylized_data_dir="$data/$folder" model="$model" checkpoint="$checkpoint" \
        drop_head=true seed=1,2,3,4 save_dir="$out" on_error=skip $options "$@" </dev/null || ((++failed))
done <<'TABLE'
StylizedActivityNet  ActivityNet
ssv2                 SSv2
Diving48             Diving48
Kinetics             Kinetics       dataset.subset=temporal,static,random
folder               folder
TABLE
"$python" "$main" task=status save_dir="$out" </dev/null
echo "$left_out left out, $failed failed" >&2
exit $((failed > 0 ? 2 : left_out > 0 ? 1 : 0))
